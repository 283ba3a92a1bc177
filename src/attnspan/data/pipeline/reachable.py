"""Whether the references of a split are short enough for a hypothesis to reach them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from datasets import Dataset

from attnspan.data.corpora.base import TEST, VALIDATION
from attnspan.data.pipeline.prepare import PreparedData, token_counts
from attnspan.errors import InputError
from attnspan.models.decoding.length_limit import LengthLimit


@dataclass(frozen=True, kw_only=True)
class Unreachable:
    """The references of a split that are longer than a hypothesis may become."""

    split: str
    count: int
    examples: int
    """All of the split."""
    limit: LengthLimit
    needed_margin: int
    """The least ``decoding.limit.margin`` that reaches them all."""

    def __str__(self) -> str:
        return (
            f"{self.split}: {self.count} of {self.examples} references are longer than a hypothesis may become, "
            f"{self.limit.ratio:.4g} * source tokens + {self.limit.margin} (decoding.limit); "
            f"decoding.limit.margin={self.needed_margin} reaches them all"
        )


def limit_of_training(data: PreparedData) -> LengthLimit:
    """The limit that training suggests."""
    return LengthLimit.of_training(
        longest_source=data.training_lengths[1],
        longest_target=data.training_target_lengths[1],
        largest_ratio=data.training_target_ratio,
    )


def check_references(data: PreparedData, limit: LengthLimit) -> Unreachable:
    """Find the references of test that are out of reach; there may be none.

    Raises:
        InputError: references of validation are out of reach; names the key and the value to set.
    """
    if (validation := find_unreachable(data.validation, VALIDATION, limit)).count:
        raise InputError(str(validation))
    return find_unreachable(data.test, TEST, limit)


def find_unreachable(examples: Dataset, split: str, limit: LengthLimit) -> Unreachable:
    """Find the references of the ``examples`` of a split that are out of reach; there may be none."""
    sources, targets = (torch.from_numpy(token_counts(examples, side)) for side in ("source", "target"))
    missing = targets - limit(sources)
    return Unreachable(
        split=split,
        count=int((missing > 0).sum()),
        examples=len(missing),
        limit=limit,
        needed_margin=(limit.margin or 0) + max(0, int(missing.max())),
    )
