"""Gold links, and how attention agrees with them: by hand, and in the records of whole runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnspan import load_run
from attnspan.analysis.alignment import alignment_errors, attention_columns, entropy, gold_attention, links
from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.alignment import GoldAlignment, to_pharaoh
from attnspan.data.pipeline.prepare import prepare
from attnspan.errors import InputError
from attnspan.evaluation.loaded_run import LoadedRun
from attnspan.runs.records import SCHEMA, read_records
from attnspan.training.callbacks.recorder import _attention as batch_columns
from attnspan.training.run import execute
from tests.conftest import TINY, Compose

COLUMNS = SCHEMA.names[SCHEMA.names.index("attention_entropy") :]

WEIGHTS = np.array(
    [  # 4 target tokens, 3 source tokens
        [1.0, 0.0, 0.0],
        [0.5, 0.0, 0.5],
        [0.1, 0.2, 0.2],  # sums to 1/2, as in a window of local-p
        [0.0, 0.0, 0.0],  # a window beyond the source
    ]
)


def gold(text: str, source: int = 3, target: int = 4) -> GoldAlignment:
    return GoldAlignment.parse(text, location="here", source_length=source, target_length=target)


def aer(made: set[tuple[int, int]], right: GoldAlignment) -> float:
    wrong, out_of = alignment_errors(
        links=len(made),
        gold_links=len(right.sure),
        links_in_sure=len(made & right.sure),
        links_in_possible=len(made & right.possible),
    )
    return wrong / out_of


def test_sure_links_are_possible_too() -> None:
    read = gold(" 0-0  2p1\t1-3 ")
    assert read.sure == {(0, 0), (1, 3)}
    assert read.possible == {(0, 0), (1, 3), (2, 1)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0-0 1", "here: '1' is not a link; write 3-4 if it is sure and 3p4 if possible"),
        ("0-0 1:1", "here: '1:1' is not a link; write 3-4 if it is sure and 3p4 if possible"),
        ("-1-0", "here: '-1-0' is not a link; write 3-4 if it is sure and 3p4 if possible"),
        ("0-0-S", "here: '0-0-S' is not a link; write 3-4 if it is sure and 3p4 if possible"),
        ("²-0", "here: '²-0' is not a link; write 3-4 if it is sure and 3p4 if possible"),
        ("3-0", "here: link 3-0 refers to source token 3 (from 0), but the source has 3 tokens"),
        ("0p4", "here: link 0p4 refers to target token 4 (from 0), but the target has 4 tokens"),
        ("0-1 0p1", "here: source token 0 and target token 1 are linked twice"),
        ("0-1 00-1", "here: source token 0 and target token 1 are linked twice"),
    ],
)
def test_bad_links(text: str, words: str) -> None:
    with pytest.raises(InputError) as raised:
        gold(text)
    assert str(raised.value) == words


@given(st.lists(st.integers(0, 20), min_size=1))
def test_what_is_written_is_read(needed: list[int]) -> None:
    read = gold(to_pharaoh(needed), source=21, target=len(needed))
    assert read.sure == read.possible == {(i, j) for j, i in enumerate(needed)}


def test_entropy_by_hand() -> None:
    """0; ln 2; of 1/5, 2/5, 2/5; and none where attention looks nowhere."""
    of_three = 0.2 * math.log(5) + 2 * 0.4 * math.log(2.5)
    assert entropy(WEIGHTS) == pytest.approx([0.0, math.log(2), of_three, math.nan], nan_ok=True)
    assert entropy(np.full((1, 7), 1 / 7))[0] == pytest.approx(math.log(7))
    assert not np.signbit(entropy(np.ones((2, 1)))).any()


def test_gold_attention_by_hand() -> None:
    """Sure links only, several to one token added up, none where there is none."""
    assert gold_attention(WEIGHTS, gold("0-0 0-1 2-1 1p2 0-3")) == pytest.approx([1, 1, math.nan, 0], nan_ok=True)
    assert gold_attention(WEIGHTS, gold("1-0 1-2 2-2")) == pytest.approx([0, math.nan, 0.4, math.nan], nan_ok=True)
    of_sigmoid = np.array([[0.9, 0.6, 0.5]])  # sums to 2
    assert gold_attention(of_sigmoid, gold("0-0 2-0", target=1)) == pytest.approx([0.7])


def test_links_go_to_the_first_of_the_largest_weights() -> None:
    assert links(WEIGHTS) == {(0, 0), (0, 1), (1, 2)}


def test_alignment_error_rate_by_hand() -> None:
    """1 - (|A n S| + |A n P|) / (|A| + |S|), Och and Ney 2003."""
    made = {(0, 0), (1, 1), (2, 2)}
    assert aer(made, gold("0-0 1-1 2-2")) == 0
    assert aer(made, gold("0-0 2-1 1-2")) == pytest.approx(1 - (1 + 1) / (3 + 3))  # sure ones only
    assert aer(made, gold("0-0 1p1 2-3")) == pytest.approx(1 - (1 + 2) / (3 + 2))  # and possible ones
    assert aer(made, gold("0-0 1p1 2p2")) == 0  # possible ones cost nothing, said ...
    assert aer({(0, 0)}, gold("0-0 1p1 2p2")) == 0  # ... or unsaid
    assert aer(made, gold("1-0 2-1 0-2")) == 1


def test_the_columns_of_an_example() -> None:
    seen = attention_columns(WEIGHTS[:3], gold("0-0 2-1 1p2 2-2", target=3))
    assert seen == {
        "attention_entropy": pytest.approx([0, math.log(2), 0.2 * math.log(5) + 0.8 * math.log(2.5)]),
        "attention_support": [1, 2, 3],
        "gold_attention": pytest.approx([1, 0.5, 0.2]),
        "links": 3,
        "gold_links": 3,
        "links_in_sure": 1,
        "links_in_possible": 2,
    }
    assert attention_columns(WEIGHTS, gold("0-0"))["gold_attention"] == [1, None, None, None]
    without_links = {"attention_entropy": [*seen["attention_entropy"], None], "attention_support": [1, 2, 3, 0]}
    assert attention_columns(WEIGHTS, None) == without_links
    assert attention_columns(None, gold("0-0")) == {}


def test_neither_padding_nor_eos_is_looked_at() -> None:
    """Whatever weights there say: two sources of 1 and 2 tokens, two references of 2 and 1."""
    weights = torch.full((2, 3, 2), 9.0)
    weights[0, :2, :1] = 1.0
    weights[1, :1, :2] = torch.tensor([0.25, 0.75])
    examples = {
        "id": ["a", "b"],
        "source_ids": [[4], [4, 5]],
        "target_ids": [[4, 5], [4]],
        "alignment": ["0-0", "1-0"],
    }
    one, other = batch_columns(weights, examples)
    assert one["attention_entropy"] == [0, 0]
    assert one["gold_attention"] == [1, None]
    assert (one["links"], one["links_in_sure"]) == (2, 1)
    assert other["attention_entropy"] == pytest.approx([0.25 * math.log(4) + 0.75 * math.log(4 / 3)])
    assert other["gold_attention"] == [0.75]
    assert (other["links"], other["links_in_sure"]) == (1, 1)


def copied(composed: Compose, root: Path, arm: str, *overrides: str) -> Path:
    """A tiny run on copy."""
    tiny = ["data=copy" if override == "data=reverse" else override for override in TINY]
    config = composed(*tiny, f"runs_dir={root}", f"decoder={arm}", *overrides)
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    directory = run_directory(config, data_fingerprint=prepared.fingerprint)
    execute(config, data=prepared, directory=directory, command="test", report=lambda status: None)
    return directory


@pytest.fixture(scope="module")
def run(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(composed, tmp_path_factory.mktemp("runs"), "luong_general", "trainer.max_steps=60")


def reading(loaded: LoadedRun, record: Any) -> list[list[float]]:
    """Teacher-forced weights of one example alone, T x S."""
    source = loaded.source_tokenizer.encode(record["source"])
    target = loaded.target_tokenizer.encode(record["reference"])
    with torch.no_grad():
        weights = loaded.model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([[1, *target]]))[1]
    return weights[0, : len(target)].tolist()


def test_records_of_a_run_on_copy(run: Path) -> None:
    """Of every test example, computed again alone and in plain loops: token j needs source token j."""
    loaded = load_run(run)
    records = read_records(run / "records.parquet")
    assert records["source_length"].nunique() > 3  # so there is padding
    for _, record in records.iterrows():
        weights = reading(loaded, record)
        T = len(weights)
        assert record["gold_attention"] == pytest.approx([weights[j][j] for j in range(T)], abs=1e-5)
        by_hand = [-sum(w * math.log(w) for w in row if w > 0) for row in weights]
        assert record["attention_entropy"] == pytest.approx(by_hand, abs=1e-4)
        assert record["links"] == record["gold_links"] == T
        hits = sum(max(row) == row[j] for j, row in enumerate(weights))
        assert record["links_in_sure"] == record["links_in_possible"] == hits
    assert 0 < records["links_in_sure"].sum() < records["links"].sum()


def test_an_arm_without_attention_has_nothing_to_say(composed: Compose, tmp_path: Path) -> None:
    records = read_records(copied(composed, tmp_path, "plain", "data.test_size=8") / "records.parquet")
    assert records[COLUMNS].isna().all(axis=None)


def test_without_gold_links_there_is_still_an_entropy(composed: Compose, tmp_path: Path) -> None:
    directory = copied(composed, tmp_path, "bahdanau", "data.test_size=8", "data.target_tokens=characters")
    records = read_records(directory / "records.parquet")
    assert records[COLUMNS[2:]].isna().all(axis=None)
    for length, support in zip(records["source_length"], records["attention_support"], strict=True):
        assert set(support) == {length}  # of a softmax, everything
    assert records["attention_entropy"].map(len).tolist() == records["target_length"].tolist()
