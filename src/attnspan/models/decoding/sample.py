"""Sampling."""

from __future__ import annotations

import random

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from attnspan.errors import SettingError, check_numbers
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.decoding.one_path import Choose, OnePath
from attnspan.models.decoding.strategy import Task
from attnspan.models.source_size import trimmed

_SCALE = 2.0**52
"""Probabilities are whole multiples of its inverse: a sum of floats has no deterministic kernel on a GPU."""


class Sample(OnePath):
    """y_t is drawn from softmax(log p(y | y_1 ... y_{t-1}, x) / temperature), free-running until <eos> or the limit.

    The random numbers depend on the seed, the source's tokens, the number of the hypothesis and the step, and on
    nothing else: an example is the same alone and in a batch, and equal sources have equal hypotheses. With n
    hypotheses of a source, each is drawn independently of the others.

    Args:
        temperature: below 1 for likelier tokens than the model's; near 0 for greedy decoding.
        seed: of the random numbers.
    """

    def __init__(
        self,
        *,
        limit: LengthLimit,
        temperature: float,
        seed: int,
        min_length: int = 0,
        no_repeat_ngram: int | None = None,
    ) -> None:
        super().__init__(limit=limit, min_length=min_length, no_repeat_ngram=no_repeat_ngram)
        check_numbers(temperature=temperature)
        if temperature == 0:
            raise SettingError("temperature", "must be more than 0; decoding=greedy takes the likeliest token")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise SettingError("seed", f"must be a whole number, not {seed!r}")
        self.temperature = temperature
        self.seed = seed

    def chooser(self, task: Task) -> Choose:
        """Draw by the inverse of the cumulative distribution."""
        uniform = self._uniform(task)

        def choose(log_probs: Float[Tensor, "N V"], rows: Int[Tensor, " N"], t: int) -> Int[Tensor, " N"]:
            # Subtracted first, so that no quotient overflows.
            scaled = (log_probs.double() - log_probs.max(dim=-1, keepdim=True).values) / self.temperature
            cumulative = (torch.softmax(scaled, dim=-1) * _SCALE).round().long().cumsum(dim=-1)
            total = cumulative[:, -1]
            drawn = torch.minimum((uniform[rows, t] * total).long(), total - 1)  # the product may round to the total
            token = (cumulative <= drawn.unsqueeze(1)).sum(dim=-1)
            return torch.where(log_probs.isnan().any(dim=-1), log_probs.argmax(dim=-1), token)

        return choose

    def _uniform(self, task: Task) -> Float[Tensor, "N T"]:
        """Random numbers from 0 to 1 for every path and step, on the device of the sources."""
        rows, sources = [], task.source.cpu()
        for row, limit in enumerate(task.limits.tolist()):
            content = trimmed(sources[row : row + 1], task.sizes[row : row + 1])[0].tolist()
            for number in range(task.n_best):
                draw = random.Random(f"{self.seed} {number} {content}")
                rows.append(torch.tensor([draw.random() for _ in range(limit + 1)], dtype=torch.float64))
        return pad_sequence(rows, batch_first=True).to(task.source.device, non_blocking=True)
