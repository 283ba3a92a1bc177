"""How large a source is: of a text its tokens, of an image its height and width in pixels, and so its patches.

An image has no tokens, and what an encoder makes of it has a different size in each encoder. So its length, where one
number is needed (batches, limits, records), is counted in patches of 8 x 8 pixels, whatever the encoder. Nothing is
imported: the functions take numpy's arrays and torch's tensors alike.
"""

from __future__ import annotations

from typing import TypeVar

PATCH = 8
"""Pixels along a side of a patch."""

_Array = TypeVar("_Array")


def patches(sizes: _Array) -> _Array:
    """[...]: patches that cover images of ``sizes`` [..., 2], height and width in pixels."""
    sides = (sizes + PATCH - 1) // PATCH  # type: ignore[operator]
    return sides[..., 0] * sides[..., 1]  # type: ignore[index]


def source_lengths(sizes: _Array) -> _Array:
    """[B]: the length of each source: ``sizes`` [B] of tokens as they are, those [B, 2] of images as patches."""
    return sizes if sizes.ndim == 1 else patches(sizes)  # type: ignore[attr-defined]


def trimmed(source: _Array, sizes: _Array) -> _Array:
    """The batch without the padding that all of its rows have: tokens [B, S] or pixels [B, C, Y, X].

    ``sizes`` [B] or [B, 2] are on the CPU.
    """
    longest = sizes.reshape(len(sizes), -1).max(0)  # type: ignore[attr-defined, arg-type]
    ends = getattr(longest, "values", longest).tolist()  # torch gives values and indices
    return source[(..., *(slice(end) for end in ends))]  # type: ignore[index]
