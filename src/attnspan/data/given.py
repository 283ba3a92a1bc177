"""Given target tokens: the decoder reads them in decoding as in training, and they are in no loss and no measure."""

from __future__ import annotations

from collections.abc import Iterable

from attnspan.data.white_space import symbols

GIVEN = "given"
"""The column with their positions in the target, from 0."""


def given_tokens(target: str, positions: Iterable[int]) -> dict[int, str]:
    """Position to symbol of the given tokens of a target."""
    tokens = symbols(target)
    return {int(position): tokens[position] for position in positions}
