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
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray

from attnspan.models.source_size import patches

BATCH_ROWS = 1000
"""Maximum number of rows in memory."""
BATCH_IMAGES = 64
"""The same of rows with an image."""
PIXELS, DIGEST = "pixels", "digest"

_TYPES = {
    "id": pa.string(),
    "source": pa.string(),
    "target": pa.string(),
    "source_ids": pa.list_(pa.int32()),
    "target_ids": pa.list_(pa.int32()),
    "alignment": pa.string(),
    "given": pa.list_(pa.int32()),
    "pixels": pa.list_(pa.uint8()),
    "height": pa.int32(),
    "width": pa.int32(),
    "digest": pa.string(),
    "row": pa.string(),
}


def write_dataset(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> Dataset:
    """Write ``rows`` to an Arrow file, at most :data:`BATCH_ROWS` of them in memory, and map it."""
    schema = _schema(columns)
    rows = iter(rows)
    size = BATCH_IMAGES if PIXELS in columns else BATCH_ROWS
    batches = iter(lambda: list(islice(rows, size)), [])
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
    """The rows of ``dataset`` without pixels, at most :data:`BATCH_ROWS` of them in memory."""
    for batch in without_pixels(dataset).with_format("arrow").iter(BATCH_ROWS):
        yield from batch.to_pylist()


def without_pixels(dataset: Dataset) -> Dataset:
    """The dataset without the column that would fill the memory, if it has one."""
    return dataset.remove_columns(PIXELS) if PIXELS in dataset.column_names else dataset


def sizes_of_images(table: pa.Table | pa.RecordBatch) -> NDArray[np.int64]:
    """[N, 2]: height and width of each row's image, in pixels."""
    return np.stack([np.asarray(table[side], dtype=np.int64) for side in ("height", "width")], axis=1)


def lengths_of_side(table: pa.Table | pa.RecordBatch, side: str) -> NDArray[np.int64]:
    """[N]: tokens of each row's ``side``, or patches of its image."""
    if side == "source" and PIXELS in table.schema.names:
        return patches(sizes_of_images(table))
    return np.asarray(pc.list_value_length(table[f"{side}_ids"]), dtype=np.int64)


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
