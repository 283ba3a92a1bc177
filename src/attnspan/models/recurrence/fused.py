"""A recurrence unrolled as one autograd function: the same numbers as torch's kernel for CPUs, in less time.

Nothing here is needed to understand the model: :class:`~attnspan.models.recurrence.recurrence.Recurrence` is the
definition, and a
test holds this file equal to it, gradients included. Torch's kernel is made of a dozen operations a step, each with a
node in the graph of the way back; here a step is a matrix product and one compiled function, and each weight gradient
one product over all steps. ``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attnspan.kernels.cells import are_covered, cell_of, is_for_rows
from attnspan.kernels.recurrence import Unrolled
from attnspan.models.recurrence.recurrence import Recurrence, State


class FusedRecurrence(Recurrence):
    """One layer of GRU or LSTM over several steps in training, on a CPU. Whatever else is as in the base class."""

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See the base class."""
        weight = self.cells.weight_hh_l0
        assert isinstance(weight, Tensor)
        is_sequence = isinstance(inputs, Tensor) and inputs.size(1) > 1  # it may be packed
        is_covered = self.layers == 1 and are_covered(self.cells) and is_for_rows(weight)
        if not (is_sequence and is_covered and torch.is_grad_enabled()):
            return super().forward(inputs, state)
        input_weight, hidden_weight, input_bias, hidden_bias = self.cells.all_weights[0]
        given = F.linear(inputs, input_weight, input_bias)
        if state is None:
            start = (given.new_zeros(given.size(0), self.cells.hidden_size),) * self.parts
        else:
            start = tuple(part[:, 0] for part in state)
        with torch.autocast(inputs.device.type, enabled=False):  # the recurrence stays in the weights' precision
            outputs, *cells = Unrolled.apply(
                cell_of(self.cells),
                given.to(weight.dtype),
                hidden_weight,
                hidden_bias,
                *(part.to(weight.dtype) for part in start),
            )
        return outputs, (outputs[:, -1:], *(part.unsqueeze(1) for part in cells))
