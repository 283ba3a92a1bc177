"""Where a run's attention went on a few test examples, the same ones under every arm: ``attention.parquet``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


_PICTURE = pa.schema(
    {
        "pixels": pa.list_(pa.uint8()),  # [C, height, width], row by row
        "shape": pa.list_(pa.int32()),
        "region_size": pa.list_(pa.int32()),  # height and width, in pixels
    }
)
"""Further columns where sources are images."""


def write_attention_maps(directory: Path, heatmaps: Mapping[str, AttentionMap]) -> None:
    """Write the maps of a run, example id -> map, to ``attention.parquet``, whole or not at all."""
    rows, schema = [], _SCHEMA
    for name, one in heatmaps.items():
        row = {
            "example_id": name,
            "source": list(one.source),
            "output": list(one.output),
            "weights": one.weights.ravel(),
        }
        if one.picture is not None:
            schema = pa.schema([*_SCHEMA, *_PICTURE])
            pixels, size = one.picture.pixels, one.picture.region_size
            row |= {"pixels": pixels.ravel(), "shape": list(pixels.shape), "region_size": list(size)}
        rows.append(row)
    content = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), content, compression="zstd")
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
        schema = pa.schema([*_SCHEMA, *_PICTURE]) if "pixels" in table.column_names else _SCHEMA
        return {row["example_id"]: _heatmap(row) for row in table.cast(schema).to_pylist()}
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: holds no attention weights ({str(error).splitlines()[0]})") from error


def _heatmap(row: dict[str, Any]) -> AttentionMap:
    source, output, picture = row["source"], row["output"], None
    values = np.array(row["weights"], dtype=np.float32).reshape(len(output), len(source))
    if row.get("pixels") is not None:
        pixels = np.array(row["pixels"], dtype=np.uint8).reshape(row["shape"])
        picture = Picture(pixels=pixels, region_size=(row["region_size"][0], row["region_size"][1]))
    return AttentionMap(source=source, output=output, weights=values, picture=picture)


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """An image as attention sees it: in regions, row by row; those at the right and lower edge may be cut."""

    pixels: NDArray[np.uint8]
    """[C, height, width]; C is 1 (grey) or 3 (colours)."""
    region_size: tuple[int, int]
    """Height and width of a region, in pixels."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the regions."""
        (height, width), (high, wide) = self.pixels.shape[1:], self.region_size
        return -(-height // high), -(-width // wide)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMap:
    """The attention [T, S] to S source tokens, the columns, in making T output tokens, the rows.

    Where the source is an image, its ``picture`` has S regions, and the names in ``source`` are their row and column.

    Raises:
        ValueError: the sizes do not fit each other, or one is 0.
    """

    source: Sequence[str]
    output: Sequence[str]
    weights: NDArray[np.floating]
    picture: Picture | None = None

    def __post_init__(self) -> None:
        if self.weights.shape != (len(self.output), len(self.source)) or not self.weights.size:
            tokens = f"{len(self.output)} output and {len(self.source)} source tokens"
            raise ValueError(f"weights of shape {self.weights.shape} for {tokens}")
        if self.picture is not None and np.prod(self.picture.grid) != len(self.source):
            raise ValueError(f"{len(self.source)} source positions for regions in a grid of {self.picture.grid}")
