"""The page on a study, in HTML and Markdown, through templates/."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jinja2

from attnspan.analysis.arms import Arm
from attnspan.analysis.collection import Excluded
from attnspan.analysis.examples import ArmMap, degenerate_outputs, mapped_examples
from attnspan.analysis.learning import learning_curves, validations
from attnspan.analysis.lengths.bins import joined
from attnspan.analysis.lengths.words import counted, plural
from attnspan.analysis.metrics import DEGENERATE, GOLD_ATTENTION, Metric, metrics_in
from attnspan.analysis.study import Study
from attnspan.analysis.text_metrics import PERPLEXITIES
from attnspan.data.corpora.base import SIDES
from attnspan.reporting import learning_tables, tables
from attnspan.reporting.findings import findings
from attnspan.reporting.formatting import NONE, duration, number, unbroken, visible
from attnspan.reporting.heatmap_figure import draw, small_png
from attnspan.reporting.learning_plots import error_over_training, training_curves
from attnspan.reporting.pictures.form import PAGE, PHONE, Form
from attnspan.reporting.plots import Plot, arm_styles, draw_plots
from attnspan.reporting.subject import subject, written_examples
from attnspan.runs.attention_maps import AttentionMap
from attnspan.runs.finished_run import Run
from attnspan.runs.layout import CONFIG

INDEX, MARKDOWN = "index.html", "report.md"


def pages(
    study: Study, wide: dict[str, Plot], *, files: Mapping[str, str], command: str, explorer: str | None
) -> dict[str, str]:
    """File name -> content: the same as one self-contained HTML file, and in Markdown with the plot next to it.

    ``wide`` has the plots of the study, ``files`` the texts of the files that the page holds in itself, and
    ``explorer`` is the name of the explorer beside it.
    """
    content = _content(study, wide, command)
    narrow = all_plots(study, PHONE)
    outputs = degenerate_outputs(study)
    kinds = metrics_in(DEGENERATE)
    by_kind = [(kind, [output for output in outputs if output.metric == kind]) for kind in kinds]
    html = template("report.html.j2").render(
        content,
        explorer=explorer,
        files=addresses(files),
        subject=subject(study),
        written=written_examples(study),
        training_range=study.ranges[0] if len(study.ranges) == 1 else None,
        shaded=_is_shaded(study),
        styles=[(style.name, study.shown(label)) for label, style in arm_styles(study).items()],
        plots={name: inline(name, wide[name], narrow[name]) for name in wide},
        mapped_examples=[(example, [_picture(one) for one in example.maps]) for example in mapped_examples(study)],
        kinds=kinds,
        degenerate_outputs=[(f"{kind.label.capitalize()}: {kind.meaning}", some) for kind, some in by_kind if some],
    )
    return {MARKDOWN: template("report.md.j2").render(content), INDEX: with_contents(html)}


def addresses(files: Mapping[str, str]) -> dict[str, str]:
    """File name -> the address of a link that holds the file, which is still there when only the page is sent on."""
    return {name: f"data:text/plain;base64,{_base64(text.encode())}" for name, text in files.items()}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


_HEADING = re.compile(r'<h2 id="([^"]*)">(.*?)</h2>')


def with_contents(html: str) -> str:
    """The page with links to its sections in place of the mark in its head."""
    links = (f'<li><a href="#{name}">{words}</a></li>' for name, words in _HEADING.findall(html))
    return html.replace("<!-- contents -->", f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>')


def all_plots(study: Study, form: Form = PAGE) -> dict[str, Plot]:
    """The plots of a study by name: of its results, and of how its arms learned where the runs have kept that."""
    plots = draw_plots(study, form)
    if any(validations(run) for run in study.collection.runs):
        plots["training_curves"] = training_curves(study, form)
    if all(learning_curves(study.arms).values()):
        plots["error_over_training"] = error_over_training(study, form)
    return plots


def inline(name: str, wide: Plot, narrow: Plot) -> dict[str, dict[str, Any]]:
    """A plot in both of its forms, as SVG with the points that can be read; ``name`` is unique on the page."""
    return {"wide": _form(name, wide), "narrow": _form(f"{name}-narrow", narrow)}


def _form(name: str, plot: Plot) -> dict[str, Any]:
    return {"name": name, "svg": plot.inline(name), "panels": plot.panels()}


def _picture(one: ArmMap) -> dict[str, object]:
    """A map as an inline image."""
    if one.heatmap is None:
        return {"arm": one.arm, "missing": one.missing}
    T, S = one.heatmap.weights.shape
    size = f"{counted(T, 'output token')} by {counted(S, 'source token')}"
    content, width, height = small_png(draw(one.heatmap, title=[one.arm, f"seed {one.seed}"]))
    return {
        "arm": one.arm, "seed": one.seed, "width": width, "height": height, "text": _in_words(one.heatmap),
        "output": " ".join(map(visible, one.heatmap.output)),
        "alt": f"Heat map of the attention of {one.arm}, {size}; in words below",
        "src": f"data:image/png;base64,{_base64(content)}",
    }  # fmt: skip


def _in_words(heatmap: AttentionMap) -> str:
    """The map in words: each output token with the source token of largest weight."""
    largest = heatmap.weights.argmax(axis=1)
    return ", ".join(
        f"{visible(token)} from {visible(heatmap.source[j])} ({j + 1}, {heatmap.weights[t, j]:.2f})"
        for t, (token, j) in enumerate(zip(heatmap.output, largest, strict=True))
    )


def template(name: str) -> jinja2.Template:
    """A file of templates/; one that makes HTML escapes its values."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("attnspan.reporting"), autoescape=".html" in name,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"counted": counted, "unbroken": unbroken}
    return environment.get_template(name)


def title_of(study: Study) -> str:
    """The title of the pages on a study: the studies that its runs belong to, and the data."""
    return _title(study.collection.runs, study.data_shown)


def _title(runs: Sequence[Run], data: str) -> str:
    studies = sorted({str(run.summary["study"]) for run in runs if run.summary.get("study")})
    return f"{joined(studies)} ({data})" if studies else data


def shared_content(runs: Sequence[Run], data: str, excluded: Sequence[Excluded], command: str) -> dict[str, Any]:
    """The values that every page has."""
    return {"title": _title(runs, data), "excluded": excluded, "command": command, "made_on": made_on(runs)}


_TABLES = (
    tables.differences, tables.spans, tables.trends, tables.degenerate, tables.stopping, tables.cost,
    learning_tables.training, learning_tables.learning, learning_tables.equal_training,
    learning_tables.time_to_common_loss, learning_tables.settings_by_validation,
)  # fmt: skip
"""By their names in the templates."""


def _content(study: Study, plots: Collection[str], command: str) -> dict[str, Any]:
    runs = study.collection.runs

    def by_length(metrics: Iterable[Metric]) -> list[tables.Table]:
        return [tables.by_length(study, metric) for metric in metrics]

    return shared_content(runs, study.data_shown, study.collection.excluded, command) | {
        "study": study,
        "findings": findings(study),
        "notes": study.notes,
        "others": by_length(metric for metric in study.quality_metrics if metric != study.metric),
        "metric": study.metric,
        "advantage_in_words": tables.advantage_in_words(study),
        "text_tables": by_length(study.corpus_scores),
        "texts_named": joined(score.label for score in study.corpus_scores) if study.text else "",
        "signatures": [score.signature() for score in study.corpus_scores],
        "perplexities": by_length(PERPLEXITIES) if study.text else [],
        "attention_tables": by_length(study.attention_metrics),
        "gold_known": GOLD_ATTENTION in study.attention_metrics,
        **{table.__name__: table(study) for table in _TABLES},
        "runs": [_run_line(arm, run) for arm in study.arms for run in arm.runs],
        "learned": [name for name in ("training_curves", "error_over_training") if name in plots],
        "test_examples": len(study.lengths),
        "quality": tables.by_length(study, study.metric),
        "any_unreachable": tables.any_unreachable(study),
        "stopping_kinds": study.stopping_metrics,
        "axis": study.axis,
        "tested": [_from_to(study, side) for side in SIDES],
        "limits": [study.axis.text(length) for length in (study.lengths.min(), study.lengths.max())],
        "about_data": [*_dropped(study.arms), *_about_test(runs)],
    }


def _is_shaded(study: Study) -> bool:
    """Whether the plots shade the lengths seen in training: they are the same for all arms, and tested."""
    longest = study.ranges[0].longest(study.axis.side)
    return (
        len(study.ranges) == 1 and longest is not None and longest >= study.test_set[f"{study.axis.side}_length"].min()
    )


def _from_to(study: Study, side: str) -> str:
    """The lengths of the test examples on one side, as in ``4 to 9 source tokens``."""
    lengths = study.test_set[f"{side}_length"]
    return f"{lengths.min()} to {lengths.max()} {plural(lengths.max(), f'{side} token')}"


_DIRECTORIES = ("runs_dir:", "cache_dir:")


def _portable(command: str) -> str:
    """A run's command without the directories of the machine that it ran on, which change no number."""
    try:
        words = shlex.split(command)
    except ValueError:  # not a command
        return command
    kept = [word for word in words if not word.startswith(("runs_dir=", "cache_dir="))]
    return shlex.join(kept) if len(kept) < len(words) else command


def _of_no_machine(config: str) -> str:
    """A config without the lines that name those directories."""
    return "".join(line for line in config.splitlines(keepends=True) if not line.startswith(_DIRECTORIES))


def _run_line(arm: Arm, run: Run) -> dict[str, object]:
    """One run in the table of runs."""
    summary = run.summary
    machine = summary.get("machine") or {}
    config = _of_no_machine((run.directory / CONFIG).read_text(encoding="utf-8"))
    loss = summary.get("best_validation_loss")
    return {
        "arm": arm.label, "seed": run.seed, "run_id": run.run_id, "config": addresses({CONFIG: config})[CONFIG],
        "command": _portable(str(summary.get("command", ""))),
        "updates": f"{summary['updates']:,}" if summary.get("updates") is not None else NONE,
        "loss": NONE if loss is None else number(loss),
        "wall": duration(summary.get("wall_seconds")),
        "machine": str(machine.get("processor") or machine.get("platform") or NONE),
    }  # fmt: skip


def made_on(runs: Sequence[Run]) -> str:
    """When, by which code, on which machine and with which versions the runs were made; every distinct value."""

    def all_of(read: Callable[[dict[str, Any]], Any]) -> str:
        return " or ".join(sorted({str(read(run.summary)) for run in runs}))

    def machine(summary: dict[str, Any]) -> str:
        known = summary.get("machine") or {}
        return f"{known.get('processor', NONE)}, {known.get('cores', NONE)} cores, {known.get('platform', NONE)}"

    return "; ".join(
        [
            f"finished {all_of(lambda s: str(s.get('finished_at', NONE))[:10])}",
            f"commit {all_of(lambda s: s.get('git_commit') or 'unknown')}",
            all_of(machine),
            f"{all_of(lambda s: s.get('device', NONE))}, {all_of(lambda s: s.get('threads', NONE))} thread(s) a run",
            all_of(lambda s: ", ".join(f"{name} {number}" for name, number in (s.get("versions") or {}).items())),
        ]
    )


def _dropped(arms: Sequence[Arm]) -> list[str]:
    """How many training examples were dropped because they were too long, as the runs counted them."""
    counts = {arm.label: {run.summary.get("dropped", {}).get("train", 0) for run in arm.runs} for arm in arms}
    if not any(any(some) for some in counts.values()):
        return []
    every = set().union(*counts.values())
    if len(every) == 1:
        (count,) = every
        were = "was" if count == 1 else "were"
        return [f"{counted(count, 'training example')} {were} too long and {were} dropped, in every run."]
    each = joined(f"{label} {joined(sorted(some))}" for label, some in counts.items())
    return [f"Training examples that were too long and were dropped: {each}."]


def _about_test(runs: Sequence[Run]) -> list[str]:
    """What the runs say about the rows and tokens of the data, each statement once."""
    said: dict[str, None] = {}  # runs with different vocabularies have different rates of unknown tokens
    for run in runs:
        for split, count in run.summary.get("skipped", {}).items():
            were = "was" if count == 1 else "were"
            said[f"{counted(count, 'row')} of {split} could not be used and {were} skipped."] = None
        if overlap := run.summary.get("overlap"):
            are = "is" if overlap == 1 else "are"
            said[f"{counted(overlap, 'test example')} {are} also in the training set, word for word."] = None
        for side, share in run.summary.get("unknown", {}).get("test", {}).items():
            if share:
                said[f"{share:.2%} of the test's {side} tokens are unknown to the vocabulary."] = None
    return list(said)
