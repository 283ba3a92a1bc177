"""What the LightningModule does with a batch, and the schedule, each by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from attnspan.data.pipeline.batches import Batch
from attnspan.errors import SettingError
from attnspan.models.decoding.greedy import Greedy
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.training.learning_rate import WarmupConstantDecay
from attnspan.training.lightning_module import Seq2SeqModule
from tests.conftest import Compose
from tests.models.arms import TARGET_VOCABULARY, pad, small


def batch() -> Batch:
    source, lengths = pad([[4, 5, 6], [7]])
    read, _ = pad([[1, 4, 5], [1, 6]])
    said, _ = pad([[4, 5, 2], [6, 2]])
    return Batch(
        source=source,
        source_lengths=lengths,
        target_input=read,
        target_output=said,
        index=torch.tensor([0, 1]),
        target_tokens=5,
        whole_tokens=5,
        whole_examples=2,
    )


def module(
    composed: Compose, *, arm: str = "bahdanau", label_smoothing: float = 0.0, dropout: float = 0.0
) -> Seq2SeqModule:
    made = Seq2SeqModule(
        model=small(composed, arm, f"model.dropout={dropout}"),
        decoding=Greedy(limit=LengthLimit(ratio=1.0, margin=2)),
        optimizer=partial(torch.optim.SGD, lr=1.0),
        schedule=partial(WarmupConstantDecay, warmup_steps=4, decay_share=0.2, final_ratio=0.5),
        label_smoothing=label_smoothing,
        decode_in_validation=False,
    )
    made.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_training_loss_by_hand(composed: Compose, smoothing: float) -> None:
    """-(1 - s) log p(y) - s mean_v log p(v), averaged over the five tokens that are no padding."""
    made, one = module(composed, label_smoothing=smoothing), batch()
    with torch.no_grad():
        table = torch.log_softmax(made.model(one.source, one.source_lengths, one.target_input)[0], dim=-1)
    total = 0.0
    for b, t, token in [(0, 0, 4), (0, 1, 5), (0, 2, 2), (1, 0, 6), (1, 1, 2)]:
        total -= (1 - smoothing) * float(table[b, t, token]) + smoothing * float(table[b, t].mean())
    assert float(made.training_step(one).detach()) == pytest.approx(total / 5, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_an_arm_that_copies_by_hand(composed: Compose, smoothing: float) -> None:
    """The share is spread over the V tokens of the vocabulary, whatever the batch's sources have beyond it."""
    made, one = module(composed, arm="luong_pointer", label_smoothing=smoothing), batch()
    V = TARGET_VOCABULARY
    one.source[0, 1], one.target_output[0, 0] = V + 1, V  # the first word beyond the vocabulary, and its extended id
    with torch.no_grad():
        table = made.model(one.source, one.source_lengths, one.target_input)[0]
    total = 0.0
    for b, t, token in [(0, 0, V), (0, 1, 5), (0, 2, 2), (1, 0, 6), (1, 1, 2)]:
        total -= (1 - smoothing) * float(table[b, t, token]) + smoothing * float(table[b, t, :V].mean())
    loss = made.training_step(one)
    assert float(loss.detach()) == pytest.approx(total / 5, rel=1e-5)
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in made.model.parameters())
    assert made.test_step(one).nll[0].item() == pytest.approx(
        -sum(float(table[0, t, y]) for t, y in [(0, V), (1, 5), (2, 2)])
    )


def test_given_tokens_are_in_no_loss(composed: Compose) -> None:
    """The second token of the first example and the first of the other: three of five are left."""
    made = module(composed)
    one = replace(batch(), given=torch.tensor([[False, True, False], [True, False, False]]), whole_tokens=3)
    with torch.no_grad():
        table = torch.log_softmax(made.model(one.source, one.source_lengths, one.target_input)[0], dim=-1)
    nll = [-float(table[b, t, token]) for b, t, token in [(0, 0, 4), (0, 2, 2), (1, 1, 2)]]
    assert float(made.training_step(one).detach()) == pytest.approx(sum(nll) / 3, rel=1e-5)
    with torch.no_grad():
        scored = made.validation_step(replace(one, target_tokens=3))
    assert scored.nll.tolist() == pytest.approx([nll[0] + nll[1], nll[2]], rel=1e-5)
    best = table.argmax(dim=-1).tolist()
    assert scored.correct.tolist() == [(best[0][0] == 4) + (best[0][2] == 2), int(best[1][1] == 2)]


def test_coverage_loss_by_hand(composed: Compose) -> None:
    """lambda sum_j min(alpha_tj, sum of alpha_j before t), over the five tokens that are no padding."""
    made, one = module(composed), batch()
    without = float(made.training_step(one).detach())
    made.coverage_loss = 0.5
    weights = made.model(one.source, one.source_lengths, one.target_input)[1].tolist()
    total = 0.0
    for b, T, S in ((0, 3, 3), (1, 2, 1)):
        covered = [0.0] * S
        for t in range(T):
            total += sum(min(weights[b][t][j], covered[j]) for j in range(S))
            covered = [had + weights[b][t][j] for j, had in enumerate(covered)]
    assert total > 1
    assert float(made.training_step(one).detach()) == pytest.approx(without + 0.5 * total / 5, rel=1e-5)
    made.training_step(one).backward()
    assert made.model.decoder.attention.score.energy.weight.grad.abs().max() > 0


def test_evaluation_is_without_smoothing_and_counts_every_token(composed: Compose) -> None:
    made, one = module(composed, label_smoothing=0.3).eval(), batch()
    tested = made.test_step(one)
    table = torch.log_softmax(made.model(one.source, one.source_lengths, one.target_input)[0].detach(), dim=-1)
    by_hand = [-sum(float(table[0, t, v]) for t, v in enumerate([4, 5, 2])), -float(table[1, 0, 6] + table[1, 1, 2])]
    assert tested.nll.tolist() == pytest.approx(by_hand, rel=1e-5)
    best = table.argmax(dim=-1)
    assert tested.correct.tolist() == [
        int((best[0] == one.target_output[0]).sum()),
        int((best[1, :2] == torch.tensor([6, 2])).sum()),
    ]


def test_validation_averages_tokens_and_not_batches(composed: Compose) -> None:
    made, both = module(composed).eval(), batch()
    nll = made.test_step(both).nll
    for row, (words, tokens) in enumerate([(3, 3), (1, 2)]):  # two batches of one example
        made.validation_step(
            Batch(
                source=both.source[row : row + 1, :words],
                source_lengths=both.source_lengths[row : row + 1],
                target_input=both.target_input[row : row + 1, :tokens],
                target_output=both.target_output[row : row + 1, :tokens],
                index=both.index[row : row + 1],
                target_tokens=tokens,
                whole_tokens=tokens,
                whole_examples=1,
            )
        )
    assert float(made.validation_loss.compute().detach()) == pytest.approx(float(nll.detach().sum()) / 5, rel=1e-5)


def test_dropout_is_for_training(composed: Compose) -> None:
    made, one = module(composed, dropout=0.5), batch()
    made.train()
    assert float(made.training_step(one).detach()) != float(made.training_step(one).detach())
    made.eval()
    assert torch.equal(made.test_step(one).nll, made.test_step(one).nll)


def test_the_schedule_by_hand() -> None:
    """Four updates up to the full rate, which stays; from update seven on it falls to the half of it in five."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=8.0)
    schedule = WarmupConstantDecay(optimizer, warmup_steps=4, decay_share=0.2, final_ratio=0.5)
    rates = []
    for update in range(14):
        if update == 7:
            schedule.start_decay(5)
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    falling = [8.0 * (1 - 0.5 * step / 5) for step in range(6)]
    assert rates == pytest.approx([2.0, 4.0, 6.0, *[8.0] * 4, *falling, 4.0])


def test_a_decay_takes_its_share_of_all_updates() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = WarmupConstantDecay(optimizer, warmup_steps=0, decay_share=0.2, final_ratio=0.0)
    decay = schedule.decay_after(400)
    assert decay / (400 + decay) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("warmup_steps", -1, "must be at least 0, not -1"),
        ("decay_share", 1, "must be at least 0 and less than 1, not 1"),
        ("final_ratio", -0.1, "must be at least 0, not -0.1"),
    ],
)
def test_settings_of_the_schedule(name: str, value: float, message: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    settings: dict[str, Any] = {"warmup_steps": 4, "decay_share": 0.2, "final_ratio": 0.0, name: value}
    with pytest.raises(SettingError) as refused:
        WarmupConstantDecay(optimizer, **settings)
    assert (refused.value.name, refused.value.problem) == (name, message)


def test_the_schedule_moves_with_updates(composed: Compose) -> None:
    made = module(composed)
    settings = made.configure_optimizers()
    assert settings["lr_scheduler"]["interval"] == "step"  # type: ignore[index,call-overload]
