"""How a wiring calls its fused form: what both wirings' forms share.

Nothing here is needed to understand the model. A fused form is an autograd function whose arguments begin alike: the
cell, the inputs' share of the gates, keys, states and mask, then the weights of what else enters the cell, of the old
state, and its bias; behind them weights of its own, and the first state. It returns outputs, weights and an end.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attnspan.kernels.cells import are_covered, cell_of
from attnspan.models.attention.attention import Attention
from attnspan.models.attention.scores import Score
from attnspan.models.attention.windows import GlobalWindow
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import Recurrence, State


def is_covered(attention: Attention, rnn: Recurrence, *scores: type[Score]) -> bool:
    """Whether there is a fused form: one of these scores itself, all positions, one layer."""
    # Exactly these classes, for one derived from them may compute something else.
    is_one = rnn.layers == 1 and are_covered(rnn.cells)
    return type(attention.score) in scores and type(attention.window) is GlobalWindow and is_one


def unroll_fused(
    form: type[torch.autograd.Function],
    rnn: Recurrence,
    embedded: Tensor,
    memory: Memory,
    *weights: Tensor,
    start: State,
) -> tuple[Tensor, ...]:
    """Unroll along a known target.

    Args:
        form: the wiring's fused form.
        rnn: the cells, one layer; they read embedded tokens beside what the wiring adds.
        embedded: [B, T, E].
        memory: prepared.
        weights: the form's own.
        start: the cells' first state, parts [B, 1, H].

    Returns:
        what the form returns.
    """
    assert memory.keys is not None
    E = embedded.size(-1)
    input_weight, hidden_weight, input_bias, hidden_bias = rnn.cells.all_weights[0]
    inputs = F.linear(embedded, input_weight[:, :E], input_bias)
    with torch.autocast(embedded.device.type, enabled=False):  # the recurrence stays in the weights' precision
        unrolled: tuple[Tensor, ...] = form.apply(
            cell_of(rnn.cells),
            *(part.to(hidden_weight.dtype) for part in (inputs, memory.keys, memory.states)),
            memory.mask,
            input_weight[:, E:],
            hidden_weight,
            hidden_bias,
            *weights,
            *(part[:, 0].to(hidden_weight.dtype) for part in start),
        )
    return unrolled
