from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from attnspan.data.corpora.base import Corpus, GeneratedCorpus
from attnspan.data.corpora.copy import Copy
from attnspan.data.corpora.recall import Recall
from attnspan.data.corpora.reverse import Reverse
from attnspan.data.pipeline.prepare import PreparedData, fingerprint_of
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH

TASKS: list[type[GeneratedCorpus]] = [Copy, Reverse, Recall]


def task(kind: type[GeneratedCorpus], **changes: Any) -> GeneratedCorpus:
    return kind(
        **{
            "source_tokens": "symbols",
            "target_tokens": "symbols",
            "symbols": 12,
            "train_lengths": [5, 20],
            "test_lengths": [5, 30],
            "train_size": 160,
            "validation_size": 32,
            "test_size": 78,
            "data_seed": 1,
            "limits": ANY_LENGTH,
        }
        | changes
    )


def rows(kind: type[GeneratedCorpus], split: str, **changes: Any) -> list[dict[str, Any]]:
    return list(task(kind, **changes).rows(split))


def needed(row: dict[str, Any]) -> list[int]:
    """The source position that each target token needs."""
    links = [tuple(map(int, link.split("-"))) for link in row["alignment"].split()]
    assert [j for _, j in links] == list(range(len(row["target"].split())))
    return [i for i, _ in links]


@pytest.mark.parametrize("kind", TASKS)
def test_lengths_are_spread_evenly(kind: type[GeneratedCorpus]) -> None:
    assert Counter(len(row["source"].split()) for row in rows(kind, "train")) == dict.fromkeys(range(5, 21), 10)
    assert Counter(len(row["source"].split()) for row in rows(kind, "validation")) == dict.fromkeys(range(5, 21), 2)
    assert Counter(len(row["source"].split()) for row in rows(kind, "test")) == dict.fromkeys(range(5, 31), 3)


@pytest.mark.parametrize("kind", TASKS)
def test_alignment_leads_from_each_output_to_the_token_it_needs(kind: type[GeneratedCorpus]) -> None:
    for row in rows(kind, "test"):
        source, target = row["source"].split(), row["target"].split()
        assert [source[position] for position in needed(row)] == target


def test_copy_and_reverse() -> None:
    assert all(row["target"] == row["source"] for row in rows(Copy, "train"))
    assert all(row["target"].split() == row["source"].split()[::-1] for row in rows(Reverse, "train"))
    assert all(needed(row) == sorted(needed(row)) for row in rows(Copy, "train"))
    assert all(needed(row) == sorted(needed(row), reverse=True) for row in rows(Reverse, "train"))


def test_recall_looks_up_keys_of_one_pair_each() -> None:
    for row in rows(Recall, "test"):
        tokens, answers = row["source"].split(), row["target"].split()
        asked = tokens[-len(answers) :]
        pairs = tokens[: -len(answers)]
        keys, values = pairs[::2], pairs[1::2]
        assert len(set(keys)) == len(keys)
        assert len(set(asked)) == len(asked) >= 1
        assert answers == [dict(zip(keys, values, strict=True))[key] for key in asked]


@pytest.mark.parametrize("kind", TASKS)
def test_examples_depend_on_the_seed_only(kind: type[GeneratedCorpus]) -> None:
    assert rows(kind, "test") == rows(kind, "test")
    assert rows(kind, "test") != rows(kind, "test", data_seed=2)
    assert rows(kind, "train")[:8] == rows(kind, "train", train_size=8)
    assert not {row["source"] for row in rows(kind, "train")} & {row["source"] for row in rows(kind, "test")}


@pytest.mark.parametrize(
    ("kind", "fingerprint"),
    [
        (Copy, "2b2c5245d0eeb6e62b27e19583916e132316a7cb93e71ba009d9ee40d49d72f5"),
        (Reverse, "35d3f6dac92467622f356ac619ff086eb667a778bc8126ffda214e97a15f0236"),
        (Recall, "74f4aa1d4b25994a97250f1ba34a363ac5006cd5c104b705d2210c4a437338e6"),
    ],
)
def test_fingerprints_do_not_change(kind: type[GeneratedCorpus], fingerprint: str) -> None:
    """They name caches and enter every run id, so a change invalidates all results."""
    assert fingerprint_of(task(kind)) == fingerprint


@pytest.mark.parametrize("length", ["source", "target", "source-multiple", "target-multiple"])
def test_the_length_of_results_changes_no_example(length: str) -> None:
    assert fingerprint_of(task(Copy, length=length)) == fingerprint_of(task(Copy))


def test_identity_does_not_depend_on_the_module_of_a_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    before = task(Copy).identity()
    monkeypatch.setattr(Copy, "__module__", "attnspan.somewhere.else_")
    assert task(Copy).identity() == before
    monkeypatch.setattr(Copy, "__module__", "mine.corpora")
    assert task(Copy).identity() == before | {"corpus": "mine.corpora.Copy"}


@pytest.mark.parametrize("kind", TASKS)
def test_prepared_examples_keep_their_alignment(
    kind: type[GeneratedCorpus], ready: Callable[[Corpus], PreparedData]
) -> None:
    prepared = ready(task(kind))
    assert prepared.training_lengths == (5, 20)
    for row in prepared.test:
        shown = prepared.source_tokenizer.tokens(row["source_ids"])
        assert [shown[position] for position in needed(row)] == row["target"].split()
    assert "alignment" not in prepared.train.column_names


def test_only_symbols_are_aligned(ready: Callable[[Corpus], PreparedData]) -> None:
    assert "alignment" not in ready(task(Copy, source_tokens="characters")).test.column_names


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (Recall, {"train_lengths": [4, 9]}, "data.train_lengths: must be at least 5 tokens, not 4"),
        (
            Recall,
            {"symbols": 9},
            "data.test_lengths: a source of 30 tokens needs 10 different keys, but data.symbols=9",
        ),
        (Copy, {"length": "targets"}, "data.length: unknown length 'targets'; did you mean 'target'"),
        (Copy, {"symbols": 0}, "data.symbols: must be a whole number of at least 1, not 0"),
        (Reverse, {"symbols": "a"}, "data.symbols: must be a whole number of at least 1, not 'a'"),
    ],
)
def test_impossible_settings_are_refused(kind: type[GeneratedCorpus], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        task(kind, **changes).check()
    assert words in str(error.value)
