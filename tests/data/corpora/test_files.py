"""A corpus of the user's files: its keys, its limits, its gold links."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.files import Files
from attnspan.data.pipeline.prepare import PreparedData
from attnspan.errors import InputError

Make = Callable[..., Files]
Ready = Callable[[Corpus], PreparedData]


HEAD = "source,target\n"


def test_a_directory_instead_of_a_file(files: Make, ready: Ready, tmp_path: Path) -> None:
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputError, match=r"data\.test: .*d\.csv: cannot be read \(Is a directory\)"):
        ready(files(test=("d.csv", None)))


def test_a_split_without_a_file(files: Make, ready: Ready) -> None:
    corpus = files()
    with pytest.raises(InputError, match=r"data\.validation: is empty; give the path of a file"):
        ready(Files(**(vars(corpus) | {"validation": ""})))


KINDS: list[tuple[str, Any, str]] = [
    ("train", 123, """must be a path, not 123; as a name it needs quotes, as in "data.train='123'\""""),
    ("train", ["a.csv", "b.csv"], "must be a path, not ['a.csv', 'b.csv']"),
    ("test", None, "must be a path, not null"),
    ("source", None, "must be the name of a column, not null"),
    ("target", 1, """must be the name of a column, not 1; as a name it needs quotes, as in "data.target='1'\""""),
    ("source", False, "must be the name of a column, not false; as a name it needs quotes"),  # Norwegian, in a yaml
    ("columns", "src,tgt", "must be null or a list of names, as in [word,phones], not 'src,tgt'"),
    ("columns", [0, 1], "must be null or a list of names, as in [word,phones], not [0, 1]"),
    ("alignment", True, "must be null or the name of a column, not true"),
    ("limits", None, "must be a mapping, {train: {source, target}, evaluation: {...}}, not null"),
    ("limits", 100, "must be a mapping, {train: {source, target}, evaluation: {...}}, not 100"),
    ("source_tokens", None, "must be one of bpe, characters, symbols, words, not null"),
    ("source_tokens", ["bpe"], "must be one of bpe, characters, symbols, words, not ['bpe']"),
    ("normalization", False, "must be nfc, nfkc or null, not false"),
    ("on_bad_row", True, "must be error or skip, not true"),
    ("quotes", "no", "must be true or false, not 'no'"),
    ("quotes", "false", "must be true or false, not 'false'"),
    ("quotes", None, "must be true or false, not null"),
    ("lowercase", 0, "must be true or false, not 0"),
]


@pytest.mark.parametrize(("key", "value", "words"), KINDS)
def test_a_value_of_the_wrong_kind_is_named_with_its_key(files: Make, key: str, value: Any, words: str) -> None:
    with pytest.raises(InputError) as error:
        Files(**(vars(files()) | {key: value})).check()
    assert str(error.value).startswith(f"data.{key}: {words}")


def test_an_evaluation_needs_no_other_split(files: Make) -> None:
    Files(**(vars(files()) | {"train": None, "validation": 3})).check(["test"])


def test_named_columns_must_include_the_required_ones(files: Make, ready: Ready) -> None:
    with pytest.raises(InputError, match=r"data\.columns: there is no column 'source'; known: target, word"):
        ready(files(columns=["word", "target"]))


def test_a_source_over_the_limit_is_named_with_its_file(files: Make, ready: Ready, tmp_path: Path) -> None:
    limits = {"train": {"source": 2, "target": 9}, "evaluation": {"source": 2, "target": 9}}
    with pytest.raises(InputError) as error:
        ready(files(limits=limits, validation=("v.csv", HEAD + "ab,x\n")))
    place = tmp_path / "test.csv"
    assert str(error.value) == f"{place} row 3: the source has 3 tokens, more than data.limits.evaluation.source=2"


LINKED = "source,target,gold\na b,x y z,0-0 1p1\nb,y,0-0\n"


def test_links_are_read_from_the_test_file_only(files: Make, ready: Ready) -> None:
    prepared = ready(files(test=("test.csv", LINKED), alignment="gold", source_tokens="symbols"))
    assert prepared.test["alignment"][:] == ["0-0 1p1", "0-0"]
    assert "alignment" not in prepared.train.column_names
    assert "alignment" not in ready(files(test=("test.csv", LINKED))).test.column_names


@pytest.mark.parametrize(
    ("content", "changes", "words"),
    [
        (LINKED, {"alignment": "golden"}, "there is no column 'golden'; did you mean 'gold'?"),
        (LINKED.replace(",0-0\n", ",\n"), {}, "column 'gold' is empty"),
        (
            LINKED.replace("1p1", "1-3"),
            {},
            "test.csv row 1 (line 2, the header is line 1): column 'gold': link 1-3 refers to target token 3 (from 0), "
            "but the target has 3 tokens",
        ),
        (LINKED.replace("1p1", "1?1"), {}, "column 'gold': '1?1' is not a link; write 3-4 if it is sure"),
        (
            LINKED,
            {"source_tokens": "bpe"},
            "data.alignment: links count tokens between white space, so data.source_tokens must be 'symbols', not "
            "'bpe'",
        ),
        (LINKED, {"target_tokens": "characters"}, "so data.target_tokens must be 'symbols', not 'characters'"),
    ],
)
def test_bad_links_are_named(files: Make, ready: Ready, content: str, changes: dict[str, Any], words: str) -> None:
    corpus = files(test=("test.csv", content), **{"alignment": "gold", "source_tokens": "symbols"} | changes)
    with pytest.raises(InputError, match=re.escape(words)) as raised:
        ready(corpus)
    assert "\n" not in str(raised.value)


def test_links_count_symbols_that_normalisation_does_not_split(files: Make, ready: Ready) -> None:
    """NFKC makes a space and an accent of a lone diaeresis, after which the link would be to another symbol."""
    raw = "source,target,gold\nab\u00a8c d,x y,1-1\n"
    corpus = files(test=("test.csv", raw), alignment="gold", source_tokens="symbols", normalization="nfkc")
    with pytest.raises(InputError, match=r"column 'source': data\.normalization=nfkc changes the number of symbols"):
        ready(corpus)
    assert ready(files(test=("test.csv", raw), alignment="gold", source_tokens="symbols", normalization="nfc")).test
