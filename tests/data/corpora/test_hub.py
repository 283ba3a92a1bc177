from __future__ import annotations

import datetime
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.hub import Hub
from attnspan.data.pipeline.prepare import PreparedData
from attnspan.data.readers import hub_dataset
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
    ({"test": "tset"}, "data.test: {}: there is no split 'tset'; did you mean 'test'? known: test, train, validation"),
    ({"test": "train[:x]"}, "data.test: {}: 'train[:x]' names no part of a split (Unrecognized instruction format"),
    ({"source": "translation.fr"}, "{}/train.jsonl line 1: there is no column 'translation.fr'; did you mean 'transl"),
    ({"source": "n"}, "{}/train.jsonl line 1: column 'n' holds a number instead of text: 0"),
    ({"source": "translation"}, "{}/train.jsonl line 1: column 'translation' holds an object instead of text"),
]


BAD += [
    ({"path": 12}, "data.path: must be a name on the hub or a directory, not 12; as a name it needs quotes"),
    ({"folder": 2023}, "data.folder: must be null or a name, not 2023; as a name it needs quotes"),
    ({"revision": 1234567}, "data.revision: must be null or a name, not 1234567; as a name it needs quotes"),
    ({"name": ["de", "en"]}, "data.name: must be null or a name, not ['de', 'en']"),
    ({"quotes": "off"}, "data.quotes: must be true or false, not 'off'"),
    ({"streaming": "no"}, "data.streaming: must be true or false, not 'no'"),
]


@pytest.mark.parametrize(("changes", "words"), BAD)
def test_wrong_keys_are_named(directory: Path, ready: Ready, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        ready(replace(hub(directory), **changes))
    assert words.format(directory) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [*ROWS, {"translation": {"en": "a", "de": None}, "n": 1}],
            "/test.jsonl line 4: column 'translation.de' is null",
        ),
        (
            [*ROWS, {"translation": {"en": "", "de": "b"}, "n": 1}],
            "/test.jsonl line 4: column 'translation.en' is empty",
        ),
        (["not an object"], "/test.jsonl line 1: not a JSON object; json lines have one object per line"),
        (
            [*ROWS, {"translation": "a", "n": 1}],
            "/test.jsonl line 4: there is no column 'translation.de'; did you mean",
        ),
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
    assert time.perf_counter() - began < 10  # the client would try again and again


def test_a_silent_network_times_out(monkeypatch: pytest.MonkeyPatch, ready: Ready) -> None:
    monkeypatch.setattr(hub_dataset, "TIMEOUT", 0.1)
    speak, spoken = threading.Event(), threading.Event()
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: speak.wait(60) and spoken.set())
    with pytest.raises(InputError, match=r"data\.path: owner/name: no such directory, and the hub cannot be reached"):
        ready(hub("owner/name"))
    assert not spoken.is_set()
    speak.set()


def test_a_branch_is_identified_by_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter([COMMIT, COMMIT, "f" * 40])
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: type("Info", (), {"sha": next(commits)}))
    first, second, third = (hub("owner/name", revision="main").identity() for _ in range(3))
    assert first == second != third
    assert hub("owner/name", revision=COMMIT).identity() == first  # without a request


# ---- text stays as it is written

PAIR = "src,tgt\nkivi,piedra\n"


def tables(directory: Path, **splits: str) -> Hub:
    """A directory of csv files, or of others that a double underscore gives an ending: ``train__jsonl``."""
    directory.mkdir(exist_ok=True)
    for name, content in ({"train": PAIR, "validation": PAIR, "test": PAIR} | splits).items():
        stem, _, ending = name.partition("__")
        if ending:
            (directory / f"{stem}.csv").unlink(missing_ok=True)
        (directory / f"{stem}.{ending or 'csv'}").write_text(content)
    return hub(directory, source="src", target="tgt")


@pytest.mark.parametrize(
    ("cells", "streaming"),
    [
        (["0042", "0100"], False),
        (["0042", "2.50", "3e4"], True),
        (["True", "false"], False),
        (["2020-01-01", "12:30"], False),
        (["NA", "null", "None", "nan", "#N/A", "-"], False),
        (["1", " padded ", "1_000"], False),  # one text among numbers
    ],
)
def test_no_type_is_guessed(tmp_path: Path, ready: Ready, cells: list[str], streaming: bool) -> None:
    corpus = tables(tmp_path / "corpus", test="src,tgt\n" + "".join(f"{cell},{cell}\n" for cell in cells))
    test = ready(replace(corpus, streaming=streaming)).test
    assert (test["source"][:], test["target"][:]) == (cells, cells)


@pytest.mark.parametrize(
    ("cell", "words", "split", "streaming"),
    [
        ("5", "a number instead of text: 5", "train", False),
        ("5", "a number instead of text: 5", "test", True),
        ("true", "a boolean", "validation", False),
        ('{"w": "y"}', "an object instead of text: {'w': 'y'}", "test", False),
        ('["y"]', "a list", "test", False),
        ("null", "is null", "test", False),
    ],
)
def test_one_cell_that_is_no_text_changes_no_other(
    tmp_path: Path, ready: Ready, cell: str, words: str, split: str, streaming: bool
) -> None:
    rows = '{"src": "kivi", "tgt": "piedra"}\n'
    given = {f"{name}__jsonl": rows for name in ("train", "validation", "test")}
    given[f"{split}__jsonl"] = rows * 8 + f'{{"src": "yksi", "tgt": {cell}}}\n' + rows
    corpus = replace(tables(tmp_path / "corpus", **given), streaming=streaming)
    with pytest.raises(InputError) as error:
        ready(corpus)
    assert str(error.value).startswith(f"{tmp_path}/corpus/{split}.jsonl line 9: column 'tgt' ")
    assert words in str(error.value)
    prepared = ready(replace(corpus, on_bad_row="skip"))
    assert set(getattr(prepared, split)["target"][:]) == {"piedra"}


def test_a_stream_takes_no_date_for_text(tmp_path: Path, ready: Ready) -> None:
    """JSON, in which a stream is stored, has no dates."""
    corpus = tables(tmp_path / "corpus")
    for name in ("train", "validation", "test"):
        (tmp_path / "corpus" / f"{name}.csv").unlink()
        columns = {"src": ["kivi"], "tgt": [datetime.date(2020, 1, 31)]}
        pq.write_table(pa.table(columns), tmp_path / "corpus" / f"{name}.parquet")
    for streaming in (False, True):
        with pytest.raises(InputError, match=r"train\.parquet row 1: column 'tgt' holds (a date|an object) instead of"):
            ready(replace(corpus, streaming=streaming))


def test_a_row_with_a_cell_too_many_moves_no_cell(tmp_path: Path, ready: Ready) -> None:
    with pytest.raises(
        InputError, match=r"test\.csv row 2 \(line 3, the header is line 1\): has 3 cells, but there are"
    ):
        ready(tables(tmp_path / "corpus", test=PAIR + "kivi,suuri,piedra\n"))


def test_a_stray_quote_swallows_no_row(tmp_path: Path, ready: Ready) -> None:
    raw = 'src\ttgt\n"Kyllä\tSí\nei\tno\nkuu"\tluna\n'
    corpus = tables(tmp_path / "corpus", train__tsv=raw, validation__tsv=raw, test__tsv=raw)
    with pytest.raises(InputError, match=r"train\.tsv line 2: .* runs to line 4; .* set data\.quotes=false$"):
        ready(corpus)
    assert ready(replace(corpus, quotes=False)).train["source"][:] == ['"Kyllä', "ei", 'kuu"']


# ---- which files make a split

CARD = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: [train.csv, more.csv]\n"
CARD += "  - split: validation\n    path: validation.csv\n  - split: test\n    path: test.csv\n{}---\nWords.\n"


@pytest.mark.parametrize(
    "added", ["train_2019", "old.train", "train (1)", "train-copy", "training", "how_we_made_train", "backup/train"]
)
def test_files_that_may_be_versions_of_a_split_are_refused(tmp_path: Path, ready: Ready, added: str) -> None:
    corpus = tables(tmp_path / "corpus")
    (tmp_path / "corpus" / "backup").mkdir()
    (tmp_path / "corpus" / f"{added}.csv").write_text(PAIR)
    names = ", ".join(sorted(["train.csv", f"{added}.csv"]))
    with pytest.raises(InputError) as error:
        ready(corpus)
    assert f"split 'train' has 2 files that are no parts of one table: {names}; move away" in str(error.value)


@pytest.mark.parametrize("added", ["train.csv.bak", "train.csv.orig", "train.csv~", "train.csv.2019"])
def test_a_backup_is_not_read(tmp_path: Path, ready: Ready, added: str) -> None:
    corpus = tables(tmp_path / "corpus")
    (tmp_path / "corpus" / added).write_text("src,tgt\nvanha,viejo\n")
    prepared = ready(corpus)
    assert prepared.train["source"][:] == ["kivi"]
    assert prepared.warnings()[:3] == [
        "train: read from train.csv",
        "validation: read from validation.csv",
        "test: read from test.csv",
    ]
    assert prepared.files == {split: [f"{split}.csv"] for split in ("train", "validation", "test")}
    left_out = [line for line in prepared.warnings() if added in line]
    assert left_out in ([], [f"these files hold no table and are not read: {added}"])  # `datasets` may not look at it


def test_numbered_parts_are_read_in_order(tmp_path: Path, ready: Ready) -> None:
    corpus = tables(tmp_path / "corpus")
    (tmp_path / "corpus" / "train.csv").unlink()
    for part in (1, 0):
        (tmp_path / "corpus" / f"train-0000{part}-of-00002.csv").write_text(f"src,tgt\n{part},x\n")
    prepared = ready(corpus)
    assert prepared.train["source"][:] == ["0", "1"]
    line = "train: read from 2 files: train-00000-of-00002.csv, train-00001-of-00002.csv"
    assert prepared.warnings()[0] == line
    (tmp_path / "corpus" / "train-00000-of-00002.csv").unlink()
    with pytest.raises(InputError, match=r"there are 1 files train-\.\.\.-of-00002, and their names say 2$"):
        ready(replace(corpus))


def test_the_card_may_name_the_files(tmp_path: Path, ready: Ready) -> None:
    corpus = tables(tmp_path / "corpus", more=PAIR, train_2019="src,tgt\nvanha,viejo\n")
    (tmp_path / "corpus" / "README.md").write_text(CARD.format(""))
    prepared = ready(corpus)
    assert prepared.train["source"][:] == ["kivi", "kivi"]
    assert prepared.files["train"] == ["train.csv", "more.csv"]


def test_the_card_may_say_how_cells_are_separated(tmp_path: Path, ready: Ready) -> None:
    raw = dict.fromkeys(("train", "validation", "test", "more"), "007;piedra\n")
    corpus = tables(tmp_path / "corpus", **raw)
    card = tmp_path / "corpus" / "README.md"
    card.write_text(CARD.format('  sep: ";"\n  column_names: [src, tgt]\n'))
    assert ready(corpus).test["source"][:] == ["007"]
    card.write_text(CARD.format("  skiprows: 3\n"))
    with pytest.raises(
        InputError, match=r"^data\.path: .*corpus: its card sets skiprows=3, which attnspan does not follow$"
    ):
        ready(replace(corpus))


def test_the_card_may_list_other_splits_than_there_are(tmp_path: Path, ready: Ready) -> None:
    corpus = tables(tmp_path / "corpus")
    splits = "  splits:\n  - name: train\n    num_examples: 500\n    num_bytes: 9\n"
    (tmp_path / "corpus" / "README.md").write_text(
        f"---\ndataset_info:\n  features:\n  - name: src\n    dtype: string\n{splits}---\nWords.\n"
    )
    assert ready(corpus).test["source"][:] == ["kivi"]
