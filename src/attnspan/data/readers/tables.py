"""Rows of csv, tsv, json lines and parquet files, read strictly and a little at a time.

A reader gives (where, row) pairs: ``where`` names the file and row for an error line, ``row`` maps column to cell.
Rows count from 1, and the header is no row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attnspan.data.readers.cells import check_columns, check_schema
from attnspan.errors import InputError, nearest

Rows = Iterator[tuple[str, dict[str, Any]]]

_FOREIGN = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive (a spreadsheet is one; export it as csv)",
    b"\x1f\x8b": "compressed with gzip",
    b"PAR1": "a parquet file",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": "UTF-16 text (save it as UTF-8)",
    b"\xfe\xff": "UTF-16 text (save it as UTF-8)",
}


def read_table(path: Path, *, wanted: Sequence[str], names: Sequence[str] | None, quotes: bool) -> Rows:
    """The rows of ``path``, by its ending.

    Args:
        path: a file whose ending :func:`check_file` knows.
        wanted: columns that must be there.
        names: of the columns of a csv or tsv without a header line; None where the first line is the header.
        quotes: cells of a csv or tsv may stand in double quotes.

    Raises:
        InputError: names the file and, where there is one, the row.
    """
    if path.suffix in _SEPARATORS:
        return _separated(path, _SEPARATORS[path.suffix], wanted=wanted, names=names, quotes=quotes)
    return _READERS[path.suffix](path, wanted)


def check_file(path: Path, key: str) -> None:
    """Refuse what can be seen from outside to be no table.

    Args:
        path: the file.
        key: what it is called in the config.

    Raises:
        InputError: no such file, an empty one, an ending that is not known, or content that belies the ending.
    """
    if path.suffix not in ENDINGS:
        raise InputError(f"{key}: {path} ends in '{path.suffix}', which is not read; {nearest(path.suffix, ENDINGS)}")
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        raise InputError(f"{key}: {path}: no such file") from None
    except OSError as error:
        raise InputError(f"{key}: {path}: cannot be read ({error.strerror})") from error
    if not start:
        raise InputError(f"{key}: {path}: the file is empty")
    for magic, kind in _FOREIGN.items():
        if start.startswith(magic) and not (path.suffix == ".parquet" and magic == b"PAR1"):
            raise InputError(f"{key}: {path}: not what its ending '{path.suffix}' says, but {kind}")
    if path.suffix == ".parquet" and not start.startswith(b"PAR1"):
        raise InputError(f"{key}: {path}: not what its ending '.parquet' says")


def read_lines(path: Path) -> Iterator[str]:
    """Lines with their ends, decoded one by one so that an error can name its line; a byte order mark is skipped.

    Raises:
        InputError: a line is no UTF-8.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
                raise InputError(f"{path} line {number}: not valid UTF-8 ({byte})") from None


def _separated(path: Path, separator: str, *, wanted: Sequence[str], names: Sequence[str] | None, quotes: bool) -> Rows:
    records = _records(path, separator, quotes)
    header = "" if names else ", the header is line 1"
    if names:
        check_columns(names, wanted, "data.columns")
    else:
        _, names = next(records, (1, []))
        _check_header(names, wanted, f"{path} line 1")
    row = 0
    blank: int | None = None
    for line, cells in records:
        if not cells:
            blank = blank or line
            continue
        if blank is not None:  # blank lines at the end are no rows; one before a row is a mistake
            raise InputError(f"{path} line {blank}: the line is blank")
        row += 1
        where = f"{path} row {row} (line {line}{header})"
        if len(cells) != len(names):
            raise InputError(f"{where}: has {len(cells)} cells where there are {len(names)} columns")
        yield where, dict(zip(names, cells, strict=True))


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
        hint = "; if its quotes are just text, set data.quotes=false" if quotes else ""
        raise InputError(f"{path} line {line}: {error}{hint}") from None


def _check_header(names: Sequence[str], wanted: Sequence[str], head: str) -> None:
    if names and names[0].lstrip().startswith(("{", "[")):
        raise InputError(f"{head}: looks like JSON; json lines need the ending '.jsonl'")
    check_columns(names, wanted, f"{head}, the header")
    for column in wanted:
        if list(names).count(column) > 1:
            raise InputError(f"{head}, the header: there are {list(names).count(column)} columns '{column}'")


def _json_lines(path: Path, wanted: Sequence[str]) -> Rows:
    blank: int | None = None
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path} line {number}"
        if not line.strip():
            blank = blank or number
            continue
        if blank is not None:
            raise InputError(f"{path} line {blank}: the line is blank")
        if number == 1 and line.lstrip().startswith("["):
            raise InputError(f"{where}: begins a JSON array; json lines hold one object a line")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            detail = str(error).splitlines()[0]
            raise InputError(f"{where}: no JSON object ({detail}); json lines hold one object a line") from None
        if not isinstance(row, dict):
            raise InputError(f"{where}: no JSON object; json lines hold one object a line")
        yield where, row


def _parquet(path: Path, wanted: Sequence[str]) -> Rows:
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            needed = check_schema(file.schema_arrow, wanted, str(path))
            for batch in file.iter_batches(batch_size=1000, columns=needed):
                for cells in batch.to_pylist():
                    row += 1
                    yield f"{path} row {row}", cells
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a whole parquet file ({str(error).splitlines()[0]})") from error


_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_READERS: dict[str, Callable[[Path, Sequence[str]], Rows]] = {".jsonl": _json_lines, ".parquet": _parquet}
ENDINGS = (*_SEPARATORS, *_READERS)
