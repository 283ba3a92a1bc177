"""A dataset of the hub, row after row as it comes down, without a copy of the files on this disk.

What has come is kept in parts, each with the position behind it, so after a kill, or without network, a stream goes on
where its last whole part ends::

    00000.arrow  00001.arrow  ...   rows as JSON, in a column ``row``
    position.json                   parts that are whole, the rows in them, where to go on, whether the stream ended
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

PART = 50_000
"""Rows between two positions: so many may have to come again."""

POSITION = "position.json"


def streamed_rows(directory: Path, open_stream: Callable[[], IterableDataset]) -> Iterator[dict[str, Any]]:
    """All rows of a stream, after fetching those that are not in ``directory`` yet.

    Args:
        directory: of this stream alone; it may hold what an earlier process has fetched.
        open_stream: called once if rows are to be fetched. Each time, the stream must be the same.

    Raises:
        Exception: whatever the stream raises; the parts that are whole stay.
    """
    from attnspan.data.arrow import map_dataset, read_rows

    for number in range(_fetch(directory, open_stream)):
        for row in read_rows(map_dataset(_part(directory, number))):
            yield json.loads(row["row"])


def fetched(directory: Path) -> int:
    """Rows that need not come again."""
    return int(read_json(directory / POSITION)["rows"]) if (directory / POSITION).is_file() else 0


def _fetch(directory: Path, open_stream: Callable[[], IterableDataset]) -> int:
    """Complete the parts. Returns their number."""
    from attnspan.data.arrow import write_dataset

    directory.mkdir(parents=True, exist_ok=True)
    position: dict[str, Any] = {"parts": 0, "rows": 0, "state": None, "ended": False}
    if (directory / POSITION).is_file():
        position = read_json(directory / POSITION)
    if not position["ended"]:
        stream = open_stream()
        if position["state"] is not None:
            stream.load_state_dict(position["state"])
        rows = iter(stream)
        while not position["ended"]:
            some = ({"row": json.dumps(row, default=str)} for row in islice(rows, PART))
            making = directory / "making"
            count = write_dataset(making, ["row"], some).num_rows
            making.rename(_part(directory, position["parts"]))
            position = {
                "parts": position["parts"] + 1,
                "rows": position["rows"] + count,
                "state": stream.state_dict(),
                "ended": count < PART,
            }
            write_json(directory / POSITION, position)
    return int(position["parts"])


def _part(directory: Path, number: int) -> Path:
    return directory / f"{number:05d}.arrow"
