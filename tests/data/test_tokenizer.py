from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from attnspan.data.tokenizer import BOS, EOS, PAD, SPECIALS, UNK, Normalizer, Tokenizer
from attnspan.data.white_space import WHITE_SPACE, symbols
from attnspan.errors import InputError

TEXTS = ["the cat sat on the mat", "a cat and a hat", 'naïve "café" 漢字 🙂', "tab\tnew\nline  two spaces "]


def bpe(texts: list[str], size: int = 300) -> Tokenizer:
    return Tokenizer.train("bpe", texts, size)


@pytest.mark.parametrize("kind", ["characters", "bpe"])
@pytest.mark.parametrize(
    "text", [*TEXTS, "<pad> <bos><eos> <unk>", "<pad> ", " leading and trailing  ", "\ufeff\u200d é"]
)
def test_text_is_restored_exactly(kind: str, text: str) -> None:
    tokenizer = Tokenizer.train(kind, [*TEXTS, text], 400)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert min(ids) > UNK


@pytest.mark.parametrize(
    ("kind", "text", "unknown"),
    [
        ("characters", "aüa🙂e\u0301", ["ü", "🙂", "\u0301"]),
        ("symbols", "the 🙂ü  cat \u0301x", ["🙂ü", "\u0301x"]),
        ("characters", "the cat", []),
        ("symbols", "", []),
    ],
)
def test_unknown_tokens_are_named(kind: str, text: str, unknown: list[str]) -> None:
    assert Tokenizer.train(kind, ["the cat"]).unknown_tokens(text) == unknown


def test_bpe_has_no_unknown_tokens() -> None:
    assert bpe(["the cat"]).unknown_tokens("ü 🙂\u0301") == []


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_bpe_restores_any_text_even_one_never_seen(text: str) -> None:
    assert SEEN.decode(SEEN.encode(text)) == text


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_characters_restore_any_text_of_known_characters(text: str) -> None:
    tokenizer = Tokenizer.train("characters", [text])
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


SEEN = bpe(TEXTS * 3)


def test_symbols_are_split_at_white_space_and_joined_by_a_space() -> None:
    tokenizer = Tokenizer.train("symbols", ["AH B  K", "AH AH\tZ"])
    assert tokenizer.decode(tokenizer.encode("  Z AH\n")) == "Z AH"
    assert tokenizer.tokens(tokenizer.encode("B Z")) == ["B", "Z"]


def test_special_tokens_have_the_first_ids_and_cannot_be_spelled() -> None:
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    for kind in ("characters", "symbols", "bpe"):
        tokenizer = Tokenizer.train(kind, ["<pad> <eos> <pad> <bos> <unk>"] * 50, 300)
        assert tokenizer.tokens(range(4)) == list(SPECIALS)
        ids = tokenizer.encode("<pad> <eos> <bos> <unk>")
        assert min(ids) > UNK
        assert tokenizer.decode(ids) == "<pad> <eos> <bos> <unk>"


def test_vocabulary_is_ordered_by_count_and_then_by_token() -> None:
    tokenizer = Tokenizer.train("symbols", ["b c a c", "c b a d"])
    assert tokenizer.tokens(range(4, len(tokenizer))) == ["c", "a", "b", "d"]
    assert len(tokenizer) == 8


def test_unknown_tokens_become_unk() -> None:
    for kind, text, shown in (("characters", "axb", "a<unk>b"), ("symbols", "a x b", "a <unk> b")):
        tokenizer = Tokenizer.train(kind, ["a b"])
        ids = tokenizer.encode(text)
        assert ids.count(UNK) == 1
        assert tokenizer.decode(ids) == shown


def test_decoding_skips_the_other_special_tokens() -> None:
    tokenizer = Tokenizer.train("characters", ["ab"])
    a, b = tokenizer.encode("ab")
    assert tokenizer.decode([BOS, a, PAD, EOS, b, EOS]) == "ab"


def test_batch_and_single_encoding_agree() -> None:
    for kind in ("characters", "symbols", "bpe"):
        tokenizer = Tokenizer.train(kind, TEXTS, 300)
        assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(text) for text in TEXTS]


@pytest.mark.parametrize("kind", ["characters", "symbols", "bpe"])
def test_a_saved_tokenizer_is_loaded_unchanged(kind: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(kind, TEXTS, 300)
    tokenizer.save(tmp_path / "t.json")
    loaded = Tokenizer.load(tmp_path / "t.json")
    text = "<pad> the hat ß"
    assert len(loaded) == len(tokenizer)
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.decode(loaded.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert loaded.tokens(range(len(loaded))) == tokenizer.tokens(range(len(tokenizer)))


def test_bpe_shows_words_and_not_bytes() -> None:
    tokenizer = bpe(TEXTS * 3)
    assert "".join(tokenizer.tokens(tokenizer.encode(TEXTS[0]))) == TEXTS[0]
    assert " cat" in tokenizer.tokens(tokenizer.encode(TEXTS[0]))


def test_bpe_has_at_most_the_requested_size() -> None:
    assert len(bpe(TEXTS * 3, 270)) == 270


def test_bpe_training_is_the_same_in_every_process() -> None:
    code = (
        "from attnspan.data.tokenizer import Tokenizer\n"
        "words = [f'{chr(97 + i % 26)}{chr(97 + i * 7 % 26)}{chr(97 + i * 3 % 26)}' for i in range(2000)]\n"
        "t = Tokenizer.train('bpe', [' '.join(words[i:i + 9]) for i in range(0, 2000, 9)], 700)\n"
        "print(t.tokens(range(len(t))))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown tokenization 'charcters'; did you mean 'characters'"):
        Tokenizer.train("charcters", TEXTS)
    with pytest.raises(InputError, match="at least 260"):
        Tokenizer.train("bpe", TEXTS, 259)
    with pytest.raises(InputError, match="no such file"):
        Tokenizer.load(tmp_path / "none.json")
    for content in ("{}", "no json", '{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}'):
        (tmp_path / "t.json").write_text(content)
        with pytest.raises(InputError, match=r"t\.json: not"):
            Tokenizer.load(tmp_path / "t.json")


CHARACTERS = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]


def test_white_space_is_what_the_tokenizers_split_at() -> None:
    text = "".join(CHARACTERS)
    left = [token for token, _ in pre_tokenizers.WhitespaceSplit().pre_tokenize_str(text)]
    assert symbols(text) == left
    assert {*text} - {*"".join(left)} == {*WHITE_SPACE}


@pytest.mark.parametrize("kind", ["characters", "symbols", "words", "bpe"])
@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
@example(text="a b\x1cc g\x1fh \x1d i\x1e")  # white space for Python's str.split
@example(text="\x1f")
def test_no_token_of_training_is_unknown(kind: str, text: str) -> None:
    assert UNK not in Tokenizer.train(kind, [text, "a"], 300).encode(text)


@pytest.mark.parametrize("form", [None, "nfc", "nfkc"])
def test_normalising_again_changes_nothing(form: str | None) -> None:
    """Else training has tokens that its vocabulary lacks: a small letter may compose where its capital does not."""
    normalizer = Normalizer(normalization=form, lowercase=True)
    once = normalizer(" ".join(f"{character}\u0301" for character in CHARACTERS[:0x2200]))
    assert normalizer(once) == once
