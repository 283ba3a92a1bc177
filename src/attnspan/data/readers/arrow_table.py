"""Rows of parquet files and of files of Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from attnspan.data.readers.columns import top_level_columns
from attnspan.data.readers.row import Row
from attnspan.data.readers.table_file import TableFile
from attnspan.errors import InputError

_BATCH_ROWS = 1000


def read_arrow(file: TableFile, required: Sequence[str], first: int = 0) -> Iterator[Row]:
    """The rows of ``file`` from row ``first`` (from 0) on, with the required columns only.

    Raises:
        InputError: the file is damaged, or a required column is missing.
    """
    start = 0  # of the batch
    for batch in _batches(file, required, first):
        if isinstance(batch, int):  # rows that were not read
            start += batch
            continue
        left_out = max(0, first - start)
        for row, cells in enumerate(batch.slice(left_out).to_pylist(), start=start + left_out + 1):
            yield f"{file.name} row {row}", cells
        start += batch.num_rows


def count_arrow_rows(file: TableFile) -> int:
    """Number of rows of ``file``.

    Raises:
        InputError: the file is damaged.
    """
    with _damage_named(file), file.open() as content:
        if file.ending == ".parquet":
            return int(pq.ParquetFile(content).metadata.num_rows)
    return sum(batch.num_rows for batch in _batches(file, (), 0) if not isinstance(batch, int))


def _batches(file: TableFile, required: Sequence[str], first: int) -> Iterator[pa.RecordBatch | int]:
    """The batches; in place of parquet's row groups that end before row ``first``, their numbers of rows."""
    with _damage_named(file), file.open() as content:
        if file.ending == ".parquet":
            table = pq.ParquetFile(content)
            columns = top_level_columns(table.schema_arrow, required, file.name)
            groups, skipped = list(range(table.num_row_groups)), 0
            while groups and skipped + (rows := table.metadata.row_group(groups[0]).num_rows) <= first:
                skipped += rows
                groups.pop(0)
            yield skipped
            yield from table.iter_batches(batch_size=_BATCH_ROWS, columns=columns, row_groups=groups)
            return
        start = content.read(6)
        content.seek(0)
        if start == b"ARROW1":
            reader = pa.ipc.open_file(content)
            columns = top_level_columns(reader.schema, required, file.name)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            reader = pa.ipc.open_stream(content)
            columns = top_level_columns(reader.schema, required, file.name)
            batches = iter(reader)
        for batch in batches:
            yield batch.select(columns)


@contextmanager
def _damage_named(file: TableFile) -> Iterator[None]:
    kind = file.ending.removeprefix(".")
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if file.is_remote and not isinstance(error, pa.ArrowException):
            raise  # of the network
        raise InputError(f"{file.name}: not a complete {kind} file ({str(error).splitlines()[0]})") from error
