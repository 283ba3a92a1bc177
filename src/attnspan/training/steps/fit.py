"""Second step: train, from the beginning or from a checkpoint, until validation or the number of updates ends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import lightning as L
import yaml

from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.analysis.lengths.bins import Bins, make_bins
from attnspan.data.given import GIVEN
from attnspan.data.pipeline.prepare import token_counts
from attnspan.evaluation.length_axis import length_axis, training_range
from attnspan.files import write_text
from attnspan.runs.layout import CONFIG, EVALUATIONS, TOKENIZERS
from attnspan.runs.own_code import keep_own_code
from attnspan.runs.status import PREPARING, Status
from attnspan.tracking.run_logger import WandbMirror
from attnspan.training.callbacks.attention_over_training import AttentionOverTraining
from attnspan.training.callbacks.checkpoints import Checkpoints
from attnspan.training.callbacks.cost import Cost
from attnspan.training.callbacks.data_check import DataCheck
from attnspan.training.callbacks.decoded_checkpoints import DecodedCheckpoints
from attnspan.training.callbacks.final_losses import FinalLosses
from attnspan.training.callbacks.learning_curve import LearningCurve
from attnspan.training.callbacks.monitors import TrainingMonitor
from attnspan.training.callbacks.plateau import Plateau
from attnspan.training.callbacks.progress import ProgressReporter
from attnspan.training.callbacks.recorder import Recorder
from attnspan.training.callbacks.validation_by_length import ValidationByLength
from attnspan.training.distributed import ending_together
from attnspan.training.metrics_csv import MetricsCsv, MetricsCsvCheckpoint
from attnspan.training.resuming import ResumePoint, find_resume_point
from attnspan.training.run_files import clear_results
from attnspan.training.steps.prepare import Prepared
from attnspan.training.trainer import make_trainer


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run whose weights are final.

    Attributes:
        prepared: the run.
        trainer: that trained it, with its callbacks.
        updates: of the weights.
        plateau: why training ended.
        final_losses: with which losses it ended.
        checkpoints: which of them was the best.
        metrics_csv: what was logged.
        cost: what it has cost.
        recorder: takes the records of the test.
    """

    prepared: Prepared
    trainer: L.Trainer
    updates: int
    plateau: Plateau
    final_losses: FinalLosses
    checkpoints: Checkpoints
    metrics_csv: MetricsCsv
    cost: Cost
    recorder: Recorder


def fit(prepared: Prepared, *, tracker: WandbMirror | None, report: Callable[[Status], None]) -> Trained:
    """Train the run, whose directory this process has locked, or what is left of its training.

    Args:
        prepared: the run.
        tracker: W&B's logger, if it is enabled, in the first process.
        report: takes the status.

    Raises:
        InputError: a file cannot be read or written, or the data turns out to be damaged.
        NotFiniteError: training diverged.
        Interrupted: the run was asked to stop.
    """
    config, directory, log = prepared.config, prepared.directory, prepared.log
    resume_point = None
    if (directory / CONFIG).exists() and not config["rerun"]:
        resume_point = find_resume_point(directory, log)
    if prepared.rank == 0:
        _begin_directory(prepared, resume_point, report, tracker)
    metrics_csv, cost = MetricsCsv(directory), Cost(began=prepared.began)
    recorder, decoded_checkpoints = _callbacks_of_the_test(prepared, cost)
    metrics_csv_checkpoint = MetricsCsvCheckpoint(metrics_csv)
    plateau = Plateau(selection_metric=config["selection_metric"], **config["plateau"])
    final_losses, checkpoints = FinalLosses(), _checkpoints(prepared)
    trackers = [tracker] if tracker else []
    trainer = make_trainer(
        config,
        logger=[metrics_csv, *trackers],
        callbacks=[
            DataCheck(prepared.data),
            ProgressReporter(report=report, began=prepared.began, plateau=plateau),
            cost,
            TrainingMonitor(every=config["trainer"]["log_every_n_steps"], trackers=trackers),
            *_callbacks_by_length(prepared, plateau),
            *(AttentionOverTraining(prepared, plateau=plateau, show=one.log_attention) for one in trackers),
            recorder,
            decoded_checkpoints,
            metrics_csv_checkpoint,
            plateau,
            final_losses,
            checkpoints,
        ],
    )
    if resume_point and resume_point.is_trained:
        log(f"resumes after update {resume_point.update}, the last: only the test is left")
        resume_point.restore(cost, metrics_csv_checkpoint, plateau, final_losses, checkpoints)
        prepared.loaders.skip_decoded(decoded_checkpoints.resume(log))
    else:
        _train(prepared, trainer, resume_point)
    return Trained(
        prepared=prepared,
        trainer=trainer,
        updates=trainer.global_step or (resume_point.update if resume_point else 0),
        plateau=plateau,
        final_losses=final_losses,
        checkpoints=checkpoints,
        metrics_csv=metrics_csv,
        cost=cost,
        recorder=recorder,
    )


def _callbacks_of_the_test(prepared: Prepared, cost: Cost) -> tuple[Recorder, DecodedCheckpoints]:
    config, directory = prepared.config, prepared.directory
    run = {"run_id": directory.name, "arm": config["arm"], "data": config["data_name"], "seed": config["seed"]}
    recorder = Recorder(test=prepared.data.test, target_tokenizer=prepared.data.target_tokenizer, run=run)
    return recorder, DecodedCheckpoints(
        directory=directory,
        interval=config["checkpoint_interval"],
        ranks=prepared.ranks,
        stop=prepared.stop,
        recorder=recorder,
        cost=cost,
    )


def _callbacks_by_length(prepared: Prepared, plateau: Plateau) -> list[L.Callback]:
    """What looks at validation by length."""
    bins, size = _validation_bins(prepared), prepared.data.validation.num_rows
    examples = prepared.config["validation_hypotheses"]
    return [ValidationByLength(bins), LearningCurve(bins, examples=examples, size=size, plateau=plateau)]


def _checkpoints(prepared: Prepared) -> Checkpoints:
    limit = prepared.module.decoding.limit
    return Checkpoints(
        directory=prepared.directory,
        config=prepared.config,
        stop=prepared.stop,
        limit=limit,
        gives_tokens=GIVEN in prepared.data.train.column_names,
    )


def _train(prepared: Prepared, trainer: L.Trainer, resume_point: ResumePoint | None) -> None:
    if resume_point:
        prepared.log(f"resumes from update {resume_point.update}")
    path = resume_point.path if resume_point else None
    with ending_together(trainer):
        trainer.fit(prepared.module, datamodule=prepared.loaders, ckpt_path=path, weights_only=True)


def _begin_directory(
    prepared: Prepared,
    resume_point: ResumePoint | None,
    report: Callable[[Status], None],
    tracker: WandbMirror | None,
) -> None:
    """Make the directory, and W&B's copy of its curves, what they are at the start of an attempt."""
    config, directory = prepared.config, prepared.directory
    keep_own_code(config, directory)
    if config["rerun"] and (evaluations := [*(directory / EVALUATIONS).glob("*/")]):
        prepared.log(
            f"{directory / EVALUATIONS}: {len(evaluations)} evaluations stay; they are of the old weights, and count "
            "again only if the new ones are the same bit for bit"
        )
    clear_results(directory, resumes=resume_point is not None, rerun=config["rerun"])
    if resume_point:
        resume_point.restore_best(directory, prepared.log)
    update = resume_point.update if resume_point else 0
    report(Status(phase=PREPARING, update=update, updates=config["trainer"]["max_steps"]))
    write_text(directory / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    for side in ("source", "target"):
        getattr(prepared.data, f"{side}_tokenizer").save(directory / TOKENIZERS / f"{side}.json")
    if tracker and resume_point:
        tracker.catch_up(resume_point.metrics_csv, resume_point.update)


def _validation_bins(prepared: Prepared) -> Bins:
    """Bins of validation, in tokens of the side by whose length the results of the test are given."""
    side = length_axis(prepared.config, prepared.data).side
    longest, lengths = training_range(prepared.data).longest(side), token_counts(prepared.data.validation, side)
    # Only an edge within the lengths of validation: the bins name columns of metrics.csv, which finished runs have.
    return make_bins(LengthAxis(side), lengths, [longest] if longest and longest < lengths.max() else [])
