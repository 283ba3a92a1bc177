"""Rows of csv and tsv files, every cell as text."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from attnspan.data.readers.columns import check_columns
from attnspan.data.readers.lines import read_lines
from attnspan.errors import InputError


def read_csv(
    path: Path, separator: str, *, required: Sequence[str], columns: Sequence[str] | None, quotes: bool
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of ``path``; see :func:`attnspan.data.readers.table.read_table`."""
    records = _records(path, separator, quotes)
    header = "" if columns else ", the header is line 1"
    if columns:
        check_columns(columns, required, "data.columns")
    else:
        _, columns = next(records, (1, []))
        _check_header(columns, required, f"{path} line 1")
    row = 0
    blank: int | None = None
    for line, cells in records:
        if not cells:
            blank = blank or line
            continue
        if blank is not None:  # blank lines at the end of the file are ignored
            raise InputError(f"{path} line {blank}: the line is blank")
        row += 1
        location = f"{path} row {row} (line {line}{header})"
        if len(cells) != len(columns):
            raise InputError(f"{location}: has {len(cells)} cells, but there are {len(columns)} columns")
        yield location, dict(zip(columns, cells, strict=True))


def _records(path: Path, separator: str, quotes: bool) -> Iterator[tuple[int, list[str]]]:
    """(first line, cells) of each record."""
    reader = csv.reader(
        read_lines(path), delimiter=separator, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE, strict=True
    )
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        hint = "; if quotes are ordinary characters, set data.quotes=false" if quotes else ""
        raise InputError(f"{path} line {line}: {error}{hint}") from None


def _check_header(names: Sequence[str], required: Sequence[str], location: str) -> None:
    if names and names[0].lstrip().startswith(("{", "[")):
        raise InputError(f"{location}: looks like JSON; json lines need the ending '.jsonl'")
    check_columns(names, required, f"{location}, the header")
    for column in required:
        if (count := list(names).count(column)) > 1:
            raise InputError(f"{location}, the header: column '{column}' occurs {count} times")
