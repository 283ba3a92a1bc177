"""Runs whose loss explodes without becoming NaN, beside runs that train: what each says at its end."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from attnspan.cli.single_run import run as run_and_print
from attnspan.data.tokenizer import SPECIALS
from attnspan.files import read_json, write_json
from attnspan.runs.layout import SUMMARY
from attnspan.runs.status import FINISHED
from attnspan.runs.summary import describe_end, ends_at_chance
from attnspan.sweeps.outcomes import print_outcomes
from attnspan.sweeps.overview import read_overview
from attnspan.training.callbacks.final_losses import FinalLosses
from tests.conftest import TINY, Compose
from tests.stub_run import stub_job, write_results

EXPLODED: dict[str, Any] = {
    "ended_by": "max_steps",
    "uniform_loss": 2.0,
    "first_training_loss": 2.1,
    "final_training_loss": 1e9,
    "final_validation_loss": 2e9,
    "best_update": 20,
}


def last_lines(composed: Compose, capsys: pytest.CaptureFixture[str], runs: Path, *overrides: str) -> tuple[Path, str]:
    """The directory of a tiny run, and the last line that it prints."""
    run_and_print(composed(*TINY, f"runs_dir={runs}", "decoder=plain", *overrides), command="test")
    *_, results, last = capsys.readouterr().out.splitlines()
    found = last if last.startswith("results: ") else results
    return Path(found.removeprefix("results: ")), last


@pytest.mark.parametrize("rate", [1e30, 1e3])
def test_an_exploded_loss_is_the_last_line_of_the_run(
    composed: Compose, capsys: pytest.CaptureFixture[str], tmp_path: Path, rate: float
) -> None:
    directory, last = last_lines(composed, capsys, tmp_path, f"optimizer.lr={rate}")
    assert last.startswith("plain seed 1: no better than chance: the loss at the end is ")
    assert "optimizer.lr" in last
    summary, curves = read_json(directory / SUMMARY), pd.read_csv(directory / "metrics.csv")
    assert summary["uniform_loss"] == pytest.approx(math.log(6 + len(SPECIALS)))
    assert summary["final_validation_loss"] == pytest.approx(curves["validation/loss"].dropna().iloc[-1])
    assert summary["final_training_loss"] == pytest.approx(curves["train/loss"].dropna().iloc[-1])
    assert ends_at_chance(summary)
    row = read_overview([directory]).rows[0]  # attnspan-status
    assert row.reason
    assert row.reason.startswith("no better than chance: ")
    _, again = last_lines(composed, capsys, tmp_path, f"optimizer.lr={rate}")
    assert again == last  # said again where the run is skipped


def test_a_run_that_trains_says_nothing(composed: Compose, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    directory, last = last_lines(composed, capsys, tmp_path)
    assert last.startswith("results: ")
    summary = read_json(directory / SUMMARY)
    assert summary["final_training_loss"] < summary["first_training_loss"]  # after 20 updates of the warm-up
    assert read_overview([directory]).rows[0].reason is None


@pytest.mark.parametrize(
    ("changed", "at_chance"),
    [
        ({}, True),
        ({"final_validation_loss": math.inf}, True),
        ({"final_training_loss": 0.1}, False),  # validation is unlike training, or full of unknown symbols
        ({"final_validation_loss": 1.9}, False),
        ({"final_training_loss": None}, False),  # not known
        ({"final_training_loss": 2.0, "final_validation_loss": 2.0}, False),  # has just begun
        ({"final_training_loss": 2.0, "final_validation_loss": 2.0, "ended_by": "plateau"}, True),
        ({"first_training_loss": 5e9}, False),  # initial weights that are too large, and better every time
    ],
)
def test_both_losses_must_say_so(changed: dict[str, Any], at_chance: bool) -> None:
    summary = EXPLODED | {"updates": 20} | changed
    assert ends_at_chance(summary) is at_chance
    assert bool(describe_end(summary)) is at_chance


def test_runs_of_before_have_no_remark() -> None:
    assert describe_end({"updates": 20, "best_update": 20, "best_validation_loss": 1e9}) == ""


def test_a_loss_that_explodes_late_names_the_update_that_is_tested() -> None:
    assert "the test is of update 10, where validation was best" in describe_end(
        EXPLODED | {"updates": 20, "best_update": 10}
    )


def test_the_last_lines_of_a_sweep_name_the_runs(tmp_path: Path) -> None:
    jobs = [replace(stub_job(tmp_path / name, varied=name), outcome=FINISHED) for name in ("good", "bad")]
    for job in jobs:
        write_results(job.directory)
    write_json(jobs[1].directory / SUMMARY, read_json(jobs[1].directory / SUMMARY) | EXPLODED)
    print_outcomes(Console(file=(out := io.StringIO()), width=10_000), jobs)
    *table, last = out.getvalue().splitlines()
    assert last.startswith("plain seed 1 bad: no better than chance: ")
    assert not any("chance" in line for line in table)


def test_the_losses_resume() -> None:
    """Between an update and its validation too; NaN is infinite, for it would compare as lower than everything."""

    strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor)

    def validate(losses: FinalLosses, value: float) -> None:
        trainer: Any = SimpleNamespace(callback_metrics={"validation/loss": torch.tensor(value)}, strategy=strategy)
        losses.on_validation_end(trainer, SimpleNamespace(device="cpu"))  # type: ignore[arg-type]

    first, second = FinalLosses(), FinalLosses()
    validate(first, 3.0)
    assert (first.first, first.training, first.validation) == (None, None, 3.0)
    for loss in (2.5, 1.5):
        trainer: Any = SimpleNamespace(strategy=strategy)
        first.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)})  # type: ignore[arg-type]
    second.load_state_dict(first.state_dict())
    validate(second, math.nan)
    assert (second.first, second.training, second.validation) == (2.5, 1.5, math.inf)
