"""A dataset of the Hugging Face hub, or a directory with the same layout: its version and its files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from attnspan.checksums import sha256
from attnspan.data.background import in_thread
from attnspan.data.readers import hub_client
from attnspan.data.readers.split_files import Part, SplitFiles, find_split_files, parse_split
from attnspan.data.readers.table_file import TableFile, check_file
from attnspan.errors import InputError, SettingError, nearest

TIMEOUT = 10.0
"""Seconds to wait for an answer of the hub."""

_HUB_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """`datasets` says which files make a split. Errors begin with the key of the config that is wrong.

    Args:
        path: a name on the hub, ``owner/name``, or a directory.
        name: config of the dataset.
        folder: the only folder to look into.
        revision: branch, tag or full commit hash; it means nothing to a directory.
        quotes: whether cells of csv and tsv files may be enclosed in double quotes.
    """

    path: str
    name: str | None
    folder: str | None
    revision: str | None
    quotes: bool

    @property
    def is_local(self) -> bool:
        """Whether it is a directory."""
        return Path(self.path).is_dir()

    def check(self) -> None:
        """Raise :class:`SettingError` or :class:`InputError` for what is wrong without a look at the hub."""
        if not self.is_local and not _HUB_NAME.fullmatch(str(self.path)):
            raise SettingError("path", f"{self.path}: no such directory, and not a valid name of a hub dataset")
        if self.is_local and self.folder is not None:
            self._check_folder(entry.name for entry in Path(self.path).iterdir() if entry.is_dir())

    def version(self) -> dict[str, Any]:
        """The hash of a directory, or the commit to which the revision resolves now."""
        if self.is_local:
            return {"path": _hash_directory(Path(self.path)), "revision": None}
        return {"revision": self._commit}

    def check_online(self) -> None:
        """Ask the hub for the dataset: fails at once where ``load_dataset`` retries for half a minute."""
        info = self._info()
        if self.folder is not None:
            self._check_folder(name.rfilename.rpartition("/")[0].partition("/")[0] for name in info.siblings)

    def _check_folder(self, known: Iterable[str]) -> None:
        known = {name for name in known if name and not name.startswith(".")}
        if str(self.folder).partition("/")[0] not in known:
            hint = nearest(str(self.folder), known)
            raise InputError(f"data.folder: {self.path} has no folder '{self.folder}'; {hint}")

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

    def check_downloads(self) -> Exception | None:
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
    def found(self) -> SplitFiles:
        """The files of the dataset's splits."""

        def find() -> SplitFiles:
            return find_split_files(
                str(self.path),
                name=self.name,
                folder=self.folder,
                revision=None if self.is_local else self._commit,
                quotes=self.quotes,
            )

        with self.translated_errors():
            return find() if self.is_local else hub_client.patiently(find, self.path)

    def parts(self, split: str, spec: str) -> list[Part]:
        """What ``split`` is made of; ``spec`` is its name in the dataset, or names a part."""
        return parse_split(spec, self.found, f"data.{split}: {self.path}")

    def names(self, parts: Sequence[Part]) -> list[str]:
        """The names of the files of ``parts`` in the dataset."""
        files = chain.from_iterable(self.found.files[part.split] for part in parts)
        return list(dict.fromkeys(self.relative(file) for file in files))

    def relative(self, file: TableFile) -> str:
        """The name of a file in the dataset."""
        return file.name.removeprefix(f"{self.path}/")

    @contextmanager
    def translated_errors(self, hint: Callable[[], str] = str) -> Iterator[None]:
        """Turn errors of `datasets` and of the hub's client into one line that ends in ``hint()``."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # the libraries raise errors of many types
            raise self.failure(error, hint()) from error

    def failure(self, error: Exception, hint: str = "") -> InputError:
        """The one line for an error of `datasets` or of the hub's client."""
        at = "" if self.is_local else f" at {self.revision or 'main'}"
        if failure := hub_client.find_failure(error):
            return InputError(f"data.path: {self.path}{at}: {failure.explain(self._page)}{hint}")
        words = hub_client.one_line(error)
        key = "name" if re.search("BuilderConfig|Config name", words) else "path"
        if "scripts are no longer supported" in words:
            hint = "; try data.revision=refs/convert/parquet"
        return InputError(f"data.{key}: {self.path}{at}: {words}{hint}")

    def here(self, split: str) -> SplitFiles:
        """The files of one split of the dataset, on this machine."""
        with self.translated_errors():
            files = [self._download(file) for file in self.found.files[split]]
        for file in files:
            check_file(file, "data.path")
        return replace(self.found, files={split: files})

    def folder_here(self, file: TableFile) -> Path:
        """The directory on this machine of ``file`` and of all that is beside and below it, downloaded if need be."""
        from huggingface_hub import snapshot_download

        if self.is_local:
            return Path(file.location).parent
        folder = self.relative(file).rpartition("/")[0]

        def download() -> str:
            return snapshot_download(
                self.path, repo_type="dataset", revision=self._commit, allow_patterns=f"{folder}/*" if folder else "*"
            )

        with self.translated_errors():
            return Path(hub_client.patiently(download, self.path), folder)

    def _download(self, file: TableFile) -> TableFile:
        """A copy of a file of the hub in its client's cache; another file as it is."""
        from huggingface_hub import hf_hub_download

        if not file.location.startswith(f"hf://datasets/{self.path}@"):
            return file
        name = self.relative(file)

        def download() -> str:
            return hf_hub_download(self.path, name, repo_type="dataset", revision=self._commit)

        return replace(file, location=hub_client.patiently(download, self.path))


def _hash_directory(directory: Path) -> str:
    """sha256 of the names and contents of all files under ``directory``."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(directory).as_posix()}\0{sha256(path)}\0".encode())
    return digest.hexdigest()
