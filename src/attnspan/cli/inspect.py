"""``attnspan-inspect``: decode sources with a finished run and draw the attention."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.text import Text

from attnspan.cli.console import Parser, add_trusted, command, only_run, open_console
from attnspan.data.readers.lines import CARRIAGE_RETURN, decode_lines, has_carriage_return, without_blank_end
from attnspan.data.white_space import strip
from attnspan.errors import InputError
from attnspan.reporting.heatmap_text import lines
from attnspan.runs.attention_maps import AttentionMap
from attnspan.runs.finished_run import Run, read_run

if TYPE_CHECKING:
    from attnspan.evaluation.loaded_run import Hypothesis


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A source to decode."""

    name: str
    """The name of its plots."""
    source: str
    reference: str | None = None
    """The expected output, where it is known."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="attnspan-inspect",
        description="Decode sources with a finished run. Prints each output with its attention map, and writes the map "
        "as PNG and SVG. Row t shows the weights that produced output token t; <eos> has no row.",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run directory, or a directory above one run")
    add("sources", nargs="*", metavar="SOURCE", help="a text to decode (default: each line of standard input)")
    add(
        "--examples", type=int, metavar="N",
        help="decode N examples of the run's test split instead, evenly spread by length from shortest to longest",
    )  # fmt: skip
    add("--beam-size", type=int, metavar="K", help="decode with a beam of size K (default: the decoding of the run)")
    add("--heads", action="store_true", help="draw the map of each head, too, where attention has several")
    add("--out", metavar="DIR", help="directory of the plots (default: inspect/<run id> in the working directory)")
    add_trusted(parser)
    return parser


@command("attnspan-inspect")
def main(arguments: list[str]) -> None:
    """Decode, print and plot."""
    options = _parser().parse_intermixed_args(arguments)
    beam_size = options.beam_size
    if beam_size is not None and beam_size < 1:
        raise InputError(f"--beam-size {beam_size}: must be at least 1")
    run = read_run(only_run(Path(options.run)))
    subjects = _subjects(run, options.sources, options.examples)
    # torch takes seconds to import: it is needed from here on
    from attnspan.evaluation.loaded_run import UnknownTokensWarning, load_run, weights_of_heads

    loaded = load_run(run.directory, trusted=options.trusted)
    with warnings.catch_warnings(action="ignore", category=UnknownTokensWarning):  # told below, for each source
        hypotheses = loaded.decode([subject.source for subject in subjects], beam_size=beam_size)
    for subject, hypothesis in zip(subjects, hypotheses, strict=True):
        if unknown := dict.fromkeys(hypothesis.unknown_tokens):
            print(f"{subject.name}: not in the source vocabulary: {' '.join(map(repr, unknown))}", file=sys.stderr)

    title = [run.arm, str(run.summary["data"]), f"seed {run.seed}", f"run {run.run_id}"]
    title += [] if beam_size is None else [f"beam {beam_size}"]
    out = Path(options.out) if options.out is not None else Path("inspect", _file_name(run.run_id))
    show = open_console()
    print_line(show, ", ".join(title))
    for subject, hypothesis in zip(subjects, hypotheses, strict=True):
        print_words(show, subject, hypothesis)
        if not hypothesis.tokens:
            print_line(show, "the output is empty: there is no map")
        elif hypothesis.weights is not None:
            apart = weights_of_heads(loaded, subject.source, hypothesis) if options.heads else None
            maps = [hypothesis.weights, *([] if apart is None else apart)]
            for head, weights in enumerate(maps):  # the first is their mean
                name, words = (f"{subject.name}-head-{head}", f"head {head}") if head else (subject.name, "")
                heatmap = AttentionMap(
                    source=hypothesis.source_tokens, output=hypothesis.tokens, weights=weights.numpy()
                )
                if words:
                    print_line(show, f"\n{words}")
                for line in lines(heatmap, show):
                    show.print(line, soft_wrap=True)
                for plot in _plots(heatmap, out / name, [*title, *([words] if words else [])]):
                    print_line(show, f"plot: {plot}")
    if any(hypothesis.tokens and hypothesis.weights is None for hypothesis in hypotheses):
        print_line(show, f"\n{run.arm} has no attention weights: there is no map")


def print_line(show: Console, text: str) -> None:
    """Print ``text`` unchanged, without wrapping it."""
    show.print(Text(text), soft_wrap=True)


def print_words(show: Console, subject: Subject, hypothesis: Hypothesis) -> None:
    """Print the source, the reference and the output below each other."""
    reference = "" if subject.reference is None else f"reference  {subject.reference}\n"
    print_line(show, f"\nsource     {subject.source}\n{reference}output     {hypothesis.text}")
    cut = ", cut at the length limit" if hypothesis.truncated else ""
    print_line(show, f"log p      {hypothesis.log_prob:.3f} nats{cut}\n")


def _subjects(run: Run, sources: Sequence[str], examples: int | None) -> list[Subject]:
    if examples is not None:
        if sources:
            raise InputError("give either sources or --examples, not both")
        return list(_examples(run, examples))
    return [
        Subject(name=_file_name(f"{number} {source}"), source=_readable(number, source))
        for number, source in enumerate(sources or _standard_input(), start=1)
    ]


def _examples(run: Run, count: int) -> Iterator[Subject]:
    """Different test examples, evenly spread by length, from the shortest to the longest."""
    records, available = run.records, len(run.records)
    if not 1 <= count <= available:
        raise InputError(
            f"--examples {count}: the test split of {run.directory} has {available} examples; give 1 to {available}"
        )
    lengths = records["source_length"].to_numpy(dtype=np.float64)  # ascending
    rows = []
    for length in np.linspace(lengths[0], lengths[-1], count):
        rows.append(int(np.abs(lengths - length).argmin()))
        lengths[rows[-1]] = np.inf  # taken
    for row in sorted(rows):
        example = records.iloc[row]
        yield Subject(name=_file_name(example["example_id"]), source=example["source"], reference=example["reference"])


def _file_name(text: str) -> str:
    """The letters and digits of ``text`` that are allowed in file names everywhere."""
    return "-".join(re.findall("[A-Za-z0-9]+", text))[:40]


def _standard_input() -> list[str]:
    """The lines of standard input."""
    if sys.stdin.isatty():
        raise InputError("no source: give sources, or --examples N, or one source per line on standard input")
    name = "standard input"
    lines = (line.rstrip("\r\n") for line in decode_lines(sys.stdin.buffer, name))
    numbered = ((number, line if strip(line) else "") for number, line in enumerate(lines, start=1))
    sources = []
    for number, line in without_blank_end(numbered, name):
        if has_carriage_return(line):
            raise InputError(f"{name} line {number}: {CARRIAGE_RETURN}")
        sources.append(line)
    if not sources:
        raise InputError(f"{name}: has no source")
    return sources


def _readable(number: int, source: str) -> str:
    """The source, if it is text: a shell hands over any bytes."""
    try:
        source.encode()
    except UnicodeEncodeError:
        raise InputError(f"source {number}: {source!r} is not valid UTF-8") from None
    return source


def _plots(heatmap: AttentionMap, stem: Path, title: Sequence[str]) -> Iterator[Path]:
    """Write the map as PNG and SVG."""
    from attnspan.reporting.heatmap_figure import draw, save  # matplotlib is only needed for runs with weights

    figure = draw(heatmap, title=title)
    for suffix in (".png", ".svg"):
        path = stem.with_name(stem.name + suffix)
        save(figure, path)
        yield path


if __name__ == "__main__":
    sys.exit(main())
