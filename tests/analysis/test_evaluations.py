"""Evaluations in a study: variants of an arm where decoding differs, one test set where examples do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from attnspan.analysis.collection import Collection, collect, collect_each
from attnspan.analysis.study import build_study
from attnspan.errors import InputError
from attnspan.runs.layout import EVALUATIONS
from tests.fake_runs import example, fake_evaluation, fake_run

EXAMPLES = [example(n, 4 if n < 30 else 8) for n in range(60)]
LONGER = [example(n, 16) for n in range(30)]
"""Other examples that have the ids of the first ones."""
GREEDY = {"_target_": "attnspan.models.decoding.greedy.Greedy", "limit": {"margin": 10}}
BEAM = {"_target_": "attnspan.models.decoding.beam.Beam", "limit": {"margin": 10}, "beam_size": 5, "length": 0.0}


def runs(root: Path) -> list[Path]:
    return [
        fake_run(root, arm, seed, EXAMPLES, [wrong] * 60, training_lengths=(1, 8), config={"decoding": GREEDY})
        for arm, wrong in (("plain", 3), ("bahdanau", 1))
        for seed in (0, 1)
    ]


def labels(collection: Collection) -> list[str]:
    return sorted({run.label for run in collection.runs})


def test_evaluations_are_no_runs_below_a_directory(tmp_path: Path) -> None:
    for run in runs(tmp_path):
        fake_evaluation(run, "beam", EXAMPLES, [0] * 60, decoding=BEAM)
    collection = collect([tmp_path])
    assert len(collection.runs) == 4
    assert {run.evaluation for run in collection.runs} == {None}


def test_what_decoding_differs_in_stands_beside_the_arm(tmp_path: Path) -> None:
    directories = runs(tmp_path)
    for run, wrong in zip(directories, (2, 2, 1, 1), strict=True):
        for size in (1, 5):
            fake_evaluation(run, f"b{size}", EXAMPLES, [wrong] * 60, decoding=BEAM | {"beam_size": size})
    evaluations = [run / EVALUATIONS for run in directories]
    beams = [f"{arm} decoding.beam_size={size}" for arm in ("bahdanau", "plain") for size in (1, 5)]
    assert labels(collect(evaluations)) == beams
    with_greedy = [
        f"{arm} {how}"
        for arm in ("bahdanau", "plain")
        for how in ("decoding=beam decoding.beam_size=1", "decoding=beam decoding.beam_size=5", "decoding=greedy")
    ]
    assert labels(collect([*directories, *evaluations])) == with_greedy


def test_one_beam_beside_greedy_is_named_without_its_settings(tmp_path: Path) -> None:
    directories = runs(tmp_path)
    made = [fake_evaluation(run, "beam", EXAMPLES, [2] * 60, decoding=BEAM) for run in directories]
    assert labels(collect([*directories, *made])) == [
        "bahdanau decoding=beam",
        "bahdanau decoding=greedy",
        "plain decoding=beam",
        "plain decoding=greedy",
    ]


def test_arms_are_compared_with_equal_decoding_or_each_with_itself(tmp_path: Path) -> None:
    """plain: 3 edits of 4 tokens by greedy, 2 by beam; bahdanau: 1 and 0."""
    directories = runs(tmp_path)
    made = [
        fake_evaluation(run, "beam", EXAMPLES, [wrong] * 60, decoding=BEAM)
        for run, wrong in zip(directories, (2, 2, 0, 0), strict=True)
    ]
    collection = collect([*directories, *made])

    def advantages(baseline: str | None) -> dict[tuple[str, str], float]:
        study = build_study(collection, baseline=baseline, edges=[0, 4, 8])
        short = [one for one in study.differences if one.region.label == "1–4"]
        return {(one.arm, one.baseline): one.advantage.value for one in short}

    by_default = {
        ("bahdanau decoding=greedy", "plain decoding=greedy"): 0.5,
        ("bahdanau decoding=beam", "plain decoding=beam"): 0.5,
    }
    assert advantages(None) == pytest.approx(by_default)
    with_itself = {
        ("plain decoding=beam", "plain decoding=greedy"): 0.25,
        ("bahdanau decoding=beam", "bahdanau decoding=greedy"): 0.25,
    }
    assert advantages("decoding=greedy") == pytest.approx(with_itself)
    with pytest.raises(InputError, match=r"--baseline decoding=gredy: .* did you mean 'decoding=greedy'"):
        advantages("decoding=gredy")


def test_other_examples_decoded_in_the_same_way_are_one_test_set(tmp_path: Path) -> None:
    """The run's own test and an evaluation on longer sources give one curve over all lengths."""
    directories = runs(tmp_path)
    made = [fake_evaluation(run, "long", LONGER, [4] * 30, decoding=GREEDY) for run in directories]
    collection = collect([*directories, *made])
    assert not collection.excluded
    assert labels(collection) == ["bahdanau", "plain"]
    study = build_study(collection, edges=[0, 4, 8, 16])
    curve = {(one.arm, one.region.label): one for one in study.curve if not one.region.total}
    assert [curve["plain", label].region.examples for label in ("1–4", "5–8", "9–16")] == [30, 30, 30]
    rates = [curve["plain", label].metrics["error_rate"].value for label in ("1–4", "5–8", "9–16")]
    assert rates == pytest.approx([3 / 4, 3 / 8, 4 / 16])
    assert curve["plain", "9–16"].region.side == "extrapolation"
    assert "The examples of several evaluations stand together: test (60) and long (30)." in study.notes


def test_an_example_of_two_evaluations_counts_once(tmp_path: Path) -> None:
    directories = runs(tmp_path)
    made = [fake_evaluation(run, "again", EXAMPLES[:40], [3] * 40, decoding=GREEDY) for run in directories]
    alone, both = collect(directories), collect([*directories, *made])
    assert [run.records["edits"].tolist() for run in both.runs] == [run.records["edits"].tolist() for run in alone.runs]
    assert {run.parts for run in both.runs} == {()}


def test_an_arm_that_lacks_examples_is_left_out_by_name(tmp_path: Path) -> None:
    directories = runs(tmp_path)
    for run in directories[1:]:
        fake_evaluation(run, "long", LONGER, [4] * 30, decoding=GREEDY)
    collection = collect([*directories, *(run / EVALUATIONS for run in directories[1:])])
    assert [one.directory for one in collection.excluded] == [directories[0]]
    assert "another test set than 3 other runs" in collection.excluded[0].reason


def test_evaluations_on_other_data_are_a_data_set_of_their_own(tmp_path: Path) -> None:
    directories = runs(tmp_path)
    made = [fake_evaluation(run, "news", LONGER, [4] * 30, decoding=GREEDY, data="news") for run in directories]
    collections, _ = collect_each([*directories, *made])
    assert [{run.summary["data"] for run in one.runs} for one in collections] == [{"news"}, {"pronunciation"}]


def test_a_copy_of_an_evaluation_counts_once_and_is_named(tmp_path: Path) -> None:
    (run, *_) = runs(tmp_path / "runs")
    made = fake_evaluation(run, "beam", EXAMPLES, [0] * 60, decoding=BEAM)
    shutil.copytree(run, tmp_path / "copy" / run.name)
    collection = collect([made, tmp_path / "copy" / run.name / EVALUATIONS])
    assert len(collection.runs) == 1
    assert "the same run as" in collection.excluded[0].reason
