"""Rows of csv and tsv files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from attnspan.data.readers.columns import check_columns
from attnspan.data.readers.lines import CARRIAGE_RETURN, decode_lines, without_blank_end
from attnspan.data.readers.row import Row
from attnspan.data.readers.table_file import SEPARATORS, TableFile
from attnspan.errors import InputError

LONGEST_CELL = 2**27
"""Characters; the limits of the corpus decide about shorter ones."""

csv.field_size_limit(LONGEST_CELL)

_NOT_QUOTES = "if quotes are ordinary characters, set data.quotes=false"
_NAMES = {"\t": "tabs", ",": "','", ";": "';'", "|": "'|'"}
"""Separators, as messages call them."""


@dataclass(frozen=True, kw_only=True)
class CsvFormat:
    """How cells are written."""

    separator: str | None = None
    """Between cells; None for the one that the file ending says."""
    columns: Sequence[str] | None = None
    """Names of the columns of a file without a header; None if the first line is the header."""
    quotes: bool = True
    """Whether cells may be enclosed in double quotes."""


def read_csv(
    file: TableFile, required: Sequence[str], csv_format: CsvFormat, remark: Callable[[str], None]
) -> Iterator[Row]:
    """The rows of ``file``.

    Raises:
        InputError: a required column is missing, or a row cannot be read; names its line.
    """
    separator = csv_format.separator or SEPARATORS[file.ending]
    with file.open() as content:
        records = _records(decode_lines(content, file.name), file.name, separator, csv_format.quotes, remark)
        columns, header = csv_format.columns, ""
        if columns:
            check_columns(columns, required, "data.columns")
        else:
            _, columns = next(records, (1, []))
            _check_header(columns, required, f"{file.name} line 1", separator)
            header = ", the header is line 1"
        for row, (line, cells) in enumerate(without_blank_end(records, file.name), start=1):
            location = f"{file.name} row {row} (line {line}{header})"
            if len(cells) != len(columns):
                cells_there = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
                hint = _other_separator(cells, len(columns), separator)
                raise InputError(f"{location}: has {cells_there}, but there are {len(columns)} columns{hint}")
            yield location, dict(zip(columns, cells, strict=True))


def _records(
    lines: Iterator[str], name: str, separator: str, quotes: bool, remark: Callable[[str], None]
) -> Iterator[tuple[int, list[str]]]:
    """(first line, cells) of each record."""
    reader = csv.reader(
        lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE, strict=True
    )
    line, long_ones, first = 1, 0, ""
    try:
        for cells in reader:
            if reader.line_num > line:
                if separator == "\t" and any("\t" in cell and "\n" in cell for cell in cells):
                    problem = f"a cell that begins with a quote holds tabs and runs to line {reader.line_num}"
                    raise InputError(f"{name} line {line}: {problem}; {_NOT_QUOTES}")
                long_ones, first = long_ones + 1, first or f"lines {line} to {reader.line_num}"
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{name} line {line}: {_explain(str(error), quotes)}") from None
    if long_ones == 1:
        remark(f"the quoted text of {first} is one row; {_NOT_QUOTES}")
    elif long_ones:
        remark(f"{long_ones} rows have quoted text of several lines, the first at {first}; {_NOT_QUOTES}")


def _explain(problem: str, quotes: bool) -> str:
    """What csv's own words mean."""
    if "new-line character" in problem:
        return CARRIAGE_RETURN
    if "field limit" in problem:
        return f"a cell has more than {LONGEST_CELL:,} characters"
    if "unexpected end" in problem:
        problem = "a cell begins with a quote, and the file ends before the quote that closes it"
    elif "expected after" in problem:
        problem = "text follows the quote that closes a cell"
    return f"{problem}; {_NOT_QUOTES}" if quotes else problem


def _check_header(names: Sequence[str], required: Sequence[str], location: str, separator: str) -> None:
    if names and names[0].lstrip().startswith(("{", "[")):
        raise InputError(f"{location}: looks like JSON; json lines need the ending '.jsonl'")
    if not set(required) <= set(names) and len(names) == 1:
        for other in _NAMES.keys() - {separator}:
            if set(required) <= {name.strip().strip('"') for name in names[0].split(other)}:
                raise InputError(f"{location}, the header: {_separated_by(other, separator)}")
    check_columns(names, required, f"{location}, the header")
    for column in required:
        if (count := list(names).count(column)) > 1:
            raise InputError(f"{location}, the header: column '{column}' occurs {count} times")


def _other_separator(cells: Sequence[str], columns: int, separator: str) -> str:
    """The hint that a line has another separator, where it then has the right number of cells."""
    if len(cells) == 1:
        for other in sorted(_NAMES.keys() - {separator}):
            if cells[0].count(other) == columns - 1:
                return f"; {_separated_by(other, separator)}"
    return ""


def _separated_by(found: str, needed: str) -> str:
    """Words for a file with another separator than its ending says."""
    right_ending = {separator: ending for ending, separator in SEPARATORS.items()}.get(found)
    rename = f", or the ending {right_ending}" if right_ending else ""
    return f"cells are separated by {_NAMES[found]}, and this file needs {_NAMES.get(needed, repr(needed))}{rename}"
