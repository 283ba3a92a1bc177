"""Rows of parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attnspan.data.readers.columns import top_level_columns
from attnspan.errors import InputError


def read_parquet(path: Path, required: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of ``path``, with the required columns only; see :func:`attnspan.data.readers.table.read_table`."""
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
