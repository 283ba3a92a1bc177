"""The id of a run stays when code moves: literal ids, and a class that moves under a finished run."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from attnspan.config.config_files import conf_directory
from attnspan.config.identity import comparable, run_directory, run_id
from attnspan.config.instantiate import assemble_model
from attnspan.files import read_json
from attnspan.models.attention import scores
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import SUMMARY
from attnspan.runs.stable_name import stable_name
from tests.conftest import TINY, Compose
from tests.training.test_resume import run

IDS = {
    (): "e9f89487831e",
    ("decoder=plain",): "59fe61472efd",
    ("decoder=luong_general",): "fb7c27c5f633",
    (
        "decoder=luong_general",
        "decoder.input_feeding=true",
    ): "9af17692aa81",
    ("decoder=luong_local_p",): "c7bcb9988bea",
    ("decoder=bahdanau_2015",): "21bf40475e48",
    ("decoder=luong_2015",): "d38808470c8e",
    ("decoder=transformer",): "78f1d6ffcc35",
    ("decoder=transformer", "decoder/positions=rotary"): "58b9115ace9c",
    ("decoder=coverage",): "403a85b4a02e",
    (
        "decoder=plain_wide",
        "rnn=lstm",
    ): "ea72e518b2d6",
    (
        "decoding=beam",
        "decoding.beam_size=3",
    ): "f9d803e60836",
    (
        "encoder=unidirectional",
        "encoder.reverse=true",
    ): "050d384470b1",
    (
        "seed=7",
        "optimizer.lr=0.001",
        "trainer.max_steps=50",
    ): "cc312ebe1988",
    (
        "selection_metric=sequence_error_rate",
        "plateau.patience=3",
    ): "d646d434687c",
}
"""If one of these changes, every study of that arm is computed again: have a reason, and say it in the commit."""


@pytest.mark.parametrize("overrides", IDS, ids=" ".join)
def test_ids_are_what_they_were(composed: Compose, overrides: tuple[str, ...]) -> None:
    assert run_id(composed(*overrides), data_fingerprint="d") == IDS[overrides]


def test_a_key_that_came_later_says_what_runs_did_before(composed: Compose) -> None:
    """At its default it is not hashed, and no variant: a config of today and one from before it are the same run."""
    of_today = composed("decoder=transformer")
    before = copy.deepcopy(of_today)
    for side in ("encoder", "decoder"):
        del before[side]["positions"]
    assert comparable(of_today) == comparable(before)
    assert comparable(of_today)["decoder"]["heads"] == 4
    of_today["decoder"]["positions"]["_target_"] = "attnspan.models.positions.NoPositions"
    assert comparable(of_today)["decoder"] != comparable(before)["decoder"]


def test_runs_from_before_the_normalisers_are_still_the_same(composed: Compose) -> None:
    """Softmax was all there was; another normaliser is another run."""
    for overrides in (("decoder=luong_dot",), ("decoder=transformer",), ("decoder=plain_wide",)):
        config = composed(*overrides)
        before = copy.deepcopy(config)
        for part in (before["decoder"], before["decoder"].get("as_large_as", {}), before["encoder"]):
            part.pop("normaliser", None)
        assert before != config
        assert run_id(before, data_fingerprint="d") == run_id(config, data_fingerprint="d")
    other = composed("decoder=luong_dot", "decoder/normaliser=entmax15")
    assert run_id(other, data_fingerprint="d") != run_id(composed("decoder=luong_dot"), data_fingerprint="d")


def with_targets(node: Any, change: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {
            key: change.get(value, value) if key == "_target_" else with_targets(value, change)
            for key, value in node.items()
        }
    return node


def test_a_class_that_moves_keeps_its_finished_runs(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(*TINY, "decoder=bahdanau", f"runs_dir={tmp_path}")
    directory, _ = run(config)
    fingerprint = read_json(directory / SUMMARY)["data_fingerprint"]
    elsewhere = ModuleType("attnspan.models.attention.elsewhere")
    elsewhere.AdditiveScore = scores.AdditiveScore  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, elsewhere.__name__, elsewhere)
    moved = with_targets(
        config, {"attnspan.models.attention.scores.AdditiveScore": f"{elsewhere.__name__}.AdditiveScore"}
    )
    assert moved != config
    assemble_model(moved, source_vocabulary_size=5, target_vocabulary_size=5)
    assert run_directory(moved, data_fingerprint=fingerprint) == directory
    assert is_finished(directory)


def test_a_users_class_is_known_by_its_path(composed: Compose) -> None:
    ids = set()
    for path in ("my_scores.AdditiveScore", "your_scores.AdditiveScore"):
        config = composed("decoder=bahdanau")
        config["decoder"]["score"]["_target_"] = path
        ids.add(run_id(config, data_fingerprint="d"))
    assert len(ids) == 2
    assert run_id(composed("decoder=bahdanau"), data_fingerprint="d") not in ids


def test_a_class_in_a_list_is_known_by_its_stable_name(composed: Compose) -> None:
    one = composed("decoder=plain")
    one["decoder"]["parts"] = [{"_target_": "attnspan.a.Part"}]
    other = copy.deepcopy(one)
    other["decoder"]["parts"][0]["_target_"] = "attnspan.b.Part"
    assert run_id(one, data_fingerprint="d") == run_id(other, data_fingerprint="d")


def test_no_two_parts_of_ours_have_one_stable_name() -> None:
    paths = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            paths.update(value for key, value in node.items() if key == "_target_")
            for child in node.values():
                collect(child)

    for path in conf_directory().rglob("*.yaml"):
        collect(yaml.safe_load(path.read_text(encoding="utf-8")))
    ours = sorted(path for path in paths if path.startswith("attnspan."))
    assert len({stable_name(path) for path in ours}) == len(ours) > 20
