"""Which images are batched together, and in which order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Int, Int64
from numpy.typing import NDArray

from attnspan.errors import InputError
from attnspan.models.source_size import PATCH


class PatchBudgetBatches:
    """Batches of images of similar size, as many as satisfy ``B * max(S, T) <= batch_tokens``, padding included.

    S counts the patches of the batch's height and width, to which its images are padded. Rows are sorted by height,
    width and target, in patches and tokens, and split. For training, rows that are equal in these are shuffled in each
    epoch, and then the batches. So all epochs have batches of the same sizes.
    """

    def __init__(
        self,
        *,
        sizes: Int[np.ndarray, "N 2"],
        target_lengths: Int[np.ndarray, " N"],
        batch_tokens: int,
        key: str = "batch_tokens",
    ) -> None:
        """Plan the batches; ``sizes`` are in pixels, ``target_lengths`` do not count ``<eos>``.

        Raises:
            InputError: a single example exceeds the budget.
        """
        sides = -(-sizes // PATCH)
        self._keys = (target_lengths + 1, sides[:, 1], sides[:, 0])
        longest = int(np.maximum(sides.prod(axis=1), target_lengths + 1).max())
        if longest > batch_tokens:
            raise InputError(f"{key}={batch_tokens} is smaller than the longest example, {longest} patches or tokens")
        order = np.lexsort(self._keys)
        self._boundaries = _boundaries(np.stack(self._keys[::-1], axis=1)[order], batch_tokens)

    def __len__(self) -> int:
        return len(self._boundaries) - 1

    def in_order(self) -> list[NDArray[np.int64]]:
        """Every row once, sorted by size, for evaluation."""
        return self._split(np.lexsort(self._keys))

    def shuffled(self, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
        """Every row once, in an order that depends on ``seed`` and ``epoch`` only."""
        draw = np.random.default_rng([seed, epoch])
        batches = self._split(np.lexsort((draw.random(len(self._keys[0])), *self._keys)))
        return [batches[i] for i in draw.permutation(len(batches))]

    def _split(self, rows: Int64[np.ndarray, " N"]) -> list[NDArray[np.int64]]:
        return [rows[first:last] for first, last in pairwise(self._boundaries)]


def _boundaries(keys: Int[np.ndarray, "N 3"], batch_tokens: int) -> list[int]:
    """Boundaries of the largest batches within the budget, for rows of ascending (height, width, target)."""
    boundaries, most = [0], [0, 0, 0]
    for row, sides in enumerate(keys.tolist()):
        grown = [max(pair) for pair in zip(most, sides, strict=True)]
        if (row + 1 - boundaries[-1]) * max(grown[0] * grown[1], grown[2]) > batch_tokens and row > boundaries[-1]:
            boundaries.append(row)
            grown = sides
        most = grown
    return [*boundaries, len(keys)]
