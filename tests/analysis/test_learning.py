"""How runs learned: to a given loss, to the plateau, and by source length; and what the tables say of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from attnspan.analysis.collection import collect
from attnspan.analysis.learning import (
    TimeToLoss,
    common_loss,
    is_still_improving,
    last_doubling,
    learning_curves,
    learning_points,
    relative_to,
    time_to_loss,
    to_plateau,
    validations,
)
from attnspan.analysis.metrics import ERROR_RATE
from attnspan.analysis.study import Study, build_study
from attnspan.reporting import learning_tables, tables
from attnspan.reporting.findings import findings
from attnspan.runs.finished_run import read_run
from tests.fake_runs import example, fake_run, sign

HEAD = "epoch,step,train/loss,validation/loss\n"


def trained(root: Path, arm: str, seed: int, losses: list[float], **summary: object) -> Path:
    """A run of 400 updates in 100 seconds, validated every 100, with a line of training loss between."""
    examples = [example(n, 5 + n % 6) for n in range(40)]
    directory = fake_run(
        root,
        arm,
        seed,
        examples,
        [1] * 40,
        **({"updates": 400, "train_seconds": 100.0} | summary),  # type: ignore[arg-type]
    )
    lines = [f"0,{100 * n + 49},2.5,\n0,{100 * n + 99},,{loss}\n" for n, loss in enumerate(losses)]
    (directory / "metrics.csv").write_text(HEAD + "".join(lines))
    sign(directory)
    return directory


def test_reached_at_the_first_validation_that_is_low_enough(tmp_path: Path) -> None:
    run = read_run(trained(tmp_path, "plain", 1, [2.0, 1.0, 1.2, 0.9]))
    assert validations(run) == [(100, 2.0), (200, 1.0), (300, 1.2), (400, 0.9)]
    assert time_to_loss(run, 2.5) == TimeToLoss(100, 25.0)
    assert time_to_loss(run, 1.0) == TimeToLoss(200, 50.0)  # "or less", and the first time counts
    assert time_to_loss(run, 0.99) == TimeToLoss(400, 100.0)
    assert time_to_loss(run, 0.89) is None
    assert time_to_loss(read_run(trained(tmp_path, "plain", 2, [1.0], train_seconds=None)), 1.5) == TimeToLoss(
        100, None
    )


def test_the_loss_that_every_run_came_down_to(tmp_path: Path) -> None:
    runs = [read_run(trained(tmp_path, "plain", seed, losses)) for seed, losses in enumerate([[2.0, 0.91234], [0.4]])]
    assert common_loss(runs) == 0.913
    assert all(time_to_loss(run, 0.913) for run in runs)
    runs.append(read_run(fake_run(tmp_path, "other", 1, [example(0, 5)], [0])))
    assert common_loss(runs) is None


def cells(root: Path, loss: float | None) -> dict[str, tuple[str, ...]]:
    table = learning_tables.time_to_common_loss(build_study(collect([root]), loss=loss))
    return {row.cells[0]: row.cells[1:] for row in table.rows}


def test_the_table(tmp_path: Path) -> None:
    for arm, seed, losses in (
        ("plain", 1, [2.0, 1.5, 1.1, 1.0]), ("plain", 2, [2.0, 1.5, 1.0, 0.9]),
        ("bahdanau", 1, [0.8, 0.5, 0.4, 0.3]), ("bahdanau", 2, [1.4, 0.6, 0.5, 0.4]),
    ):  # fmt: skip
        trained(tmp_path, arm, seed, losses)
    assert cells(tmp_path, None) == {  # to 1.0
        "plain": ("2 of 2", "300–400", "1 min 28 s", "1.00"),
        "bahdanau": ("2 of 2", "100–200", "38 s", "0.43"),
    }
    assert cells(tmp_path, 0.95) == {
        "plain": ("1 of 2", "400", "1 min 40 s", "–"),
        "bahdanau": ("2 of 2", "100–200", "38 s", "–"),
    }
    assert cells(tmp_path, 0.5)["plain"] == ("0 of 2", "not reached", "not reached", "–")


@pytest.mark.parametrize("content", ["", "step,loss\n1,2.0\n", HEAD, HEAD + "x,y,z,w\n"])
def test_without_losses_there_is_no_table(tmp_path: Path, content: str) -> None:
    directory = trained(tmp_path, "plain", 1, [1.0])
    (directory / "metrics.csv").write_text(content)
    sign(directory)
    assert cells(tmp_path, None) == {}
    assert cells(tmp_path, 1.0) == {}


def learned(root: Path, arm: str, seed: int, rates: dict[int, tuple[float, float]], **summary: object) -> Path:
    """A run whose error rates on sources of 1–5 and 6–10 tokens are known after some updates."""
    directory = trained(root, arm, seed, [], **summary)
    head = "step,validation/loss,validation_error_rate/1-5,validation_error_rate/6-10\n"
    lines = [f"{update - 1},1.0,{short},{long}\n" for update, (short, long) in rates.items()]
    (directory / "metrics.csv").write_text(head + f"{49},1.5,,\n" + "".join(lines))
    sign(directory)
    return directory


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two seeds of each arm: plain ends at the cap of 400 updates, bahdanau at a plateau."""
    for seed, rates in ((1, (0.8, 0.6, 0.4)), (2, (0.6, 0.4, 0.2))):
        capped = {100: (rates[0], 1.0), 200: (rates[1], 0.9), 400: (rates[2], 0.7)}
        learned(tmp_path, "plain", seed, capped, ended_by="max_steps", training_examples=800, last_doubling_gain=0.3)
    for seed, updates in ((1, 200), (2, 400)):
        learned(
            tmp_path, "bahdanau", seed, {100: (0.3, 0.3), updates: (0.1, 0.2)}, ended_by="plateau", updates=updates,
            plateau_update=updates // 2, training_examples=2 * updates, last_doubling_gain=0.1,
        )  # fmt: skip
    return build_study(collect([tmp_path]))


def test_the_error_by_length_over_training_by_hand(study: Study) -> None:
    """At the end each run counts, however many updates it had; before, only where all runs were decoded."""
    plain = learning_points(study.arm("plain"))
    assert [(point.updates, point.seconds, point.is_end) for point in plain] == [
        (100, 25.0, False), (200, 50.0, False), (400, 100.0, True),
    ]  # fmt: skip
    assert [point.rates["1–5"] for point in plain] == pytest.approx([0.7, 0.5, 0.3])
    bahdanau = learning_points(study.arm("bahdanau"))
    assert [(point.updates, point.seconds, point.is_end) for point in bahdanau] == [
        (100, 37.5, False), (300, 100.0, True),  # 100 updates of 200 or of 400, each in 100 seconds
    ]  # fmt: skip
    assert last_doubling(plain) == pytest.approx({"1–5": -0.2, "6–10": -0.2})
    assert last_doubling(bahdanau) == pytest.approx({"1–5": -0.2, "6–10": -0.1})
    assert last_doubling(bahdanau[-1:]) == {}


def test_bins_go_by_the_side_that_the_columns_name(study: Study, tmp_path: Path) -> None:
    assert {point.side for point in learning_points(study.arm("plain"))} == {"source"}  # named before there were two
    for run in study.arm("plain").runs:
        path = run.directory / "metrics.csv"
        path.write_text(
            path.read_text().replace("error_rate/1-5", "error_rate/target_1-5").replace("/6-", "/target_6-")
        )
        sign(run.directory)
    study = build_study(collect([tmp_path]))
    plain = learning_points(study.arm("plain"))
    assert {point.side for point in plain} == {"target"}
    assert plain[-1].rates == pytest.approx({"1–5": 0.3, "6–10": 0.7})
    assert not any(learning_curves(study.arms).values())  # bahdanau goes by sources: nothing to compare


def test_to_the_plateau_by_hand(study: Study) -> None:
    bahdanau, plain = study.arm("bahdanau"), study.arm("plain")
    assert to_plateau(bahdanau.runs[0]) == {"updates": 100, "examples": 200, "seconds": 50}
    assert to_plateau(plain.runs[0]) is None
    assert math.isnan(relative_to(bahdanau, plain, "updates").value)


def test_a_ratio_by_hand(tmp_path: Path) -> None:
    """Ratios of 1/2 and 1/8: their geometric mean is 1/4; on the log scale the deviation of their mean is log 2."""
    for arm, plateaus in (("plain", (80, 80)), ("bahdanau", (40, 10))):
        for seed, update in enumerate(plateaus, start=1):
            trained(tmp_path, arm, seed, [1.0], ended_by="plateau", plateau_update=update, training_examples=400)
    study = build_study(collect([tmp_path]))
    ratio = relative_to(study.arm("bahdanau"), study.arm("plain"), "updates")
    half = 12.7062 * math.log(2)
    by_hand = [0.25, 0.25 * math.exp(-half), 0.25 * math.exp(half)]
    assert [ratio.value, ratio.low, ratio.high] == pytest.approx(by_hand, rel=1e-4)


def test_who_was_still_improving(study: Study, tmp_path: Path) -> None:
    assert study.improving == {"plain"}
    assert study.shown("plain") == "plain †"
    assert study.shown("bahdanau") == "bahdanau"
    assert "† plain: the cap on the updates" in study.notes[0]
    old = [
        read_run(trained(tmp_path / "old", "plain", seed, [1.0], best_update=best))
        for seed, best in ((1, 400), (2, 300))
    ]
    assert [*map(is_still_improving, old)] == [True, False]  # from before plateaus: was the last validation its best?


@pytest.fixture
def exploded(tmp_path: Path) -> Study:
    """Two seeds of each arm, all at the cap; the loss of plain's second has exploded."""
    rates = {100: (0.8, 1.0), 200: (0.6, 0.9), 400: (0.4, 0.7)}
    for arm, seed, loss in (("plain", 1, 0.5), ("plain", 2, 1e9), ("bahdanau", 1, 0.5), ("bahdanau", 2, 0.5)):
        losses = {
            "uniform_loss": 2.0,
            "first_training_loss": 2.0,
            "final_training_loss": loss,
            "final_validation_loss": 2 * loss,
        }
        plateau = {} if arm == "plain" and seed == 2 else {"plateau_update": 100}
        ended = {"ended_by": "plateau" if plateau else "max_steps", "training_examples": 800}
        learned(tmp_path, arm, seed, rates, **losses, **plateau, **ended)
    return build_study(collect([tmp_path]))


def test_who_ends_at_chance(exploded: Study) -> None:
    assert exploded.at_chance == {"plain"}
    assert exploded.improving == frozenset()  # more training would change nothing
    assert (exploded.shown("plain"), exploded.shown("bahdanau")) == ("plain ‡", "bahdanau")
    assert "‡ plain (seed 2): the loss was no lower at the end of training" in exploded.notes[0]
    headline, rests_on = findings(exploded)[:2]
    assert "plain (training failed) makes " in headline
    assert "But training failed for plain: " in rests_on
    (training,) = (row.cells for row in learning_tables.training(exploded).rows if row.cells[0] == "plain ‡")
    assert training[1] == "1 at a plateau, 1 at no better than chance"


@pytest.mark.parametrize("made", ["study", "exploded"])
def test_every_table_marks_it(made: str, request: pytest.FixtureRequest) -> None:
    study, mark = request.getfixturevalue(made), {"study": "†", "exploded": "‡"}[made]
    every = [
        tables.by_length(study, ERROR_RATE), tables.differences(study), tables.spans(study), tables.trends(study),
        tables.degenerate(study), tables.cost(study), *tables.degradation_blocks(study),
        learning_tables.training(study), learning_tables.learning(study), learning_tables.equal_training(study),
        learning_tables.time_to_common_loss(study),
    ]  # fmt: skip
    for table in every:
        words = [*table.columns, *(cell for row in table.rows for cell in row.cells[:1])]
        named = [word for word in words if word.startswith("plain") or " plain" in word]
        assert all(f"plain {mark}" in word for word in named if "relative" not in word), table.caption
        assert named or not table.rows, table.caption


def test_the_headline_says_it(study: Study) -> None:
    headline, rests_on = findings(study)[:2]
    assert " where plain (still improving) makes " in headline
    assert rests_on.endswith(
        "But plain was still improving when the cap on updates ended training, so this compares the arms at that cost, "
        "not at their best."
    )


def test_the_tables_of_training(study: Study) -> None:
    training = {row.cells[0]: row.cells[1:] for row in learning_tables.training(study).rows}
    assert training["plain †"] == ("the cap", "> 400", "> 800", "> 1 min 40 s", "–", "–", "30%")
    assert training["bahdanau"] == ("a plateau", "150", "300", "50 s", "–", "–", "10%")
    learning = [row.cells for row in learning_tables.learning(study).rows]
    assert learning == [
        ("plain †",),
        ("100", "25 s", "0.700", "1.000"),
        ("200", "50 s", "0.500", "0.900"),
        ("400, the end", "1 min 40 s", "0.300", "0.700"),
        ("change since half of the updates", "", "−0.200", "−0.200"),
        ("bahdanau",),
        ("100", "38 s", "0.300", "0.300"),
        ("300, the end", "1 min 40 s", "0.100", "0.200"),
        ("change since half of the updates", "", "−0.200", "−0.100"),
    ]
    equal = [row.cells for row in learning_tables.equal_training(study).rows]
    assert equal == [
        ("after 100 updates of each",),
        ("plain †", "25 s", "0.700", "1.000"),
        ("bahdanau", "38 s", "0.300", "0.300"),
        ("after at most 1 min 40 s of training, the time of the fastest arm",),
        ("plain †", "1 min 40 s", "0.300", "0.700"),
        ("bahdanau", "1 min 40 s", "0.100", "0.200"),
        ("at the end of the training of each",),
        ("plain †", "1 min 40 s", "0.300", "0.700"),
        ("bahdanau", "1 min 40 s", "0.100", "0.200"),
    ]


def test_a_learning_rate_of_its_own_is_said(tmp_path: Path) -> None:
    for arm, rate in (("plain", 0.002), ("bahdanau", 0.004)):
        trained(tmp_path, arm, 1, [1.0], config={"optimizer.lr": rate})
    table = learning_tables.training(build_study(collect([tmp_path])))
    assert table.columns[-1] == "settings of its own"
    assert [row.cells[-1] for row in table.rows] == ["optimizer.lr=0.002", "optimizer.lr=0.004"]


def test_settings_by_validation(tmp_path: Path) -> None:
    """The mean over seeds decides, and what has not been measured comes last."""
    for rate, losses in ((0.002, (0.5, 0.7)), (0.004, (0.3, 0.4)), (0.008, (math.nan, math.nan))):
        for seed, loss in enumerate(losses, start=1):
            trained(tmp_path, "plain", seed, [1.0], config={"optimizer.lr": rate}, best_validation_loss=loss)
    trained(tmp_path, "bahdanau", 1, [1.0])
    rows = [row.cells for row in learning_tables.settings_by_validation(build_study(collect([tmp_path]))).rows]
    assert rows == [
        ("plain",),
        ("optimizer.lr=0.004", "2", "0.3500"),
        ("optimizer.lr=0.002", "2", "0.6000"),
        ("optimizer.lr=0.008", "2", "–"),
    ]
