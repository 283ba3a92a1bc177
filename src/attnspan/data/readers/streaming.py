"""A hub dataset read in streaming mode, without a copy of its files on this disk.

The rows are stored in parts, each with the state of the stream after it. A killed process, or one without network,
resumes after the last complete part::

    00000.arrow  00001.arrow  ...   [location, cells] of each row as JSON, in a column ``row``
    progress.json                   number of complete parts, their rows, the state of the stream, whether it has ended
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from attnspan.data.readers.csv_table import CsvFormat
from attnspan.data.readers.row import Row
from attnspan.data.readers.table import read_table
from attnspan.data.readers.table_file import TableFile
from attnspan.files import read_json, write_json

PART_ROWS = 50_000
"""Rows per part, and so the most rows that a resumed stream stores again. A text file is read again from its start."""

PROGRESS = "progress.json"


class RowStream:
    """The rows of some files, one after the other, which can begin again after any row."""

    def __init__(
        self,
        files: Sequence[TableFile],
        *,
        required: Sequence[str],
        csv_format: CsvFormat,
        remark: Callable[[str], None],
    ) -> None:
        self._files, self._options = files, {"required": required, "csv_format": csv_format, "remark": remark}
        self._file = self._rows = 0  # complete files, and rows of the next one, that came already

    def __iter__(self) -> Iterator[Row]:
        """The rows that have not come yet."""
        while self._file < len(self._files):
            for row in read_table(self._files[self._file], first=self._rows, **self._options):  # type: ignore[arg-type]
                self._rows += 1
                yield row
            self._file, self._rows = self._file + 1, 0

    def state_dict(self) -> dict[str, int]:
        """What has come."""
        return {"file": self._file, "rows": self._rows}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Begin after what had come when :meth:`state_dict` gave ``state``."""
        self._file, self._rows = state["file"], state["rows"]


def read_stream(directory: Path, open_stream: Callable[[], RowStream]) -> Iterator[Row]:
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
            location, cells = json.loads(row["row"])
            yield location, cells


def fetched_rows(directory: Path) -> int:
    """Number of rows that are stored already."""
    return int(_progress(directory)["rows"])


def _progress(directory: Path) -> dict[str, Any]:
    path = directory / PROGRESS
    return read_json(path) if path.is_file() else {"parts": 0, "rows": 0, "state": None, "ended": False}


def _fetch(directory: Path, open_stream: Callable[[], RowStream]) -> int:
    """Fetch the missing parts. Returns the number of parts."""
    from attnspan.data.arrow import write_dataset

    directory.mkdir(parents=True, exist_ok=True)
    progress = _progress(directory)
    if not progress["ended"]:
        stream = open_stream()
        if progress["state"] is not None:
            stream.load_state_dict(progress["state"])
        rows = iter(stream)
        while not progress["ended"]:
            part = ({"row": json.dumps(row, default=_tell)} for row in islice(rows, PART_ROWS))
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


def _tell(cell: Any) -> dict[str, str]:
    """What JSON has no form for, such as a date: no text, so that it is not taken for one."""
    return {type(cell).__name__: str(cell)}
