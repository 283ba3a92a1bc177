"""Hugging Face datasets in Arrow files: written in batches of rows, read through memory maps."""

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

BATCH_ROWS = 1000
"""Maximum number of rows in memory."""

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
    """Write ``rows`` to an Arrow file, at most :data:`BATCH_ROWS` of them in memory, and map it."""
    schema = _schema(columns)
    rows = iter(rows)
    batches = iter(lambda: list(islice(rows, BATCH_ROWS)), [])
    return write_batches(path, columns, (pa.RecordBatch.from_pylist(batch, schema) for batch in batches))


def write_batches(path: Path, columns: Sequence[str], batches: Iterable[pa.RecordBatch]) -> Dataset:
    """Write record batches to an Arrow file and map it."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _schema(columns)) as writer:
        for batch in batches:
            if batch.num_rows:
                writer.write_batch(batch)
    return map_dataset(path)


def map_dataset(path: Path) -> Dataset:
    """The dataset in an Arrow file, mapped into memory."""
    return Dataset.from_file(str(path))


def read_rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows of ``dataset``, at most :data:`BATCH_ROWS` of them in memory."""
    for batch in dataset.with_format("arrow").iter(BATCH_ROWS):
        yield from batch.to_pylist()


def _schema(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([(column, _TYPES[column]) for column in columns])


@contextmanager
def silence_datasets() -> Iterator[None]:
    """Suppress the progress bars and log messages of `datasets` and its hub client."""
    bars = datasets.is_progress_bar_enabled()
    level = datasets.utils.logging.get_verbosity()
    hub_level = huggingface_hub.utils.logging.get_verbosity()
    datasets.disable_progress_bars()
    # What they log as errors is raised too, and reported where it is caught.
    datasets.utils.logging.set_verbosity(logging.CRITICAL)
    huggingface_hub.utils.logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        if bars:
            datasets.enable_progress_bars()
        datasets.utils.logging.set_verbosity(level)
        huggingface_hub.utils.logging.set_verbosity(hub_level)
