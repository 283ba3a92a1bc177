"""The files of SIGMORPHON 2020: one dataset per language, read as published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.sigmorphon2020 import Sigmorphon2020
from attnspan.data.pipeline.prepare import PreparedData
from attnspan.data.tokenizer import UNK
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH

Ready = Callable[[Corpus], PreparedData]

FILES = {
    "train": 'tandis\tt ɑ̃ d i\nd"or\td ɔ ʁ\nai cập\tʔ a p̚ ˧˨ ʔ\n',
    "validation": "tard\tt a ʁ\n",
    "test": "taxi\tt a k s i\nsaint\ts ɑ̃\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for language in ("fre", "vie"):
        folder = tmp_path / "published" / language
        folder.mkdir(parents=True)
        for split, text in FILES.items():
            (folder / f"{split}.tsv").write_text(text, encoding="utf-8")
    (tmp_path / "published" / "README.md").write_text("", encoding="utf-8")
    (tmp_path / "published" / ".cache").mkdir()
    return tmp_path / "published"


def corpus(root: Path, language: Any) -> Sigmorphon2020:
    return Sigmorphon2020(
        root=str(root),
        language=language,
        **{split: f"{root}/{language}/{split}.tsv" for split in FILES},
        columns=["word", "phones"],
        quotes=False,
        source="word",
        target="phones",
        source_tokens="characters",
        target_tokens="symbols",
        limits=ANY_LENGTH,
    )


def test_published_files_are_read_unchanged(root: Path, ready: Ready) -> None:
    """No header, quotes and spaces are characters of the word, and spaces separate phones."""
    prepared = ready(corpus(root, "fre"))
    assert prepared.train["source"][:] == ["tandis", 'd"or', "ai cập"]
    assert [len(ids) for ids in prepared.train["source_ids"]] == [6, 4, 6]
    assert [len(ids) for ids in prepared.train["target_ids"]] == [4, 3, 5]
    assert prepared.test.num_rows == 2


def test_tokens_that_only_the_test_has_are_unknown(root: Path, ready: Ready) -> None:
    """The vocabulary is that of training, but the text of the reference keeps the token."""
    prepared = ready(corpus(root, "fre"))
    assert [[i == UNK for i in ids] for ids in prepared.test["target_ids"]] == [
        [False, False, True, True, False],  # k and s
        [True, False],
    ]
    assert prepared.test["target"][:] == ["t a k s i", "s ɑ̃"]


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("fra", "has no language 'fra'; did you mean 'fre'? known: fre, vie"),
        ("xx", "has no language 'xx'; known: fre, vie"),
        (None, "no language is given; known: fre, vie"),
    ],
)
def test_a_missing_language(root: Path, language: str | None, words: str) -> None:
    with pytest.raises(InputError, match=r"^data\.language: ") as error:
        corpus(root, language).check()
    assert str(error.value).endswith(words)
    assert "\n" not in str(error.value)


def test_a_missing_root(root: Path) -> None:
    with pytest.raises(InputError, match=r"^data\.root: .*nowhere: no such directory"):
        corpus(root / "nowhere", "fre").check()


def test_a_missing_split(root: Path) -> None:
    (root / "fre" / "test.tsv").unlink()
    with pytest.raises(InputError, match=r"^data\.test: .*test\.tsv: no such file"):
        corpus(root, "fre").check()


def test_the_files_may_move(root: Path, ready: Ready) -> None:
    before = ready(corpus(root, "fre")).fingerprint
    assert ready(corpus(root.rename(root.with_name("moved")), "fre")).fingerprint == before
