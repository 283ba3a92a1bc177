"""What every model promises, tried on a tiny batch: a part that breaks it trains without a word and is wrong.

1. The hooks of a score or window are complete: who sets ``remembers`` overrides ``start`` and ``remember``, and the
   other way round.
2. The same batch gives the same numbers twice.
3. Padding never matters: an example alone gives what it gives next to a longer one, and no weight lies in padding.
4. Teacher forcing is the steps of decoding: a whole target at once gives what its steps give one by one.
5. All that a step carries to the next is in its state, a row for each example, as a beam needs it.
6. What a decoder copies by is a distribution.
7. Several rows of the state may look at one source, where the decoder says so: the hypotheses of a beam.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnspan.errors import InputError, first_line
from attnspan.models.attention.scores import Score
from attnspan.models.attention.windows import Window
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import State
from attnspan.models.seq2seq import Seq2Seq
from attnspan.models.source_size import trimmed

_LENGTHS, _STEPS = (7, 2, 4), 5
"""Source lengths and target length of the batch."""
_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}
"""Largest relative difference that is rounding."""
_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError)
"""What a user's class may raise."""
_SPREAD = 3.0
"""Factor of the fresh weights: with small ones attention is flat, and hides what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class _Batch:
    source: Tensor
    lengths: Tensor
    target: Tensor

    def row(self, number: int) -> _Batch:
        """One example without padding."""
        rows = slice(number, number + 1)
        source = trimmed(self.source[rows], self.lengths[rows])
        return _Batch(source=source, lengths=self.lengths[rows], target=self.target[rows])


def check_contract(model: Seq2Seq) -> None:
    """Try what ``model`` promises, on a copy with larger weights.

    Raises:
        InputError: it breaks a promise; names the class, where it can be told, and says what is wrong.
    """
    for part in model.modules():
        if isinstance(part, Score | Window):
            _check_hooks(part)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        tried = copy.deepcopy(model).cpu().eval()
        for parameter in tried.parameters():
            parameter.mul_(_SPREAD)
        try:
            _check(copy.deepcopy(tried).double())
        except _FAILURES:  # a constant of another precision in a user's class
            try:
                _check(tried.float())
            except _FAILURES as error:
                raise InputError(
                    f"the model fails on a batch of {len(_LENGTHS)} examples ({type(error).__name__}: "
                    f"{first_line(error)}); ATTNSPAN_TRACEBACK=1 shows where"
                ) from error


def _check_hooks(part: Score | Window) -> None:
    name, kind = type(part).__name__, type(part)
    base = Score if isinstance(part, Score) else Window
    has = {hook for hook in ("start", "remember") if getattr(kind, hook) is not getattr(base, hook)}
    if part.remembers and "remember" not in has:
        raise InputError(f"{name}: sets remembers=True and has no remember(): its state would never change")
    if part.remembers and "start" not in has:
        raise InputError(f"{name}: sets remembers=True and has no start(): there is no state before the first step")
    if has and not part.remembers:
        raise InputError(
            f"{name}: has {' and '.join(f'{hook}()' for hook in sorted(has, reverse=True))} and does not set "
            "remembers = True: training would use the start state at every step, and decoding the real one"
        )


def _check(model: Seq2Seq) -> None:
    batch = _batch(model)
    logits, weights = model(batch.source, batch.lengths, batch.target)
    if logits.isnan().any() or not torch.isfinite(logits[..., : model.readout.out_features]).all():
        raise InputError("the logits of the fresh model are not finite")
    again, _ = model(batch.source, batch.lengths, batch.target)
    _compare(logits, again, "the same batch gives other numbers the second time: a part keeps something, or draws")
    if model.decoder.copies:
        total = logits.logsumexp(dim=-1)
        _compare(torch.zeros_like(total), total, f"{_name(model.decoder)} copies by weights that do not sum to 1")
    _check_padding(model, batch, logits, weights)
    _check_steps(model, batch)


def _batch(model: Seq2Seq) -> _Batch:
    source, lengths = model.random_sources(_LENGTHS)
    tokens = model.target_embedding.num_embeddings
    target = torch.randint(min(1, tokens - 1), tokens, (len(_LENGTHS), _STEPS))
    return _Batch(source=source, lengths=lengths, target=target)


def _check_padding(model: Seq2Seq, batch: _Batch, logits: Tensor, weights: Tensor | None) -> None:
    memory = model.encode(batch.source, batch.lengths)
    if weights is not None and bool(weights.transpose(1, 2)[~memory.mask].ne(0).any()):
        raise InputError(f"{_name(model.decoder)}: the attention weights are not 0 in padding")
    for number in range(len(_LENGTHS)):
        row = batch.row(number)
        alone = model.encode(row.source, row.lengths)
        length = alone.states.size(1)
        what = "what it makes of an example depends on how long the others of its batch are: it looks at padding"
        _compare(memory.states[number, :length], alone.states[0], f"{_name(model.encoder)}: {what}")
        for together, single in zip(memory.final_state, alone.final_state, strict=True):
            _compare(together[number], single[0], f"{_name(model.encoder)}.final_state: {what}")
        if memory.keys is not None and alone.keys is not None:
            _compare(memory.keys[number, ..., :length, :], alone.keys[0], f"{_owner_of_keys(model)}.keys: {what}")
        single_logits, _ = model(row.source, row.lengths, row.target)
        together = logits[number, :, : single_logits.size(-1)]  # what copies has more ids where sources are longer
        _compare(together, single_logits[0], f"{_owner_of_keys(model)}: {what}")


def _check_steps(model: Seq2Seq, batch: _Batch) -> None:
    decoder, memory = model.decoder, model.encode(batch.source, batch.lengths)
    first, second = batch.target[:, 0], batch.target[:, 1]
    state, steps = decoder.start(memory), []
    for token in batch.target.unbind(1):
        logits, decoded = model.step(token, state, memory)
        steps.append(logits)
        state = decoded.state
    _compare(
        model.unroll(batch.target, memory)[0],
        torch.stack(steps, dim=1),
        f"{_owner_of_keys(model)}: a target at once (teacher forcing, in training) gives other numbers than step by "
        "step (in decoding)",
    )
    state = decoder.start(memory)
    _check_rows(model, state)
    state = model.step(first, state, memory)[1].state
    _check_rows(model, state)
    expected, _ = model.step(second, state, memory)
    other = model.step(second, decoder.start(memory), memory)[1].state
    _compare_reordered(model, expected, second, state, memory)
    if decoder.shares_memory:
        pairs = zip(state, other, strict=True)
        both = tuple(torch.stack(pair, dim=1).flatten(0, 1) for pair in pairs)
        found, _ = model.step(second.repeat_interleave(2), both, memory)
        complaint = "several steps that look at one source give other numbers than each alone, and a beam needs them"
        expected = torch.stack([expected, model.step(second, other, memory)[0]], dim=1).flatten(0, 1)
        _compare(expected, found, f"{_owner_of_keys(model)}: {complaint}")


def _check_rows(model: Seq2Seq, state: State) -> None:
    for number, part in enumerate(state):
        if part.size(0) != len(_LENGTHS):
            raise InputError(
                f"{_name(model.decoder)}: part {number} of the state has the shape {tuple(part.shape)}; its first "
                f"dimension must be the batch, {len(_LENGTHS)} here"
            )


def _compare_reordered(model: Seq2Seq, expected: Tensor, token: Tensor, state: State, memory: Memory) -> None:
    order = torch.tensor([2, 0, 1])  # as a beam does, which reorders its hypotheses between two steps
    found, _ = model.step(token[order], tuple(part[order] for part in state), memory.select(order))
    _compare(
        expected[order],
        found,
        f"{_owner_of_keys(model)}: a step depends on more than its state: what is carried to the next step must be in "
        "the state, or a beam that reorders its hypotheses mixes them up",
    )


def _compare(expected: Tensor, found: Tensor, complaint: str) -> None:
    if expected.shape != found.shape:
        raise InputError(f"{complaint} (shapes {tuple(expected.shape)} and {tuple(found.shape)})")
    difference = torch.where(expected == found, 0.0, expected - found).abs()  # ids without a word have log p of -inf
    largest = float(difference.max()) if difference.numel() else 0.0
    size = expected[expected.isfinite()].abs()
    if not largest <= _TOLERANCE[expected.dtype] * max(1.0, float(size.max() if size.numel() else 0)):
        raise InputError(f"{complaint} (they differ by {largest:.2g})")


def _owner_of_keys(model: Seq2Seq) -> str:
    """The score, if the decoder has one, else the decoder."""
    score = next((part for part in model.decoder.modules() if isinstance(part, Score)), None)
    return _name(model.decoder) if score is None else f"{_name(model.decoder)} with {_name(score)}"


def _name(part: nn.Module) -> str:
    return type(part).__name__
