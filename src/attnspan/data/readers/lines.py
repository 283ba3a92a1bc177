"""Lines of text files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attnspan.errors import InputError


def read_lines(path: Path) -> Iterator[str]:
    """Lines with their line ends, decoded one by one so that an error names its line; a byte order mark is skipped.

    Raises:
        InputError: a line is not valid UTF-8.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
                raise InputError(f"{path} line {number}: not valid UTF-8 ({byte})") from None
