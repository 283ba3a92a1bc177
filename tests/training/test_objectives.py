"""Guidance and scheduled sampling, by hand and against the step-by-step algorithm of the paper."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor

from attnspan.config.instantiate import build, build_corpus
from attnspan.data.pipeline.prepare import prepare
from attnspan.data.tokenizer import EOS
from attnspan.errors import InputError
from attnspan.training.objectives.guidance import DiagonalGuidance, DoublyStochasticGuidance, GoldGuidance
from attnspan.training.objectives.scheduled_sampling import (
    InverseSigmoidScheduledSampling,
    LinearScheduledSampling,
    ScheduledSampling,
)
from tests.conftest import TINY, Compose
from tests.models.arms import pad, small
from tests.training.test_lightning_module import batch, module

TRAIN = Dataset.from_dict({"source_ids": [[4, 5, 6], [7]], "alignment": ["0-0 2-0 1p1", "0-0"]})


MASK = torch.tensor([[True, True, True], [True, False, False]])


def weights() -> Tensor:
    """Of two examples with T = 3, 2 (with <eos>) and S = 3, 1."""
    drawn = torch.softmax(torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    drawn[1, :, 1:] = 0.0
    drawn[1, :, 0] = 1.0
    return drawn.requires_grad_()


@pytest.mark.parametrize("reverse", [False, True])
def test_diagonal_by_hand(reverse: bool) -> None:
    alpha, one, total = weights(), batch(), 0.0
    for b, T, S in ((0, 3, 3), (1, 2, 1)):
        for t in range(1, T + 1):
            for j in range(1, S + 1):
                place = S + 1 - j if reverse else j
                total += alpha[b, t - 1, j - 1].item() * (1 - math.exp(-((place / S - t / T) ** 2) / (2 * 0.3**2)))
    guidance = DiagonalGuidance(train=TRAIN, weight=0.5, width=0.3, reverse=reverse)
    loss = guidance(alpha, one, MASK)
    assert float(loss.detach()) == pytest.approx(0.5 * total, rel=1e-5)
    loss.backward()
    assert alpha.grad is not None
    assert (alpha.grad[1, 2] == 0).all()  # padding


def test_gold_by_hand() -> None:
    """The first token has two sure links, the possible one does not count, <eos> has none."""
    alpha = weights()
    found = GoldGuidance(train=TRAIN, weight=2.0)(alpha, batch(), MASK)
    first = -(math.log(alpha[0, 0, 0].item()) + math.log(alpha[0, 0, 2].item())) / 2
    assert float(found.detach()) == pytest.approx(2 * first, rel=1e-5)


@pytest.mark.parametrize("attention_sum", [None, 1.0])
def test_doubly_stochastic_by_hand(attention_sum: float | None) -> None:
    """With tau = T/S, T = 3, 2 and S = 3, 1; a position of the first example has the paper's 1 in both cases."""
    alpha, one, total = weights(), batch(), 0.0
    for b, T, S in ((0, 3, 3), (1, 2, 1)):
        for j in range(S):
            received = sum(alpha[b, t, j].item() for t in range(T))
            total += ((T / S if attention_sum is None else attention_sum) - received) ** 2
    loss = DoublyStochasticGuidance(train=TRAIN, weight=0.5, attention_sum=attention_sum)(alpha, one, MASK)
    assert float(loss.detach()) == pytest.approx(0.5 * total, rel=1e-5)
    loss.backward()
    assert alpha.grad is not None
    assert (alpha.grad[1, 2] == 0).all()
    assert (alpha.grad[1, :, 1:] == 0).all()
    assert (alpha.grad[0] != 0).all()
    one.target_output = torch.zeros_like(one.target_output)  # the share of a process that has no example
    loss = DoublyStochasticGuidance(train=TRAIN, weight=0.5, attention_sum=1.0)(alpha, one, MASK)
    assert float(loss.detach()) == 0


def test_guidance_is_part_of_the_training_loss_only(composed: Compose) -> None:
    made, one = module(composed), batch()
    without, tested = float(made.training_step(one).detach()), made.test_step(one)
    made.guidance = GoldGuidance(train=TRAIN, weight=2.0)
    alpha = made.model(one.source, one.source_lengths, one.target_input)[1]
    extra = float(made.guidance(alpha, one, MASK).detach())
    loss = made.training_step(one)
    assert float(loss.detach()) == pytest.approx(without + extra / 5, rel=1e-5)
    assert made.test_step(one).nll.tolist() == tested.nll.tolist()
    loss.backward()
    assert made.model.decoder.attention.score.energy.weight.grad.abs().max() > 0


def test_gold_links_come_from_the_data(composed: Compose) -> None:
    """With the option, training has them, and the data has an identity of its own; without it, the line says what."""
    config = composed(*TINY, "guidance=gold", "data.training_alignment=true")
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    guidance = build(config, "guidance")(train=prepared.train)
    ids = prepared.train[0]["source_ids"]
    one = batch()
    one.index = torch.tensor([0])
    one.target_output = torch.tensor([[*ids[::-1], EOS]])
    alpha = torch.full((1, len(ids) + 1, len(ids)), 0.1)
    alpha[0, : len(ids)] = torch.eye(len(ids)).flip(0) * 0.9
    assert float(guidance(alpha, one, MASK)) == pytest.approx(-len(ids) * math.log(0.9), rel=1e-4)
    plain = composed(*TINY, "guidance=gold")
    without = prepare(build_corpus(plain), cache_dir=Path(plain["cache_dir"]))
    assert without.fingerprint != prepared.fingerprint
    assert without.test_fingerprint == prepared.test_fingerprint
    with pytest.raises(
        InputError, match=r"^guidance\._target_: needs gold links in training: data\.training_alignment"
    ):
        build(plain, "guidance")(train=without.train)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("guidance=diagonal", "guidance.width=0"), r"^guidance\.width: must be more than 0"),
        (("guidance=doubly_stochastic", "guidance.attention_sum=-1"), r"^guidance\.attention_sum: must be a number of"),
        (("guidance=gold", "guidance.weight=-1"), r"^guidance\.weight: must be a number of at least 0"),
        (
            ("scheduled_sampling=linear", "scheduled_sampling.end=0"),
            r"^scheduled_sampling\.end: must be a whole number",
        ),
        (
            ("scheduled_sampling=linear", "scheduled_sampling.begin=5000"),
            r"^scheduled_sampling\.end: must be more than",
        ),
        (("scheduled_sampling=linear", "scheduled_sampling.final_ratio=1.5"), r"final_ratio: must be at most 1"),
        (("scheduled_sampling=inverse_sigmoid", "scheduled_sampling.passes=0"), r"passes: must be a whole number"),
        (("scheduled_sampling=inverse_sigmoid", "scheduled_sampling.k=0.5"), r"k: must be at least 1"),
    ],
)
def test_bad_settings_are_refused(composed: Compose, overrides: tuple[str, ...], message: str) -> None:
    config, key = composed(*overrides), overrides[0].partition("=")[0]
    make = (lambda: build(config, key)(train=TRAIN)) if key == "guidance" else (lambda: build(config, key))
    with pytest.raises(InputError, match=message):
        make()


def test_ratios_by_hand() -> None:
    linear = LinearScheduledSampling(begin=100, end=300, final_ratio=0.5, passes=1)
    assert [linear.ratio(update) for update in (0, 100, 200, 300, 9999)] == [0.0, 0.0, 0.25, 0.5, 0.5]
    sigmoid = InverseSigmoidScheduledSampling(k=100.0, passes=1)
    for update in (0, 300, 461, 800):
        assert sigmoid.ratio(update) == pytest.approx(1 - 100 / (100 + math.exp(update / 100)))
    assert sigmoid.ratio(10**7) == 1.0


class Half(ScheduledSampling):
    def ratio(self, update: int) -> float:
        return 0.6


ARMS: list[tuple[str, ...]] = [
    ("plain",),
    ("plain", "rnn=min_gru"),
    ("bahdanau",),
    ("coverage",),
    ("luong_general_feeding",),
    ("transformer",),
]


@pytest.mark.parametrize("arm", ARMS, ids=" ".join)
def test_enough_passes_are_the_steps_of_the_paper(composed: Compose, float64: Any, arm: tuple[str, ...]) -> None:
    """Step by step: with the same coin, the token of the reference or what the model says after all it has read."""
    model = small(composed, *arm)
    source, lengths = pad([[4, 5, 6, 7], [9], [10, 4, 9]])
    target, _ = pad([[1, 4, 5, 6, 8, 3], [1, 7, 8], [1, 4, 4, 8, 5]])
    memory = model.encode(source, lengths)
    torch.manual_seed(3)
    read = Half(passes=6)(model, memory, target, update=0)
    torch.manual_seed(3)
    replaced = torch.rand(target.shape) < 0.6
    with torch.no_grad():
        state, previous, right = model.decoder.start(memory), target[:, 0], [target[:, 0]]
        for t in range(1, target.size(1)):
            logits, decoded = model.step(previous, state, memory)
            state = decoded.state
            said = logits[:, EOS + 1 :].argmax(dim=1) + EOS + 1
            previous = torch.where(replaced[:, t] & (target[:, t] != 0), said, target[:, t])
            right.append(previous)
    assert read.tolist() == torch.stack(right, dim=1).tolist()
    assert (read != target).any()
    once = Half(passes=1)(model, memory, target, update=0)
    assert once.shape == target.shape


def test_given_tokens_are_read_as_they_are(composed: Compose) -> None:
    """The second word of the target is given; of the model's own words no other may stand in its place."""
    model, (source, lengths) = small(composed, "luong_dot"), pad([[4, 5, 6], [7, 8]])
    memory, target = model.encode(source, lengths), torch.tensor([[1, 3, 4, 5], [1, 6, 7, 8]])
    given = torch.tensor([[False, True, False, False]] * 2)
    always = LinearScheduledSampling(begin=0, end=1, final_ratio=1.0, passes=1)
    said = model.unroll(target, memory)[0][..., 3:].argmax(dim=-1) + 3
    expected = torch.stack([target[:, 0], said[:, 0], target[:, 2], said[:, 2]], dim=1)
    assert always(model, memory, target, update=1, given=given).tolist() == expected.tolist()


def test_training_reads_what_was_sampled(composed: Compose) -> None:
    """The loss is that of the replaced input and the true output; without it, or at ratio 0, nothing is drawn."""
    made, one = module(composed), batch()
    before = torch.get_rng_state()
    plain = float(made.training_step(one).detach())
    made.scheduled_sampling = LinearScheduledSampling(begin=5, end=9, final_ratio=1.0, passes=1)
    assert float(made.training_step(one).detach()) == plain
    assert torch.equal(torch.get_rng_state(), before)
    made.scheduled_sampling = Half(passes=1)
    torch.manual_seed(5)
    found = made.training_step(one)
    torch.manual_seed(5)
    read = made.scheduled_sampling(
        made.model, made.model.encode(one.source, one.source_lengths), one.target_input, update=0
    )
    assert (read != one.target_input).any()
    one.target_input, made.scheduled_sampling = read, None
    assert float(found.detach()) == pytest.approx(float(made.training_step(one).detach()), rel=1e-6)
    found.backward()
    assert made.model.encoder.forwards[0].cells.weight_hh_l0.grad.abs().max() > 0
