"""Hard attention: what is drawn, what REINFORCE adds, and that its gradient is that of the expected log-likelihood."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attnspan.config.instantiate import assemble_model
from attnspan.data.pipeline.batches import Batch
from attnspan.errors import InputError
from attnspan.models.attention.hard import HardSoftmax
from attnspan.models.decoders.base import DecoderOutput
from attnspan.models.decoding.greedy import Greedy
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.training.learning_rate import WarmupConstantDecay
from attnspan.training.lightning_module import Seq2SeqModule
from attnspan.training.objectives.reinforce import Reinforce
from tests.conftest import Compose
from tests.models.arms import pad, small, small_config
from tests.training.test_lightning_module import batch

HARD = "decoder/normaliser=hard"
ARMS = [("bahdanau",), ("luong_general",), ("luong_general_feeding",), ("coverage",), ("luong_local_m",)]


def normaliser(**changes: Any) -> HardSoftmax:
    given = {"expectation_share": 0.5, "reward_weight": 1.0, "entropy_weight": 0.0, "baseline_decay": 0.9}
    return HardSoftmax(query_size=4, heads=1, **(given | changes))


def module(composed: Compose, *overrides: str) -> Seq2SeqModule:
    made = Seq2SeqModule(
        model=small(composed, "bahdanau", HARD, *overrides),
        decoding=Greedy(limit=LengthLimit(ratio=1.0, margin=2)),
        optimizer=partial(torch.optim.SGD, lr=1.0),
        schedule=partial(WarmupConstantDecay, warmup_steps=4, decay_share=0.2, final_ratio=0.5),
        label_smoothing=0.0,
        decode_in_validation=False,
    ).train()
    made.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return made


def test_positions_are_drawn_by_their_weights() -> None:
    part = normaliser(expectation_share=0.0).train()
    torch.manual_seed(1)
    alpha = torch.tensor([0.5, 0.0, 0.2, 0.3]).expand(1, 1, 20000, 4)
    choices = part.choose(alpha, *part.start(torch.ones(1, 4, dtype=torch.bool)))
    assert choices is not None
    assert (choices.sum(dim=-1) == 1).all()
    torch.testing.assert_close(choices.mean(dim=(0, 1, 2)), alpha[0, 0, 0], atol=0.015, rtol=0)
    assert (choices[..., 1] == 0).all()


def test_an_example_takes_the_expectation_at_all_steps_or_at_none(composed: Compose) -> None:
    """Half of them by default; the context is then the weighted mean, and else the state of the drawn position."""
    model = small(composed, "luong_general", HARD).train()
    source, lengths = pad([[4, 5, 6], [7, 8]] * 500)
    memory = model.encode(source, lengths)
    torch.manual_seed(1)
    decoded = model.unroll(torch.full((1000, 4), 5), memory)[1]
    assert decoded.choices is not None
    drawn = decoded.choices.sum(dim=-1)
    assert (drawn == drawn[:, :1]).all()
    assert 0.45 < float(drawn.mean()) < 0.55
    assert (decoded.choices.transpose(1, 2)[~memory.mask] == 0).all()
    attention = model.decoder.attention
    query = torch.randn(1000, 1, 8)
    context, weights, choices, _ = attention(query, memory, attention.start(memory))
    drawn = choices.any(dim=-1).view(-1)
    assert 0 < int(drawn.sum()) < 1000
    torch.testing.assert_close(context[~drawn], (weights.squeeze(1) @ memory.states)[~drawn])
    places = choices.view(1000, -1).argmax(dim=1)
    assert torch.equal(context.squeeze(1)[drawn], memory.states[torch.arange(1000), places][drawn])


@pytest.mark.parametrize("arm", ARMS, ids=" ".join)
def test_evaluation_looks_at_the_likeliest_position_and_draws_nothing(composed: Compose, arm: tuple[str, ...]) -> None:
    model = small(composed, *arm, HARD)
    source, lengths = pad([[4, 5, 6, 7], [9], [10, 4, 9]])
    memory = model.encode(source, lengths)
    before = torch.get_rng_state()
    logits, decoded = model.unroll(torch.full((3, 4), 5), memory)
    assert torch.equal(torch.get_rng_state(), before)
    assert decoded.choices is None
    assert set(decoded.weights.unique().tolist()) <= {0.0, 1.0}
    assert (decoded.weights.sum(dim=-1) == 1).all()
    soft = small(composed, *arm)
    soft.load_state_dict(model.state_dict())
    first = soft.unroll(torch.full((3, 1), 5), soft.encode(source, lengths))[1].weights
    assert torch.equal(first.argmax(dim=-1), decoded.weights[:, :1].argmax(dim=-1))
    assert torch.isfinite(logits).all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("arm", ["bahdanau", "luong_general", "luong_general_feeding", "coverage"])
def test_the_estimator_is_unbiased(composed: Compose, arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all paths a of positions, sum p(a) g(a) is the gradient of sum p(a) log p(y | a), whatever the baseline."""
    model = small(composed, arm, HARD, "decoder.normaliser.expectation_share=0").train()
    source, lengths = pad([[4, 5, 6]])
    read, said = torch.tensor([[1, 4, 7]]), torch.tensor([[4, 7, 2]])
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    objective, estimate = torch.zeros(()), [torch.zeros_like(parameter) for parameter in parameters]
    for path in itertools.product(range(3), repeat=3):
        left = list(path)

        def choose(self: HardSoftmax, weights: Tensor, *state: Tensor, left: list[int] = left) -> Tensor:
            at = torch.tensor([left.pop(0) for _ in range(weights.size(2))])
            return F.one_hot(at, 3).to(weights.dtype).view(1, 1, -1, 3)

        monkeypatch.setattr(HardSoftmax, "choose", choose)
        logits, decoded = model.unroll(read, model.encode(source, lengths))
        nll = F.cross_entropy(logits.flatten(0, 1), said.flatten(), reduction="sum")
        p_of_path = (decoded.weights * decoded.choices).sum(dim=-1).prod()
        objective = objective - p_of_path * nll
        reinforce = Reinforce.of(model)
        assert reinforce is not None
        reinforce.entropy_weight = 0.0
        reinforce.baseline.fill_(-1.7)
        loss = nll + reinforce(logits, decoded, said)
        for total, one in zip(estimate, gradients(loss, parameters), strict=True):
            total -= p_of_path.detach() * one
    right = gradients(objective, parameters)
    assert max(float(one.abs().max()) for one in right) > 1e-3
    for found, exact in zip(estimate, right, strict=True):
        torch.testing.assert_close(found, exact, atol=1e-10, rtol=1e-8)


def gradients(loss: Tensor, parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True))


@pytest.mark.usefixtures("float64")
def test_the_loss_by_hand() -> None:
    """Two examples of T = 3, 2 and S = 3, 2; the second takes the expectation. Then the baseline moves.

    The value is that of the entropy alone; the gradient is that of both terms.
    """
    reinforce = Reinforce(normaliser(reward_weight=0.7, entropy_weight=0.3))
    reinforce.baseline.fill_(-0.4)
    torch.manual_seed(2)
    alpha, logits = torch.softmax(torch.randn(2, 3, 3), dim=-1), torch.randn(2, 3, 5)
    alpha[1, :, 2], alpha[1, :, :2] = 0.0, torch.softmax(torch.randn(3, 2), dim=-1)
    said = torch.tensor([[4, 3, 2], [4, 2, 0]])
    path = [2, 0, 1]
    choices = torch.zeros(2, 3, 3)
    choices[0, range(3), path] = 1.0
    seen = alpha > 0
    alpha.requires_grad_()
    decoded = DecoderOutput(output=torch.zeros(2, 3, 1), state=(), weights=alpha, choices=choices)
    log_p = torch.log_softmax(logits, dim=-1)
    rewards = [sum(log_p[b, t, said[b, t]] for t in range(T)) for b, T in ((0, 3), (1, 2))]
    entropy = sum(
        -alpha[b, t, j] * alpha[b, t, j].log() for b, T, S in ((0, 3, 3), (1, 2, 2)) for t in range(T) for j in range(S)
    )
    of_choices = sum(alpha[0, t, path[t]].log() for t in range(3))
    right = -0.7 * (rewards[0] + 0.4 * 3) * of_choices - 0.3 * entropy
    loss = reinforce(logits, decoded, said)
    torch.testing.assert_close(loss, -0.3 * entropy)
    torch.testing.assert_close(*(torch.autograd.grad(one, alpha)[0][seen] for one in (loss, right)))
    torch.testing.assert_close(reinforce.baseline, 0.9 * torch.tensor(-0.4) + 0.1 * (rewards[0] + rewards[1]) / 5)


def test_training_adds_it_and_resumes_with_the_baseline(composed: Compose) -> None:
    """After two steps, the state and the random numbers: the next two are the same bit for bit."""
    made, one = module(composed), batch()
    torch.manual_seed(1)
    step(made, one, 2)
    assert float(made.reinforce.baseline) < 0
    kept, random = {name: value.clone() for name, value in made.state_dict().items()}, torch.get_rng_state()
    assert "reinforce.baseline" in kept
    on = step(made, one, 2)
    resumed = module(composed)
    resumed.load_state_dict(kept)
    torch.set_rng_state(random)
    assert step(resumed, one, 2) == on
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in resumed.state_dict().items())
    without = module(composed)
    without.load_state_dict(kept)
    without.reinforce.baseline.zero_()
    torch.set_rng_state(random)
    assert step(without, one, 2) != on
    assert made.eval().test_step(one).nll.tolist() == made.test_step(one).nll.tolist()


def step(made: Seq2SeqModule, one: Batch, times: int) -> list[float]:
    losses = []
    for _ in range(times):
        loss = made.training_step(one)
        made.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
        losses.append(float(loss.detach()))
    return losses


def test_other_arms_have_none(composed: Compose) -> None:
    assert Reinforce.of(small(composed, "bahdanau")) is None
    assert Reinforce.of(small(composed, "plain")) is None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("bahdanau", "decoder.heads=2"), r"looks at one position a step, and so has one head, not 2"),
        (("luong_local_p",), r"^decoder\.window: LocalPredictiveWindow multiplies the weights"),
        (("forward",), r"^decoder\.normaliser: .*by which only Softmax"),
        (("transformer", "decoder.heads=1", "encoder.heads=1"), r"a Transformer looks at all positions, and HardSoft"),
        (("bahdanau", "decoder.normaliser.expectation_share=1"), r"expectation_share: must be a number .* less than 1"),
        (("bahdanau", "decoder.normaliser.reward_weight=-1"), r"normaliser\.reward_weight: must be a number"),
    ],
)
def test_what_does_not_go_together_is_one_line(composed: Compose, overrides: tuple[str, ...], words: str) -> None:
    config = small_config(composed, overrides[0], HARD, *overrides[1:])
    with pytest.raises(InputError, match=words) as error:
        assemble_model(config, source_vocabulary_size=9, target_vocabulary_size=9)
    assert "\n" not in str(error.value)
