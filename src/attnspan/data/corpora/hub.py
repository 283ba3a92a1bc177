"""A dataset of the Hugging Face hub, or a directory with the same layout: pairs of texts, or images with texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

from attnspan.data.corpora.base import SPLITS, BuildContext, Corpus, option
from attnspan.data.corpora.images import METADATA, ImageRow, ImageTable
from attnspan.data.corpora.text import TextCorpus
from attnspan.data.readers.columns import check_columns
from attnspan.data.readers.hub_dataset import HubDataset
from attnspan.data.readers.row import Row
from attnspan.data.readers.split_files import read_part
from attnspan.data.readers.streaming import RowStream, fetched_rows, read_stream
from attnspan.data.readers.table_file import TableFile
from attnspan.errors import InputError, SettingError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class HubCorpus(Corpus):
    """What a dataset in the hub's layout has, whatever its rows hold.

    `datasets` says which files make a split; they are read as the user's own files are, so that no type is guessed.
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

    @cached_property
    def dataset(self) -> HubDataset:
        """The dataset, which is not looked at yet."""
        return HubDataset(
            path=self.path, name=self.name, folder=self.folder, revision=self.revision, quotes=self.quotes
        )

    def _check(self) -> None:
        super()._check()
        self.dataset.check()

    def identity(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """The fields, with the hash of a local directory, or the commit to which the revision resolves now."""
        return super().identity(splits) | self.dataset.version()

    def split_location(self, split: str) -> str:
        """The dataset and its name for the split."""
        return f"{self.path} split '{getattr(self, split)}'"

    def load(self, context: BuildContext, splits: Sequence[str] = SPLITS) -> dict[str, Dataset]:
        """Download what is missing; read and validate all rows."""
        online = not self.dataset.is_local
        if online:
            self.dataset.check_online()
        context.files.update({split: self._names(split) for split in splits})
        self._check_files(context)
        try:
            datasets = super().load(context, splits)  # type: ignore[safe-super]  # that of the table's class
        except InputError:
            if online:
                self.dataset.check_downloads()  # a damaged file may be the reason
            raise
        if online and (failed := self.dataset.check_downloads()):
            raise self.dataset.failure(failed) from failed
        return datasets

    def _check_files(self, context: BuildContext) -> None:
        """Look at the files of the splits before they are read; ``context.files`` has those with tables."""

    def _names(self, split: str) -> list[str]:
        return self.dataset.names(self.dataset.parts(split, getattr(self, split)))


@dataclass(frozen=True, kw_only=True)
class Hub(HubCorpus, TextCorpus):
    """Pairs of texts from two columns of csv, tsv, json, parquet or Arrow files, laid out as `datasets` expects.

    A dot in the name of a column selects a nested column, as in ``translation.en``.
    """

    streaming: bool = False
    """Stream the rows without a copy of the files on this disk (:mod:`attnspan.data.readers.streaming`).

    The examples are the same, so it is not part of the identity.
    """

    def _check_split(self, split: str) -> None:
        if self.streaming and "[" in (name := getattr(self, split)):
            problem = f"'{name}' is a part of a split, which cannot be streamed; set data.streaming=false"
            raise SettingError(split, problem)

    def identity(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """As that of :class:`HubCorpus`."""
        return {key: value for key, value in super().identity(splits).items() if key != "streaming"}

    def _check_files(self, context: BuildContext) -> None:
        if left_out := self.dataset.found.left_out:
            others = f" and {len(left_out) - 5} others" if len(left_out) > 5 else ""
            context.remarks.append(f"these files hold no table and are not read: {', '.join(left_out[:5])}{others}")

    def raw_rows(self, split: str, context: BuildContext) -> Iterator[Row]:
        """The rows of the files."""
        required = list(self.columns_of(split).values())

        def remark(words: str) -> None:
            context.remarks.append(f"{split}: {words}")

        if self.streaming:
            yield from self._streamed_rows(split, required, context.downloads / split, remark)
            return
        for part in self.dataset.parts(split, getattr(self, split)):
            for _, row in read_part(part, self.dataset.here(part.split), required=required, remark=remark):
                yield row

    def _streamed_rows(
        self, split: str, required: list[str], directory: Path, remark: Callable[[str], None]
    ) -> Iterator[Row]:
        found = self.dataset.found

        def open_stream() -> RowStream:
            parts = self.dataset.parts(split, getattr(self, split))
            files = [file for part in parts for file in found.files[part.split]]
            return RowStream(files, required=required, csv_format=found.csv_format, remark=remark)

        rows = read_stream(directory, open_stream)
        while True:
            with self.dataset.translated_errors(
                lambda: f"; {fetched_rows(directory)} rows are stored, the same command resumes after them"
            ):
                row = next(rows, None)
            if row is None:
                return
            yield row


@dataclass(frozen=True, kw_only=True)
class HubImages(HubCorpus, ImageTable):
    """Images with texts: parquet or Arrow files with an ``Image`` column, or an `imagefolder` with metadata tables.

    In the latter the column of file names, ``file_name``, is called ``image``, as `datasets` calls it.
    """

    def _check_files(self, context: BuildContext) -> None:
        for split, names in context.files.items():
            if not names:
                raise InputError(
                    f"data.{split}: {self.path}: split '{getattr(self, split)}' has no table that says which text an "
                    f"image has: {', '.join(METADATA)}, or parquet with the images; there are "
                    f"{', '.join([*self.dataset.found.left_out[:2], '...'])}"
                )
        owners: dict[str, str] = {}
        for part in (part for split in context.files for part in self.dataset.parts(split, getattr(self, split))):
            for name in self.dataset.names([part]):
                if (owner := owners.setdefault(name, part.split)) != part.split:
                    problem = (
                        f"splits '{owner}' and '{part.split}' have one table, {name}, which says not whose a row is"
                    )
                    raise InputError(f"data.path: {self.path}: {problem}; give each split a table of its own")

    def image_rows(self, split: str, context: BuildContext) -> Iterator[ImageRow]:
        """The rows of the files."""

        def remark(words: str) -> None:
            context.remarks.append(f"{split}: {words}")

        for part in self.dataset.parts(split, getattr(self, split)):
            is_folder = all(PurePosixPath(name).name in METADATA for name in self.dataset.names([part]))
            column = "file_name" if is_folder and self.image == "image" else self.image
            files = self.dataset.here(part.split)
            for file, (location, row) in read_part(part, files, required=[column, self.target], remark=remark):
                check_columns(row, [column], location)
                yield ImageRow(location=location, cells=row, image=row[column], folder=partial(self._folder_of, file))

    def _folder_of(self, file: TableFile) -> Path:
        """Where the images beside a table are on this machine; those of the hub are downloaded, a folder at a time."""
        folder = PurePosixPath(self.dataset.relative(file)).parent
        if folder not in self._folders:
            self._folders[folder] = self.dataset.folder_here(file)
        return self._folders[folder]

    @cached_property
    def _folders(self) -> dict[PurePosixPath, Path]:
        return {}
