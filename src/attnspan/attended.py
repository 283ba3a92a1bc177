"""Where a run's attention went on a few test examples, the same ones under every arm: ``attention.parquet``.

=============  ==================  ===============================================================
column         type                meaning
=============  ==================  ===============================================================
example_id     string              of the test example
source         list of strings     its S tokens
output         list of strings     the T tokens of the freely running hypothesis, without ``<eos>``
weights        list of float32     [T, S], row by row
=============  ==================  ===============================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attnspan.errors import InputError
from attnspan.heatmap import Heatmap
from attnspan.rundir import ATTENTION, write_whole

_SCHEMA = pa.schema(
    {
        "example_id": pa.string(),
        "source": pa.list_(pa.string()),
        "output": pa.list_(pa.string()),
        "weights": pa.list_(pa.float32()),
    }
)


def shown_examples(names: Sequence[str], lengths: Sequence[int], *, longest_trained: int) -> list[int]:
    """Rows of the test split to keep the attention of: nobody chooses them by what they look like.

    They are the shortest source, the longest that is no longer than training's longest, and the longest of all; of
    sources of one length, the one whose id comes first.

    Args:
        names: ids of the N test examples.
        lengths: [N] source tokens.
        longest_trained: source tokens of the longest training example.

    Returns:
        At most three rows, the shortest first.
    """
    rows = sorted(range(len(names)), key=lambda row: (lengths[row], names[row]))
    in_range = [row for row in rows if lengths[row] <= longest_trained]
    chosen = [rows[0]]
    for candidates in (in_range, rows):
        if candidates:
            longest = lengths[candidates[-1]]
            chosen.append(next(row for row in candidates if lengths[row] == longest))
    return list(dict.fromkeys(chosen))


def write_attended(directory: Path, heatmaps: Mapping[str, Heatmap]) -> None:
    """Write ``attention.parquet``, whole or not at all.

    Args:
        directory: of the run.
        heatmaps: example id -> its map.
    """
    rows = [
        {
            "example_id": name,
            "source": list(heatmap.source),
            "output": list(heatmap.output),
            "weights": heatmap.weights.ravel(),
        }
        for name, heatmap in heatmaps.items()
    ]
    content = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), content, compression="zstd")
    write_whole(directory / ATTENTION, memoryview(content.getvalue()))


def read_attended(directory: Path) -> dict[str, Heatmap] | None:
    """Read the maps of a run, example id -> map; None where it kept none, as arms without attention.

    Raises:
        InputError: the file is no whole parquet file, or not one of these.
    """
    path = directory / ATTENTION
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
        rows = table.cast(_SCHEMA).to_pylist()
        return {row["example_id"]: _heatmap(row["source"], row["output"], row["weights"]) for row in rows}
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: holds no attention weights ({str(error).splitlines()[0]})") from error


def _heatmap(source: list[str], output: list[str], weights: list[float]) -> Heatmap:
    values = np.array(weights, dtype=np.float32).reshape(len(output), len(source))
    return Heatmap(source=source, output=output, weights=values)
