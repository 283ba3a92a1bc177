"""Hugging Face datasets on disk: written row by row, read where they lie mapped in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.utils
import pyarrow as pa
from datasets import Dataset

ROWS = 1000
"""Rows that are in memory at once."""

_TYPES = {
    "id": pa.string(),
    "source": pa.string(),
    "target": pa.string(),
    "source_ids": pa.list_(pa.int32()),
    "target_ids": pa.list_(pa.int32()),
    "alignment": pa.string(),
    "row": pa.string(),
}


def write_dataset(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> Dataset:
    """Write ``rows`` to an Arrow file, at most :data:`ROWS` of them in memory, and map it."""
    schema = pa.schema([(column, _TYPES[column]) for column in columns])
    rows = iter(rows)
    pieces = iter(lambda: list(islice(rows, ROWS)), [])
    return write_pieces(path, columns, (pa.RecordBatch.from_pylist(some, schema) for some in pieces))


def write_pieces(path: Path, columns: Sequence[str], pieces: Iterable[pa.RecordBatch]) -> Dataset:
    """Write rows that are record batches already, and map them."""
    schema = pa.schema([(column, _TYPES[column]) for column in columns])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for piece in pieces:
            if piece.num_rows:
                writer.write_batch(piece)
    return map_dataset(path)


def map_dataset(path: Path) -> Dataset:
    """The dataset in an Arrow file, without reading it."""
    return Dataset.from_file(str(path))


def read_rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows of ``dataset``, at most :data:`ROWS` of them in memory."""
    for batch in dataset.with_format("arrow").iter(ROWS):
        yield from batch.to_pylist()


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no log lines while `datasets` and its hub client work."""
    bars = datasets.is_progress_bar_enabled()
    level = datasets.utils.logging.get_verbosity()
    hub_level = huggingface_hub.utils.logging.get_verbosity()
    datasets.disable_progress_bars()
    # What they log as errors is raised too, and reported by whoever catches it.
    datasets.utils.logging.set_verbosity(logging.CRITICAL)
    huggingface_hub.utils.logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        if bars:
            datasets.enable_progress_bars()
        datasets.utils.logging.set_verbosity(level)
        huggingface_hub.utils.logging.set_verbosity(hub_level)
