"""Streams of rows from the hub, and resuming them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.hub import Hub
from attnspan.data.pipeline.prepare import PreparedData, prepare
from attnspan.data.readers import streaming
from attnspan.data.readers.row import Row
from attnspan.data.readers.streaming import RowStream
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH

Ready = Callable[[Corpus], PreparedData]
ROWS = [{"n": n, "translation": {"de": f"ä{n} b", "en": f"a{n}"}} for n in range(25)]
SPLITS = {"train": ROWS, "validation": ROWS[:3], "test": ROWS[10:]}


def write_jsonl(directory: Path, splits: dict[str, list[Any]] = SPLITS) -> Path:
    directory.mkdir(exist_ok=True)
    for split, rows in splits.items():
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def write_parquet(directory: Path) -> Path:
    """Several files per split, several row groups per file."""
    directory.mkdir()
    for split, rows in SPLITS.items():
        starts = range(0, len(rows), 9)
        for part, first in enumerate(starts):
            pq.write_table(
                pa.Table.from_pylist(rows[first : first + 9]),
                directory / f"{split}-{part:05d}-of-{len(starts):05d}.parquet",
                row_group_size=4,
            )
    return directory


def hub(path: Path, **changes: Any) -> Hub:
    return Hub(
        **{
            "path": str(path),
            "source": "translation.de",
            "target": "translation.en",
            "source_tokens": "characters",
            "target_tokens": "words",
            "limits": ANY_LENGTH,
            "streaming": True,
        }
        | changes
    )


class Cable:
    """Passes on the rows of a stream, counts them, and fails after ``length`` of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.length = 10**9
        self.came = 0
        true = RowStream.__iter__

        def rows(stream: RowStream) -> Iterator[Row]:
            for row in true(stream):
                if self.came == self.length:
                    raise ConnectionError("the cable is torn")
                self.came += 1
                yield row

        monkeypatch.setattr(RowStream, "__iter__", rows)


@pytest.fixture
def cable(monkeypatch: pytest.MonkeyPatch) -> Cable:
    return Cable(monkeypatch)


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_examples_and_identity_are_those_of_a_copy(
    tmp_path: Path, write: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PART_ROWS", 4)
    path = write(tmp_path / "corpus")
    streamed = prepare(hub(path), cache_dir=tmp_path / "one")
    copied = prepare(hub(path, streaming=False), cache_dir=tmp_path / "other")
    assert streamed.fingerprint == copied.fingerprint
    for split in ("train", "validation", "test"):
        assert getattr(streamed, split).to_list() == getattr(copied, split).to_list()
    assert streamed.train.num_rows == 25
    assert [path.name for path in (tmp_path / "one").iterdir() if not path.name.endswith(".lock")] == [
        streamed.fingerprint
    ]


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
@pytest.mark.parametrize("tear", [0, 3, 4, 11, 24, 27, 42])
def test_an_interrupted_stream_resumes_after_the_last_part(
    tmp_path: Path,
    ready: Ready,
    cable: Cable,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], Path],
    tear: int,
) -> None:
    """43 rows in three splits: complete parts are not fetched again, and no row occurs twice."""
    monkeypatch.setattr(streaming, "PART_ROWS", 4)
    path = write(tmp_path / "corpus")
    cable.length = tear
    with pytest.raises(InputError) as error:
        ready(hub(path))
    assert "the cable is torn" in str(error.value)
    here = tear - (0 if tear < 25 else 25 if tear < 28 else 28)
    assert str(error.value).endswith(f"; {here // 4 * 4} rows are stored, the same command resumes after them")
    assert "\n" not in str(error.value)
    cable.length, cable.came = 10**9, 0
    prepared = ready(hub(path))
    assert cable.came == 43 - (tear - here) - here // 4 * 4
    assert prepared.train["target"][:] == [row["translation"]["en"] for row in ROWS]  # type: ignore[index]
    assert prepared.test.num_rows == 15


def test_bad_rows_are_named_and_counted(tmp_path: Path, ready: Ready) -> None:
    rows = [*ROWS[:2], {"n": 1, "translation": {"de": None, "en": "x"}}, *ROWS[2:]]
    path = write_jsonl(tmp_path / "corpus", SPLITS | {"test": rows})
    with pytest.raises(InputError, match=r"corpus/test\.jsonl line 3: column 'translation\.de' is null$"):
        ready(hub(path))
    prepared = ready(hub(path, on_bad_row="skip"))
    assert (prepared.skipped, prepared.test.num_rows) == ({"test": 1}, 25)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"streaming": "yes"}, "data.streaming: must be true or false, not 'yes'"),
        (
            {"test": "train[:3]"},
            "data.test: 'train[:3]' is a part of a split, which cannot be streamed; set data.streaming=false",
        ),
    ],
)
def test_what_cannot_be_streamed(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        hub(write_jsonl(tmp_path / "corpus"), **changes).check()
    assert str(error.value) == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "translation.fr"}, "line 1: there is no column 'translation.fr'; did you mean 'translation."),
        ({"test": "tset"}, "data.test: "),
        ({"name": "de"}, "data.name: "),
    ],
)
def test_wrong_keys_are_named(tmp_path: Path, ready: Ready, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        ready(hub(write_jsonl(tmp_path / "corpus"), **changes))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
