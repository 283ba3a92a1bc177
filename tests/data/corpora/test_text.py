"""Processing of text pairs between their file and their tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from attnspan.data.corpora.base import Corpus, describe_rows
from attnspan.data.corpora.files import Files
from attnspan.data.pipeline.prepare import PreparedData, fingerprint_of
from attnspan.data.tokenizer import UNK, Normalizer, Tokenizer
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH

Ready = Callable[[Corpus], PreparedData]
Make = Callable[..., Files]


def table(*rows: Any) -> tuple[str, str]:
    """A json lines file of (source, target) pairs; other rows are written unchanged."""
    whole = [{"source": row[0], "target": row[1]} if isinstance(row, tuple) else row for row in rows]
    return "rows.jsonl", "".join(json.dumps(row) + "\n" for row in whole)


def splits(*rows: Any) -> dict[str, tuple[str, str]]:
    return {split: (f"{split}.jsonl", table(*rows)[1]) for split in ("train", "validation", "test")}


PAIRS = [("Der Hund", "The dog"), ("ein ﬁsch", "a ﬁsh"), ("Ärger", "Trouble"), ("vier", "four"), ("fünf", "five")]


class TestOptions:
    CHANGES = (
        {"lowercase": True},
        {"normalization": "nfc"},
        {"joint_vocabulary": True, "target_tokens": "characters"},
        {"minimum_count": 2, "target_tokens": "words"},
        {"concat": 2},
        {"on_bad_row": "skip"},
    )

    def test_each_is_part_of_the_identity_when_set(self, files: Make) -> None:
        base = files()
        names = {fingerprint_of(base)}
        for change in self.CHANGES:
            without = {key: value for key, value in change.items() if key == "target_tokens"}
            changed, same = fingerprint_of(files(**change)), fingerprint_of(files(**without))
            assert changed != same, change
            names.add(changed)
        assert len(names) == 1 + len(self.CHANGES)

    def test_defaults_are_not_part_of_the_identity(self, files: Make) -> None:
        """So existing caches and runs keep their names when an option is added."""
        assert set(files().identity()) == {
            *("corpus", "source_tokens", "target_tokens", "vocabulary_size", "limits"),
            *("train", "validation", "test", "source", "target", "columns", "quotes", "alignment", "reading"),
        }

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"lowercase": "yes"}, "data.lowercase: must be true or false, not 'yes'"),
            ({"joint_vocabulary": 1}, "data.joint_vocabulary: must be true or false, not 1"),
            (
                {"joint_vocabulary": True},
                "data.joint_vocabulary: both sides need the same tokenization, not characters and symbols",
            ),
            (
                {"normalization": "nfk"},
                "data.normalization: unknown normal form 'nfk'; did you mean 'nfkc'? known: nfc",
            ),
            ({"concat": 0}, "data.concat: must be a whole number of at least 1, not 0"),
            ({"minimum_count": 0}, "data.minimum_count: must be a whole number of at least 1, not 0"),
            ({"minimum_count": 2}, "data.minimum_count=2: needs a side whose tokenization is words"),
            ({"on_bad_row": "skp"}, "data.on_bad_row: unknown value 'skp'; did you mean 'skip'? known: error, skip"),
            ({"source_tokens": "word"}, "data.source_tokens: unknown tokenization 'word'; did you mean 'words'?"),
            (
                {"concat": 2, "alignment": "a", "source_tokens": "symbols"},
                "data.concat=2: cannot be combined with data.alignment",
            ),
        ],
    )
    def test_invalid_options_are_refused(self, files: Make, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(InputError) as error:
            files(**changes).check()
        assert str(error.value).startswith(words)
        assert "\n" not in str(error.value)


class TestNormalisation:
    def test_both_sides_are_converted_to_lower_case(self, files: Make, ready: Ready) -> None:
        prepared = ready(files(**splits(*PAIRS), lowercase=True))
        assert prepared.test["source"][:] == ["der hund", "ein ﬁsch", "ärger", "vier", "fünf"]
        assert prepared.test["target"][:3] == ["the dog", "a ﬁsh", "trouble"]

    def test_normal_forms(self, files: Make, ready: Ready) -> None:
        composed = ready(files(**splits(*PAIRS, ("a\u0308 ﬁ", "x")), normalization="nfc"))
        assert composed.test["source"][1] == "ein ﬁsch"
        assert composed.test["source"][5] == "ä ﬁ"
        assert ready(files(**splits(*PAIRS), normalization="nfkc")).test["source"][1] == "ein fisch"

    def test_texts_are_unchanged_without_options(self, files: Make, ready: Ready) -> None:
        assert ready(files(**splits(*PAIRS))).test["source"][:] == [source for source, _ in PAIRS]

    @pytest.mark.parametrize("kind", ["characters", "words", "bpe", "symbols"])
    def test_a_loaded_tokenizer_normalises_too(self, files: Make, ready: Ready, tmp_path: Path, kind: str) -> None:
        """Text that is decoded later is not normalised, and must become what training saw."""
        prepared = ready(
            files(**splits(*PAIRS), lowercase=True, normalization="nfkc", source_tokens=kind, vocabulary_size=300)
        )
        prepared.source_tokenizer.save(tmp_path / "t.json")
        loaded = Tokenizer.load(tmp_path / "t.json")
        for source, ids in zip((source for source, _ in PAIRS), prepared.test["source_ids"], strict=True):
            assert loaded.encode(source) == ids
            assert UNK not in ids

    def test_normalisation_is_idempotent(self) -> None:
        change = Normalizer(normalization="nfkc", lowercase=True)
        for text in ("ﬁN Ａ İ ẞ ǅ", "ΑΣ ½ Å", "plain"):
            assert change(change(text)) == change(text)


class TestJointVocabulary:
    @pytest.mark.parametrize("kind", ["bpe", "words", "characters"])
    def test_both_sides_have_the_same_ids(self, files: Make, ready: Ready, kind: str) -> None:
        rows = [("haus hut", "house hat"), ("hat hut", "hut haus")]
        given = {"source_tokens": kind, "target_tokens": kind, "vocabulary_size": 280}
        joint = ready(files(**splits(*rows), joint_vocabulary=True, **given))
        source, target = joint.source_tokenizer, joint.target_tokenizer
        assert source.tokens(range(len(source))) == target.tokens(range(len(target)))
        assert source.encode("haus hat") == target.encode("haus hat")
        assert UNK not in source.encode("house hat haus hut")
        apart = ready(files(**splits(*rows), **given))
        ours, theirs = apart.source_tokenizer, apart.target_tokenizer
        assert ours.tokens(range(len(ours))) != theirs.tokens(range(len(theirs)))


class TestWords:
    def test_words_and_punctuation_are_split(self) -> None:
        tokenizer = Tokenizer.train("words", ["The cat's well-known 3.5 km – (really)!"])
        ids = tokenizer.encode("The cat's well-known 3.5 km – (really)!")
        assert tokenizer.tokens(ids) == ["The", "cat's", "well-known", "3.5", "km", "–", "(", "really", ")", "!"]
        assert tokenizer.decode(ids) == "The cat's well-known 3.5 km – ( really ) !"
        assert tokenizer.unknown_tokens("The dog's (cat)!") == ["dog's", "cat"]

    def test_sacrebleu_splits_decoded_words_like_the_text(self) -> None:
        cut = Tokenizer13a()
        for text in (
            "Two young, White males are outside near many bushes.",
            "A man's dog: 3.5 km (2,000 steps) away!",
            'He said "no", and left - at once; didn\'t he?',
            "Zwei junge weiße Männer sind im Freien, in der Nähe vieler Büsche.",
        ):
            tokenizer = Tokenizer.train("words", [text])
            assert cut(tokenizer.decode(tokenizer.encode(text))) == cut(text)

    def test_rare_words_are_unknown(self) -> None:
        tokenizer = Tokenizer.train("words", ["a a b b c"], 100, minimum_count=2)
        assert tokenizer.tokens(range(4, len(tokenizer))) == ["a", "b"]
        assert tokenizer.encode("c") == [UNK]

    def test_the_most_frequent_fill_the_vocabulary(self) -> None:
        tokenizer = Tokenizer.train("words", ["c c c b b a a d"], 7)
        assert tokenizer.tokens(range(4, len(tokenizer))) == ["c", "a", "b"]

    @pytest.mark.parametrize(("size", "count"), [(4, 1), (100, 9)])
    def test_a_vocabulary_without_a_word(self, size: int, count: int) -> None:
        words = rf"^data\.minimum_count={count}, data\.vocabulary_size={size}: no word is left in the vocabulary$"
        with pytest.raises(InputError, match=words):
            Tokenizer.train("words", ["a b"], size, minimum_count=count)


class TestConcat:
    def test_consecutive_rows_are_joined(self, files: Make, ready: Ready) -> None:
        prepared = ready(files(**splits(*PAIRS), concat=2))
        assert prepared.test["source"][:] == ["Der Hund ein ﬁsch", "Ärger vier", "fünf"]
        assert prepared.test["target"][:] == ["The dog a ﬁsh", "Trouble four", "five"]
        assert prepared.test["id"][:] == ["test-00000-00001", "test-00002-00003", "test-00004"]
        assert [describe_rows(name) for name in prepared.test["id"][:]] == ["rows 1 to 2", "rows 3 to 4", "row 5"]
        assert (prepared.train.num_rows, prepared.validation.num_rows) == (3, 3)

    def test_only_white_space_is_cut_at_the_seams(self, files: Make, ready: Ready) -> None:
        """U+001C to U+001F are part of a symbol, though Python's str.strip cuts them."""
        prepared = ready(files(**splits((" a\x1c\u3000", "x\x1f"), ("\x1fb", "y")), source_tokens="symbols", concat=2))
        assert prepared.train["source"][:] == ["a\x1c \x1fb"]
        assert prepared.train["target"][:] == ["x\x1f y"]
        assert prepared.unknown_token_rates("train") == {"source": 0.0, "target": 0.0}

    def test_limits_apply_to_joined_rows_and_errors_name_them(self, files: Make, ready: Ready) -> None:
        limits = {"train": {"source": 12, "target": None}, "evaluation": ANY_LENGTH["evaluation"]}
        assert ready(files(**splits(*PAIRS), concat=2, limits=limits)).dropped == {"train": 1}
        limits = {"train": ANY_LENGTH["train"], "evaluation": {"source": 10, "target": None}}
        with pytest.raises(
            InputError, match=r"validation\.jsonl rows 1 to 2: the source has 17 tokens, more than data\."
        ):
            ready(files(**splits(*PAIRS), concat=2, limits=limits))


class TestUnknown:
    def test_rates_are_reported_by_split_and_side(self, files: Make, ready: Ready) -> None:
        """Training has one rare word per side; the test has new words."""
        given = splits(("a b", "x"), ("a b", "x"), ("c", "y")) | {
            "test": ("test.jsonl", table(("a b", "x z"), ("a d", "x"))[1])
        }
        prepared = ready(files(**given, source_tokens="words", target_tokens="words", minimum_count=2))
        assert prepared.unknown_token_rates("train") == {"source": 1 / 5, "target": 1 / 3}
        assert prepared.unknown_token_rates("test") == {"source": 1 / 4, "target": 1 / 3}
        assert prepared.warnings() == [
            "test: 25.00% of the source tokens are not in the vocabulary",
            "test: 33.33% of the target tokens are not in the vocabulary",
        ]

    def test_other_warnings(self, files: Make, ready: Ready) -> None:
        limits = {"train": {"source": 7, "target": None}, "evaluation": ANY_LENGTH["evaluation"]}
        given = splits(*PAIRS) | {"train": ("train.jsonl", table(*PAIRS, (None, "x"))[1])}
        assert ready(files(**given, limits=limits, on_bad_row="skip")).warnings() == [
            "train: 2 pairs are longer than data.limits.train and were dropped",
            "train: 1 unusable rows were skipped",
            "test: 3 examples also occur in training",
        ]


class TestBadRows:
    BAD: tuple[tuple[Any, str], ...] = (
        ((None, "x"), "column 'source' is null"),
        (("a", "  "), "column 'target' is empty"),
        ((3, "x"), "column 'source' holds a number instead of text: 3"),
        (("a\ud800", "x"), "column 'source' holds an unpaired surrogate: 'a\\ud800'"),
    )

    @pytest.mark.parametrize(("row", "words"), BAD)
    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    def test_are_an_error_that_names_split_and_row(
        self, files: Make, ready: Ready, row: Any, words: str, split: str
    ) -> None:
        given = splits(*PAIRS) | {split: (f"{split}.jsonl", table(*PAIRS[:2], row, *PAIRS[2:])[1])}
        with pytest.raises(InputError) as error:
            ready(files(**given))
        assert str(error.value).endswith(f"{split}.jsonl line 3: {words}")

    @pytest.mark.parametrize(("row", "words"), BAD)
    def test_can_be_skipped_and_are_counted(self, files: Make, ready: Ready, row: Any, words: str) -> None:
        given = splits(*PAIRS[:2], row, *PAIRS[2:])
        prepared = ready(files(**given, on_bad_row="skip"))
        assert prepared.skipped == {"train": 1, "validation": 1, "test": 1}
        assert prepared.test["source"][:] == [source for source, _ in PAIRS]
        assert prepared.test["id"][2] == "test-00003"  # ids keep the row numbers
        again = ready(files(**given, on_bad_row="skip"))
        assert again.skipped == prepared.skipped

    def test_too_long_for_the_test(self, files: Make, ready: Ready) -> None:
        given = splits(*PAIRS) | {"test": ("test.jsonl", table(*PAIRS[:2], ("a" * 100_000, "x"), *PAIRS[2:])[1])}
        limits = {"train": ANY_LENGTH["train"], "evaluation": {"source": 1000, "target": 1000}}
        with pytest.raises(
            InputError, match=r"test\.jsonl row 3: the source has 100000 tokens, more than data\.limits\."
        ):
            ready(files(**given, limits=limits))
        prepared = ready(files(**given, limits=limits, on_bad_row="skip"))
        assert (prepared.skipped, prepared.test.num_rows) == ({"test": 1}, 5)

    def test_rows_too_long_for_training_are_dropped_and_not_bad(self, files: Make, ready: Ready) -> None:
        given = splits(*PAIRS) | {"train": ("train.jsonl", table(*PAIRS, ("a" * 100_000, "x"))[1])}
        limits = {"train": {"source": 100, "target": None}, "evaluation": ANY_LENGTH["evaluation"]}
        for choice in ("error", "skip"):
            prepared = ready(files(**given, limits=limits, on_bad_row=choice))
            assert (prepared.dropped, prepared.skipped) == ({"train": 1}, {})

    def test_a_missing_column_is_never_skipped(self, files: Make, ready: Ready) -> None:
        with pytest.raises(
            InputError, match=r"there is no column 'sorce'; did you mean 'source'\? known: source, target$"
        ):
            ready(files(**splits(*PAIRS), source="sorce", on_bad_row="skip"))

    def test_a_row_with_invalid_links_is_bad(self, files: Make, ready: Ready) -> None:
        rows = [
            {"source": "a b", "target": "x", "links": "0-0"},
            {"source": "a", "target": "x", "links": "7-0"},
        ]
        given = splits(("a b", "x")) | {"test": table(*rows)}
        given["test"] = ("test.jsonl", given["test"][1])
        kinds = {"source_tokens": "symbols", "alignment": "links"}
        with pytest.raises(InputError, match=r"test\.jsonl line 2: column 'links'"):
            ready(files(**given, **kinds))
        assert ready(files(**given, **kinds, on_bad_row="skip")).skipped == {"test": 1}

    def test_nothing_is_left(self, files: Make, ready: Ready) -> None:
        given = splits(*PAIRS) | {"test": ("test.jsonl", table((None, "x"))[1])}
        with pytest.raises(InputError, match=r"test\.jsonl: the test split is empty$"):
            ready(files(**given, on_bad_row="skip"))

    def test_rows_are_joined_across_a_skipped_one(self, files: Make, ready: Ready) -> None:
        prepared = ready(files(**splits(PAIRS[0], (None, "x"), PAIRS[1], PAIRS[2]), concat=2, on_bad_row="skip"))
        assert prepared.test["id"][:] == ["test-00000-00002", "test-00003"]
