"""The page: a study in HTML and Markdown, through templates/."""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from attnspan.analysis.bins import joined
from attnspan.analysis.examples import Map, attended, failures
from attnspan.analysis.metrics import ERROR_RATE, GOLD_ATTENTION, METRICS
from attnspan.analysis.study import Arm, Study
from attnspan.analysis.text_metrics import PERPLEXITIES, signature
from attnspan.reporting import plots, tables
from attnspan.reporting.formatting import duration, number
from attnspan.reporting.heatmap_figure import draw, small_png
from attnspan.reporting.token_labels import visible
from attnspan.reporting.wording import findings
from attnspan.runs.attention_maps import Heatmap
from attnspan.runs.finished_run import Run
from attnspan.runs.layout import CONFIG


@dataclass(frozen=True)
class RunLine:
    """What the page says about one run."""

    arm: str
    seed: int
    run_id: str
    directory: str
    config: str
    """Relative link."""
    command: str
    updates: str
    loss: str
    wall: str
    machine: str


def html_page(
    study: Study,
    *,
    degradation: plots.Plot,
    advantage: plots.Plot | None,
    attention: plots.Plot | None,
    out: Path,
    command: str,
) -> str:
    """One self-contained HTML file.

    Args:
        study: what to show.
        degradation: its plot of :func:`attnspan.reporting.plots.degradation`.
        advantage: its plot of :func:`attnspan.reporting.plots.advantage`, where there is a baseline.
        attention: its plot of :func:`attnspan.reporting.plots.attention`, where an arm has attention.
        out: the directory the page will lie in, for links to configs.
        command: that made the page.
    """
    return template("report.html.j2").render(
        _common(study, out, command),
        one_training=len({run.training_lengths for arm in study.arms for run in arm.runs}) == 1,
        styles=[(style.name, label) for label, style in plots.looks(study).items()],
        degradation_text=plots.degradation_text(study),
        degradation=degradation.inline("d", plots.degradation_text(study)),
        degradation_narrow=plots.degradation(study, narrow=True).inline("dn", plots.degradation_text(study)),
        advantage_text=plots.advantage_text(study),
        advantage=advantage.inline("a", plots.advantage_text(study)) if advantage else "",
        advantage_narrow=plots.advantage(study, narrow=True).inline("an", plots.advantage_text(study))
        if advantage
        else "",
        attention_text=plots.attention_text(study),
        attention=attention.inline("l", plots.attention_text(study)) if attention else "",
        attention_narrow=plots.attention(study, narrow=True).inline("ln", plots.attention_text(study))
        if attention
        else "",
        attended=[(example, [_picture(one) for one in example.maps]) for example in attended(study)],
        failures=[(heading, [one for one in found if one.kind == kind]) for kind, heading in _FAILURES.items()]
        if (found := failures(study))
        else [],
    )


TEXT_NAMES = {"bleu": "BLEU", "chrf": "chrF", "ter": "TER"}
_FAILURES = {
    "empty": "Empty: no token",
    "truncated": "Cut at the length limit",
    "repeating": "Repeating: loops where the reference does not",
}


def _picture(one: Map) -> dict[str, object]:
    """A map as an image that is part of the page."""
    if one.heatmap is None:
        return {"arm": one.arm, "missing": one.missing}
    T, S = one.heatmap.weights.shape
    content, width, height = small_png(draw(one.heatmap, title=[one.arm, f"seed {one.seed}"]))
    return {
        "arm": one.arm,
        "seed": one.seed,
        "output": " ".join(map(visible, one.heatmap.output)),
        "alt": f"Heat map of the attention of {one.arm}, {T} output tokens by {S} source tokens; in words below",
        "src": f"data:image/png;base64,{base64.b64encode(content).decode()}",
        "width": width,
        "height": height,
        "text": _in_words(one.heatmap),
    }


def _in_words(heatmap: Heatmap) -> str:
    """The map in words: each output token with the source token of largest weight."""
    largest = heatmap.weights.argmax(axis=1)
    return ", ".join(
        f"{visible(token)} from {visible(heatmap.source[j])} ({j + 1}, {heatmap.weights[t, j]:.2f})"
        for t, (token, j) in enumerate(zip(heatmap.output, largest, strict=True))
    )


def markdown_page(study: Study, *, out: Path, command: str) -> str:
    """The same in Markdown, with the plot as a file beside it."""
    return template("report.md.j2").render(_common(study, out, command))


def template(name: str) -> jinja2.Template:
    """A file of templates/, which escapes what it is given if it makes HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("attnspan.reporting"), autoescape=".html" in name,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template(name)


def _common(study: Study, out: Path, command: str) -> dict[str, object]:
    studies = sorted({str(run.summary["study"]) for run in study.collection.runs if run.summary.get("study")})
    return {
        "title": f"{joined(studies)} ({study.data})" if studies else study.data,
        "study": study,
        "findings": findings(study),
        "quality": tables.by_length(study, ERROR_RATE),
        "others": [tables.by_length(study, metric) for metric in METRICS if metric != ERROR_RATE][:3],
        "texts": text_tables(study),
        "texts_named": joined(TEXT_NAMES[metric] for metric in study.text_metrics) if study.text else "",
        "signatures": [signature(metric) for metric in study.text_metrics],
        "perplexities": [tables.by_length(study, metric) for metric in PERPLEXITIES] if study.text else [],
        "looking": [tables.by_length(study, metric) for metric in study.attention_metrics],
        "gold_known": GOLD_ATTENTION in study.attention_metrics,
        "differences": tables.differences(study),
        "spans": tables.spans(study),
        "trends": tables.trends(study),
        "degenerate": tables.degenerate(study),
        "cost": tables.cost(study),
        "pace": tables.pace(study),
        "runs": [_run_line(study, arm, i, out) for arm in study.arms for i in range(len(arm.runs))],
        "excluded": study.collection.excluded,
        "test_examples": len(study.lengths),
        "lengths": (int(study.lengths.min()), int(study.lengths.max())),
        "about_data": [*_dropped(study.arms), *_about_test(study.collection.runs)],
        "seeds": sorted({arm.seeds for arm in study.arms}, key=len),
        "command": command,
        "made_on": made_on(study.collection.runs),
    }


def text_tables(study: Study) -> list[tables.Table]:
    """The corpus scores, where the target is text."""
    return [tables.by_length(study, metric) for metric in study.text_metrics]


def _anywhere(command: str) -> str:
    """A run's command without the places on the machine that it ran on, which change no number."""
    try:
        words = shlex.split(command)
    except ValueError:  # no command
        return command
    kept = [word for word in words if not word.startswith(("runs_dir=", "cache_dir="))]
    return shlex.join(kept) if len(kept) < len(words) else command


def _run_line(study: Study, arm: Arm, index: int, out: Path) -> RunLine:
    run = arm.runs[index]
    summary = run.summary
    machine = summary.get("machine") or {}
    config = os.path.relpath((run.directory / CONFIG).resolve(), out.resolve())
    return RunLine(
        arm=arm.label,
        seed=run.seed,
        run_id=run.run_id,
        directory=str(run.directory),
        config=Path(config).as_posix(),
        command=_anywhere(str(summary.get("command", ""))),
        updates=f"{summary['updates']:,}" if summary.get("updates") is not None else "–",
        loss=number(summary["best_validation_loss"]) if summary.get("best_validation_loss") is not None else "–",
        wall=duration(summary.get("wall_seconds")),
        machine=str(machine.get("processor") or machine.get("platform") or "–"),
    )


def made_on(runs: Sequence[Run]) -> str:
    """When, from which code, on what and with what the runs were made; every value where they differ."""

    def all_of(read: Callable[[dict[str, Any]], Any]) -> str:
        return " or ".join(sorted({str(read(run.summary)) for run in runs}))

    return "; ".join(
        [
            f"finished {all_of(lambda s: str(s.get('finished_at', '–'))[:10])}",
            f"commit {all_of(lambda s: s.get('git_commit') or 'unknown')}",
            all_of(lambda s: "{processor}, {cores} cores, {platform}".format_map(_Known(s.get("machine") or {}))),
            f"{all_of(lambda s: s.get('device', '–'))}, {all_of(lambda s: s.get('threads', '–'))} thread(s) a run",
            all_of(lambda s: ", ".join(f"{name} {number}" for name, number in (s.get("versions") or {}).items())),
        ]
    )


class _Known(dict[str, Any]):
    """A mapping for ``format_map`` in which what is not known is a dash."""

    def __missing__(self, key: str) -> str:
        return "–"


def _dropped(arms: Sequence[Arm]) -> list[str]:
    """Training examples that were too long, as the runs counted them."""
    counts = {arm.label: {run.summary.get("dropped", {}).get("train", 0) for run in arm.runs} for arm in arms}
    if not any(any(some) for some in counts.values()):
        return []
    every = set().union(*counts.values())
    if len(every) == 1:
        return [f"{every.pop():,} training examples were too long and left out in training, by every run."]
    each = joined(f"{label} {joined(sorted(some))}" for label, some in counts.items())
    return [f"Training examples left out for their length: {each}."]


def _about_test(runs: Sequence[Run]) -> list[str]:
    """What the runs say about the data's rows and tokens: all of them have the same test examples."""
    said: dict[str, None] = {}  # in their order, each once: data with other vocabularies have other rates
    for run in runs:
        for split, count in run.summary.get("skipped", {}).items():
            said[f"{count:,} rows of {split} could not be used and were skipped."] = None
        if overlap := run.summary.get("overlap"):
            said[f"{overlap:,} test examples are in training too, word for word."] = None
        for side, share in run.summary.get("unknown", {}).get("test", {}).items():
            if share:
                said[f"{share:.2%} of the test's {side} tokens are unknown to the vocabulary."] = None
    return list(said)
