"""The attention that a run keeps for its report: whose, how it is chosen, and that it comes back as it went."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.prepare import prepare
from attnspan.errors import InputError
from attnspan.evaluation.attention_maps import shown_examples
from attnspan.evaluation.loaded_run import load_run
from attnspan.runs.attention_maps import AttentionMap, read_attention_maps, write_attention_maps
from attnspan.runs.layout import ATTENTION, RECORDS
from attnspan.runs.records import read_records
from attnspan.training.run import execute
from tests.conftest import TINY, Compose


def test_examples_are_chosen_by_length_and_then_by_id() -> None:
    names = ["d", "c", "b", "a", "f", "e"]
    assert shown_examples(names, [9, 2, 5, 5, 2, 9], longest_trained=6) == [1, 3, 0]  # c (2), a (5), d (9)
    assert shown_examples(names, [9, 2, 5, 5, 2, 9], longest_trained=9) == [1, 0]  # the longest of all is in range
    assert shown_examples(names, [7, 8, 9, 7, 8, 9], longest_trained=6) == [3, 2]  # none is in range
    assert shown_examples(["x"], [3], longest_trained=6) == [0]


def test_maps_come_back_as_they_went(tmp_path: Path) -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
    write_attention_maps(
        tmp_path, {"one": AttentionMap(source=["日", " ", "c"], output=["x", "<unk>"], weights=weights)}
    )
    (name, back), *more = (read_attention_maps(tmp_path) or {}).items()
    assert (name, back.source, back.output, more) == ("one", ["日", " ", "c"], ["x", "<unk>"], [])
    np.testing.assert_array_equal(back.weights, weights)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    write_attention_maps(tmp_path, {"one": AttentionMap(source=["a"], output=["b"], weights=np.ones((1, 1)))})
    path = tmp_path / ATTENTION
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=f"{ATTENTION}: holds no attention weights"):
        read_attention_maps(tmp_path)


@pytest.mark.parametrize("arm", ["luong_general", "plain"])
def test_a_run_keeps_what_its_hypotheses_were_made_with(arm: str, composed: Compose, tmp_path: Path) -> None:
    config = composed(*TINY, f"decoder={arm}", "trainer.max_steps=60", f"runs_dir={tmp_path}")
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    directory = run_directory(config, data_fingerprint=prepared.fingerprint)
    execute(config, data=prepared, directory=directory, command="", report=lambda status: None)
    kept = read_attention_maps(directory)
    if arm == "plain":
        assert kept is None
        return
    assert kept
    records = read_records(directory / RECORDS).set_index("example_id")
    lengths = records["source_length"]
    assert [lengths[name] for name in kept] == [lengths.min(), lengths[lengths <= 6].max(), lengths.max()]
    run = load_run(directory)
    for name, heatmap in kept.items():
        assert heatmap.source == records.source[name].split()
        assert heatmap.output == records.hypothesis[name].split()
        (again,) = run.decode([records.source[name]])
        assert again.weights is not None
        np.testing.assert_array_equal(heatmap.weights, again.weights.numpy())
