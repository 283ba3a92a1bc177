"""Rows of csv, tsv, json lines and parquet files; the file ending selects the reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attnspan.data.readers.csv import read_csv
from attnspan.data.readers.json_lines import read_json_lines
from attnspan.data.readers.parquet import read_parquet
from attnspan.errors import InputError, nearest

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
        return read_csv(path, SEPARATORS[path.suffix], required=required, columns=columns, quotes=quotes)
    return read_json_lines(path) if path.suffix == ".jsonl" else read_parquet(path, required)


def check_file(path: Path, key: str) -> None:
    """Check the ending and the first bytes of a table.

    Args:
        path: the file.
        key: its config key.

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
