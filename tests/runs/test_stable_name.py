"""Names that enter hashes: code may move without a new run id or cache."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

import attnspan
from attnspan.runs import stable_name as module
from attnspan.runs.stable_name import stable_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("attnspan.data.corpora.synthetic.reverse.Reverse", "reverse"),
        ("attnspan.data.corpora.synthetic.recall_two_hop.RecallTwoHop", "recall"),
        ("attnspan.data.corpora.synthetic.recall.Recall", "recall_one_hop"),
        ("attnspan.somewhere.else_.Reverse", "reverse"),
        ("attnspan.models.attention.scores.AdditiveScore", "additive_score"),
        ("attnspan.models.recurrence.cells.LSTMCell", "lstm_cell"),
        ("attnspan.data.corpora.sigmorphon2020.Sigmorphon2020", "sigmorphon2020"),
        ("attnspan.training.learning_rate.WarmupConstantDecay", "warmup_constant_decay"),
        ("mine.corpora.Reverse", "mine.corpora.Reverse"),
        ("attnspan_extras.Reverse", "attnspan_extras.Reverse"),
        ("torch.nn.LSTM", "torch.nn.LSTM"),
    ],
)
def test_own_classes_are_known_by_name_and_others_by_path(path: str, name: str) -> None:
    assert stable_name(path) == name


def test_renamed_class_keeps_its_first_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.RENAMED, "backwards", "reverse")
    assert stable_name("attnspan.data.corpora.backwards.Backwards") == "reverse"


def test_no_two_parts_have_one_name() -> None:
    package = Path(attnspan.__file__).parent
    names = Counter(
        stable_name(f"attnspan.{node.name}")
        for folder in ("models", "data", "training")
        for path in (package / folder).rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []
