"""A dataset of the Hugging Face hub, or a directory that is laid out like one."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnspan.data.corpora.base import SPLITS, Workshop, option
from attnspan.data.corpora.files import sha256
from attnspan.data.corpora.text import RawRow, TextCorpus
from attnspan.data.readers.cells import check_schema
from attnspan.data.readers.hub_stream import fetched, streamed_rows
from attnspan.data.readers.tables import ENDINGS, check_file, read_table
from attnspan.errors import InputError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

PATIENCE = 5.0
"""Seconds that the hub has to answer before it counts as out of reach."""

_HUB_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Hub(TextCorpus):
    """Pairs of texts from two columns of what ``datasets.load_dataset`` finds.

    A dot in the name of a column leads into nested ones, as in ``translation.en``.
    """

    path: str
    """Name on the hub, ``owner/name``, or a directory."""
    name: str | None = None
    """Which of the dataset's configs."""
    folder: str | None = option(None)
    """Which of the dataset's folders, where it has one for each pair of languages and no configs."""
    revision: str | None = None
    """Branch, tag or commit. A whole commit needs no network once the data is prepared.

    A directory has none: its content says what it is, so a revision that a config pins stays behind with the hub.
    """
    train: str = "train"
    validation: str = "validation"
    test: str = "test"
    """What the dataset calls its splits; ``train[:10000]`` takes a part."""
    streaming: bool = False
    """Take the rows as they come from the hub, without a copy of its files on this disk;
    :mod:`attnspan.data.readers.hub_stream`.

    The examples are the same, so it is no part of the identity.
    """

    def check(self) -> None:
        """Refuse a path that is neither a directory nor a name.

        Raises:
            InputError: names the key.
        """
        super().check()
        if not self._is_local and not _HUB_NAME.fullmatch(str(self.path)):
            raise InputError(f"data.path: {self.path}: no such directory, and no name that the hub could know")
        if not isinstance(self.streaming, bool):
            raise InputError(f"data.streaming: must be true or false, not {self.streaming}")
        for split in SPLITS:
            if self.streaming and "[" in getattr(self, split):
                raise InputError(
                    f"data.{split}: '{getattr(self, split)}' is a part, and a stream has none; leave out data.streaming"
                )
        if self._is_local and self.folder is not None:
            self._check_folder(entry.name for entry in Path(self.path).iterdir() if entry.is_dir())

    def identity(self) -> dict[str, Any]:
        """The fields, with the content of a directory, or the commit that the revision stands for now."""
        identity = super().identity()
        del identity["streaming"]
        if self._is_local:
            return identity | {"path": _content(Path(self.path)), "revision": None}
        return identity | {"revision": self._commit()}

    def place(self, split: str) -> str:
        """The dataset and what it calls the split."""
        return f"{self.path} split '{getattr(self, split)}'"

    def load(self, workshop: Workshop) -> dict[str, Dataset]:
        """Download what is not there yet, read and check all rows."""
        from huggingface_hub import constants

        if not self._is_local and not constants.HF_HUB_OFFLINE:
            info = self._info()  # says at once what `load_dataset` takes half a minute to say
            if self.folder is not None:
                self._check_folder(name.rfilename.rpartition("/")[0].partition("/")[0] for name in info.siblings)
        return super().load(workshop)

    def _check_folder(self, known: Iterable[str]) -> None:
        known = {name for name in known if name and not name.startswith(".")}
        if str(self.folder).partition("/")[0] not in known:
            raise InputError(
                f"data.folder: {self.path} has no folder '{self.folder}'; {nearest(str(self.folder), known)}"
            )

    @property
    def _is_local(self) -> bool:
        return Path(self.path).is_dir()

    def _commit(self) -> str:
        if self.revision is not None and _COMMIT.fullmatch(self.revision):
            return self.revision
        return str(self._info().sha)

    def _info(self) -> Any:
        """What the hub says about the dataset."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        try:
            return _within(PATIENCE, lambda: HfApi().dataset_info(self.path, revision=self.revision, timeout=PATIENCE))
        except GatedRepoError:
            raise InputError(f"data.path: {self.path}: the hub asks for a login that may read it") from None
        except RevisionNotFoundError:
            raise InputError(f"data.revision: {self.path} has no revision '{self.revision}' on the hub") from None
        except RepositoryNotFoundError:
            raise InputError(f"data.path: {self.path}: no such directory, and no such dataset on the hub") from None
        except Exception as error:  # the client's errors have no base class in common
            raise InputError(
                f"data.path: {self.path}: no such directory, and the hub is out of reach ({_line(error)})"
            ) from error

    def _read(self, split: str, work: Path, *, streaming: bool = False) -> Any:
        import datasets

        with self._explained(split):
            return datasets.load_dataset(
                os.fspath(self.path),
                self.name,
                data_dir=self.folder,
                split=getattr(self, split),
                revision=None if self._is_local else self._commit(),
                cache_dir=str(work / "hub"),
                streaming=streaming,
            )

    @contextmanager
    def _explained(self, split: str, hint: Callable[[], str] = str) -> Iterator[None]:
        """Turn what `datasets` raises into one line; ``hint`` gives its end."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # every builder raises its own
            if self._is_local:
                _refuse_bad_files(Path(self.path))
            raise InputError(f"{self._blame(split, error)}: {_line(error)}{hint()}") from error

    def _blame(self, split: str, error: Exception) -> str:
        """The key that is most likely wrong."""
        if "BuilderConfig" in str(error) or "Config name" in str(error):
            return f"data.name: {self.path}"
        if "split" in str(error):
            return f"data.{split}: {self.path}"
        return f"data.path: {self.path}"

    def raw_rows(self, split: str, workshop: Workshop) -> Iterator[RawRow]:
        """The rows of the dataset."""
        from attnspan.data.arrow import read_rows

        if self.streaming:
            yield from self._streamed(split, workshop)
            return
        dataset = self._read(split, workshop.work)
        needed = check_schema(dataset.features.arrow_schema, self.wanted(split).values(), self.place(split))
        for number, row in enumerate(read_rows(dataset.select_columns(needed))):
            yield f"{self.place(split)} row {number + 1}", row

    def _streamed(self, split: str, workshop: Workshop) -> Iterator[RawRow]:
        directory = workshop.kept / split
        rows = streamed_rows(directory, lambda: self._read(split, workshop.work, streaming=True))
        hint = lambda: f"; {fetched(directory)} rows are here, the same command goes on behind them"  # noqa: E731
        number = 0
        while True:
            with self._explained(split, hint):
                row = next(rows, None)
            if row is None:
                return
            number += 1
            yield f"{self.place(split)} row {number}", row


def _content(directory: Path) -> str:
    """sha256 over the names and contents of all files under ``directory``."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(directory).as_posix()}\0{sha256(path)}\0".encode())
    return digest.hexdigest()


def _refuse_bad_files(directory: Path) -> None:
    """Name the file and row over which a builder stumbled, for it says neither.

    Raises:
        InputError: the first file under ``directory`` that is no whole table.
    """
    for path in sorted(path for path in directory.rglob("*") if path.suffix in ENDINGS):
        check_file(path, "data.path")
        for _ in read_table(path, wanted=(), names=None, quotes=True):
            pass


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of ``call``, or ``TimeoutError``: a name server may be silent for longer than a client waits."""
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return outcome[0]


def _line(error: BaseException) -> str:
    """An error in one line, with what caused it."""
    words = " ".join(str(error).split()) or type(error).__name__
    cause = " ".join(str(error.__cause__ or "").split())
    if cause not in words:
        words = f"{words} {cause}"
    return words if len(words) <= 300 else f"{words[:297]}..."
