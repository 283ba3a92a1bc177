"""What a study compared, for a reader who was not there: data, arms, sizes and decoding, in the configs' own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from attnspan.analysis.arms import Arm
from attnspan.analysis.examples import first_examples
from attnspan.analysis.lengths.bins import joined
from attnspan.analysis.lengths.regions import Part, Region
from attnspan.analysis.lengths.training_range import EXTRAPOLATION, IN_RANGE
from attnspan.analysis.study import Study
from attnspan.runs.finished_run import Run


@dataclass(frozen=True)
class WrittenExample:
    """One test example, and what each arm wrote."""

    example_id: str
    length: str
    """In words, as in ``9 source tokens, within the lengths seen in training``."""
    source: str
    reference: str
    outputs: list[tuple[str, int, str, int]]
    """Arm, seed, hypothesis and edits."""


def subject(study: Study) -> dict[str, Any]:
    """``sentences`` on data, sizes and decoding, and ``arms``: label, what it is, parameters."""
    runs = study.collection.runs
    sentences = (_data(study), _model(runs), _decoding(runs))
    return {
        "sentences": [sentence for sentence in sentences if sentence],
        "arms": [(study.shown(arm.label), _about(study, arm), _parameters(arm)) for arm in study.arms],
    }


def _about(study: Study, arm: Arm) -> str:
    return study.collection.files.described("decoder", arm.name) or "an arm of the user's own"


def _parameters(arm: Arm) -> str:
    return _each(arm.runs, lambda run: run.summary.get("parameters"))


def _data(study: Study) -> str:
    runs = study.collection.runs
    what = study.collection.files.described("data", study.data)
    trained = _each(runs, lambda run: (run.summary.get("examples") or {}).get("train"))
    training = f"Trained on {trained} examples" if trained else "Trained"
    up_to = study.trained_up_to(study.ranges)
    return f"Data: {study.data_shown}. {what} {training} of up to {up_to}, tested on {len(study.lengths):,}.".replace(
        "  ", " "
    )


def _model(runs: Sequence[Run]) -> str:
    """Cells and sizes; empty where the configs do not say."""

    def value(*keys: str) -> str:
        return _each(runs, lambda run: _at(run.config, keys))

    cell = " or ".join(name.rpartition(".")[2] for name in value("rnn", "cell", "_target_").split(" or "))
    parts = [
        f"{cell} cells" if cell else "",
        f"{layers} layer{'s' * (layers != '1')}" if (layers := value("rnn", "layers")) else "",
        f"hidden size {size}" if (size := value("model", "hidden_size")) else "",
        f"embeddings of {size}" if (size := value("model", "embedding_size")) else "",
    ]
    return f"Models: {joined(part for part in parts if part)}." if any(parts) else ""


def _decoding(runs: Sequence[Run]) -> str:
    strategy = _each(runs, lambda run: _at(run.config, ("decoding", "_target_")))
    names = " or ".join(name.rpartition(".")[2].lower() for name in strategy.split(" or "))
    sizes = _each(runs, lambda run: _at(run.config, ("decoding", "beam_size")))
    beam = f" of size {sizes}" if sizes else ""
    return f"Decoding: {names}{beam}, free-running." if names else ""


def _at(config: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config


def _each(runs: Sequence[Run], read: Callable[[Run], Any]) -> str:
    """Every distinct value that the runs have, joined by ``or``; empty where none has any."""
    values = sorted({value for run in runs if (value := read(run)) is not None})
    return " or ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in values)


def written_examples(study: Study) -> list[WrittenExample]:
    """What every arm wrote for a few examples, chosen by a rule.

    They are those of least id in the shortest bin, in the longest in range, and in the longest of all.
    """
    regions = [(side, region) for part in study.partition.parts for side, region in _sides(study, part)]
    firsts = [rows[0] for rows in first_examples(study, 1)]
    chosen: dict[int, str] = {}
    for wanted in (IN_RANGE, EXTRAPOLATION):
        of_side = [(row, region) for row, (side, region) in zip(firsts, regions, strict=True) if side == wanted]
        of_side.sort(key=lambda one: one[1].mean_length)
        for row, _ in of_side[:1] * (wanted == IN_RANGE) + of_side[-1:]:
            chosen.setdefault(row, wanted)
    return [_written(study, row, side) for row, side in chosen.items()]


def _sides(study: Study, part: Part) -> list[tuple[str, Region]]:
    side = part.side(study.ranges)
    return [(side, region) for region in study.partition.in_part(part, side)]


def _written(study: Study, row: int, side: str) -> WrittenExample:
    record = study.test_set.iloc[row]
    seen = "within the lengths seen in training" if side == IN_RANGE else "longer than any seen in training"
    outputs = []
    for arm in study.arms:
        run = arm.runs[0]
        own = run.records.iloc[row]
        outputs.append((arm.label, run.seed, str(own["hypothesis"]), int(own["edits"])))
    length = f"{study.axis.in_words(study.axis.text(study.lengths[row]))}, {seen}"
    return WrittenExample(str(record["example_id"]), length, str(record["source"]), str(record["reference"]), outputs)
