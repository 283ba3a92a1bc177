"""Rows of json lines, and of a file with one JSON array."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attnspan.data.readers.lines import CARRIAGE_RETURN, decode_lines, has_carriage_return, without_blank_end
from attnspan.data.readers.row import Row
from attnspan.data.readers.table_file import TableFile
from attnspan.errors import InputError


class _RepeatedKeyError(ValueError):
    """An object has two values under one key."""


def read_json(file: TableFile) -> Iterator[Row]:
    """The rows of ``file``: an object in each line, or the objects of an array where the ending is ``.json``.

    Raises:
        InputError: a line holds no JSON object; names it.
    """
    with file.open() as content:
        is_array = file.ending == ".json" and content.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    yield from _read_array(file) if is_array else _read_lines(file)


def _read_lines(file: TableFile) -> Iterator[Row]:
    with file.open() as content:
        texts = enumerate(decode_lines(content, file.name), start=1)
        lines = ((number, line if line.strip() else "") for number, line in texts)
        for number, line in without_blank_end(lines, file.name):
            location = f"{file.name} line {number}"
            if number == 1 and line.lstrip().startswith("["):
                raise InputError(f"{location}: is a JSON array; json lines have one object per line")
            row, problem = None, ""
            try:
                row = json.loads(line, object_pairs_hook=_object)
            except _RepeatedKeyError as error:
                raise InputError(f"{location}: {error}") from None
            except (ValueError, RecursionError) as error:
                problem = f" ({str(error).splitlines()[0]})"
                if has_carriage_return(line):
                    raise InputError(f"{location}: {CARRIAGE_RETURN}") from None
            if not isinstance(row, dict):
                raise InputError(f"{location}: not a JSON object{problem}; json lines have one object per line")
            yield location, row


def _read_array(file: TableFile) -> Iterator[Row]:
    with file.open() as content:
        text = "".join(decode_lines(content, file.name))
    try:
        rows = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file.name}: not readable as JSON ({str(error).splitlines()[0]})") from None
    for number, row in enumerate(rows, start=1):
        location = f"{file.name} row {number}"
        if not isinstance(row, dict):
            raise InputError(f"{location}: not a JSON object")
        yield location, row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise _RepeatedKeyError(f"key '{repeated}' occurs {names.count(repeated)} times in one object")
    return found
