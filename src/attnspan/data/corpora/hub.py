"""A dataset of the Hugging Face hub, or a local directory with the same layout."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from attnspan.checksums import sha256
from attnspan.data.background import in_thread
from attnspan.data.corpora.base import SPLITS, BuildContext, option
from attnspan.data.corpora.text import TextCorpus
from attnspan.data.readers import hub_client
from attnspan.data.readers.row import Row
from attnspan.data.readers.split_files import Part, SplitFiles, find_split_files, parse_split, read_part
from attnspan.data.readers.streaming import RowStream, fetched_rows, read_stream
from attnspan.data.readers.table_file import TableFile, check_file
from attnspan.errors import InputError, SettingError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

TIMEOUT = 10.0
"""Seconds to wait for an answer of the hub."""

_HUB_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Hub(TextCorpus):
    """Pairs of texts from two columns of csv, tsv, json, parquet or Arrow files, laid out as `datasets` expects.

    `datasets` says which files make a split; they are read as the user's own files are, so that no type is guessed. A
    dot in the name of a column selects a nested column, as in ``translation.en``.
    """

    path: Annotated[str, "a name on the hub or a directory"]
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
    quotes: bool = option(True)
    """Whether cells of csv and tsv files may be enclosed in double quotes; false if quotes are ordinary characters."""
    streaming: bool = False
    """Stream the rows without a copy of the files on this disk (:mod:`attnspan.data.readers.streaming`).

    The examples are the same, so it is not part of the identity.
    """

    def _check(self) -> None:
        super()._check()
        if not self._is_local and not _HUB_NAME.fullmatch(str(self.path)):
            raise SettingError("path", f"{self.path}: no such directory, and not a valid name of a hub dataset")
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
        context.files.update({split: self._names(split) for split in splits})
        if left_out := self._found.left_out:
            context.remarks.append(f"these files hold no table and are not read: {', '.join(left_out)}")
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

    @cached_property
    def _found(self) -> SplitFiles:
        """The files of the dataset's splits."""

        def find() -> SplitFiles:
            return find_split_files(
                str(self.path),
                name=self.name,
                folder=self.folder,
                revision=None if self._is_local else self._commit,
                quotes=self.quotes,
            )

        with self._translate_errors():
            return find() if self._is_local else hub_client.patiently(find, self.path)

    def _parts(self, split: str) -> list[Part]:
        """What ``split`` is made of."""
        return parse_split(getattr(self, split), self._found, f"data.{split}: {self.path}")

    def _names(self, split: str) -> list[str]:
        """The names of the files of ``split`` in the dataset."""
        files = chain.from_iterable(self._found.files[part.split] for part in self._parts(split))
        return list(dict.fromkeys(file.name.removeprefix(f"{self.path}/") for file in files))

    @contextmanager
    def _translate_errors(self, hint: Callable[[], str] = str) -> Iterator[None]:
        """Turn errors of `datasets` and of the hub's client into one line that ends in ``hint()``."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # the libraries raise errors of many types
            raise self._failure(error, hint()) from error

    def _failure(self, error: Exception, hint: str = "") -> InputError:
        """The one line for an error of `datasets` or of the hub's client."""
        at = "" if self._is_local else f" at {self.revision or 'main'}"
        if failure := hub_client.find_failure(error):
            return InputError(f"data.path: {self.path}{at}: {failure.explain(self._page)}{hint}")
        words = hub_client.one_line(error)
        key = "name" if re.search("BuilderConfig|Config name", words) else "path"
        if "scripts are no longer supported" in words:
            hint = "; try data.revision=refs/convert/parquet"
        return InputError(f"data.{key}: {self.path}{at}: {words}{hint}")

    def raw_rows(self, split: str, context: BuildContext) -> Iterator[Row]:
        """The rows of the files."""
        required = list(self.columns_of(split).values())

        def remark(words: str) -> None:
            context.remarks.append(f"{split}: {words}")

        if self.streaming:
            yield from self._streamed_rows(split, required, context.downloads / split, remark)
            return
        for part in self._parts(split):
            yield from read_part(part, self._here(part.split), required=required, remark=remark)

    def _here(self, split: str) -> SplitFiles:
        """The files of one split of the dataset, on this machine."""
        with self._translate_errors():
            files = [self._download(file) for file in self._found.files[split]]
        for file in files:
            check_file(file, "data.path")
        return replace(self._found, files={split: files})

    def _download(self, file: TableFile) -> TableFile:
        """A copy of a file of the hub in its client's cache; another file as it is."""
        from huggingface_hub import hf_hub_download

        if not file.location.startswith(f"hf://datasets/{self.path}@"):
            return file
        name = file.name.removeprefix(f"{self.path}/")

        def download() -> str:
            return hf_hub_download(self.path, name, repo_type="dataset", revision=self._commit)

        return replace(file, location=hub_client.patiently(download, self.path))

    def _streamed_rows(
        self, split: str, required: list[str], directory: Path, remark: Callable[[str], None]
    ) -> Iterator[Row]:
        def open_stream() -> RowStream:
            files = [file for part in self._parts(split) for file in self._found.files[part.split]]
            return RowStream(files, required=required, csv_format=self._found.csv_format, remark=remark)

        rows = read_stream(directory, open_stream)
        while True:
            with self._translate_errors(
                lambda: f"; {fetched_rows(directory)} rows are stored, the same command resumes after them"
            ):
                row = next(rows, None)
            if row is None:
                return
            yield row


def _hash_directory(directory: Path) -> str:
    """sha256 of the names and contents of all files under ``directory``."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(directory).as_posix()}\0{sha256(path)}\0".encode())
    return digest.hexdigest()
