"""Lines of text, decoded one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from attnspan.errors import InputError

_Content = TypeVar("_Content", str, list[str])

CARRIAGE_RETURN = (
    "a carriage return (byte 0x0d) stands inside the line; end lines with a line feed (0x0a), alone or after it"
)


def decode_lines(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Lines with their line ends, decoded one by one so that an error names its line; a byte order mark is skipped.

    Args:
        lines: of UTF-8.
        name: of the file, for error messages.

    Raises:
        InputError: a line is not valid UTF-8.
    """
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
            raise InputError(f"{name} line {number}: not valid UTF-8 ({byte})") from None


def has_carriage_return(line: str) -> bool:
    """Whether a carriage return stands inside ``line``, and not at its end."""
    return "\r" in line.rstrip("\r\n")


def without_blank_end(lines: Iterable[tuple[int, _Content]], name: str) -> Iterator[tuple[int, _Content]]:
    """The numbered ``lines`` without empty ones, which are allowed at the end only.

    Raises:
        InputError: an empty line is followed by another one.
    """
    blank = 0
    for number, content in lines:
        if not content:
            blank = blank or number
        elif blank:
            raise InputError(f"{name} line {blank}: the line is blank")
        else:
            yield number, content
