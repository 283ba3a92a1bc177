"""A hub dataset read in streaming mode, without a copy of its files on this disk.

The rows are stored in parts, each with the state of the stream after it. A killed process, or one without network,
resumes after the last complete part::

    00000.arrow  00001.arrow  ...   rows as JSON, in a column ``row``
    progress.json                   number of complete parts, their rows, the state of the stream, whether it has ended
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnspan.files import read_json, write_json

if TYPE_CHECKING:
    from datasets import IterableDataset

PART_ROWS = 50_000
"""Rows per part, and so the most rows that a resumed stream fetches again."""

READ_ATTEMPTS = 3
"""How often `datasets` reads again from a broken connection, each time after the client's own six attempts.

Its default is 20, which can take half an hour in silence; a stream that ends with an error resumes where it was.
"""

PROGRESS = "progress.json"


def read_stream(directory: Path, open_stream: Callable[[], IterableDataset]) -> Iterator[dict[str, Any]]:
    """All rows of a stream. Those that are not in ``directory`` yet are fetched first.

    Args:
        directory: of this stream; it may hold rows that an earlier process fetched.
        open_stream: called once if rows must be fetched. It must open the same stream each time.

    Raises:
        Exception: any error of the stream; complete parts are kept.
    """
    from attnspan.data.arrow import map_dataset, read_rows

    for number in range(_fetch(directory, open_stream)):
        for row in read_rows(map_dataset(_part(directory, number))):
            yield json.loads(row["row"])


def fetched_rows(directory: Path) -> int:
    """Number of rows that are stored already."""
    return int(_progress(directory)["rows"])


def _progress(directory: Path) -> dict[str, Any]:
    path = directory / PROGRESS
    return read_json(path) if path.is_file() else {"parts": 0, "rows": 0, "state": None, "ended": False}


def _fetch(directory: Path, open_stream: Callable[[], IterableDataset]) -> int:
    """Fetch the missing parts. Returns the number of parts."""
    import datasets

    from attnspan.data.arrow import write_dataset

    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = READ_ATTEMPTS
    directory.mkdir(parents=True, exist_ok=True)
    progress = _progress(directory)
    if not progress["ended"]:
        stream = open_stream()
        if progress["state"] is not None:
            stream.load_state_dict(progress["state"])
        rows = iter(stream)
        while not progress["ended"]:
            part = ({"row": json.dumps(row, default=str)} for row in islice(rows, PART_ROWS))
            incomplete = directory / "incomplete"
            count = write_dataset(incomplete, ["row"], part).num_rows
            incomplete.rename(_part(directory, progress["parts"]))
            progress = {
                "parts": progress["parts"] + 1,
                "rows": progress["rows"] + count,
                "state": stream.state_dict(),
                "ended": count < PART_ROWS,
            }
            write_json(directory / PROGRESS, progress)
    return int(progress["parts"])


def _part(directory: Path, number: int) -> Path:
    return directory / f"{number:05d}.arrow"
