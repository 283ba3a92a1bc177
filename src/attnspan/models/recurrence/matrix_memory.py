"""Cells with a matrix in each head, to which every step adds a value under a key, and which queries read.

All of them compute a known sequence at once, by products of queries and keys, as attention does; step by step they are
recurrences with a state of fixed size. A decoder takes over the matrices that the encoder has filled: a bridge between
the two would have as many weights as the square of their numbers. What the bridge makes of the encoder's final h are
the inputs that the convolution sees ahead of the first.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.errors import SettingError, check_counts
from attnspan.models.recurrence.parallel import ParallelCell, last_real, running_sum
from attnspan.models.recurrence.recurrence import State


class MatrixMemory(ParallelCell):
    """What these cells share: x'_t = W x_t, u_t = silu(conv(x'))_t, queries and keys from u_t, values from x'_t.

    The convolution has a filter of ``taps`` inputs for each feature, up to the present one. Without it key and value of
    a step would come from one token, and no pair of neighbours could be stored (Arora et al. 2024).

    The state is the last taps - 1 inputs of the convolution, h, and ``memories``.

    Args, besides the sizes:
        head_size: d, of queries, keys and values of a head. A head's matrix has d^2 numbers.
        taps: inputs that the convolution sees.

    Raises:
        SettingError: the heads do not share H equally, or there are fewer than 2 taps.
    """

    def __init__(self, *, input_size: int, hidden_size: int, head_size: int, taps: int) -> None:
        super().__init__()
        check_counts(head_size=head_size, taps=taps)
        H = hidden_size
        if H % head_size:
            raise SettingError("head_size", f"must divide {H}, the features of a layer, and {head_size} does not")
        if taps < 2:
            raise SettingError("taps", f"must be at least 2, this token and the one before it, not {taps}")
        self.head_size, self.heads, self.taps = head_size, H // head_size, taps
        self.enter = nn.Linear(input_size, H)
        self.filters = nn.Parameter(torch.empty(taps, H).uniform_(-(taps**-0.5), taps**-0.5))
        self.query = nn.Linear(H, H, bias=False)
        self.key = nn.Linear(H, H, bias=False)
        self.value = nn.Linear(H, H, bias=False)
        self.bridged, self.handed_over = taps - 1, (H, *self.memories(H))

    def memories(self, H: int) -> tuple[int, ...]:
        """Numbers of each memory: of the matrices, and of what else there is."""
        return (H * self.head_size,)

    @abstractmethod
    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, u: Tensor, memories: State, mask: Bool[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B heads T d"], State]:
        """What is read at each step, and the memories [B, n] at the end.

        Queries, keys and values are [B, heads, T, d], and u is [B, T, H].
        """

    def leave(self, read: Float[Tensor, "B T heads d"], x: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        """h from what was read."""
        return read.flatten(2)

    def forward(
        self, inputs: Float[Tensor, "B T I"], state: State, mask: Bool[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B T H"], State]:
        """See the base class."""
        history, memories = state[: self.bridged], state[self.bridged + 1 :]
        with torch.autocast(inputs.device.type, enabled=False):  # memories stay in the weights' precision
            x = self.enter(inputs.to(self.filters.dtype))
            u, history = self._convolve(x, history, mask)
            q, k, v = (
                part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for part in (self.query(u), self.key(u), self.value(x))
            )
            read, after = self.attend(q, k, v, u, memories, mask)
            hidden = self.leave(read.transpose(1, 2), x)
        return hidden, (*history, last_real(hidden, mask), *after)

    def _convolve(self, x: Tensor, history: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """u, and the last inputs, each [B, H], the latest last."""
        T, before = x.size(1), len(history)
        longer = torch.cat([torch.stack(history, dim=1), x], dim=1)  # [B, taps - 1 + T, H]
        u = F.silu(sum(self.filters[tap] * longer[:, tap : tap + T] for tap in range(self.taps)))  # type: ignore[arg-type]
        if mask is None:
            last = longer[:, T:]
        else:
            rows = mask.sum(dim=1, keepdim=True) + torch.arange(before, device=x.device)
            last = longer.gather(1, rows.unsqueeze(-1).expand(-1, -1, x.size(-1)))
        return u, last.unbind(dim=1)


class MLSTM(MatrixMemory):
    """The xLSTM's cell with matrix memory (Beck et al. 2024, eq. 19-27), stabilised.

    C_t = f_t C_{t-1} + i_t v_t k_t^T,  n_t = f_t n_{t-1} + i_t k_t,  h_t = o_t * C_t q_t / max(|n_t^T q_t|, 1)

    i = exp(i~), f = sigmoid(f~), o = sigmoid(W_o x'), k is divided by sqrt(d). The memories are e^{-m} C, e^{-m} n and
    m_t = max(log f_t + m_{t-1}, i~_t), by which no exponential overflows. The gates come from u. As in the authors'
    code the bias of f~ begins between 3 and 6, head by head. Their block also has norms and projections.
    """

    def __init__(self, *, input_size: int, hidden_size: int, head_size: int, taps: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size, head_size=head_size, taps=taps)
        self.gates = nn.Linear(hidden_size, 2 * self.heads)  # i~, f~
        self.output_gate = nn.Linear(hidden_size, hidden_size)
        with torch.no_grad():
            self.gates.bias[self.heads :] = torch.linspace(3.0, 6.0, self.heads)

    def memories(self, H: int) -> tuple[int, ...]:
        """Of C, n and m."""
        return H * self.head_size, H, H // self.head_size

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, u: Tensor, memories: State, mask: Bool[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B heads T d"], State]:
        """h~_t = sum_j exp(D_tj) v_j k_j^T q_t / ..., D_tj = i~_j + sum_{j < l <= t} log f_l, and the memory before."""
        C, n, m = memories[0].unflatten(1, (self.heads, self.head_size, -1)), *memories[1:]
        n, k = n.unflatten(1, (self.heads, -1)), k / math.sqrt(self.head_size)
        enter, forget = self.gates(u).transpose(1, 2).unsqueeze(-1).chunk(2, dim=1)  # each [B, heads, T, 1]
        kept = F.logsigmoid(forget)
        if mask is not None:
            hidden = ~mask[:, None, :, None]
            enter, kept = enter.masked_fill(hidden, -torch.inf), kept.masked_fill(hidden, 0.0)
        since_begin = running_sum(kept)  # sum_{l <= t} log f_l
        ahead = torch.ones(q.size(2), q.size(2), dtype=torch.bool, device=q.device).triu(1)
        D = (since_begin + (enter - since_begin).transpose(2, 3)).masked_fill(ahead, -torch.inf)  # [B, heads, T, T]
        of_memory = since_begin + m[..., None, None]
        # h does not depend on m: no gradient goes through it.
        m_all = torch.maximum(D.amax(dim=-1, keepdim=True), of_memory).detach()
        D, of_memory = (D - m_all).exp(), (of_memory - m_all).exp()
        similar = q @ k.transpose(2, 3) * D
        numerator = similar @ v + of_memory * (q @ C.transpose(2, 3))
        sums = similar.sum(dim=-1, keepdim=True) + of_memory * (q @ n.unsqueeze(-1))
        read = numerator / torch.maximum(sums.abs(), (-m_all).exp())
        added = k * D[:, :, -1:].transpose(2, 3)  # at the end; a masked step is as the one before it
        C = of_memory[:, :, -1:] * C + v.transpose(2, 3) @ added
        n = of_memory[:, :, -1] * n + added.sum(dim=2)
        return read, (C.flatten(1), n.flatten(1), m_all[:, :, -1, 0])

    def leave(self, read: Float[Tensor, "B T heads d"], x: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        """o_t * h~_t."""
        return torch.sigmoid(self.output_gate(x)) * read.flatten(2)


class GatedLinearAttention(MatrixMemory):
    """S_t = diag(a_t) S_{t-1} + k_t v_t^T,  h_t = silu(W_r x'_t) * norm(S_t^T q_t / sqrt(d))  (Yang et al. 2024a, 4).

    a_t = sigmoid(W_a u_t)^{1/16} forgets for each feature of the keys by itself. The norm is over a head's features.

    A sequence is read in pieces: within one by pairs of steps, from one to the next by S. No exponent is positive.
    """

    PIECE = 16
    """Steps of a piece."""

    def __init__(self, *, input_size: int, hidden_size: int, head_size: int, taps: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size, head_size=head_size, taps=taps)
        self.forget = nn.Linear(hidden_size, hidden_size)
        self.output_gate = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(head_size)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, u: Tensor, memories: State, mask: Bool[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B heads T d"], State]:
        """Piece by piece."""
        S = memories[0].unflatten(1, (self.heads, self.head_size, -1))  # [B, heads, d of keys, d of values]
        kept = F.logsigmoid(self.forget(u)).unflatten(-1, (self.heads, -1)).transpose(1, 2) / 16
        if mask is not None:
            hidden = ~mask[:, None, :, None]
            k, kept = k.masked_fill(hidden, 0.0), kept.masked_fill(hidden, 0.0)
        read = []
        for q_, k_, v_, kept_ in zip(*(part.split(self.PIECE, dim=2) for part in (q, k, v, kept)), strict=True):
            since = running_sum(kept_)  # log of what is left at t of the memory before the piece
            between = since.unsqueeze(3) - since.unsqueeze(2)  # [B, heads, t, j, d]
            ahead = torch.ones(q_.size(2), q_.size(2), dtype=torch.bool, device=q.device).triu(1)
            between = between.masked_fill(ahead.unsqueeze(-1), -torch.inf).exp()
            similar = (q_.unsqueeze(3) * k_.unsqueeze(2) * between).sum(dim=-1)
            read.append(similar @ v_ + (q_ * since.exp()) @ S)
            left = (since[:, :, -1:] - since).exp()
            S = since[:, :, -1].exp().unsqueeze(-1) * S + (k_ * left).transpose(2, 3) @ v_
        return torch.cat(read, dim=2) / math.sqrt(self.head_size), (S.flatten(1),)

    def leave(self, read: Float[Tensor, "B T heads d"], x: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        """silu(W_r x') * norm(...)."""
        return F.silu(self.output_gate(x)) * self.norm(read).flatten(2)


class DeltaNet(MatrixMemory):
    """S_t = S_{t-1} + b_t (v_t - S_{t-1} k_t) k_t^T,  h_t = norm(S_t q_t)  (Schlag et al. 2021; Yang et al. 2024b).

    b_t = sigmoid(w_b u_t). Keys and queries have length 1, so that b = 1 replaces what was stored under a key. The norm
    is over a head's features.

    What is added, U, solves a triangular system (Yang et al. 2024b, section 3.2):
    u_t + b_t sum_{j<t} (k_j . k_t) u_j = b_t (v_t - S_0 k_t).
    """

    def __init__(self, *, input_size: int, hidden_size: int, head_size: int, taps: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size, head_size=head_size, taps=taps)
        self.rate = nn.Linear(hidden_size, self.heads)  # w_b
        self.norm = nn.LayerNorm(head_size)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, u: Tensor, memories: State, mask: Bool[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B heads T d"], State]:
        """All steps at once."""
        S = memories[0].unflatten(1, (self.heads, self.head_size, -1))  # [B, heads, d of values, d of keys]
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        rate = torch.sigmoid(self.rate(u)).transpose(1, 2).unsqueeze(-1)  # [B, heads, T, 1]
        if mask is not None:
            rate = rate.masked_fill(~mask[:, None, :, None], 0.0)
        earlier = (rate * (k @ k.transpose(2, 3))).tril(-1)
        wanted = rate * (v - k @ S.transpose(2, 3))
        # The diagonal counts as 1.
        added = torch.linalg.solve_triangular(earlier, wanted, upper=False, unitriangular=True)
        read = q @ S.transpose(2, 3) + (q @ k.transpose(2, 3)).tril() @ added
        return read, ((S + added.transpose(2, 3) @ k).flatten(1),)

    def leave(self, read: Float[Tensor, "B T heads d"], x: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        """norm(...)."""
        return self.norm(read).flatten(2)
