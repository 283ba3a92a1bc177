"""attnspan-gradient-flow: the gradient's norms against finite differences and a slow loop, the distances, what it
writes."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from attnspan import load_run
from attnspan.analysis.gradient_flow import fit_slopes, norms_by_distance
from attnspan.cli import gradient_flow
from attnspan.config.instantiate import assemble_model
from attnspan.data.tokenizer import BOS, EOS
from attnspan.evaluation.gradient_norms import (
    AlignedExample,
    _aligned,
    gradient_norms,
    initial_model,
    proportional_links,
    steps_between,
)
from attnspan.evaluation.prepared_test import gold_links
from attnspan.models.seq2seq import Seq2Seq
from attnspan.runs.finished_run import read_run
from tests.conftest import TINY, Compose
from tests.fake_runs import example, fake_run
from tests.training.test_run import run

EXAMPLES = [
    AlignedExample(source=[4, 5, 6, 7, 8], target=[8, 7, 6, 5, 4], links=[(4 - t, t) for t in range(5)]),
    AlignedExample(source=[9, 4, 4], target=[5, 9], links=[(2, 0), (0, 1), (1, 1)]),
    AlignedExample(source=[6], target=[7, 6, 6], links=[(0, 0), (0, 2)]),
]
"""Of three lengths, so that a batch of them is padded; an output may need two positions, or none."""


def model_of(composed: Compose, *overrides: str) -> Seq2Seq:
    config = composed(*TINY, *overrides)
    torch.manual_seed(3)
    return assemble_model(config, source_vocabulary_size=10, target_vocabulary_size=10).eval().double()


def loss_at(model: Seq2Seq, one: AlignedExample, t: int, j: int, shift: torch.Tensor) -> float:
    """-log p(y_t | y_<t, x) of one example alone, ``shift`` added to the embedded source token j."""

    def move(module: torch.nn.Module, arguments: object, embedded: torch.Tensor) -> torch.Tensor:
        moved = embedded.clone()
        moved[0, j] += shift
        return moved

    hook = model.source_embedding.register_forward_hook(move)
    with torch.no_grad():
        logits, _ = model(
            torch.tensor([one.source]), torch.tensor([len(one.source)]), torch.tensor([[BOS, *one.target]])
        )
    hook.remove()
    return -float(logits[0, t].log_softmax(dim=-1)[[*one.target, EOS][t]])


@pytest.mark.parametrize("arm", ["plain", "bahdanau", "luong_general_feeding", "luong_local_p", "transformer"])
def test_norms_are_those_of_finite_differences(composed: Compose, arm: str) -> None:
    """In a padded batch as for each example alone, for the output t and the source position j of every link."""
    model = model_of(composed, f"decoder={arm}")
    eye = 1e-5 * torch.eye(model.source_embedding.embedding_dim, dtype=torch.float64)
    found = gradient_norms(model, EXAMPLES, outputs=99)
    for one, norms in zip(EXAMPLES, found, strict=True):
        assert norms.keys() == set(one.links)
        for (j, t), norm in norms.items():
            slopes = [(loss_at(model, one, t, j, e) - loss_at(model, one, t, j, -e)) / 2e-5 for e in eye]
            assert norm == pytest.approx(float(np.linalg.norm(slopes)), rel=1e-4, abs=1e-9)


def test_norms_do_not_depend_on_the_batch(composed: Compose) -> None:
    model = model_of(composed, "decoder=bahdanau")
    together = gradient_norms(model, EXAMPLES, outputs=99)
    for batch_size in (1, 2):
        for one, other in zip(
            together, gradient_norms(model, EXAMPLES, outputs=99, batch_size=batch_size), strict=True
        ):
            assert one == pytest.approx(other, rel=1e-9)


def test_outputs_looked_at_are_spread_over_the_target(composed: Compose) -> None:
    model = model_of(composed, "decoder=plain")
    whole, some = (gradient_norms(model, EXAMPLES[:1], outputs=outputs)[0] for outputs in (5, 3))
    assert some == {link: whole[link] for link in ((4, 0), (2, 2), (0, 4))}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), {(0, 0): 1, (6, 0): 1, (2, 0): 3, (4, 1): 4, (5, 9): 11}),
        (("encoder=unidirectional",), {(0, 0): 7, (6, 0): 1, (2, 3): 8}),
        (("encoder=unidirectional", "encoder.reverse=true"), {(0, 0): 1, (6, 0): 7, (2, 3): 6}),
        (("encoder.final_state=backward",), {(0, 0): 1, (6, 0): 7, (2, 3): 6}),
    ],
)
def test_distances_by_hand(composed: Compose, overrides: tuple[str, ...], expected: dict[tuple[int, int], int]) -> None:
    """Seven source tokens; links and positions count from 0."""
    model = model_of(composed, "decoder=plain", *overrides)
    assert {link: steps_between(model.encoder, link, 7) for link in expected} == expected


def test_a_plain_model_forgets_with_the_distance(composed: Compose) -> None:
    """All that a plain decoder knows of the source went through so many cells."""
    model = model_of(composed, "decoder=plain", "encoder=unidirectional")
    one = AlignedExample(source=[4] * 40, target=[5] * 10, links=[(j, 9) for j in range(40)])
    (norms,) = gradient_norms(model, [one], outputs=99)
    by_steps = [
        norm for _, norm in sorted((steps_between(model.encoder, link, 40), norm) for link, norm in norms.items())
    ]
    assert all(near > far for near, far in pairwise(by_steps[2:]))
    assert by_steps[-1] < 1e-6 * by_steps[0]


def test_same_place() -> None:
    assert proportional_links(4, 4) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert proportional_links(6, 3) == [(1, 0), (3, 1), (5, 2)]
    assert proportional_links(2, 4) == [(0, 0), (0, 1), (1, 2), (1, 3)]
    assert all(0 <= j < 7 for j, _ in proportional_links(7, 50))


def measured(**norms: float) -> pd.DataFrame:
    """Norms 10^-(a + slope d / 10) over 30 steps for two seeds of an arm, whose slopes are ``first`` and ``second``."""
    rows = [
        ("arm", seed, "initial", d, 10 ** -(1 + slope * d / 10))
        for seed, slope in ((1, norms["first"]), (2, norms["second"]))
        for d in range(1, 31)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "state", "steps", "norm"])


def test_slopes_and_their_interval() -> None:
    (row,) = fit_slopes(measured(first=0.5, second=0.7)).to_dict("records")
    assert row["decades"] == pytest.approx(0.6)
    assert row["high"] - row["decades"] == pytest.approx(12.706 * 0.1, rel=1e-3)  # t, one degree of freedom
    assert (row["seeds"], row["pairs"]) == (2, 60)
    alone = measured(first=0.5, second=0.7).query("seed == 1")
    assert np.isnan(fit_slopes(alone)["low"][0])


def test_bins() -> None:
    table = norms_by_distance(measured(first=1.0, second=0.0))
    first = table[table["seed"] == 1]
    assert first[["above", "up_to", "n"]].to_numpy().tolist() == [[0, 10, 10], [10, 20, 10], [20, 30, 10]]
    assert first["mean_log10"].to_numpy() == pytest.approx([-1.55, -2.55, -3.55])
    assert (table[table["seed"] == 2]["median"] == 0.1).all()


@pytest.fixture(scope="module")
def runs(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of two arms; nothing was learned, so the trained weights are the initial ones."""
    directory = tmp_path_factory.mktemp("runs")
    for overrides in (["decoder=plain"], ["decoder=plain", "seed=2"], ["decoder=luong_dot"]):
        run(composed, directory, *overrides, "optimizer.lr=1e-30")
    return directory


def test_the_initial_model_is_that_before_training(runs: Path) -> None:
    for directory in sorted(path.parent for path in runs.rglob("summary.json")):
        loaded = load_run(directory)
        before = torch.get_rng_state()
        drawn = initial_model(loaded).state_dict()
        assert torch.equal(before, torch.get_rng_state())
        for name, value in loaded.model.state_dict().items():
            assert torch.allclose(drawn[name], value, rtol=0, atol=1e-20), name


def test_one_command(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert gradient_flow.main([str(runs), "--out", str(out), "--examples", "9"]) == 0
    printed = capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        "gradient_flow.csv", "slopes.csv", "gradient_flow.png", "gradient_flow.svg",
    }  # fmt: skip
    assert "are those of the gold alignment" in " ".join(printed.split())
    assert re.search(r"^plain +2 ", printed, re.MULTILINE)
    table = pd.read_csv(out / "gradient_flow.csv")
    assert list(table.columns) == ["arm", "seed", "state", "above", "up_to", "median", "mean_log10", "n"]
    initial, trained = (table[table["state"] == state].drop(columns="state") for state in ("initial", "trained"))
    assert len(initial) == 3  # at most 9 steps: what stands far off is said first
    assert np.allclose(initial.drop(columns="arm"), trained.drop(columns="arm"))  # nothing was learned


def test_gold_links_are_the_data_s_own(runs: Path) -> None:
    """What is said backwards needs the other end."""
    (directory,) = (runs / "reverse" / "luong_dot").iterdir()
    found = read_run(directory)
    gold = gold_links(found, found.records["example_id"].tolist(), ())
    examples = list(_aligned(load_run(directory), found.records, gold))
    assert {len(one.source) for one in examples} == set(range(2, 10))
    for one in examples:
        assert one.links == [(len(one.source) - 1 - t, t) for t in reversed(range(len(one.source)))]


def test_bad_input_is_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = fake_run(tmp_path / "runs", "plain", 1, [example(0, 5)], [0])
    (tmp_path / "file").write_text("not a directory")
    for arguments, words in (
        ([tmp_path / "nowhere", "--out", tmp_path / "out"], "no such directory"),
        ([runs, other, "--out", tmp_path / "out"], "different data sets"),
        (
            [runs, "--out", tmp_path / "out", "--examples", "49"],
            "the test split has 48 examples; give 1 to 48",
        ),
        ([runs / "reverse" / "luong_dot", "--out", tmp_path / "file", "--examples", "1"], "cannot be written"),
    ):
        assert gradient_flow.main([str(word) for word in arguments]) == 2
        error = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("...")]
        assert len(error) == 1
        assert words in error[0]
    assert not (tmp_path / "out").exists()
