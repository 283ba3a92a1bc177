"""What the encoder hands to the decoder.

Notation used in all of ``attnspan.models``::

    B  batch            S  source length      T  target length
    H  hidden size      E  embedding size     A  attention size
    M  memory size (features of one memory position)
    F  features of the encoder's last word
    L  layers           V  vocabulary size

A mask is True where a real token stands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One source as the decoder sees it: h_1 ... h_S and where they are real.

    Attributes:
        states: [B, S, M]; exactly 0 in padding, whatever the encoder left there.
        mask: [B, S] bool, True at real positions; every row has at least one.
        final: what the encoder says once, through the bridge: [B, F] of its hidden states, all layers side by side, and
            where it hands them on [B, F] of its cells.
        keys: [B, S, A], what the queries are compared with; there when an attention has prepared the memory.
    """

    states: Tensor
    mask: Tensor
    final: tuple[Tensor, ...]
    keys: Tensor | None = None

    @classmethod
    def of(cls, states: Tensor, mask: Tensor, final: tuple[Tensor, ...]) -> Memory:
        """Build a memory and silence its padding, so that not even a NaN there can reach a context vector."""
        return cls(states=states.masked_fill(~mask.unsqueeze(-1), 0.0), mask=mask, final=final)

    def with_keys(self, keys: Tensor) -> Memory:
        """Return the same memory with ``keys`` [B, S, A]."""
        return replace(self, keys=keys)

    def select(self, rows: Tensor) -> Memory:
        """Return the memory of the examples ``rows`` [B'] (indices, repeats allowed)."""
        return Memory(
            states=self.states[rows],
            mask=self.mask[rows],
            final=tuple(word[rows] for word in self.final),
            keys=None if self.keys is None else self.keys[rows],
        )
