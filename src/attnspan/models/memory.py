"""What the encoder hands to the decoder.

Notation used in all of ``attnspan.models``::

    B  batch            S  source length      T  target length
    H  hidden size      E  embedding size     A  attention size
    M  memory size (features of one memory position)
    F  features of the encoder's final state
    L  layers           V  vocabulary size

A mask is True where a real token stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnspan.kernels.contexts import Contexts


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One source as the decoder sees it: h_1 ... h_S, and where they are real."""

    states: Float[Tensor, "B S M"]
    """Exactly 0 in padding, whatever the encoder left there."""
    mask: Bool[Tensor, "B S"]
    """True at real positions. Every row has at least one."""
    final_state: tuple[Float[Tensor, "B F"], ...]
    """The input of the bridge: the encoder's final h, all layers concatenated, and where it has one its final c."""
    keys: Float[Tensor, "B *heads S A"] | None = None
    """What the queries are compared with. None until an attention has prepared the memory."""
    values: Float[Tensor, "B *heads S d"] | None = None
    """What several heads average; None where the states themselves are averaged."""
    key_factors: Float[Tensor, "B A P"] | None = None
    """Of the keys, for a kernel of :mod:`attnspan.models.attention.one_pass`; None where there is none."""
    contexts: Contexts | None = None
    """Averages the values where gradients of single steps are summed; None elsewhere."""
    handed_over: tuple[Float[Tensor, "B _"], ...] = ()
    """Parts of the encoder's final state that the decoder takes over as they are, all layers concatenated."""
    in_target: Int[Tensor, "B S"] | None = None
    """For a decoder that copies, the ids of the source tokens in the extended vocabulary; 0 in padding."""

    @classmethod
    def of(
        cls,
        states: Float[Tensor, "B S M"],
        mask: Bool[Tensor, "B S"],
        final_state: tuple[Float[Tensor, "B F"], ...],
        handed_over: tuple[Float[Tensor, "B _"], ...] = (),
    ) -> Memory:
        """Build a memory and set its padding to 0, so that not even a NaN there can reach a context vector."""
        silenced = states.masked_fill(~mask.unsqueeze(-1), 0.0)
        return cls(states=silenced, mask=mask, final_state=final_state, handed_over=handed_over)

    def select(self, rows: Int[Tensor, " N"]) -> Memory:
        """Return the memory of the examples ``rows`` (indices, repeats allowed)."""
        return Memory(
            states=self.states[rows],
            mask=self.mask[rows],
            final_state=tuple(part[rows] for part in self.final_state),
            keys=None if self.keys is None else self.keys[rows],
            values=None if self.values is None else self.values[rows],
            key_factors=None if self.key_factors is None else self.key_factors[rows],
            handed_over=tuple(part[rows] for part in self.handed_over),
            in_target=None if self.in_target is None else self.in_target[rows],
        )
