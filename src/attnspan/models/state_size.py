"""How much a decoder carries from step to step, in numbers: what it can know of the source, however it was trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import State
from attnspan.models.seq2seq import Seq2Seq


@dataclass(frozen=True, kw_only=True)
class StateSize:
    """Numbers of one example: a state of fixed size, and what grows with the sequences."""

    fixed: int
    """In the state, whatever the lengths."""
    per_source_token: int
    """In the state, and in the memory (states, keys, values) where there is attention to look at it.

    Of an image, for each region.
    """
    per_target_token: int
    """In the state, as in the cache of a transformer."""


@torch.no_grad()
def state_size(model: Seq2Seq) -> StateSize:
    """Count them by two sources of different sizes and one step, counters left out. The random state stays."""
    device = model.readout.weight.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        drawn = [model.random_sources([size]) for size in (1, 64)]
        memories = [model.encode(source.to(device), sizes) for source, sizes in drawn]
        before = [model.decoder.start(memory) for memory in memories]
        first = torch.zeros(1, dtype=torch.long, device=device)
        _, decoded = model.step(first, before[0], memories[0])
    looks = decoded.weights is not None
    one, two = (
        _numbers(state) + (_numbers(_looked_at(memory)) if looks else 0)
        for state, memory in zip(before, memories, strict=True)
    )
    short, long = (memory.states.size(1) for memory in memories)
    per_source_token = (two - one) // (long - short)
    per_target_token = _numbers(decoded.state) - _numbers(before[0])
    fixed = one - per_source_token * short
    return StateSize(fixed=fixed, per_source_token=per_source_token, per_target_token=per_target_token)


def _looked_at(memory: Memory) -> State:
    keys = None if memory.keys is memory.states else memory.keys
    return tuple(part for part in (memory.states, keys, memory.values) if part is not None)


def _numbers(state: State) -> int:
    return sum(part.numel() for part in state if part.is_floating_point())
