"""An evaluation: a finished run decodes other examples, or the same ones in another way, as the test of a run does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from attnspan.checksums import make_manifest, sha256
from attnspan.config.evaluation import EVALUATION
from attnspan.config.instantiate import build_decoding, refuse_foreign_targets
from attnspan.data.given import GIVEN
from attnspan.data.pipeline.datamodule import DecodedSplit
from attnspan.data.pipeline.evaluated_split import EvaluatedSplit
from attnspan.data.pipeline.reachable import Unreachable, find_unreachable
from attnspan.errors import InputError, Interrupted
from attnspan.evaluation.attention_maps import decode_shown_examples
from attnspan.evaluation.loaded_run import LoadedRun, load_run
from attnspan.files import read_json, write_json, write_text
from attnspan.kernels.backend import backend_of
from attnspan.runs.attention_maps import write_attention_maps
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import ATTENTION, BEST, CONFIG, EVALUATION_RESULTS, FILES, RECORDS, SUMMARY, WEIGHTS, run_of
from attnspan.runs.own_code import keep_own_code, kept_files
from attnspan.runs.provenance import code_state
from attnspan.runs.records import Record, write_records
from attnspan.runs.status import PREPARING, RUNNING, Status, StatusWriter
from attnspan.runs.summary import total_scores
from attnspan.tracking.run_logger import wandb_evaluation
from attnspan.training.callbacks.cost import Cost
from attnspan.training.callbacks.data_check import DataCheck
from attnspan.training.callbacks.decoded_checkpoints import DecodedCheckpoints
from attnspan.training.callbacks.progress import ProgressReporter
from attnspan.training.callbacks.recorder import Recorder
from attnspan.training.lightning_module import Seq2SeqModule, make_module
from attnspan.training.machine import describe_machine, set_up_machine
from attnspan.training.run import final_status
from attnspan.training.run_files import clear_results, exclusive_access, remove_spare_checkpoints
from attnspan.training.signals import Stop
from attnspan.training.steps.test import decode_split
from attnspan.training.trainer import make_trainer

_OF_THE_RUN_ONLY = (FILES, "overlap", "skipped", "validation_seconds", "test_seconds")
"""Keys of a run's summary that say nothing about its evaluations."""


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """An evaluation that is ready to begin."""

    config: dict[str, Any]
    split: EvaluatedSplit
    directory: Path
    command: str
    run: LoadedRun
    module: Seq2SeqModule
    loader: DecodedSplit
    rank: int
    ranks: int
    stop: Stop
    unreachable: Unreachable
    code: dict[str, str | None]
    began: float


def evaluate(
    config: dict[str, Any],
    *,
    split: EvaluatedSplit,
    directory: Path,
    command: str,
    report: Callable[[Status], None],
    log: Callable[[str], None] = print,
    trusted: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Carry out the evaluation of ``config`` in ``directory``, or what is left of it.

    Args:
        config: made by :func:`attnspan.config.evaluation.evaluation_config`.
        split: the examples that it describes.
        directory: ``RUN/evaluations/<name>-<hash>/``.
        command: what reproduces the evaluation, for the summary.
        report: takes the status, at most once a second.
        log: takes lines for people.
        trusted: packages whose classes the config may name, besides attnspan.

    Returns:
        The summary, as written to ``summary.json``; None in a process that follows another one.

    Raises:
        InputError: the run is not what it was, or another process computes the evaluation; the config does not fit.
        KeyboardInterrupt: SIGINT came. What was decoded is kept.
        SystemExit: SIGTERM or SIGHUP came, likewise.
    """
    prepared = _prepare(config, split, directory, command, trusted)
    if prepared.rank == 0:
        return _lead(prepared, report, log)
    with suppress(Interrupted), prepared.stop.listening():
        _decode(prepared, report=report, log=log)
    return None


def _prepare(
    config: dict[str, Any], split: EvaluatedSplit, directory: Path, command: str, trusted: Sequence[str]
) -> _Prepared:
    began, run = time.monotonic(), run_of(directory)
    set_up_machine(config)
    if sha256(run / BEST) != config[EVALUATION][WEIGHTS]:
        raise InputError(f"{run}: has other weights than when the evaluation was launched; give the command again")
    refuse_foreign_targets(config["decoding"], ("attnspan", *trusted))
    loaded = load_run(run, trusted=trusted)
    if loaded.gives_tokens and GIVEN not in split.examples.column_names:
        raise InputError(
            f"data={config[EVALUATION]['data_name']}: gives no target tokens to the decoder, as the data does on which "
            f"the run was trained, {loaded.config.get('data_name')}"
        )
    decoding = build_decoding(config, limit=loaded.decoding.limit)
    module = make_module(config, loaded.model, decoding=decoding, optimizer=_never, schedule=_never)
    trainer = make_trainer(config, logger=False)
    rank, ranks = trainer.global_rank, trainer.world_size
    budget = {key: config["loader"][key] for key in ("evaluation_batch_tokens", "workers")}
    return _Prepared(
        config=config,
        split=split,
        directory=directory,
        command=command,
        run=replace(loaded, decoding=decoding),
        module=module,
        loader=DecodedSplit(
            split.examples,
            **budget,
            rank=rank,
            ranks=ranks,
            with_eos=config["eos_in_training"],
            extended=loaded.extended_vocabulary,
        ),
        rank=rank,
        ranks=ranks,
        stop=Stop(follows=rank > 0),
        unreachable=find_unreachable(split.examples, split.name, decoding.limit),
        code=code_state(),
        began=began,
    )


def _never(*_: object) -> Any:
    """In place of the optimizer and its schedule, which an earlier version may have called otherwise."""
    raise RuntimeError("an evaluation trains nothing")


def _lead(prepared: _Prepared, report: Callable[[Status], None], log: Callable[[str], None]) -> dict[str, Any]:
    """Carry out the evaluation in its first process, which alone writes files."""
    config, directory = prepared.config, prepared.directory
    name = config[EVALUATION]["data_name"]
    writer = StatusWriter(directory, arm=config["arm"], data=name, seed=config["seed"], command=prepared.command)

    def report_and_write(status: Status) -> None:
        status = replace(status, update=0, updates=0)  # an evaluation has none
        writer.write(status)
        if status.state == RUNNING:
            report(status)

    with ExitStack() as stack:
        stack.enter_context(exclusive_access(directory))
        stack.enter_context(writer)
        if is_finished(directory) and not config["rerun"]:  # by the process that held the lock until now
            log("finished meanwhile, skipped")
            return read_json(directory / SUMMARY)
        stack.enter_context(final_status(report_and_write, log))
        stack.enter_context(prepared.stop.listening())
        tracker = stack.enter_context(wandb_evaluation(config, directory, command=prepared.command, log=log))
        clear_results(directory, resumes=not config["rerun"], rerun=config["rerun"])
        report_and_write(Status(phase=PREPARING))
        keep_own_code(config, directory)
        write_text(directory / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        for line in (*prepared.split.warnings(), *([str(prepared.unreachable)] if prepared.unreachable.count else [])):
            log(line)
        summary = _write(prepared, *_decode(prepared, report=report_and_write, log=log))
        if tracker:  # the evaluation is finished, whatever happens in W&B
            tracker.log_results(directory)
    return summary


def _decode(
    prepared: _Prepared, *, report: Callable[[Status], None], log: Callable[[str], None]
) -> tuple[list[Record], Recorder, Cost]:
    """Decode the examples that an interrupted attempt has not decoded yet."""
    config, cost = prepared.config, Cost(began=prepared.began)
    run = {"run_id": run_of(prepared.directory).name, "arm": config["arm"], "seed": config["seed"]}
    recorder = Recorder(
        test=prepared.split.examples,
        target_tokenizer=prepared.run.target_tokenizer,
        run=run | {"data": config[EVALUATION]["data_name"]},
    )
    decoded = DecodedCheckpoints(
        directory=prepared.directory,
        interval=config["checkpoint_interval"],
        ranks=prepared.ranks,
        stop=prepared.stop,
        recorder=recorder,
        cost=cost,
    )
    progress = ProgressReporter(report=report, began=prepared.began)
    callbacks = [DataCheck(prepared.split), progress, cost, recorder, decoded]
    trainer = make_trainer(config, logger=False, callbacks=callbacks)
    prepared.loader.skip_decoded(decoded.resume(log))
    examples = prepared.split.examples.num_rows
    records = decode_split(trainer, prepared.module, prepared.loader, recorder, examples=examples)
    return records, recorder, cost


def _write(prepared: _Prepared, records: list[Record], recorder: Recorder, cost: Cost) -> dict[str, Any]:
    """Write records, attention maps and the summary, the summary last."""
    directory = prepared.directory
    write_records(directory / RECORDS, records)
    of_run = read_json(run_of(directory) / SUMMARY)
    prepared.module.model.eval()
    longest = of_run["training_lengths"][1]
    if maps := decode_shown_examples(prepared.run, prepared.split.examples, longest_trained=longest):
        write_attention_maps(directory, maps)
    attention = [ATTENTION] if (directory / ATTENTION).exists() else []
    files = [*EVALUATION_RESULTS, *attention, *kept_files(prepared.config, directory)]
    summary = _summary(prepared, of_run, records, recorder, cost) | {FILES: make_manifest(directory, files)}
    write_json(directory / SUMMARY, summary)
    remove_spare_checkpoints(directory)
    return summary


def _summary(
    prepared: _Prepared, of_run: dict[str, Any], records: list[Record], recorder: Recorder, cost: Cost
) -> dict[str, Any]:
    """What the run's summary says of its training, and what the evaluation came to."""
    config, split = prepared.config, prepared.split
    asked = config[EVALUATION]
    same_examples = split.facts["test_fingerprint"] == of_run.get("test_fingerprint")
    return {
        **{key: value for key, value in of_run.items() if key not in _OF_THE_RUN_ONLY},
        **({"overlap": of_run["overlap"]} if same_examples and "overlap" in of_run else {}),
        EVALUATION: {
            "id": prepared.directory.name.rpartition("-")[2],
            **{key: asked[key] for key in ("name", "split", "length")},
        },
        WEIGHTS: asked[WEIGHTS],
        "data": asked["data_name"],
        "command": prepared.command,
        "test": total_scores(records),
        "references_over_limit": prepared.unreachable.count,
        "length_limit": asdict(prepared.run.decoding.limit),
        "skipped": {split.name: split.facts["skipped"]} if split.facts["skipped"] else {},
        "unknown": of_run.get("unknown", {}) | {"test": split.unknown_token_rates()},
        "examples": of_run.get("examples", {}) | {"test": len(records)},
        "test_fingerprint": split.facts["test_fingerprint"],
        "test_seconds": round(cost.test_seconds, 2),
        "decode_tokens_per_second": round(recorder.decoded_tokens / cost.test_seconds, 1),
        "threads": torch.get_num_threads(),
        "device": str(prepared.module.device.type),
        "devices": prepared.ranks,
        "kernels": backend_of(prepared.module.model.readout.weight),
        **describe_machine(),
        **prepared.code,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
