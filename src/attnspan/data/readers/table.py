"""Rows of csv, tsv, json, parquet and Arrow files. Text is read as it stands; no type is guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attnspan.data.readers.arrow_table import count_arrow_rows, read_arrow
from attnspan.data.readers.csv_table import CsvFormat, read_csv
from attnspan.data.readers.json_table import read_json
from attnspan.data.readers.row import Row
from attnspan.data.readers.table_file import ARROW_ENDINGS, SEPARATORS, TableFile

_AS_WRITTEN = CsvFormat()


def read_table(
    file: TableFile,
    *,
    required: Sequence[str],
    csv_format: CsvFormat = _AS_WRITTEN,
    remark: Callable[[str], None] = lambda words: None,
    first: int = 0,
) -> Iterator[Row]:
    """Read the rows of ``file``; the file ending selects the reader.

    Args:
        file: one that passed :func:`~attnspan.data.readers.table_file.check_file`.
        required: columns that must exist.
        csv_format: of a csv or tsv file.
        remark: takes what is legal and yet odd about the file, in words that follow its name and a colon.
        first: rows to leave out at the beginning.

    Raises:
        InputError: the content is invalid; names the file and, where possible, the row.
    """
    if file.ending in ARROW_ENDINGS:
        yield from read_arrow(file, required, first)
        return
    rows = read_csv(file, required, csv_format, remark) if file.ending in SEPARATORS else read_json(file)
    for number, row in enumerate(rows):
        if number >= first:
            yield row


def count_rows(file: TableFile, *, csv_format: CsvFormat = _AS_WRITTEN) -> int:
    """Number of rows of ``file``; a text file is read to its end.

    Raises:
        InputError: the content is invalid.
    """
    if file.ending in ARROW_ENDINGS:
        return count_arrow_rows(file)
    return sum(1 for _ in read_table(file, required=(), csv_format=csv_format))
