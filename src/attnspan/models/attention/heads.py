"""Heads: several attentions side by side, each to its own projection of query and memory."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from attnspan.errors import SettingError, check_counts


class Heads(nn.Module):
    """q_i = W^Q_i q, k_ij = W^K_i h_j, v_ij = W^V_i h_j, c = W^O [c_1; ...; c_n]  (Vaswani et al. 2017, section 3.2.2).

    Each head has d = M / n features of each. Score and window are those of one attention, of Q = M = d: the heads are
    further examples of its batch, N = B n, so it need not know of them.

    Args, besides the sizes:
        heads: n. They share M equally.
    """

    def __init__(self, *, query_size: int, memory_size: int, heads: int) -> None:
        super().__init__()
        check_counts(heads=heads)
        if memory_size % heads:
            raise SettingError(
                "heads", f"must divide encoder.hidden_size={memory_size} into equal parts, and {heads} does not"
            )
        self.query = nn.Linear(query_size, memory_size, bias=False)  # W^Q
        self.key = nn.Linear(memory_size, memory_size, bias=False)  # W^K
        self.value = nn.Linear(memory_size, memory_size, bias=False)  # W^V
        self.output = nn.Linear(memory_size, memory_size, bias=False)  # W^O
        self.number = heads

    def queries(self, query: Float[Tensor, "B T Q"]) -> Float[Tensor, "N T d"]:
        """The query of each head."""
        return self._split(self.query(query)).flatten(0, 1)

    def keys_and_values(
        self, states: Float[Tensor, "B S M"]
    ) -> tuple[Float[Tensor, "B heads S d"], Float[Tensor, "B heads S d"]]:
        """What each head compares its query with, and what it averages."""
        return self._split(self.key(states)), self._split(self.value(states))

    def join(self, contexts: Float[Tensor, "N T d"]) -> Float[Tensor, "B T M"]:
        """One context of those of all heads."""
        return self.output(contexts.unflatten(0, (-1, self.number)).transpose(1, 2).flatten(2))

    def _split(self, x: Float[Tensor, "B T M"]) -> Float[Tensor, "B heads T d"]:
        return x.unflatten(-1, (self.number, -1)).transpose(1, 2).contiguous()
