"""How decoders call the kernels that unroll a whole target: what both wirings share.

Such a kernel is an autograd function. Its first arguments are always the cell, the input's share of the gates, keys,
states and mask, then the weights of what else enters the cell, of the previous state, and the latter's bias. Weights
of the wiring and the initial state follow. It returns outputs, weights and parts of the final state.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from attnspan.kernels.cells import cell_kernel, is_supported
from attnspan.models.attention.attention import Attention
from attnspan.models.attention.scores import Score
from attnspan.models.attention.windows import GlobalWindow
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import CellState, Recurrence


def can_fuse(attention: Attention, rnn: Recurrence, *scores: type[Score]) -> bool:
    """Whether a kernel covers this: one of ``scores``, attention to all positions, one layer."""
    # Exactly these classes, for a subclass may compute something else.
    is_one_layer = rnn.layers == 1 and is_supported(rnn.cells)
    return type(attention.score) in scores and type(attention.window) is GlobalWindow and is_one_layer


def unroll_fused(
    kernel: type[torch.autograd.Function],
    rnn: Recurrence,
    embedded: Float[Tensor, "B T E"],
    memory: Memory,
    *weights: Tensor,
    initial: CellState,
) -> tuple[Tensor, ...]:
    """Unroll along a known target.

    Args:
        kernel: of the wiring.
        rnn: the cells, one layer. They read the embedded token, concatenated with what the wiring adds.
        embedded: the target.
        memory: prepared.
        weights: of the wiring.
        initial: the cells' initial state.

    Returns:
        what the kernel returns.
    """
    assert memory.keys is not None
    E = embedded.size(-1)
    input_weight, hidden_weight, input_bias, hidden_bias = rnn.cells.all_weights[0]
    input_gates = F.linear(embedded, input_weight[:, :E], input_bias)
    with torch.autocast(embedded.device.type, enabled=False):  # the recurrence stays in the weights' precision
        unrolled: tuple[Tensor, ...] = kernel.apply(
            cell_kernel(rnn.cells),
            *(part.to(hidden_weight.dtype) for part in (input_gates, memory.keys, memory.states)),
            memory.mask,
            input_weight[:, E:],
            hidden_weight,
            hidden_bias,
            *weights,
            *(part[:, 0].to(hidden_weight.dtype) for part in initial),
        )
    return unrolled
