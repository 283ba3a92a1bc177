"""Sentences with names that are in one split only."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnspan.config.instantiate import build_corpus
from attnspan.data.corpora.base import SPLITS
from attnspan.data.corpora.synthetic.names import Names
from attnspan.data.pipeline.prepare import prepare
from attnspan.data.tokenizer import UNK
from attnspan.errors import InputError
from tests.conftest import Compose

SMALL = ("data=names", "data.train_size=300", "data.validation_size=30", "data.test_size=54")


def corpus(composed: Compose, *overrides: str) -> Names:
    made = build_corpus(composed(*SMALL, *overrides))
    assert isinstance(made, Names)
    return made


def test_a_sentence_by_hand(composed: Compose) -> None:
    """A word is translated to the word of its number, and every fifth token is a name, which stays."""
    for example in corpus(composed).examples("test", iter([1, 3, 7, 12])):
        source, target = example["source"].split(), example["target"].split()
        assert sum(word[0].isupper() for word in source) == max(1, len(source) // 5)
        assert target == [word if word[0].isupper() else f"v{word[1:]}" for word in source]


def test_no_name_is_in_two_splits(composed: Compose) -> None:
    names = [set(corpus(composed).names_of(split)) for split in SPLITS]
    assert [len(part) for part in names] == [5000] * 3
    assert len(set.union(*names)) == 15000


def test_names_are_unknown_in_training_too(composed: Compose) -> None:
    config = composed(*SMALL)
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    assert len(prepared.source_tokenizer) == len(prepared.target_tokenizer) == 44
    for row in prepared.train:
        for side in ("source", "target"):
            unknown = [token == UNK for token in row[f"{side}_ids"]]
            assert unknown == [word[0].isupper() for word in row[side].split()]


def test_more_names_than_there_are_are_refused(composed: Compose) -> None:
    with pytest.raises(InputError, match=r"^data\.names: must be at most 140625, not 140626: there are no more$"):
        corpus(composed, "data.names=140626").check()
