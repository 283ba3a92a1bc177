"""Fourth step: write the results, the summary last, after which the run is finished."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from attnspan.checksums import make_manifest
from attnspan.data.corpora.base import SPLITS
from attnspan.data.pipeline.prepare import PreparedData
from attnspan.evaluation.attention_maps import decode_shown_examples
from attnspan.evaluation.length_axis import length_axis
from attnspan.evaluation.loaded_run import LoadedRun
from attnspan.files import write_json
from attnspan.kernels.backend import backend_of
from attnspan.models.state_size import state_size
from attnspan.runs.attention_maps import write_attention_maps
from attnspan.runs.layout import ATTENTION, FILES, NEEDED, RECORDS, SUMMARY
from attnspan.runs.own_code import kept_files
from attnspan.runs.records import write_records
from attnspan.runs.summary import total_scores
from attnspan.training.callbacks.cost import parameter_count, peak_memory_mb
from attnspan.training.machine import describe_machine
from attnspan.training.run_files import remove_spare_checkpoints
from attnspan.training.steps.prepare import Prepared
from attnspan.training.steps.test import Tested

_SECONDS = ("wall_seconds", "train_seconds", "validation_seconds", "test_seconds")


def write(tested: Tested) -> dict[str, Any]:
    """Write records, attention maps and the summary.

    Returns:
        The summary, as written to ``summary.json``.

    Raises:
        InputError: a file cannot be written.
    """
    prepared = tested.trained.prepared
    directory = prepared.directory
    write_records(directory / RECORDS, tested.records)
    _write_attention(prepared)
    tested.trained.metrics_csv.make_durable()
    attention = [ATTENTION] if (directory / ATTENTION).exists() else []
    files = [*NEEDED, *attention, *kept_files(prepared.config, directory)]
    summary = _summary(tested) | {FILES: make_manifest(directory, files)}
    write_json(directory / SUMMARY, summary)
    remove_spare_checkpoints(directory)
    return summary


def _write_attention(prepared: Prepared) -> None:
    """Keep the attention on a few test examples, for the report to draw; an arm without attention keeps none."""
    data, module = prepared.data, prepared.module
    run = LoadedRun(
        config=prepared.config,
        model=module.model.eval(),
        decoding=module.decoding,
        source_tokenizer=data.source_tokenizer,
        target_tokenizer=data.target_tokenizer,
    )
    maps = decode_shown_examples(run, data.test, longest_trained=data.training_lengths[1])
    if maps:
        write_attention_maps(prepared.directory, maps)


def _summary(tested: Tested) -> dict[str, Any]:
    """The summary; :class:`attnspan.runs.summary.Summary` explains its keys."""
    trained = tested.trained
    prepared, cost, config = trained.prepared, trained.cost, trained.prepared.config
    value, loss = trained.checkpoints.best
    return {
        "run_id": prepared.directory.name,
        "arm": config["arm"],
        "data": config["data_name"],
        "seed": config["seed"],
        "study": config["study"],
        "finished": True,
        "command": prepared.command,
        "parameters": parameter_count(prepared.module),
        "decoder_state": asdict(state_size(prepared.module.model)),
        "updates": trained.updates,
        "training_examples": cost.train_examples,
        "ended_by": trained.plateau.ended_by,
        "plateau_update": trained.plateau.plateau_update,
        "decay_update": trained.plateau.decay_update,
        "last_doubling_gain": trained.plateau.last_doubling_gain,
        "uniform_loss": math.log(len(prepared.data.target_tokenizer)),
        "first_training_loss": trained.final_losses.first,
        "final_training_loss": trained.final_losses.training,
        "final_validation_loss": trained.final_losses.validation,
        "best_update": tested.best_update,
        "selection_metric": config["selection_metric"],
        "best_validation_loss": loss,
        f"best_validation_{config['selection_metric']}": value,
        "test": total_scores(tested.records),
        "references_over_limit": prepared.unreachable_references,
        "length_limit": asdict(prepared.module.decoding.limit),
        "length": length_axis(config, prepared.data).name,
        **_data_facts(prepared.data),
        **{
            f"{part}_seconds": round(getattr(cost, f"{part}_seconds"), 2)
            for part in ("wall", "train", "validation", "test")
        },
        "tokens_per_second": round(cost.train_tokens / cost.train_seconds, 1),
        "decode_tokens_per_second": round(trained.recorder.decoded_tokens / cost.test_seconds, 1),
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "threads": torch.get_num_threads(),
        "device": str(prepared.module.device.type),
        "devices": prepared.ranks,
        "kernels": backend_of(prepared.module.model.readout.weight),
        **describe_machine(),
        **prepared.code,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _data_facts(data: PreparedData) -> dict[str, Any]:
    return {
        "dropped": data.dropped,
        "skipped": data.skipped,
        "data_files": data.files,
        "data_remarks": data.remarks,
        "unknown": {split: data.unknown_token_rates(split) for split in SPLITS},
        "overlap": data.overlap,
        "examples": {split: getattr(data, split).num_rows for split in SPLITS},
        "training_lengths": list(data.training_lengths),
        "training_target_lengths": list(data.training_target_lengths),
        "training_target_ratio": data.training_target_ratio,
        "data_fingerprint": data.fingerprint,
        "test_fingerprint": data.test_fingerprint,
    }
