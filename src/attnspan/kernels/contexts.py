"""Contexts of single steps whose gradient with respect to the memory is one product over all steps.

Step by step, autograd makes an outer product of the memory's size at every step and adds it to the sum of the others:
where the score is cheap, that is most of a training step. Here each step leaves its share, and one product of the whole
follows when the last share is there. ``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnspan.kernels.cells import backward_without_autocast


class Shares:
    """What the steps of one backward pass leave: alpha and d_c of each.

    A graph that is kept may be gone through again, and a pass that needs no gradient of h leaves shares that nobody
    takes, so those of each pass lie apart.
    """

    def __init__(self) -> None:
        self._passes: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def leave(self, weights: Tensor, d_context: Tensor) -> None:
        """Leave the share of a step in the pass that is running."""
        number = torch._C._current_graph_task_id()
        if number not in self._passes:
            self._passes = {number: []}  # passes do not run side by side
        self._passes[number].append((weights, d_context))

    def take(self) -> list[tuple[Tensor, Tensor]]:
        """Take those of the pass that is running."""
        return self._passes.pop(torch._C._current_graph_task_id(), [])


class Contexts:
    """c = sum_s alpha_s h_s, to be called once a step.

    Args:
        states: h.
    """

    def __init__(self, states: Float[Tensor, "B S M"]) -> None:
        self._shares = Shares()
        self._states: Tensor = _Collect.apply(states, self._shares)

    def __call__(self, weights: Float[Tensor, "B T S"]) -> Float[Tensor, "B T M"]:
        """The contexts for weights alpha of one step or more."""
        context: Tensor = _Context.apply(weights, self._states, self._shares)
        return context


class _Context(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, states: Tensor, shares: Shares) -> Tensor:
        """alpha h."""
        ctx.save_for_backward(weights, states)
        ctx.shares = shares
        return weights @ states

    @staticmethod
    @backward_without_autocast
    def backward(ctx: Any, d_context: Tensor) -> tuple[Tensor | None, ...]:
        """d_alpha; the share in d_h is left for :class:`_Collect`."""
        weights, states = ctx.saved_tensors
        d_context = d_context.to(states.dtype)
        if ctx.needs_input_grad[1]:
            ctx.shares.leave(weights, d_context)
        return torch.bmm(d_context, states.transpose(1, 2)) if ctx.needs_input_grad[0] else None, None, None


class _Collect(torch.autograd.Function):
    """The states as they are. Autograd comes here after all steps that have read them, though none sends a gradient."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, shares: Shares) -> Tensor:
        """h."""
        ctx.shares = shares
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(states)
        return states.view_as(states)

    @staticmethod
    @backward_without_autocast
    def backward(ctx: Any, d_states: Tensor | None) -> tuple[Tensor | None, None]:
        """d_h = sum_t alpha_t^T d_c_t."""
        shares = ctx.shares.take()
        if not shares:
            return d_states, None
        weights, d_contexts = (torch.cat(parts, dim=1) for parts in zip(*shares, strict=True))
        summed = torch.bmm(weights.transpose(1, 2), d_contexts)
        return summed if d_states is None else d_states + summed, None
