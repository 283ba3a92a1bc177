"""The explorer as one HTML file."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from attnspan.analysis.metrics import DEGENERATE, metrics_in
from attnspan.analysis.study import Study
from attnspan.evaluation.decoded_study import DecodedStudy
from attnspan.reporting.explorer.contents import Examples, arm_entries, examples, separators
from attnspan.reporting.explorer.curves import axis_entries, metric_entries, training_entries
from attnspan.reporting.explorer.packing import packed_json
from attnspan.reporting.findings import findings
from attnspan.reporting.page import template

EXPLORER = "explore.html"
LARGEST = 8_000_000
"""Bytes; a page that would be larger has fewer examples."""

_SCRIPTS = ("base", "chart", "curve", "rows", "maps", "attention", "training", "start")
"""In this order they are one script."""


def explorer(study: Study, decoded: DecodedStudy, *, title: str, largest: int = LARGEST) -> str:
    """The HTML file, with as many of the decoded examples as it may be large.

    It asks for nothing: its content security policy allows its own script and style, by their hashes, and nothing else.
    """
    shown, per_bin = _that_fit(study, decoded, largest)
    return render(_content(study, decoded, shown, per_bin), shown.maps, title=title, lede=findings(study)[0])


def render(content: dict[str, object], maps: list[str], *, title: str, lede: str = "", form: str = "") -> str:
    """The HTML file of what the script reads: ``content``, and the packed weights of each of its examples.

    ``form`` is HTML to stand above it, where a server takes input; a page without ``content`` is nothing else.
    """
    script, style = ("\n".join(map(_part, names)) for names in ([f"{name}.js" for name in _SCRIPTS], ["explorer.css"]))
    assert (script + style).isascii()  # else the hashes do not fit in a parent page of another encoding
    return template("explorer.html.j2").render(
        title=title,
        lede=lede,
        form=form,
        script=script,
        style=style,
        hashes={"script": _hash(script), "style": _hash(style)},
        study=packed_json(content) if content else "",
        maps=maps,
    )


def _that_fit(study: Study, decoded: DecodedStudy, largest: int) -> tuple[Examples, int]:
    """The examples, and how many of each bin they are: all that were decoded, or as many as fit."""
    per_bin = decoded.per_bin
    while True:
        shown = examples(study, decoded, per_bin)
        size = sum(map(len, shown.maps)) + len(packed_json(shown.entries))
        if size <= largest or per_bin == 1:
            return shown, per_bin
        per_bin = max(1, min(per_bin - 1, int(per_bin * largest / size)))


def _content(study: Study, decoded: DecodedStudy, shown: Examples, per_bin: int) -> dict[str, object]:
    metrics = metric_entries(study)
    return {
        "data": study.data_shown,
        "arms": arm_entries(study, decoded),
        "metrics": metrics,
        "axes": axis_entries(study, shown.rows, [metric["name"] for metric in metrics]),
        "examples": shown.entries,
        "kinds": [[kind.name, kind.label] for kind in metrics_in(DEGENERATE)],
        "separators": separators(study, shown),
        "training": training_entries(study),
        "chosen": _chosen(study, decoded, per_bin),
        "notes": [*study.notes, *decoded.notes],
    }


def _chosen(study: Study, decoded: DecodedStudy, per_bin: int) -> str:
    """By which rule the examples were chosen."""
    rule = f"In each bin of the {study.axis.noun}, the {per_bin} examples of least id, the same for all arms."
    if per_bin == decoded.per_bin:
        return rule
    return f"{rule} {decoded.per_bin} were asked for, and would make this file larger than {LARGEST / 1e6:g} MB."


def _part(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="ascii")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
