"""``attnspan-inspect``: decode sources with finished runs and draw the attention."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from attnspan.cli.console import Parser, add_trusted, command, open_console
from attnspan.data.readers.lines import CARRIAGE_RETURN, decode_lines, has_carriage_return, without_blank_end
from attnspan.data.white_space import strip
from attnspan.errors import InputError
from attnspan.evaluation.decoded_again import given_in
from attnspan.reporting.heatmap_text import lines
from attnspan.reporting.pictures.text import picture_lines
from attnspan.runs.attention_maps import AttentionMap
from attnspan.runs.finished_run import Run, read_run
from attnspan.runs.layout import trained_runs
from attnspan.runs.run_lists import read_list

if TYPE_CHECKING:
    from attnspan.evaluation.loaded_run import Hypothesis, LoadedRun


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A source to decode."""

    name: str
    """The name of its plots."""
    source: str
    reference: str | None = None
    """The expected output, where it is known."""
    example_id: str | None = None
    """Of an example of the test split."""
    given: Mapping[int, str] | None = None
    """Target tokens that the decoder is given, by position; None for a source alone."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A run that is inspected."""

    run: Run
    loaded: LoadedRun
    title: list[str]
    out: Path
    """The directory of its plots."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="attnspan-inspect",
        description="Decode sources, texts or images, with finished runs. Prints each output with its attention map, "
        "and writes the map as PNG and SVG. Row t shows the weights that produced output token t; <eos> has no row.",
    )
    add = parser.add_argument
    add(
        "words", nargs="+", metavar="RUN|SOURCE",
        help="run directories, directories above some, or @FILE that lists them; then texts to decode, or paths of "
        "images (default: each line of standard input, for which a terminal prompts)",
    )  # fmt: skip
    add(
        "--examples", type=int, metavar="N",
        help="decode N examples of the run's test split instead, evenly spread by length from shortest to longest",
    )  # fmt: skip
    add("--beam-size", type=int, metavar="K", help="decode with a beam of size K (default: the decoding of the run)")
    add("--heads", action="store_true", help="draw the map of each head, too, where attention has several")
    add(
        "--out", metavar="DIR",
        help="directory of the plots, with one below it for each run if there are several (default: inspect/<run id> "
        "in the working directory)",
    )  # fmt: skip
    add_trusted(parser)
    return parser


@command("attnspan-inspect")
def main(arguments: list[str]) -> None:
    """Decode, print and plot."""
    options = _parser().parse_intermixed_args(arguments)
    if options.beam_size is not None and options.beam_size < 1:
        raise InputError(f"--beam-size {options.beam_size}: must be at least 1")
    paths, sources = _told_apart(options.words)
    runs = [read_run(directory) for directory in trained_runs(paths)]
    prompts = options.examples is None and not sources and sys.stdin.isatty()
    subjects = [] if prompts else _subjects(runs, sources, options.examples)
    # torch takes seconds to import: it is needed from here on
    from attnspan.evaluation.loaded_run import load_run

    opened = [
        Opened(
            run=run, loaded=load_run(run.directory, trusted=options.trusted), title=_title(run, options.beam_size),
            out=_plot_directory(run, options.out, len(runs)),
        )
        for run in runs
    ]  # fmt: skip
    show = open_console()
    for one, its in zip(opened, subjects, strict=not prompts):
        _inspect(one, its, options, show)
    if prompts:
        for subject in _prompted():
            for one in opened:
                try:
                    _inspect(one, [subject], options, show)
                except InputError as error:
                    print(error, file=sys.stderr)


def _inspect(one: Opened, subjects: Sequence[Subject], options: argparse.Namespace, show: Console) -> None:
    """Decode with one run, and print and plot what it looks at."""
    from attnspan.evaluation.loaded_run import UnknownTokensWarning

    with warnings.catch_warnings(action="ignore", category=UnknownTokensWarning):  # told below, for each source
        sources = _sources(one, subjects, options.trusted)
        given = [subject.given for subject in subjects if subject.given is not None] or None
        hypotheses = one.loaded.decode(sources, given=given, beam_size=options.beam_size)
    for subject, hypothesis in zip(subjects, hypotheses, strict=True):
        if unknown := dict.fromkeys(hypothesis.unknown_tokens):
            print(f"{subject.name}: not in the source vocabulary: {' '.join(map(repr, unknown))}", file=sys.stderr)
    print_line(show, ", ".join(one.title))
    for subject, source, hypothesis in zip(subjects, sources, hypotheses, strict=True):
        print_words(show, subject, hypothesis)
        if not hypothesis.tokens:
            print_line(show, "the output is empty: there is no map")
        elif hypothesis.weights is not None:
            _draw(one, subject.name, source, hypothesis, options, show)
    if any(hypothesis.tokens and hypothesis.weights is None for hypothesis in hypotheses):
        print_line(show, f"\n{one.run.arm} has no attention weights: there is no map")


def _draw(
    one: Opened, stem: str, source: Any, hypothesis: Hypothesis, options: argparse.Namespace, show: Console
) -> None:
    """Draw the map of a hypothesis, and with ``--heads`` that of each head; ``stem`` begins the names of the plots."""
    from attnspan.evaluation.loaded_run import weights_of_heads

    assert hypothesis.weights is not None
    apart = weights_of_heads(one.loaded, source, hypothesis) if options.heads else None
    maps = [hypothesis.weights, *([] if apart is None else apart)]
    for head, weights in enumerate(maps):  # the first is their mean
        name, words = (f"{stem}-head-{head}", f"head {head}") if head else (stem, "")
        heatmap = AttentionMap(
            source=hypothesis.source_tokens, output=hypothesis.tokens, weights=weights.numpy(),
            picture=hypothesis.picture,
        )  # fmt: skip
        if words:
            print_line(show, f"\n{words}")
        for line in (lines if heatmap.picture is None else picture_lines)(heatmap, show):
            show.print(line, soft_wrap=True)
        for plot in _plots(heatmap, one.out / name, [*one.title, *([words] if words else [])]):
            print_line(show, f"plot: {plot}")


def _told_apart(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The runs, at least one, and the sources, which begin with the first word that is no directory and no list."""
    paths: list[Path] = []
    for at, word in enumerate(words):
        if word.startswith("@") and (not at or Path(word[1:]).is_file()):
            paths += map(Path, read_list(Path(word[1:])))
        elif not at or Path(word).is_dir():
            paths.append(Path(word))
        else:
            return paths, list(words[at:])
    return paths, []


def _title(run: Run, beam_size: int | None) -> list[str]:
    title = [run.arm, str(run.summary["data"]), f"seed {run.seed}", f"run {run.run_id}"]
    return title if beam_size is None else [*title, f"beam {beam_size}"]


def _plot_directory(run: Run, given: str | None, runs: int) -> Path:
    own = _file_name(run.run_id)
    if given is None:
        return Path("inspect", own)
    return Path(given, own) if runs > 1 else Path(given)


def _prompted() -> Iterator[Subject]:
    """Sources that a person types, until an empty line or Ctrl-D."""
    print("A source a line; an empty line ends.", file=sys.stderr)
    for number in itertools.count(1):
        try:
            source = input("source> ")
        except EOFError:
            print(file=sys.stderr)
            return
        if not strip(source):
            return
        yield Subject(name=_file_name(f"{number} {source}"), source=source)


def print_line(show: Console, text: str) -> None:
    """Print ``text`` unchanged, without wrapping it."""
    show.print(Text(text), soft_wrap=True)


def print_words(show: Console, subject: Subject, hypothesis: Hypothesis) -> None:
    """Print the source, the reference and the output below each other."""
    reference = "" if subject.reference is None else f"reference  {subject.reference}\n"
    print_line(show, f"\nsource     {subject.source}\n{reference}output     {hypothesis.text}")
    cut = ", cut at the length limit" if hypothesis.truncated else ""
    print_line(show, f"log p      {hypothesis.log_prob:.3f} nats{cut}\n")


def _subjects(runs: Sequence[Run], sources: Sequence[str], examples: int | None) -> list[list[Subject]]:
    """What to decode with each run: the same texts, or examples of its own test."""
    if examples is not None:
        if sources:
            raise InputError("give either sources or --examples, not both")
        return [list(_examples(run, examples)) for run in runs]
    same = [
        Subject(name=_file_name(f"{number} {source}"), source=_readable(number, source))
        for number, source in enumerate(sources or _standard_input(), start=1)
    ]
    return [same] * len(runs)


def _sources(one: Opened, subjects: Sequence[Subject], trusted: Sequence[str]) -> list[Any]:
    """What the run decodes: texts, or paths of images, or the images of its examples."""
    from attnspan.data.images.reader import ImageReader
    from attnspan.evaluation.prepared_test import kept_images

    ids = [subject.example_id for subject in subjects if subject.example_id is not None]
    if ids and isinstance(one.loaded.source_tokenizer, ImageReader):
        return kept_images(one.run, ids, trusted)
    return [subject.source for subject in subjects]


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
    chosen = records.iloc[sorted(rows)]
    fed: Sequence[Mapping[int, str] | None] = given_in(chosen) or [None] * len(rows)
    for example, given in zip(chosen.itertuples(), fed, strict=True):
        name = str(example.example_id)
        yield Subject(
            name=_file_name(name),
            source=str(example.source),
            reference=str(example.reference),
            example_id=name,
            given=given,
        )


def _file_name(text: str) -> str:
    """The letters and digits of ``text`` that are allowed in file names everywhere."""
    return "-".join(re.findall("[A-Za-z0-9]+", text))[:40]


def _standard_input() -> list[str]:
    """The lines of standard input."""
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
