"""``attnspan-predict``: decode lines of text with a finished run, in their order, while they come."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from attnspan.cli.console import Parser, add_trusted, command, only_run
from attnspan.data.readers.lines import CARRIAGE_RETURN, decode_lines, without_blank_end
from attnspan.errors import InputError, SettingError
from attnspan.files import cannot_write
from attnspan.runs.completeness import why_unfinished
from attnspan.runs.layout import is_evaluation

if TYPE_CHECKING:
    from attnspan.evaluation.loaded_run import Hypothesis, LoadedRun

_SHOWN = 5
"""The most unknown symbols that are named."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="attnspan-predict",
        description="Decode each line of standard input, a text or the path of an image, with a finished run, and "
        "print one hypothesis a line. What the run does not know, and what was cut, is counted on standard error.",
        epilog="attnspan-predict RUN --beam 5 < sources.txt > hypotheses.txt",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run directory, or a directory above one run")
    add("--beam", type=_count, metavar="K", help="decode with a beam of size K (default: the decoding of the run)")
    add(
        "--n-best", type=_count, metavar="N",
        help="the N best hypotheses of each source: lines of its number, log p and hypothesis, separated by tabs",
    )  # fmt: skip
    add("--jsonl", action="store_true", help="one JSON object a line: source, hypothesis, tokens, log_prob, truncated")
    add("--output", metavar="FILE", help="write to this file, when all is decoded (default: standard output)")
    add("--batch-size", type=_count, default=64, metavar="N", help="sources that are decoded together (default: 64)")
    add("--device", help="of the model, such as cpu or cuda (default: a GPU if there is one)")
    add_trusted(parser)
    return parser


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {word}")
    return int(word)


@command("attnspan-predict")
def main(arguments: list[str]) -> None:
    """Decode standard input."""
    options = _parser().parse_args(arguments)
    directory = only_run(Path(options.run))
    if is_evaluation(directory):
        raise InputError(f"{directory}: is an evaluation; give its run, {directory.parents[1]}")
    if why := why_unfinished(directory):
        raise InputError(f"{directory}: is not finished ({why})")
    import torch  # takes seconds

    from attnspan.evaluation.loaded_run import UnknownTokensWarning, load_run

    warnings.filterwarnings("ignore", category=UnknownTokensWarning)  # they are counted, and told at the end
    run = load_run(directory, trusted=options.trusted)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        run.model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device}: {str(error).splitlines()[0]}") from error
    counts = Counts()
    batch_size = 1 if sys.stdin.isatty() else options.batch_size
    try:
        with _opened(options.output) as out:
            for line in predictions(run, sys.stdin.buffer, options, counts, batch_size=batch_size):
                print(line, file=out)
                if out is sys.stdout and batch_size == 1:
                    out.flush()
            out.flush()
    except BrokenPipeError:  # nobody reads any more (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        for remark in counts.remarks():
            print(remark, file=sys.stderr)


@dataclass
class Counts:
    """What is said at the end."""

    sources: int = 0
    tokens: int = 0
    """Of the sources."""
    unknown: Counter[str] = field(default_factory=Counter)
    first_unknown: int | None = None
    """The line of the first unknown symbol."""
    cut: int = 0
    """Hypotheses that reached the length limit."""

    def remarks(self) -> Iterator[str]:
        """One line each."""
        if self.unknown:
            shown = ", ".join(f"{symbol!r} ({count})" for symbol, count in self.unknown.most_common(_SHOWN))
            more = f" and {len(self.unknown) - _SHOWN} others" if len(self.unknown) > _SHOWN else ""
            what = f"{self.unknown.total():,} of {self.tokens:,} source tokens are not in the run's vocabulary"
            yield f"{what}: {shown}{more}; the first in line {self.first_unknown}"
        if self.cut:
            yield f"{self.cut:,} of {self.sources:,} hypotheses were cut at the length limit"


def predictions(
    run: LoadedRun, stream: BinaryIO, options: argparse.Namespace, counts: Counts, *, batch_size: int
) -> Iterator[str]:
    """The lines to print, in the order of the sources.

    Raises:
        InputError: a line is no source; what comes before it has been decoded.
    """
    sources = _sources(run, stream, counts)
    number = 0
    while True:
        batch, failure = _take(sources, batch_size)
        try:
            decoded = run.decode(batch, beam_size=options.beam, n_best=options.n_best or 1) if batch else []
        except SettingError as error:
            raise InputError(f"--n-best {options.n_best}: {error.problem}") from error
        for source, hypotheses in zip(batch, decoded, strict=True):
            number += 1
            counts.cut += hypotheses[0].truncated
            if options.jsonl:
                yield _as_json(source, hypotheses, n_best=options.n_best is not None)
            elif options.n_best is None:
                yield _one_line(hypotheses[0].text)
            else:
                yield from (f"{number}\t{one.log_prob:.4f}\t{_one_line(one.text)}" for one in hypotheses)
        if failure is not None:
            raise failure
        if not batch:
            return


def _take(sources: Iterable[str], most: int) -> tuple[list[str], InputError | None]:
    """The next sources, and the error that ended them early."""
    taken: list[str] = []
    try:
        for source in itertools.islice(sources, most):
            taken.append(source)
    except InputError as error:
        return taken, error
    return taken, None


def _sources(run: LoadedRun, stream: BinaryIO, counts: Counts) -> Iterator[str]:
    """The lines without their ends, of images their paths; blank ones are allowed at the end only."""
    name = "standard input"
    lines = enumerate((_without_end(line) for line in decode_lines(stream, name)), start=1)
    for number, text in without_blank_end(lines, name):
        if "\r" in text:
            raise InputError(f"{name} line {number}: {CARRIAGE_RETURN}")
        encoded = run.encode(text, f"{name} line {number}")
        unknown = encoded.unknown
        if unknown and counts.first_unknown is None:
            counts.first_unknown = number
        counts.unknown.update(unknown)
        counts.tokens += encoded.length
        counts.sources += 1
        yield text


def _without_end(line: str) -> str:
    """A line without its end."""
    return line.removesuffix("\n").removesuffix("\r")


def _as_json(source: str, hypotheses: list[Hypothesis], *, n_best: bool) -> str:
    found = [_fields(one) for one in hypotheses]
    content: dict[str, Any] = {"source": source, **found[0]} | ({"n_best": found} if n_best else {})
    return json.dumps(content, ensure_ascii=False)


def _fields(one: Hypothesis) -> dict[str, Any]:
    return {"hypothesis": one.text, "tokens": one.tokens, "log_prob": one.log_prob, "truncated": one.truncated}


def _one_line(text: str) -> str:
    """The text with its line breaks written out: hypotheses are one a line."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


@contextmanager
def _opened(output: str | None) -> Iterator[TextIO]:
    """Standard output, or a file that is there only when all of it is written.

    Raises:
        InputError: it cannot be written.
    """
    if output is None:
        yield sys.stdout
        return
    path = Path(output)
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                yield file  # type: ignore[misc]
                file.close()
                temporary.chmod(0o644)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


if __name__ == "__main__":
    sys.exit(main())
