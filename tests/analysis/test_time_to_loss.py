"""Training to a given validation loss: when it was reached, and what the page says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnspan.analysis.collection import collect
from attnspan.analysis.study import build_study
from attnspan.analysis.time_to_loss import TimeToLoss, common_loss, time_to_loss, validations
from attnspan.reporting import tables
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
    table = tables.training_time(build_study(collect([root]), loss=loss))
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
