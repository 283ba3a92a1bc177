from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import HfApi

from attnspan.data.corpora import hub as hub_module
from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.hub import Hub
from attnspan.data.pipeline.prepare import PreparedData
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH

Ready = Callable[[Corpus], PreparedData]
ROWS = [{"translation": {"en": f"a{n} b", "de": f"ä{n} b"}, "n": n} for n in range(3)]
COMMIT = "0123456789" * 4


def write(directory: Path, **splits: list[Any]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write(tmp_path / "corpus", train=ROWS, validation=ROWS[:1], test=ROWS[1:])


def hub(path: Path | str, **changes: Any) -> Hub:
    return Hub(
        **{
            "path": str(path),
            "source": "translation.de",
            "target": "translation.en",
            "source_tokens": "characters",
            "target_tokens": "symbols",
            "limits": ANY_LENGTH,
        }
        | changes
    )


def test_a_directory_is_read_like_a_dataset_of_the_hub(directory: Path, ready: Ready) -> None:
    prepared = ready(hub(directory))
    assert prepared.train["source"][:] == ["ä0 b", "ä1 b", "ä2 b"]
    assert prepared.test["target"][:] == ["a1 b", "a2 b"]
    assert prepared.overlap == 2


def test_splits_can_have_other_names_and_be_parts(directory: Path, ready: Ready) -> None:
    prepared = ready(hub(directory, validation="train[:2]", test="validation"))
    assert (prepared.validation.num_rows, prepared.test.num_rows) == (2, 1)


def test_a_folder_of_a_directory(tmp_path: Path, ready: Ready) -> None:
    """One folder per language pair with one folder per split, as in the hub's converted parquet files."""
    root = tmp_path / "corpus"
    for pair, rows in (("de-en", ROWS), ("de-fr", ROWS[:1])):
        for split in ("train", "validation", "test"):
            write(root / pair / split, **{"0000": rows})
    assert ready(hub(root, folder="de-en")).train.num_rows == 3
    assert ready(hub(root, folder="de-fr")).train.num_rows == 1
    with pytest.raises(InputError) as error:
        hub(root, folder="de-es").check()
    assert str(error.value) == f"data.folder: {root} has no folder 'de-es'; did you mean 'de-en'? known: de-en, de-fr"


def test_a_missing_folder_on_the_hub(monkeypatch: pytest.MonkeyPatch, ready: Ready) -> None:
    files = [SimpleNamespace(rfilename=name) for name in (".gitattributes", "de-en/train/0000.parquet")]
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: SimpleNamespace(sha=COMMIT, siblings=files))
    with pytest.raises(InputError, match=r"^data\.folder: owner/name has no folder 'de-xx'; .*known: de-en$"):
        ready(hub("owner/name", revision=COMMIT, folder="de-xx"))


def test_changed_content_is_read_again(directory: Path, ready: Ready) -> None:
    before = ready(hub(directory))
    write(directory, train=ROWS[:2])
    after = ready(hub(directory))
    assert (before.train.num_rows, after.train.num_rows) == (3, 2)


def test_a_directory_replaces_a_pinned_dataset(directory: Path, ready: Ready) -> None:
    """``data.path`` selects a copy, which is identified by its content and not by the pinned revision."""
    assert ready(hub(directory, revision=COMMIT)).fingerprint == ready(hub(directory)).fingerprint


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "de"}, "data.name: {}: BuilderConfig 'de' not found. Available: ['default']"),
    ({"test": "tset"}, "data.test: {}: Unknown split \"tset\". Should be one of ['train', 'validation', 'test']"),
    ({"source": "translation.fr"}, "{} split 'train': there is no column 'translation.fr'; did you mean 'translation."),
    ({"source": "n"}, "{} split 'train' row 1: column 'n' holds a number instead of text: 0"),
    ({"source": "translation"}, "{} split 'train' row 1: column 'translation' holds an object instead of text"),
]


@pytest.mark.parametrize(("changes", "words"), BAD)
def test_wrong_keys_are_named(directory: Path, ready: Ready, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        ready(hub(directory, **changes))
    assert words.format(directory) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [*ROWS, {"translation": {"en": "a", "de": None}, "n": 1}],
            "split 'test' row 4: column 'translation.de' is null",
        ),
        (
            [*ROWS, {"translation": {"en": "", "de": "b"}, "n": 1}],
            "split 'test' row 4: column 'translation.en' is empty",
        ),
        (["not an object"], "/test.jsonl line 1: not a JSON object; json lines have one object per line"),
        ([*ROWS, {"translation": "a", "n": 1}], "data.path: "),
    ],
)
def test_bad_rows_are_named(directory: Path, ready: Ready, rows: list[Any], words: str) -> None:
    write(directory, test=rows)
    with pytest.raises(InputError) as error:
        ready(hub(directory))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_directory(tmp_path: Path, ready: Ready) -> None:
    with pytest.raises(InputError, match=r"data\.path: .*corpus: .*doesn't contain any data files"):
        ready(hub(write(tmp_path / "corpus")))


def test_neither_a_directory_nor_a_name(ready: Ready) -> None:
    with pytest.raises(InputError, match=r"^data\.path: \./none/at/all: no such directory"):
        ready(hub("./none/at/all"))


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_name_without_network_fails_at_once(
    monkeypatch: pytest.MonkeyPatch, ready: Ready, revision: str | None
) -> None:
    # A local endpoint on which nothing listens, as if there were no network.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    began = time.perf_counter()
    with pytest.raises(InputError, match=r"^data\.path: owner/name: no such directory, and the hub cannot be reached"):
        ready(hub("owner/name", revision=revision))
    assert time.perf_counter() - began < 2


def test_a_silent_network_times_out(monkeypatch: pytest.MonkeyPatch, ready: Ready) -> None:
    monkeypatch.setattr(hub_module, "TIMEOUT", 0.1)
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: time.sleep(5))
    began = time.perf_counter()
    with pytest.raises(InputError, match=r"data\.path: owner/name: no such directory, and the hub cannot be reached"):
        ready(hub("owner/name"))
    assert time.perf_counter() - began < 2


def test_a_branch_is_identified_by_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter([COMMIT, COMMIT, "f" * 40])
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: type("Info", (), {"sha": next(commits)}))
    first, second, third = (hub("owner/name", revision="main").identity() for _ in range(3))
    assert first == second != third
    assert hub("owner/name", revision=COMMIT).identity() == first  # without a request
