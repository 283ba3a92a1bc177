"""Two plain text files per split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.parallel import Parallel
from attnspan.data.pipeline.prepare import PreparedData
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH

Ready = Callable[[Corpus], PreparedData]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    root.mkdir()
    for split in ("train", "dev", "test"):
        (root / f"{split}.de").write_bytes(b'Hund\r\nKatze "x"\n')
        (root / f"{split}.en").write_bytes(b"dog\ncat")
    (root / "train.de.bak").write_text("")
    return root


def corpus(root: Path, **changes: Any) -> Parallel:
    return Parallel(
        **{
            "train": f"{root}/train",
            "validation": f"{root}/dev",
            "test": f"{root}/test",
            "source": "de",
            "target": "en",
            "source_tokens": "characters",
            "target_tokens": "words",
            "limits": ANY_LENGTH,
        }
        | changes
    )


def test_lines_are_pairs(root: Path, ready: Ready) -> None:
    prepared = ready(corpus(root))
    assert prepared.test["source"][:] == ["Hund", 'Katze "x"']
    assert prepared.test["target"][:] == ["dog", "cat"]
    assert ready(corpus(root, source="en", target="de")).test["source"][:] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("side", "counts"), [("de", "4 lines and {}/dev.en has 2"), ("en", "4 lines and {}/dev.de has 2")]
)
def test_sides_of_different_lengths(root: Path, ready: Ready, side: str, counts: str) -> None:
    (root / f"dev.{side}").write_text("a\nb\nc\nd\n")
    with pytest.raises(InputError) as error:
        ready(corpus(root))
    assert str(error.value) == f"validation: {root}/dev.{side} has {counts.format(root)}; both need the same number"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "fr"}, "data.source: there is no {}/train.fr; known: de, en"),
        ({"target": "eng"}, "data.target: there is no {}/train.eng; did you mean 'en'? known: de, en"),
        ({"target": "de"}, "data.target: must differ from data.source, 'de'"),
        ({"test": "nowhere/tst"}, "data.test: nowhere/tst.de: no such file"),
    ],
)
def test_missing_files_and_languages(root: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        corpus(root, **changes).check()
    assert str(error.value) == words.format(root)


def test_a_bad_line_is_named(root: Path, ready: Ready) -> None:
    (root / "test.en").write_text("dog\n\n")
    with pytest.raises(InputError, match=r"corpus/test\.\{de,en\} line 2: column 'en' is empty$"):
        ready(corpus(root))
    assert ready(corpus(root, on_bad_row="skip")).skipped == {"test": 1}
    (root / "test.en").write_bytes(b"dog\n\xff\n")
    with pytest.raises(InputError, match=r"test\.en line 2: not valid UTF-8"):
        ready(corpus(root))


def test_a_line_that_editors_show_as_several_is_named(root: Path, ready: Ready) -> None:
    (root / "train.de").write_bytes(b"Hund\nKatze\rMaus\n")
    with pytest.raises(
        InputError, match=r"train\.\{de,en\} line 2: column 'de': a carriage return \(byte 0x0d\) stands"
    ):
        ready(corpus(root))
    assert ready(corpus(root, on_bad_row="skip")).skipped == {"train": 1}


def test_files_with_carriage_returns_for_line_ends_are_not_one_pair(root: Path, ready: Ready) -> None:
    for side in ("de", "en"):
        (root / f"train.{side}").write_bytes(b"a\rb\rc\r")
    with pytest.raises(InputError, match=r"line 1: column 'de': a carriage return"):
        ready(corpus(root))


def test_a_line_with_the_languages_names_is_no_pair(root: Path, ready: Ready) -> None:
    (root / "train.de").write_text("de\nHund\n")
    (root / "train.en").write_text("en\ndog\n")
    with pytest.raises(
        InputError, match=r"line 1: 'de' and 'en' are the names of the columns: a header; remove the line"
    ):
        ready(corpus(root))


def test_identity_depends_on_content_and_not_on_paths(root: Path, ready: Ready) -> None:
    before = ready(corpus(root)).fingerprint
    moved = root.rename(root.with_name("moved"))
    assert ready(corpus(moved)).fingerprint == before
    (moved / "test.en").write_text("dog\nCat\n")
    assert ready(corpus(moved)).fingerprint != before
