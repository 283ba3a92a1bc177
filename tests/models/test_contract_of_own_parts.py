"""A user's part that trains without a word and is wrong is refused before training, in one line that says why."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attnspan.cli.check import main
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.prepare import prepare as prepare_data
from attnspan.errors import InputError
from attnspan.models.attention.scores import AdditiveScore, CoverageScore, GeneralScore
from attnspan.models.attention.step import AttentionStep
from attnspan.models.attention.windows import GlobalWindow, PreviousMedianWindow
from attnspan.models.contract import check_contract
from attnspan.models.decoders.bahdanau import BahdanauDecoder
from attnspan.models.decoders.base import DecoderOutput, Readout
from attnspan.models.decoders.luong import LuongDecoder
from attnspan.models.decoding.greedy import Greedy
from attnspan.models.decoding.strategy import Specials
from attnspan.models.encoders.recurrent import BidirectionalEncoder
from attnspan.models.memory import Memory
from attnspan.training.steps.prepare import prepare
from tests.conftest import TINY, Compose
from tests.models.arms import WIRINGS, small

HERE = "tests.models.test_contract_of_own_parts"
SPECIALS = Specials(pad=0, bos=1, eos=2)


class FlagForgotten(GeneralScore):
    def start(self, keys: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        return (keys.new_zeros(keys.shape[:2]),)

    def forward(self, query: Tensor, keys: Tensor, *state: Tensor) -> Tensor:
        return super().forward(query, keys) - state[0].unsqueeze(1)

    def remember(self, step: AttentionStep, *state: Tensor) -> tuple[Tensor, ...]:
        return (state[0] + step.weights.sum(1),)


class NothingRemembered(FlagForgotten):
    remembers = True
    remember = GeneralScore.remember


class NoStart(GeneralScore):
    remembers = True

    def remember(self, step: AttentionStep, *state: Tensor) -> tuple[Tensor, ...]:
        return state


class RightMemory(FlagForgotten):
    remembers = True


class KeysOfAll(GeneralScore):
    def keys(self, states: Tensor) -> Tensor:
        return super().keys(states - states.mean(dim=1, keepdim=True))


class ScoresOfAll(GeneralScore):
    def forward(self, query: Tensor, keys: Tensor, *state: Tensor) -> Tensor:
        return super().forward(query, keys) / keys.size(1)


class KeptInItself(GeneralScore):
    remembers = True

    def start(self, keys: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        self.seen = keys.new_zeros(keys.shape[:2])
        return ()

    def forward(self, query: Tensor, keys: Tensor, *state: Tensor) -> Tensor:
        return super().forward(query, keys) - self.seen.unsqueeze(1)

    def remember(self, step: AttentionStep, *state: Tensor) -> tuple[Tensor, ...]:
        self.seen = self.seen + step.weights.sum(1)
        return ()


class Drawn(GeneralScore):
    def forward(self, query: Tensor, keys: Tensor, *state: Tensor) -> Tensor:
        return torch.nn.functional.dropout(super().forward(query, keys), 0.5)


class StateOfSourceFirst(CoverageScore):
    def start(self, keys: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        return (keys.new_zeros(keys.shape[:2]).transpose(0, 1),)

    def forward(self, query: Tensor, keys: Tensor, *state: Tensor) -> Tensor:
        return super().forward(query, keys, state[0].transpose(0, 1))

    def remember(self, step: AttentionStep, *state: Tensor) -> tuple[Tensor, ...]:
        return ((state[0].transpose(0, 1) + step.weights.squeeze(1)).transpose(0, 1),)


class Crashes(GeneralScore):
    def forward(self, query: Tensor, keys: Tensor, *state: Tensor) -> Tensor:
        return query @ keys  # [B, T, Q] and [B, S, A]


class SinglePrecision(AdditiveScore):
    """Right, and made for float32 only."""

    def forward(self, query: Tensor, keys: Tensor, *state: Tensor) -> Tensor:
        return query @ (keys.float() @ torch.ones(keys.size(-1), query.size(-1))).transpose(1, 2)


class OtherSteps(BahdanauDecoder):
    """Overrides a step, and training's kernel does not know of it."""

    def step(self, embedded: Tensor, state: Any, memory: Memory) -> Any:
        return super().step(2 * embedded, state, memory)


class LooksAhead(LuongDecoder):
    def unroll(self, embedded: Tensor, memory: Memory) -> Any:
        return super().unroll(embedded + embedded.mean(dim=1, keepdim=True), memory)


class HalfUniform(LuongDecoder):
    """Right: it mixes the readout's distribution with another, over one token more than the readout has."""

    def logits(self, decoded: DecoderOutput, embedded: Tensor, memory: Memory, readout: Readout) -> Tensor:
        own = torch.nn.functional.pad(torch.softmax(readout(decoded.output), dim=-1), (0, 1))
        return (own / 2 + 1 / (2 * own.size(-1))).log()


class TokensInTraining(LuongDecoder):
    """Sees which tokens are fed, in training only."""

    def read_target(self, tokens: Tensor, embedded: Tensor, memory: Memory, readout: Readout) -> Any:
        logits, decoded = super().read_target(tokens, embedded, memory, readout)
        return logits + tokens.unsqueeze(-1) * torch.arange(logits.size(-1)), decoded


class WindowWithoutFlag(PreviousMedianWindow):
    remembers = False


class WeightInPadding(GlobalWindow):
    def forward(self, query: Tensor, step: Tensor, mask: Tensor) -> Any:
        return torch.ones_like(mask).unsqueeze(1), None


class MeanOfAll(BidirectionalEncoder):
    def forward(self, embedded: Tensor, lengths: Tensor) -> Memory:
        memory = super().forward(embedded, lengths)
        return replace(memory, final_state=tuple(part / embedded.size(1) for part in memory.final_state))


def score(name: str) -> tuple[str, str]:
    return "luong_general", f"decoder.score._target_={HERE}.{name}"


WRONG = {
    "the flag forgotten": (score("FlagForgotten"), "FlagForgotten: has start() and remember() and does not set"),
    "no remember()": (score("NothingRemembered"), "NothingRemembered: sets remembers=True and has no remember()"),
    "no start()": (score("NoStart"), "NoStart: sets remembers=True and has no start()"),
    "keys look at padding": (score("KeysOfAll"), "KeysOfAll.keys: what it makes of an example depends on how long"),
    "scores look at padding": (score("ScoresOfAll"), "ScoresOfAll: what it makes of an example depends on how long"),
    "a state kept elsewhere": (score("KeptInItself"), "KeptInItself: a step depends on more than its state"),
    "random numbers": (score("Drawn"), "the same batch gives other numbers the second time"),
    "a state without rows": (
        ("coverage", f"decoder.score._target_={HERE}.StateOfSourceFirst"),
        "BahdanauDecoder: part 2 of the state has the shape (7, 3)",
    ),
    "a crash": (score("Crashes"), "the model fails on a batch of 3 examples (RuntimeError: "),
    "other steps than the kernel's": (
        ("bahdanau", f"decoder._target_={HERE}.OtherSteps"),
        "OtherSteps with AdditiveScore: a target at once",
    ),
    "a look ahead": (
        ("luong_general", f"decoder._target_={HERE}.LooksAhead"),
        "LooksAhead with GeneralScore: a target",
    ),
    "tokens seen in training only": (
        ("luong_general", f"decoder._target_={HERE}.TokensInTraining"),
        "TokensInTraining with GeneralScore: a target",
    ),
    "the flag of a window forgotten": (
        ("bahdanau_windowed", f"decoder.window._target_={HERE}.WindowWithoutFlag"),
        "WindowWithoutFlag: has start() and remember() and does not set",
    ),
    "weights in padding": (
        ("luong_general", f"+decoder.window={{_target_: {HERE}.WeightInPadding, _partial_: true}}"),
        "the attention weights are not 0 in padding",
    ),
    "an encoder that looks at padding": (
        ("plain", f"encoder._target_={HERE}.MeanOfAll"),
        "MeanOfAll.final_state: what it makes of an example",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_part_is_named(composed: Compose, case: str) -> None:
    wiring, words = WRONG[case]
    with pytest.raises(InputError) as refused:
        check_contract(small(composed, *wiring))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "wiring",
    [
        *WIRINGS,
        score("RightMemory"),
        ("bahdanau", f"decoder.score._target_={HERE}.SinglePrecision"),
        ("luong_general", f"decoder._target_={HERE}.HalfUniform"),
    ],
    ids=" ".join,
)
def test_right_parts_pass_and_are_left_as_they_are(composed: Compose, wiring: tuple[str, ...]) -> None:
    model = small(composed, *wiring).train()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    check_contract(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_search_and_loss_take_the_distribution_of_the_decoder(composed: Compose) -> None:
    """log p of a hypothesis is that of the mixture, teacher-forced and decoded, also of a token beyond the readout."""
    model = small(composed, "luong_general", f"decoder._target_={HERE}.HalfUniform")
    source, sizes = torch.tensor([[4, 5, 6]]), torch.tensor([3])
    target = torch.tensor([[1, 4]])
    logits, _ = model(source, sizes, target)
    assert logits.size(-1) == model.readout.out_features + 1
    torch.testing.assert_close(logits.log_softmax(dim=-1), logits)
    memory = model.encode(source, sizes)
    step, _ = model.step(target[:, 0], model.decoder.start(memory), memory)
    torch.testing.assert_close(step, logits[:, 0])
    found, _ = Greedy.next_log_probs(model, target[:, 0], model.decoder.start(memory), memory, SPECIALS)
    torch.testing.assert_close(found[:, 2:], logits[:, 0, 2:])


def test_a_run_with_a_wrong_part_does_not_begin(composed: Compose, cache: Path, tmp_path: Path) -> None:
    arm, target = score("KeysOfAll")
    config = composed(*TINY, f"decoder={arm}", target)
    data = prepare_data(build_corpus(config), cache_dir=cache)
    with pytest.raises(InputError, match=r"KeysOfAll\.keys"):
        prepare(config, data=data, directory=tmp_path / "run", command="", log=print)
    assert not (tmp_path / "run").exists()


def test_the_command_says_what_is_wrong(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    arm = tmp_path / "conf" / "decoder" / "mine.yaml"
    arm.parent.mkdir(parents=True)
    arm.write_text(f"defaults: [luong_general]\nscore: {{_target_: {HERE}.FlagForgotten}}\n", encoding="utf-8")
    options = ["--config-dir", str(tmp_path / "conf"), "decoder=mine", "model.hidden_size=8"]
    assert main(options) == 2
    assert "attnspan-check: FlagForgotten: has start()" in capfd.readouterr().err
    arm.write_text(arm.read_text(encoding="utf-8").replace("FlagForgotten", "RightMemory"), encoding="utf-8")
    GlobalHydra.instance().clear()
    assert main(options) == 0
    assert capfd.readouterr().out.startswith("mine: ")
    assert main(["decodr=mine"]) == 2
    assert "did you mean 'decoder'?" in capfd.readouterr().err
    assert HERE in sys.modules
