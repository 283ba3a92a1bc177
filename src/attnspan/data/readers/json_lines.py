"""Rows of json lines files: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attnspan.data.readers.lines import read_lines
from attnspan.errors import InputError


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of ``path``; see :func:`attnspan.data.readers.table.read_table`."""
    blank: int | None = None
    for number, line in enumerate(read_lines(path), start=1):
        location = f"{path} line {number}"
        if not line.strip():
            blank = blank or number
            continue
        if blank is not None:  # blank lines at the end of the file are ignored
            raise InputError(f"{path} line {blank}: the line is blank")
        if number == 1 and line.lstrip().startswith("["):
            raise InputError(f"{location}: is a JSON array; json lines have one object per line")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            detail = str(error).splitlines()[0]
            raise InputError(f"{location}: not a JSON object ({detail}); json lines have one object per line") from None
        if not isinstance(row, dict):
            raise InputError(f"{location}: not a JSON object; json lines have one object per line")
        yield location, row
