"""The ids of an arm that copies, by hand: the target's ids of source tokens, and the words of a source beyond them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from datasets import Dataset

from attnspan.data.extended_vocabulary import ExtendedVocabulary
from attnspan.data.pipeline.batches import EncodedSplit
from attnspan.data.tokenizer import EOS, PAD, UNK, Normalizer, Tokenizer
from attnspan.errors import InputError


def words(*texts: str, **options: object) -> Tokenizer:
    return Tokenizer.train("words", texts, **options)


SOURCE = words("the cat the dog the end")  # the 4, cat 5, dog 6, end 7
TARGET = words("a the cat a the a")  # a 4, the 5, cat 6
V = len(TARGET)
BOTH = ExtendedVocabulary(source=SOURCE, target=TARGET)


def extend(text: str) -> tuple[list[int], list[str]]:
    return BOTH.extend_source(SOURCE.encode(text), text)


def test_a_source_by_hand() -> None:
    """A word that both sides know, one that the source knows, one that neither does, twice, and the target's own."""
    assert V == 7
    assert extend("the dog saw Bo saw a cat") == ([5, V, V + 1, V + 2, V + 1, 4, 6], ["dog", "saw", "Bo"])
    assert extend("the cat") == ([5, 6], [])


def test_a_target_by_hand() -> None:
    """A word of the source is found again; one that nobody knows stays unknown."""
    text = "the Bo saw it dog"
    oov_words = extend("the dog saw Bo")[1]
    assert oov_words == ["dog", "saw", "Bo"]
    assert BOTH.extend_target(TARGET.encode(text), text, oov_words) == [5, V + 2, V + 1, UNK, V]
    assert BOTH.extend_target(TARGET.encode(text), text, []) == [5, UNK, UNK, UNK, UNK]


def test_what_is_copied_is_what_the_source_spells() -> None:
    ids, oov_words = extend("Bo saw the cat")
    assert TARGET.decode(ids, oov_words) == "Bo saw the cat"
    assert TARGET.tokens([*ids, UNK, EOS], oov_words) == ["Bo", "saw", "the", "cat", "<unk>", "<eos>"]


def test_unknown_letters_are_copied() -> None:
    source, target = Tokenizer.train("characters", ["abc"]), Tokenizer.train("characters", ["cx"])
    extended = ExtendedVocabulary(source=source, target=target)
    ids, oov_words = extended.extend_source(source.encode("aé cé"), "aé cé")
    assert oov_words == ["a", "é", " "]
    assert target.decode(ids, oov_words) == "aé cé"


def test_a_text_is_compared_as_it_is_normalised() -> None:
    normalizer = Normalizer(normalization="nfc", lowercase=True)
    source, target = words("the", normalizer=normalizer), words("das", normalizer=normalizer)
    extended = ExtendedVocabulary(source=source, target=target)
    decomposed = "The ZOE\u0308"
    ids, oov_words = extended.extend_source(source.encode(decomposed), decomposed)
    assert oov_words == ["the", "zoë"]
    assert extended.extend_target(target.encode("das Zoë"), "das Zoë", oov_words) == [4, ids[1]]


def test_bytes_are_compared_as_bytes() -> None:
    source, target = Tokenizer.train("bpe", ["low low lower"], 262), Tokenizer.train("bpe", ["zz"], 261)
    extended = ExtendedVocabulary(source=source, target=target)
    ids, oov_words = extended.extend_source(source.encode("low ü"), "low ü")
    assert max(ids) >= len(target)
    assert target.decode(ids, oov_words) == "low ü"
    with pytest.raises(InputError, match=r"^decoder\.pointer: copies tokens, and here data cuts one side only"):
        ExtendedVocabulary(source=source, target=TARGET)


def test_a_word_that_is_called_like_a_special_token() -> None:
    source, target = Tokenizer.train("symbols", ["a"]), Tokenizer.train("symbols", ["<unk> <pad>"])
    extended = ExtendedVocabulary(source=source, target=target)
    text = "<unk> <eos> <pad>"
    ids, oov_words = extended.extend_source(source.encode(text), text)
    assert target.decode(ids, oov_words) == text
    assert oov_words == ["<eos>"]
    found, is_oov = extended.look_up(np.array([[PAD, UNK]]))
    assert found[0, 0] == PAD
    assert is_oov.tolist() == [[False, True]]


@pytest.mark.parametrize("with_eos", [True, False])
def test_a_batch_by_hand(with_eos: bool) -> None:
    """Source ids above their ids in the target; the loss is of extended ids, and what is read is not."""
    texts = [("the dog saw Bo", "Bo a it"), ("the cat", "the cat the cat"), ("Bo dog", "dog Bo")]
    columns = {
        "source": [source for source, _ in texts],
        "target": [target for _, target in texts],
        "source_ids": [SOURCE.encode(source) for source, _ in texts],
        "target_ids": [TARGET.encode(target) for _, target in texts],
    }
    split = EncodedSplit(Dataset.from_dict(columns), with_eos=with_eos, extended=BOTH)
    end = [EOS] if with_eos else []
    for one in (split, pickle.loads(pickle.dumps(split))):
        batch = one[[2, 1, 0]]
        assert batch.source.tolist() == [
            [[UNK, 6, PAD, PAD], [V, V + 1, PAD, PAD]],
            [[4, 5, PAD, PAD], [5, 6, PAD, PAD]],
            [[4, 6, UNK, UNK], [5, V, V + 1, V + 2]],
        ]
        expected = [[V + 1, V, *end], [5, 6, 5, 6, *end], [V + 2, 4, UNK, *end]]
        assert [[i for i in row if i != PAD] for row in batch.target_output.tolist()] == expected
        read = [[UNK, UNK], [5, 6, 5, 6], [UNK, 4, UNK]]
        T = batch.target_input.size(1)
        assert [row[1:] for row in batch.target_input.tolist()] == [(row + [PAD] * T)[: T - 1] for row in read]
        assert batch.oov_words == [["Bo", "dog"], [], ["dog", "saw", "Bo"]]


def test_batches_of_other_arms_have_nothing_of_it() -> None:
    columns = {"source": ["Bo"], "target": ["Bo"], "source_ids": [[UNK]], "target_ids": [[UNK]]}
    batch = EncodedSplit(Dataset.from_dict(columns))[[0]]
    assert batch.source.tolist() == [[UNK]]
    assert batch.target_output.tolist() == [[UNK, EOS]]
    assert not batch.oov_words
