"""A dataset of the Hugging Face hub, or a local directory with the same layout."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnspan.checksums import sha256
from attnspan.data.background import in_thread
from attnspan.data.corpora.base import SPLITS, BuildContext, option
from attnspan.data.corpora.text import TextCorpus
from attnspan.data.readers import hub_client
from attnspan.data.readers.columns import top_level_columns
from attnspan.data.readers.streaming import fetched_rows, read_stream
from attnspan.data.readers.table import ENDINGS, Row, check_file, read_table
from attnspan.errors import InputError, SettingError, check_switches, nearest

if TYPE_CHECKING:
    from datasets import Dataset

TIMEOUT = 10.0
"""Seconds to wait for an answer of the hub."""

_HUB_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Hub(TextCorpus):
    """Pairs of texts from two columns of a dataset that ``datasets.load_dataset`` can load.

    A dot in the name of a column selects a nested column, as in ``translation.en``.
    """

    path: str
    """Name on the hub, ``owner/name``, or a local directory."""
    name: str | None = None
    """Config of the dataset."""
    folder: str | None = option(None)
    """Folder of the dataset (``data_dir``), for datasets with one folder per language pair and no configs."""
    revision: str | None = None
    """Branch, tag or full commit hash. With a commit hash, prepared data needs no network.

    It is ignored for a local directory, which is identified by its content.
    """
    train: str = "train"
    validation: str = "validation"
    test: str = "test"
    """Names of the splits in the dataset; ``train[:10000]`` selects a part."""
    streaming: bool = False
    """Stream the rows without a copy of the files on this disk (:mod:`attnspan.data.readers.streaming`).

    The examples are the same, so it is not part of the identity.
    """

    def _check(self) -> None:
        super()._check()
        if not self._is_local and not _HUB_NAME.fullmatch(str(self.path)):
            raise SettingError("path", f"{self.path}: no such directory, and not a valid name of a hub dataset")
        check_switches(streaming=self.streaming)
        if self._is_local and self.folder is not None:
            self._check_folder(entry.name for entry in Path(self.path).iterdir() if entry.is_dir())

    def _check_split(self, split: str) -> None:
        if self.streaming and "[" in (name := getattr(self, split)):
            problem = f"'{name}' is a part of a split, which cannot be streamed; set data.streaming=false"
            raise SettingError(split, problem)

    def identity(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """The fields, with the hash of a local directory, or the commit to which the revision resolves now."""
        identity = {key: value for key, value in super().identity(splits).items() if key != "streaming"}
        if self._is_local:
            return identity | {"path": _hash_directory(Path(self.path)), "revision": None}
        return identity | {"revision": self._commit}

    def split_location(self, split: str) -> str:
        """The dataset and its name for the split."""
        return f"{self.path} split '{getattr(self, split)}'"

    def load(self, context: BuildContext, splits: Sequence[str] = SPLITS) -> dict[str, Dataset]:
        """Download what is missing; read and validate all rows."""
        online = not self._is_local
        if online:
            info = self._info()  # fails at once where `load_dataset` retries for half a minute
            if self.folder is not None:
                self._check_folder(name.rfilename.rpartition("/")[0].partition("/")[0] for name in info.siblings)
        try:
            datasets = super().load(context, splits)
        except InputError:
            if online:
                self._check_downloads()  # a damaged file may be the reason
            raise
        if online and (failed := self._check_downloads()):
            raise self._failure(failed) from failed
        return datasets

    def _check_folder(self, known: Iterable[str]) -> None:
        known = {name for name in known if name and not name.startswith(".")}
        if str(self.folder).partition("/")[0] not in known:
            hint = nearest(str(self.folder), known)
            raise InputError(f"data.folder: {self.path} has no folder '{self.folder}'; {hint}")

    @property
    def _is_local(self) -> bool:
        return Path(self.path).is_dir()

    @cached_property
    def _commit(self) -> str:
        """The commit of the revision, which is asked for once: a branch may move meanwhile."""
        if self.revision is not None and _COMMIT.fullmatch(self.revision):
            return self.revision
        return str(self._info().sha)

    def _info(self) -> Any:
        """The dataset's entry on the hub."""
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        if constants.HF_HUB_OFFLINE:
            problem = "no such directory, and HF_HUB_OFFLINE forbids to ask the hub; unset it"
            raise InputError(f"data.path: {self.path}: {problem}; {hub_client.COPY}")
        hub_client.check_token()

        def ask() -> Any:
            # A hanging name server ignores the timeout of the HTTP client.
            info = in_thread(lambda: HfApi().dataset_info(self.path, revision=self.revision, timeout=TIMEOUT))
            return info.result(TIMEOUT)

        try:
            return hub_client.patiently(ask, self.path)
        except RevisionNotFoundError:
            raise InputError(
                f"data.revision: {self.path} has no revision '{self.revision}' on the hub; "
                f"{nearest(str(self.revision), hub_client.branches(self.path))}"
            ) from None
        except RepositoryNotFoundError:
            raise InputError(
                f"data.path: {self.path}: no such directory, and no such dataset on the hub; "
                "for a private one, `hf auth login` or set HF_TOKEN"
            ) from None
        except Exception as error:  # the client's errors have no base class in common
            if (failure := hub_client.find_failure(error)) and failure.status:
                raise InputError(f"data.path: {self.path}: {failure.explain(self._page)}") from error
            reason = hub_client.one_line(error)
            if isinstance(error, TimeoutError):
                reason = f"no answer within {TIMEOUT:.0f} s"
            elif isinstance(error, ValueError):  # not JSON, but perhaps the login page of a network
                reason = "what answers is not a hub"
            problem = f"no such directory, and the hub cannot be reached ({reason})"
            raise InputError(f"data.path: {self.path}: {problem}; {hub_client.UNREACHABLE}") from error

    @property
    def _page(self) -> str:
        """Where people find the dataset."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/datasets/{self.path}"

    def _check_downloads(self) -> Exception | None:
        """Compare the files in the cache of the hub's client with the hub's checksums.

        Returns:
            The error because of which the checksums are not known.

        Raises:
            InputError: a file is damaged.
        """
        try:
            damaged = hub_client.patiently(lambda: hub_client.damaged_download(self.path, self._commit), self.path)
        except Exception as error:
            return error
        if damaged:
            problem = "its content is not that of the hub, so it was removed; the same command downloads it again"
            raise InputError(f"data.path: {self.path}: {damaged}: {problem}")
        return None

    def _load_dataset(self, split: str, scratch: Path, *, streaming: bool = False) -> Any:
        import datasets

        def load() -> Any:
            return datasets.load_dataset(
                os.fspath(self.path),
                self.name,
                data_dir=self.folder,
                split=getattr(self, split),
                revision=None if self._is_local else self._commit,
                cache_dir=str(scratch / "hub"),
                streaming=streaming,
            )

        with self._translate_errors(split):
            # A stream is opened with patience by `datasets` itself.
            return load() if self._is_local or streaming else hub_client.patiently(load, self.path)

    @contextmanager
    def _translate_errors(self, split: str, hint: Callable[[], str] = str) -> Iterator[None]:
        """Turn errors of `datasets` into one line that ends in ``hint()``."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # builders raise errors of many types
            if self._is_local:
                _check_files(Path(self.path))
            raise self._failure(error, split, hint()) from error

    def _failure(self, error: Exception, split: str = "", hint: str = "") -> InputError:
        """The one line for an error of `datasets` or of the hub's client."""
        at = "" if self._is_local else f" at {self.revision or 'main'}"
        if failure := hub_client.find_failure(error):
            return InputError(f"data.path: {self.path}{at}: {failure.explain(self._page)}{hint}")
        words = hub_client.one_line(error)
        likely = {"BuilderConfig": "name", "Config name": "name"} | ({split: split} if split else {})
        key = next((key for word, key in likely.items() if word in words), "path")
        if "scripts are no longer supported" in words:
            hint = "; try data.revision=refs/convert/parquet"
        return InputError(f"data.{key}: {self.path}{at}: {words}{hint}")

    def raw_rows(self, split: str, context: BuildContext) -> Iterator[Row]:
        """The rows of the dataset."""
        from attnspan.data.arrow import read_rows

        if self.streaming:
            yield from self._streamed_rows(split, context)
            return
        dataset = self._load_dataset(split, context.scratch)
        location, required = self.split_location(split), self.columns_of(split).values()
        columns = top_level_columns(dataset.features.arrow_schema, required, location)
        for number, row in enumerate(read_rows(dataset.select_columns(columns)), start=1):
            yield f"{location} row {number}", row

    def _streamed_rows(self, split: str, context: BuildContext) -> Iterator[Row]:
        directory = context.downloads / split
        rows = read_stream(directory, lambda: self._load_dataset(split, context.scratch, streaming=True))
        for number in count(1):
            with self._translate_errors(
                split, lambda: f"; {fetched_rows(directory)} rows are stored, the same command resumes after them"
            ):
                row = next(rows, None)
            if row is None:
                return
            yield f"{self.split_location(split)} row {number}", row


def _hash_directory(directory: Path) -> str:
    """sha256 of the names and contents of all files under ``directory``."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(directory).as_posix()}\0{sha256(path)}\0".encode())
    return digest.hexdigest()


def _check_files(directory: Path) -> None:
    """Read all tables of a directory, because the errors of `datasets` name neither file nor row.

    Raises:
        InputError: names the first invalid file under ``directory``.
    """
    for path in sorted(path for path in directory.rglob("*") if path.suffix in ENDINGS):
        check_file(path, "data.path")
        for _ in read_table(path, required=()):
            pass
