from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from attnspan.data.corpora.base import SPLITS
from attnspan.data.corpora.pronunciation import SHORTEST_WORD, Phrases, Pronunciation, pronunciations, split_of
from attnspan.errors import InputError

CONFIG = Path(__file__).parents[3] / "conf/data/pronunciation.yaml"


def corpus(**changes: Any) -> Pronunciation:
    config = yaml.safe_load(CONFIG.read_text())
    del config["_target_"]
    return Pronunciation(**(config | changes))


def drawn(split: str, **changes: Any) -> list[dict[str, Any]]:
    return list(corpus(**({"train_size": 2240} | changes)).rows(split))


def test_words_are_letters_with_their_first_pronunciation_and_no_stress() -> None:
    sounds = pronunciations()
    assert sounds["read"] == "R EH D"  # the one listed first
    assert sounds["o'clock"] == "AH K L AA K"
    assert "'bout" not in sounds
    assert "a.m." not in sounds
    assert not any(sign.isdigit() or sign == "#" for phones in sounds.values() for sign in phones)
    assert len(sounds) > 120_000


def test_no_word_is_in_two_splits() -> None:
    words = {split: {word for row in drawn(split) for word in row["source"].split()} for split in SPLITS}
    for one in SPLITS:
        assert words[one]
        assert {split_of(word) for word in words[one]} == {one}
    assert not words["train"] & (words["validation"] | words["test"])
    assert not words["validation"] & words["test"]


def test_splits_have_their_proportions() -> None:
    shares = Counter(map(split_of, pronunciations()))
    total = shares.total()
    assert [round(100 * shares[split] / total) for split in SPLITS] == [90, 5, 5]


def test_the_split_of_a_word_never_changes() -> None:
    assert [split_of(word) for word in ("attention", "prisoner", "cat", "sandbag")] == [
        "train",
        "test",
        "train",
        "train",
    ]


def test_lengths_are_spread_evenly() -> None:
    assert Counter(len(row["source"]) for row in drawn("train")) == dict.fromkeys(range(5, 61), 40)
    assert Counter(len(row["source"]) for row in drawn("validation")) == dict.fromkeys(range(5, 61), 22)
    test = Counter(len(row["source"]) for row in drawn("test"))
    assert sorted(test) == list(range(5, 101))
    for width in (5, 10):
        for first in range(5, 100, width):
            if first + width <= 101:
                assert sum(test[length] for length in range(first, first + width)) >= 200


def test_the_configured_training_set_has_as_many_phrases_of_every_length() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    shortest, longest = config["train_lengths"]
    assert config["train_size"] % (longest - shortest + 1) == 0
    assert config["train_size"] >= 100_000


def test_target_is_the_words_sounds_in_order() -> None:
    for row in drawn("test", test_size=50):
        assert row["target"] == " ".join(pronunciations()[word] for word in row["source"].split(" "))


def test_every_length_can_be_drawn_from_every_split() -> None:
    for split in SPLITS:
        phrases = Phrases([word for word in pronunciations() if split_of(word) == split])
        draw = random.Random(0)
        for length in range(SHORTEST_WORD, 130):
            assert len(" ".join(phrases.draw(length, draw))) == length


def test_no_word_is_drawn_again_before_all_of_its_length_are() -> None:
    """Examples that share words are not independent, and intervals take them as such."""
    words = [word for word in pronunciations() if split_of(word) == "test" and len(word) >= SHORTEST_WORD]
    times = Counter(word for row in drawn("test") for word in row["source"].split())
    for letters in {len(word) for word in words}:
        drawn_so_often = [times[word] for word in words if len(word) == letters]
        assert max(drawn_so_often) - min(drawn_so_often) <= 1
    study = Counter(
        word for row in drawn("test", test_lengths=[5, 45], test_size=1350) for word in row["source"].split()
    )
    assert sum(times == 1 for times in study.values()) > 0.95 * len(study)  # the default study


def test_examples_depend_on_the_seed_only() -> None:
    assert drawn("test", test_size=30) == drawn("test", test_size=30)
    assert drawn("test", test_size=30, data_seed=2) != drawn("test", test_size=30)
    assert [row["id"] for row in drawn("test", test_size=2)] == ["test-00000", "test-00001"]


def test_examples_do_not_depend_on_the_process() -> None:
    code = (
        "import sys, yaml; from attnspan.data.corpora.pronunciation import Pronunciation\n"
        f"c = yaml.safe_load(open({str(CONFIG)!r})); del c['_target_']; c['test_size'] = 200\n"
        "print(list(Pronunciation(**c).rows('test')))\n"
        "assert not {'torch', 'lightning', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": "1"}
    )
    assert done.stdout.strip() == str(drawn("test", test_size=200))  # in a process with another hash seed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_lengths": [2, 10]}, "data.train_lengths: must be at least 3 letters, not 2"),
        ({"test_lengths": [10, 5]}, "data.test_lengths: the shortest length, 10, exceeds the longest, 5"),
        ({"test_lengths": 5}, "data.test_lengths: must be"),
        ({"test_lengths": [5, "x"]}, "data.test_lengths: must be [shortest, longest], not [5, 'x']"),
        ({"train_size": 0}, "data.train_size: must be a whole number of at least 1, not 0"),
        ({"data_seed": None}, "data.data_seed: must be a whole number, not None"),
        ({"source_tokens": "character"}, "data.source_tokens: unknown tokenization 'character'; did you mean 'char"),
        ({"limits": {"train": {"source": 3}}}, "data.limits.train.target: is missing"),
        ({"vocabulary_size": "many"}, "data.vocabulary_size: must be a whole number of at least 1, not 'many'"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        corpus(**changes).check()
    assert words in str(error.value)
    assert "\n" not in str(error.value)
