"""What each step of hard attention reads out: a distribution at every position, their mixture, and one token's share.

Unrolled over T steps the readout's inputs are B T S H numbers and the distributions B T S V. Neither is kept for the
backward pass, which computes them again. A step works on some examples at a time, so that their activations stay in the
cache from one operation to the next. Logits lie as [V, n S]: on a CPU products of few rows are faster than products of
few columns. ``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnspan.kernels.additive import has_key_factors
from attnspan.kernels.cells import backward_without_autocast
from attnspan.kernels.dropout import RepeatedDropout

_ROWS = 800
"""Positions that are read out together on a CPU. With 256 features they are 0.8 MB."""
_FAINT = -60.0
"""Below this log-probability, logarithms are summed in place of probabilities: float32 ends at e^-87."""


class Emissions:
    """log sum_j p(j) p(y | j) for all y, and log p(token | j) for all positions j; to be called once a step.

    p(y | j) = softmax(W dropout(tanh(v_j + u)) + b), in the precision of W, and normalised in float32 at least.

    Args:
        values: v, what each position adds.
        weight: W.
        bias: b.
        dropout: probability to drop a feature. Each position drops its own.
    """

    def __init__(
        self,
        values: Float[Tensor, "B S H"],
        weight: Float[Tensor, "V H"],
        bias: Float[Tensor, " V"],
        *,
        dropout: float = 0.0,
    ) -> None:
        self._dropout = dropout
        values = values.to(weight.dtype)
        self._work = _Work(values.detach().contiguous(), weight.detach(), bias.detach())
        # What it returns stands for v, W and b in each step. It is nothing but the way to them in the backward pass.
        self._way: Tensor = _Collect.apply(values, weight, bias, self._work)

    def __call__(
        self, share: Float[Tensor, "B H"], prior: Float[Tensor, "B S"], token: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B V"], Float[Tensor, "B S"]]:
        """Both, for u, log p(j) and the token's id."""
        dropout = RepeatedDropout.draw(self._dropout) if self._dropout else None
        with torch.autocast(share.device.type, enabled=False):
            share = share.to(self._work.weight.dtype)
            found: tuple[Tensor, Tensor] = _Emission.apply(share, prior, token, self._way, self._work, dropout)
        return found


@dataclass(frozen=True)
class _Block:
    """Some examples of a step, n of them, in buffers that the next block overwrites."""

    rows: slice
    features: Float[Tensor, "n S H"]
    """dropout(tanh(v + u)), without the scale."""
    kept: Tensor | None
    """Features that are not dropped."""
    weight: Float[Tensor, "V H"]
    """W times the scale."""
    logits: Float[Tensor, "V n S"]
    numbers: Int[Tensor, " n"]
    """0 ... n - 1."""

    def at(self, token: Int[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        """The index in logits of the examples' tokens."""
        return token[self.rows], self.numbers


class _Work:
    """What all steps share: the arguments, buffers, and the sums of gradients."""

    def __init__(self, values: Float[Tensor, "B S H"], weight: Float[Tensor, "V H"], bias: Float[Tensor, " V"]) -> None:
        self.values, self.weight, self.bias = values, weight, bias
        B, S, H = values.shape
        V, most = len(weight), min(B, max(1, _ROWS // S)) if values.device.type == "cpu" else B
        self._blocks = [slice(begin, min(B, begin + most)) for begin in range(0, B, most)]
        self._factors = torch.exp(-2 * values) if has_key_factors(values) else None
        self._features, self._d_features = values.new_empty(most, S, H), values.new_empty(most, S, H)
        self._logits, self._exponentials = values.new_empty(V * most * S), values.new_empty(V * most * S)
        self._numbers = torch.arange(most, device=values.device)
        self._sums: dict[int, tuple[Tensor, ...]] = {}

    def sums(self) -> tuple[Tensor, ...]:
        """d_v, d_W and d_b of the pass that is running, to be added to."""
        number = torch._C._current_graph_task_id()
        if number not in self._sums:  # what a pass left that went no further is forgotten
            self._sums = {number: tuple(torch.zeros_like(part) for part in (self.values, self.weight, self.bias))}
        return self._sums[number]

    def take_sums(self) -> tuple[Tensor, ...] | None:
        """At the end of the pass."""
        return self._sums.pop(torch._C._current_graph_task_id(), None)

    def blocks(self, share: Float[Tensor, "B H"], dropout: RepeatedDropout | None) -> Iterator[_Block]:
        """All examples, one block after the other."""
        factors = None if self._factors is None else torch.exp(-2 * share).contiguous()
        weight = self.weight if dropout is None else self.weight * dropout.scale
        masks = None if dropout is None else dropout.masks(share.device)
        for rows in self._blocks:
            features = self._features[: rows.stop - rows.start]
            if self._factors is not None and factors is not None:
                from attnspan.kernels.compiled_emissions import activate

                activate(self._factors[rows], factors[rows], features)
            else:
                torch.add(self.values[rows], share[rows].unsqueeze(1), out=features)
                features.mul_(2).sigmoid_().mul_(2).sub_(1)
            kept = None if masks is None else masks.like(features)
            if kept is not None:
                features.mul_(kept)
            columns = features.flatten(0, 1).t()
            logits = self._logits[: len(weight) * columns.size(1)].view(len(weight), -1)
            torch.addmm(self.bias.unsqueeze(1), weight, columns, out=logits)
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            by_example = wide.view(len(weight), *features.shape[:2])
            yield _Block(rows, features, kept, weight, by_example, self._numbers[: len(features)])

    def exponentials(self, logits: Float[Tensor, "V n S"], shift: Float[Tensor, "n S"]) -> Float[Tensor, "V n S"]:
        """exp(logits - shift), in a buffer."""
        if self._factors is None:
            return (logits - shift).exp_()
        from attnspan.kernels.compiled_emissions import exponentials

        found = self._exponentials[: logits.numel()].view(len(logits), -1)
        exponentials(logits.flatten(1), shift.flatten(), found)
        return found.view_as(logits)

    def activate_backward(
        self, block: _Block, d_logits: Float[Tensor, "V nS"], d_values: Tensor, d_share: Tensor
    ) -> None:
        """Add to d_v and write d_u of a block."""
        d_features = self._d_features[: len(block.features)]
        torch.mm(d_logits.t(), block.weight, out=d_features.flatten(0, 1))
        if block.kept is not None:
            d_features.mul_(block.kept)
        # A dropped feature is 0 in place of tanh; its gradient is 0 in any case.
        if self._factors is None:
            d_features.addcmul_(d_features, block.features.square(), value=-1)
            d_values[block.rows] += d_features
            torch.sum(d_features, dim=1, out=d_share[block.rows])
        else:
            from attnspan.kernels.compiled_emissions import activate_backward

            activate_backward(block.features, d_features, d_values[block.rows], d_share[block.rows])


class _Emission(torch.autograd.Function):
    """One step. Of v, W and b it leaves the gradients with :class:`_Work`."""

    @staticmethod
    def forward(
        ctx: Any, share: Tensor, prior: Tensor, token: Tensor, way: Tensor, work: _Work, dropout: RepeatedDropout | None
    ) -> tuple[Tensor, Tensor]:
        """Compute the mixture [B, V] and the token's share [B, S]."""
        mixed, seen, normaliser = prior.new_empty(len(prior), len(work.weight)), prior.clone(), prior.clone()
        weights = prior.exp()
        for block in work.blocks(share, dropout):
            rows, logits = block.rows, block.logits
            largest = logits.amax(dim=0)
            exponentials = work.exponentials(logits, largest)
            total = exponentials.sum(dim=0)
            torch.add(largest, total.log(), out=normaliser[rows])
            torch.sub(logits[block.at(token)], normaliser[rows], out=seen[rows])
            by_example, mixture = exponentials.permute(1, 2, 0), mixed[rows].unsqueeze(1)
            torch.bmm((weights[rows] / total).unsqueeze(1), by_example, out=mixture)
        log_p = mixed.log_()
        if log_p.amin() < _FAINT:
            for block in work.blocks(share, dropout):
                joint = block.logits + (prior - normaliser)[block.rows]
                log_p[block.rows] = joint.logsumexp(dim=-1).t()
        ctx.dropout, ctx.work = dropout, work
        ctx.save_for_backward(share, prior, token, log_p, normaliser)
        return log_p, seen

    @staticmethod
    @backward_without_autocast
    def backward(ctx: Any, d_log_p: Tensor, d_seen: Tensor) -> tuple[Tensor | None, ...]:
        """d_u and the gradient of log p(j).

        The gradient of log p(y) in log p(j) p(y | j) is the posterior p(j | y).
        """
        share, prior, token, log_p, normaliser = ctx.saved_tensors
        scale = 1.0 if ctx.dropout is None else ctx.dropout.scale
        d_share, d_prior = torch.empty_like(share, memory_format=torch.contiguous_format), torch.empty_like(prior)
        d_values, d_weight, d_bias = ctx.work.sums()
        is_faint, weights = bool(log_p.amin() < _FAINT), prior.exp()
        by_token = d_log_p.t().unsqueeze(-1) if is_faint else (d_log_p * torch.exp(-log_p)).t().unsqueeze(-1)  # V B 1
        for block in ctx.work.blocks(share, ctx.dropout):
            rows, d_joint = block.rows, block.logits
            each = ctx.work.exponentials(block.logits, normaliser[rows])
            if is_faint:
                d_joint += (prior - normaliser)[rows] - log_p[rows].t().unsqueeze(-1)
                d_joint.exp_()
            else:
                torch.mul(each, weights[rows], out=d_joint)
            torch.sum(d_joint.mul_(by_token[:, rows]), dim=0, out=d_prior[rows])
            d_joint[block.at(token)] += d_seen[rows]
            d_logits = d_joint.addcmul_(each, d_prior[rows] + d_seen[rows], value=-1).flatten(1).to(d_weight.dtype)
            d_weight.addmm_(d_logits, block.features.flatten(0, 1), alpha=scale)
            d_bias += d_logits.sum(dim=1)
            ctx.work.activate_backward(block, d_logits, d_values, d_share)
        return d_share, d_prior, None, None, None, None


class _Collect(torch.autograd.Function):
    """Autograd comes here after all steps, though none sends a gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, work: _Work) -> Tensor:
        """A tensor of no numbers."""
        ctx.work = work
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight)
        return weight.new_empty(0)

    @staticmethod
    @backward_without_autocast
    def backward(ctx: Any, d_way: Tensor | None) -> tuple[Tensor | None, ...]:
        """The sums that the steps of this pass left."""
        return *(ctx.work.take_sums() or (None, None, None)), None
