"""Where a run's attention went on a few test examples, the same ones under every arm: ``attention.parquet``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from attnspan.errors import InputError
from attnspan.files import write_atomically
from attnspan.runs.layout import ATTENTION

_TOKENS = pa.list_(pa.string())
_SCHEMA = pa.schema(
    {
        "example_id": pa.string(),
        "source": _TOKENS,  # S of them
        "output": _TOKENS,  # the T tokens of the free-running hypothesis, without <eos>
        "weights": pa.list_(pa.float32()),  # [T, S], row by row
    }
)


def write_attention_maps(directory: Path, heatmaps: Mapping[str, AttentionMap]) -> None:
    """Write the maps of a run, example id -> map, to ``attention.parquet``, whole or not at all."""
    rows = [
        {"example_id": name, "source": list(one.source), "output": list(one.output), "weights": one.weights.ravel()}
        for name, one in heatmaps.items()
    ]
    content = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), content, compression="zstd")
    write_atomically(directory / ATTENTION, memoryview(content.getvalue()))


def read_attention_maps(directory: Path) -> dict[str, AttentionMap] | None:
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


def _heatmap(source: list[str], output: list[str], weights: list[float]) -> AttentionMap:
    values = np.array(weights, dtype=np.float32).reshape(len(output), len(source))
    return AttentionMap(source=source, output=output, weights=values)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMap:
    """The attention [T, S] to S source tokens, the columns, in making T output tokens, the rows.

    Raises:
        ValueError: the sizes do not fit each other, or one is 0.
    """

    source: Sequence[str]
    output: Sequence[str]
    weights: NDArray[np.floating]

    def __post_init__(self) -> None:
        if self.weights.shape != (len(self.output), len(self.source)) or not self.weights.size:
            tokens = f"{len(self.output)} output and {len(self.source)} source tokens"
            raise ValueError(f"weights of shape {self.weights.shape} for {tokens}")
