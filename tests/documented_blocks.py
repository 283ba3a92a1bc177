"""The code blocks of README and docs, carried out in an empty folder, commands in this process.

A page supposes that the runs of a small study are there: `RUN` is one of them, and the lists under `runs/` name all. A
block may be preceded by a tag that says why it is not carried out as printed:

    <!-- dry run: WHY -->   with dry_run=true, so every key, file and value in it is checked, and nothing is trained
    <!-- not run: WHY -->   not at all

A block is written to a file where it is preceded by <!-- file: PATH -->, or begins with a comment that is a path.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs" / "tutorials").glob("*.md"), *(ROOT / "docs" / "how-to").glob("*.md")]
)
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
_BLOCK = re.compile(r"(?:<!-- (not run|dry run|file): (.*?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL = ("printf", "tee", "ls", "head")
"""Programs that a block may use, which every machine has."""


@dataclass(frozen=True)
class Block:
    """A code block."""

    language: str
    text: str
    tag: str
    """``dry run``, ``not run``, ``file`` or empty."""
    why: str
    """Or the path of the file."""


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of a page, but for those that show output."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(language, text, tag, why) for tag, why, language, text in found if language != "text"]


class Reader:
    """Does what a page says, in the working directory."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._names: dict[str, object] = {}

    def follow(self, block: Block) -> None:
        """Carry out one block."""
        text = re.sub(r"\bRUN\b", self._run.as_posix(), block.text)
        named = re.match(r"# ([\w./]+\.(?:py|yaml))\n", text)
        if block.tag == "file" or named:
            path = Path(block.why if block.tag == "file" else named[1])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(text, "block", "exec"), self._names)
        elif block.language == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                if line.strip():
                    carry_out(line, dry=block.tag == "dry run")
        else:
            raise AssertionError(f"a block of {block.language or 'no language'}: {text}")


def carry_out(line: str, *, dry: bool) -> None:
    """One line of the shell."""
    words = shlex.split(line, comments=True)
    places = []
    while words and re.match(r"PYTHONPATH=", words[0]):
        places.append(str(Path(words.pop(0).partition("=")[2]).absolute()))
    if not words:
        return
    if words[0] in _SHELL:
        subprocess.run(line, shell=True, check=True)
        return
    assert words[0] in COMMANDS, f"no command of attnspan, and not tagged: {line}"
    with contextlib.ExitStack() as stack:
        name, *arguments = _redirected(words, stack)
        if dry:
            assert name in ("attnspan-train", "attnspan-evaluate"), f"has no dry_run: {line}"
            arguments.append("dry_run=true")
        stack.enter_context(_python_path(places))
        code = call(name, arguments)
    assert code == 0, line


def _redirected(words: list[str], stack: contextlib.ExitStack) -> list[str]:
    """The words but for redirections, which are made."""
    left = []
    waiting = iter(words)
    for word in waiting:
        if word == "<":
            stream = io.TextIOWrapper(io.BytesIO(Path(next(waiting)).read_bytes()), encoding="utf-8")
            before, sys.stdin = sys.stdin, stream
            stack.callback(setattr, sys, "stdin", before)
        elif word == ">":
            file = stack.enter_context(Path(next(waiting)).open("w", encoding="utf-8"))  # noqa: SIM115 - it is
            stack.enter_context(contextlib.redirect_stdout(file))
        else:
            left.append(word)
    return left


@contextlib.contextmanager
def _python_path(places: list[str]) -> Iterator[None]:
    """Python finds modules in ``places`` for the time of one command."""
    modules = set(sys.modules)
    sys.path[:0] = places
    try:
        yield
    finally:
        del sys.path[: len(places)]
        for name in set(sys.modules) - modules:
            path = getattr(sys.modules[name], "__file__", None) or ""
            if any(path.startswith(place) for place in places):
                del sys.modules[name]


def call(name: str, arguments: list[str]) -> int:
    """What the command returns to the shell."""
    module, _, function = COMMANDS[name].partition(":")
    before, sys.argv = sys.argv, [name, *arguments]
    try:
        return int(getattr(import_module(module), function)() or 0)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
