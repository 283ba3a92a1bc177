"""Small prepared corpora."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.files import Files
from attnspan.data.pipeline.prepare import PreparedData, prepare
from tests.data.small_corpora import ANY_LENGTH, GOOD_CSV, reverse


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare(reverse(), cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def ready(tmp_path: Path) -> Callable[[Corpus], PreparedData]:
    return lambda corpus: prepare(corpus, cache_dir=tmp_path / "cache")


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Files]:
    """``files(train=("t.csv", content), ...)``: a corpus of real files; the other splits are valid csv files."""

    def make(**changes: Any) -> Files:
        given = {split: changes.pop(split, (f"{split}.csv", GOOD_CSV)) for split in ("train", "validation", "test")}
        paths = {}
        for split, (name, content) in given.items():
            path = tmp_path / name
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content is not None:
                path.write_bytes(content.encode())
            paths[split] = str(path)
        defaults = {
            "source": "source",
            "target": "target",
            "source_tokens": "characters",
            "target_tokens": "symbols",
            "limits": ANY_LENGTH,
        }
        return Files(**(paths | defaults | changes))

    return make
