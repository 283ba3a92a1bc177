"""What the explorer shows of single examples: texts in tokens, their edits, and the attention of every arm."""

from __future__ import annotations

import base64
import io
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from attnspan.analysis.arms import Arm
from attnspan.analysis.examples import first_examples
from attnspan.analysis.metrics import DEGENERATE, metrics_in
from attnspan.analysis.study import Study
from attnspan.evaluation.decoded_again import DecodedExample, DecodedRun
from attnspan.evaluation.decoded_study import DecodedStudy
from attnspan.reporting.explorer.packing import edit_path, packed, quantised
from attnspan.reporting.plots import arm_styles
from attnspan.runs.attention_maps import Picture


@dataclass(frozen=True)
class Examples:
    """The examples of the explorer, ready to be packed."""

    rows: list[int]
    """Of the test set, by example id."""
    entries: list[dict[str, Any]]
    """What the page reads of each."""
    maps: list[str]
    """The weights of each, packed; empty where no arm has any."""


def arm_entries(study: Study, decoded: DecodedStudy) -> list[dict[str, Any]]:
    """The arms: names and colours, the run whose outputs are shown, and why there is no attention."""
    styles = arm_styles(study)
    return [
        {
            "label": arm.label, "shown": study.shown(arm.label), "colour": styles[arm.label].colour,
            "seeds": list(arm.seeds), "seed": decoded.runs[arm.label].run.seed,
            "without": _why_without(decoded.runs[arm.label]),
        }
        for arm in study.arms
    ]  # fmt: skip


def _why_without(one: DecodedRun) -> str:
    if one.problem:
        return f"Its attention is not known: {one.problem}"
    has_weights = any(example.weights is not None for example in one.examples.values())
    return "" if has_weights else "It has no attention"


def examples(study: Study, decoded: DecodedStudy, per_bin: int) -> Examples:
    """The first ``per_bin`` examples of each bin, those that were chosen at most."""
    names = study.test_set["example_id"].to_numpy()
    rows = sorted((row for some in first_examples(study, per_bin) for row in some), key=lambda row: names[row])
    of_arms = [_outputs(arm, decoded.runs[arm.label], rows) for arm in study.arms]
    shown = [_example(decoded, list(outputs)) for outputs in zip(*of_arms, strict=True)]
    return Examples(rows, [entry for entry, _ in shown], [packed(weights) if weights else "" for _, weights in shown])


@dataclass(frozen=True)
class _Output:
    """What an arm wrote for one example: its record, the edits of each seed, and the tokens if they are known."""

    record: dict[Hashable, Any]
    kinds: list[str]
    """Of degenerate output, that it is."""
    edits_by_seed: list[int]
    example: DecodedExample | None


_COLUMNS = ["example_id", "source", "reference", "hypothesis", "edits", "exact_match"]


def _outputs(arm: Arm, decoded: DecodedRun, rows: list[int]) -> list[_Output]:
    """What an arm wrote for the examples ``rows``."""
    records = decoded.run.records.iloc[rows]
    known = [metric for metric in metrics_in(DEGENERATE) if metric.is_known(records)]
    degenerate = {metric.name: metric.sums_of(records)[0] > 0 for metric in known}
    edits = [run.records["edits"].to_numpy()[rows].tolist() for run in arm.runs]
    return [
        _Output(
            record,
            [kind for kind, rows_of_it in degenerate.items() if rows_of_it[n]],
            [of_seed[n] for of_seed in edits],
            decoded.examples.get(str(record["example_id"])),
        )
        for n, record in enumerate(records[_COLUMNS].to_dict("records"))
    ]


def _example(decoded: DecodedStudy, outputs: Sequence[_Output]) -> tuple[dict[str, Any], bytes]:
    """An example, and the quantised weights of its arms one after the other.

    Of an arm they are the mean over heads, then each head if there are several: [T, S] row by row.
    """
    record = outputs[0].record
    first = next((one.example for one in outputs if one.example), None)
    source, reference = (first.source, first.reference) if first else (record["source"], record["reference"])
    entries, weights = [], b""
    for output in outputs:
        one = output.example
        same = one is not None and list(one.source) == list(source) and list(one.reference) == list(reference)
        entry = _entry(output, list(reference), known=same)
        if same and one is not None and one.weights is not None and one.weights.size:
            entry["maps"] = 1 if one.heads is None else 1 + len(one.heads)
            every = [one.weights] if one.heads is None else [one.weights, *one.heads]
            weights += b"".join(quantised(of_head).tobytes() for of_head in every)
        entries.append(entry)
    name = str(record["example_id"])
    example: dict[str, Any] = {"id": name, "source": list(source), "reference": list(reference), "outputs": entries}
    if first and first.picture:
        example["picture"] = _picture(first.picture)
    if links := decoded.gold.get(name):
        example["gold"] = [list(link) for link in links]
    return example, weights


def _entry(output: _Output, reference: list[str], *, known: bool) -> dict[str, Any]:
    """What the page reads of an output: in tokens with its edits, if they are known as those of the other arms are."""
    record = output.record
    entry: dict[str, Any] = {
        "edits": int(record["edits"]),
        "edits_by_seed": output.edits_by_seed,
        "exact": bool(record["exact_match"]),
    }
    if output.kinds:
        entry["kinds"] = output.kinds
    if output.example is None or not known:
        return entry | {"text": str(record["hypothesis"])}
    tokens = list(output.example.output)
    return entry | {"tokens": tokens, "path": edit_path(tokens, reference)}


def _picture(picture: Picture) -> dict[str, Any]:
    """An image with the size of its regions; smaller in the file than on the page."""
    _, height, width = picture.pixels.shape
    channels = picture.pixels.transpose(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels).save(stream, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return {
        "src": source,
        "height": height,
        "width": width,
        "region": list(picture.region_size),
        "grid": list(picture.grid),
    }


def separators(study: Study, shown: Examples) -> dict[str, str]:
    """What stands between two tokens of a side in its text: nothing, where the tokens follow each other."""
    texts = study.test_set[["source", "reference"]].iloc[shown.rows[:50]].to_dict("records")
    first = list(zip(shown.entries[:50], texts, strict=True))
    return {
        side: "" if all("".join(entry[side]) == text[side] for entry, text in first) else " "
        for side in ("source", "reference")
    }
