"""Run directories as training writes them, with made-up results."""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from attnspan.checksums import make_manifest
from attnspan.files import read_json, write_json, write_text
from attnspan.runs import records as record_columns
from attnspan.runs.layout import (
    BEST,
    CONFIG,
    EVALUATION_RESULTS,
    EVALUATIONS,
    FILES,
    METRICS,
    NEEDED,
    RECORDS,
    SUMMARY,
)
from attnspan.runs.records import Record, write_records

CONFIG_BASE: dict[str, Any] = {
    "data_name": "pronunciation",
    "study": None,
    "runs_dir": "runs",
    "data": {"name": "pronunciation", "max_length": 60},
    "encoder": {"layers": 1},
    "model": {"hidden_size": 128, "embedding_size": 64},
    "optimizer": {"lr": 0.001},
}


def example(number: int, length: int, **changes: Any) -> dict[str, Any]:
    """The columns of one test example that are the same in every run; as many reference tokens as source tokens."""
    letters = "abcdefghijklmnopqrstuvwxyz "
    source = "".join(letters[(number * 7 + k * 11) % len(letters)] for k in range(length))
    return {
        "example_id": f"e{number:05d}",
        "source_length": length,
        "target_length": length,
        "target_tokens": length + 1,
        "source": source,
        "reference": source.upper(),
        **changes,
    }


def fake_run(
    root: Path,
    arm: str,
    seed: int,
    examples: Sequence[dict[str, Any]],
    edits: Sequence[int] | np.ndarray,
    *,
    data: str = "pronunciation",
    config: dict[str, Any] | None = None,
    training_lengths: tuple[int, int] = (5, 60),
    training_target_lengths: tuple[int, int] | None = None,
    attention: Sequence[dict[str, Any]] | None = None,
    change_records: Callable[[list[Record]], list[Record]] = lambda records: records,
    **summary: Any,
) -> Path:
    """Write one finished run and return its directory.

    Args:
        root: gets ``<data>/<arm>/<run id>``.
        arm: of the run.
        seed: of the run.
        examples: the columns of each test example that are the same in every run.
        edits: of each example.
        data: name of the data set.
        config: dotted keys of the config to change.
        training_lengths: shortest and longest source in training.
        training_target_lengths: shortest and longest target in training; None for an older run, which has none.
        attention: the columns on attention of each example.
        change_records: applied to the records before they are written.
        summary: keys of the summary to change.
    """
    resolved: dict[str, Any] = copy.deepcopy(CONFIG_BASE) | {"arm": arm, "seed": seed, "decoder": {"name": arm}}
    for key, value in (config or {}).items():
        *parents, last = key.split(".")
        part = resolved
        for parent in parents:
            part = part[parent]
        part[last] = value
    run_id = hashlib.sha256(repr((arm, data, seed, sorted((config or {}).items()))).encode()).hexdigest()[:10]
    directory = root / data / arm / run_id
    directory.mkdir(parents=True)
    records = [
        record_columns.Record(
            run_id=run_id,
            arm=arm,
            data=data,
            seed=seed,
            nll=0.5 * int(wrong) + 0.1,
            tokens_correct=max(one["target_tokens"] - int(wrong), 0),
            exact_match=int(wrong) == 0,
            edits=int(wrong),
            empty=False,
            truncated=int(wrong) > one["target_length"],
            repeating=False,
            hypothesis=one["reference"],
            hypothesis_length=one["target_length"],
            **{"scored_length": one["target_length"]} | one,
            **weights,
        )
        for one, wrong, weights in zip(examples, edits, attention or [{}] * len(examples), strict=True)
    ]
    write_records(directory / RECORDS, change_records(records))
    write_text(directory / CONFIG, yaml.safe_dump(resolved))
    write_text(directory / METRICS, "step,loss\n1,2.0\n")
    for name in {*NEEDED} - {RECORDS, CONFIG, METRICS}:
        write_text(directory / name, "not read\n")
    content = {
        "run_id": run_id,
        "arm": arm,
        "data": data,
        "seed": seed,
        "study": None,
        "finished": True,
        "command": f"attnspan-train decoder={arm} data={data} seed={seed}",
        "parameters": 251_904 if arm == "plain" else 298_112,
        "decoder_state": {"fixed": 192, "per_source_token": 0 if arm == "plain" else 256, "per_target_token": 0},
        "updates": 2_000,
        "best_update": 1_900,
        "best_validation_loss": 0.41,
        "dropped": {"train": 3},
        "examples": {"train": 20_000, "validation": 1_000, "test": len(records)},
        "training_lengths": list(training_lengths),
        **({"training_target_lengths": list(training_target_lengths)} if training_target_lengths else {}),
        "data_fingerprint": "d" * 64,
        "test_fingerprint": "t" * 64,
        "wall_seconds": 211.5,
        "train_seconds": 180.2,
        "test_seconds": 20.1,
        "tokens_per_second": 8123.4,
        "decode_tokens_per_second": 20345.6,
        "peak_memory_mb": 612.0,
        "threads": 1,
        "device": "cpu",
        "machine": {"processor": "a processor", "cores": 2, "platform": "Linux"},
        "versions": {"attnspan": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
        "git_commit": "a1d2ba2",
        "finished_at": "2026-11-22T20:00:00+00:00",
        FILES: make_manifest(directory, NEEDED),
        **summary,
    }
    write_json(directory / SUMMARY, content)
    return directory


def fake_evaluation(
    run: Path,
    name: str,
    examples: Sequence[dict[str, Any]],
    edits: Sequence[int] | np.ndarray,
    *,
    decoding: dict[str, Any] | None = None,
    data: str | None = None,
) -> Path:
    """Write an evaluation of a run that :func:`fake_run` made, and return its directory.

    Args:
        run: its directory.
        name: of the evaluation.
        examples: as for :func:`fake_run`.
        edits: of each example.
        decoding: the node of the config.
        data: name of the data set; by default that of the run.
    """
    summary = read_json(run / SUMMARY)
    of_run = {key: summary[key] for key in ("arm", "seed")}
    root = run.parent / f".{name}"

    def of_the_run(records: list[Record]) -> list[Record]:
        return [replace(record, run_id=summary["run_id"]) for record in records]

    name_of_data = data or summary["data"]
    made = fake_run(root, **of_run, examples=examples, edits=edits, data=name_of_data, change_records=of_the_run)
    config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    asked = {"name": name, "weights": summary[FILES][BEST]["sha256"]}
    write_text(made / CONFIG, yaml.safe_dump(config | {"decoding": decoding or {}, "evaluation": asked}))
    fingerprint = hashlib.sha256(repr(examples).encode()).hexdigest()
    facts = {"evaluation": {"id": f"{name}0", "name": name}, "weights": asked["weights"], "data": name_of_data}
    facts |= {"test_fingerprint": fingerprint, FILES: make_manifest(made, EVALUATION_RESULTS)}
    write_json(made / SUMMARY, summary | facts)
    directory = run / EVALUATIONS / f"{name}-{name}0"
    directory.parent.mkdir(exist_ok=True)
    made.rename(directory)
    shutil.rmtree(root)
    return directory


def sign(directory: Path) -> None:
    """Update the checksums in the summary."""
    summary = read_json(directory / SUMMARY)
    write_json(directory / SUMMARY, summary | {FILES: make_manifest(directory, NEEDED)})


def fake_study(
    root: Path,
    *,
    arms: Sequence[str] = ("plain", "bahdanau", "luong_general"),
    seeds: Sequence[int] = (0, 1),
    lengths: Sequence[int] = range(5, 101),
    per_length: int = 40,
    attention: bool = False,
    data: str = "pronunciation",
) -> list[Path]:
    """A study like the real one: plain fails as sources get longer, attention fails beyond the training lengths.

    With ``attention``, the records of all arms but plain have the columns on attention.
    """
    examples = [example(n, int(length)) for n, length in enumerate(np.repeat(list(lengths), per_length))]
    length = np.array([one["target_length"] for one in examples])
    directories = []
    for index, arm in enumerate(arms):
        for seed in seeds:
            generator = np.random.default_rng([index, seed])
            beyond = np.maximum(length - 60, 0) / 40
            rate = 0.72 - 0.5 * np.exp(-length / 25) if arm == "plain" else 0.10 + 0.02 * index + 0.45 * beyond / index
            rate = rate * np.exp(generator.normal(0, 0.06)) * generator.gamma(8, 1 / 8, len(length))
            edits = generator.binomial(length, np.minimum(rate, 0.98))
            columns = [attended(int(S), min(r, 0.98), generator) for S, r in zip(length, rate, strict=True)]
            shown = columns if attention and arm != "plain" else None
            directories.append(fake_run(root, arm, seed, examples, edits, data=data, attention=shown))
    return directories


def attended(length: int, rate: float, generator: np.random.Generator) -> dict[str, Any]:
    """The columns on attention that misses about ``rate`` of its gold tokens; as many target as source tokens."""
    hits = int(generator.binomial(length, 1 - rate))
    mass = generator.beta(10 * (1 - rate), 10 * rate, length)
    return {
        "gold_attention": mass.tolist(),
        "attention_entropy": ((1 - mass) * np.log(length)).tolist(),
        "attention_support": [length] * length,
        "links": length,
        "gold_links": length,
        "links_in_sure": hits,
        "links_in_possible": hits,
    }
