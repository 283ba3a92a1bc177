"""Rows of csv, tsv, json lines and parquet files; the file ending selects the reader."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from attnspan.data.readers.columns import check_columns, top_level_columns
from attnspan.errors import InputError, nearest

_Content = TypeVar("_Content", str, list[str])

Row = tuple[str, dict[str, Any]]
"""The location of a row for error messages (rows count from 1, without the header), and its cells by column."""

SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (*SEPARATORS, ".jsonl", ".parquet")

_OTHER_FORMATS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive (such as a spreadsheet; export it as csv)",
    b"\x1f\x8b": "gzip-compressed data",
    b"PAR1": "a parquet file",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": "UTF-16 text (save it as UTF-8)",
    b"\xfe\xff": "UTF-16 text (save it as UTF-8)",
}
"""First bytes of files that users mistake for a table."""


def read_table(
    path: Path, *, required: Sequence[str], columns: Sequence[str] | None = None, quotes: bool = True
) -> Iterator[Row]:
    """Read the rows of ``path``.

    Args:
        path: a file that passed :func:`check_file`.
        required: columns that must exist.
        columns: names of the columns of a csv or tsv file without a header; None if the first line is the header.
        quotes: whether cells of a csv or tsv file may be enclosed in double quotes.

    Raises:
        InputError: the content is invalid; names the file and, where possible, the row.
    """
    if path.suffix in SEPARATORS:
        return _read_csv(path, required, columns, quotes)
    return _read_json_lines(path) if path.suffix == ".jsonl" else _read_parquet(path, required)


def check_file(path: Path, key: str) -> None:
    """Check the ending and the first bytes of a table, whose config key is ``key``.

    Raises:
        InputError: the file is missing or empty, its ending is unknown, or its content contradicts the ending.
    """
    if path.suffix not in ENDINGS:
        raise InputError(f"{key}: {path}: unknown file ending '{path.suffix}'; {nearest(path.suffix, ENDINGS)}")
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        raise InputError(f"{key}: {path}: no such file") from None
    except OSError as error:
        raise InputError(f"{key}: {path}: cannot be read ({error.strerror})") from error
    if not start:
        raise InputError(f"{key}: {path}: the file is empty")
    if path.suffix == ".parquet" and start.startswith(b"PAR1"):
        return
    for magic, content in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise InputError(f"{key}: {path}: the ending is '{path.suffix}', but the content is {content}")
    if path.suffix == ".parquet":
        raise InputError(f"{key}: {path}: the ending is '.parquet', but the content is not")


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


def _read_csv(path: Path, required: Sequence[str], columns: Sequence[str] | None, quotes: bool) -> Iterator[Row]:
    records = _csv_records(path, quotes)
    header = "" if columns else ", the header is line 1"
    if columns:
        check_columns(columns, required, "data.columns")
    else:
        _, columns = next(records, (1, []))
        _check_header(columns, required, f"{path} line 1")
    for row, (line, cells) in enumerate(_without_blank_end(path, records), start=1):
        location = f"{path} row {row} (line {line}{header})"
        if len(cells) != len(columns):
            raise InputError(f"{location}: has {len(cells)} cells, but there are {len(columns)} columns")
        yield location, dict(zip(columns, cells, strict=True))


def _csv_records(path: Path, quotes: bool) -> Iterator[tuple[int, list[str]]]:
    """(first line, cells) of each record."""
    reader = csv.reader(
        read_lines(path),
        delimiter=SEPARATORS[path.suffix],
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        strict=True,
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


def _read_json_lines(path: Path) -> Iterator[Row]:
    lines = ((number, line if line.strip() else "") for number, line in enumerate(read_lines(path), start=1))
    for number, line in _without_blank_end(path, lines):
        location = f"{path} line {number}"
        if number == 1 and line.lstrip().startswith("["):
            raise InputError(f"{location}: is a JSON array; json lines have one object per line")
        row, problem = None, ""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = f" ({str(error).splitlines()[0]})"
        if not isinstance(row, dict):
            raise InputError(f"{location}: not a JSON object{problem}; json lines have one object per line")
        yield location, row


def _without_blank_end(path: Path, lines: Iterable[tuple[int, _Content]]) -> Iterator[tuple[int, _Content]]:
    """The numbered ``lines`` without empty ones, which are allowed at the end of the file only."""
    blank = 0
    for number, content in lines:
        if not content:
            blank = blank or number
        elif blank:
            raise InputError(f"{path} line {blank}: the line is blank")
        else:
            yield number, content


def _read_parquet(path: Path, required: Sequence[str]) -> Iterator[Row]:
    """The rows of ``path``, with the required columns only."""
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = top_level_columns(file.schema_arrow, required, str(path))
            for batch in file.iter_batches(batch_size=1000, columns=columns):
                for cells in batch.to_pylist():
                    row += 1
                    yield f"{path} row {row}", cells
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a complete parquet file ({str(error).splitlines()[0]})") from error
