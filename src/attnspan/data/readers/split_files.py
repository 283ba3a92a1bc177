"""Which files of a dataset belong to which split: what its card says, or else the names of the files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from attnspan.data.readers.csv_table import CsvFormat
from attnspan.data.readers.row import Row
from attnspan.data.readers.table import count_rows, read_table
from attnspan.data.readers.table_file import COMPRESSIONS, ENDINGS, TableFile
from attnspan.errors import InputError, nearest

_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)")
_CSV_SETTINGS = {"sep", "delimiter", "names", "column_names", "header"}
_HARMLESS = {
    "chunksize", "features", "use_threads", "block_size", "batch_size", "on_mixed_types", "verbose", "drop_labels",
    "decode_num_threads",
}  # fmt: skip
"""Settings of a card that change no text and no image."""


@dataclass(frozen=True, kw_only=True)
class SplitFiles:
    """The files of each split, in the order of their rows, and how csv files are written."""

    files: Mapping[str, Sequence[TableFile]]
    csv_format: CsvFormat
    left_out: Sequence[str] = ()
    """Names of files that look like parts of a split and are no tables, such as backups."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows ``first`` to ``end`` (from 0, without ``end`` itself; None for the last) of a split."""

    split: str
    first: int = 0
    end: int | None = None


def find_split_files(
    path: str, *, name: str | None, folder: str | None, revision: str | None, quotes: bool
) -> SplitFiles:
    """Find the files of a dataset, as ``datasets.load_dataset`` does. No table is read.

    Args:
        path: a directory, or the name of a dataset on the hub.
        name: config of the dataset.
        folder: the only folder to look into.
        revision: commit on the hub.
        quotes: whether cells of csv and tsv files may be enclosed in double quotes.

    Raises:
        InputError: the card has settings that the readers do not follow, or it is not clear which files make a split.
        Exception: any error of `datasets`, as where there is no such config or no file.
    """
    import datasets

    with TemporaryDirectory() as scratch:
        builder = datasets.load_dataset_builder(path, name, data_dir=folder, revision=revision, cache_dir=scratch)
    directory = Path(path) if Path(path).is_dir() else None
    files: dict[str, list[TableFile]] = {}
    left_out: list[str] = []
    for split, locations in (builder.config.data_files or {}).items():
        names = {_relative(str(location), directory): str(location) for location in locations}
        found = [TableFile(location, f"{path}/{relative}") for relative, location in names.items()]
        files[str(split)] = [file for file in found if file.ending in ENDINGS]
        left_out += [relative for relative, file in zip(names, found, strict=True) if file.ending not in ENDINGS]
        if directory is not None:
            _check_series([relative for relative in names if relative not in left_out], str(split), directory)
    return SplitFiles(files=files, csv_format=_csv_format(builder.config, path, quotes), left_out=left_out)


def parse_split(spec: str, known: SplitFiles, key: str) -> list[Part]:
    """The parts of splits that ``spec`` names, such as ``train``, ``train[:90%]`` or ``train+validation``.

    Args:
        spec: in the notation of `datasets`.
        known: the dataset.
        key: of the config, for error messages.

    Raises:
        InputError: there is no such split, or the notation is wrong.
    """
    if spec in known.files:
        return [Part(split=spec)]
    words = [word.strip() for word in re.sub(r"\[[^]]*\]", "", spec).split("+")]
    for word in words:
        if word not in known.files:
            raise InputError(f"{key}: there is no split '{word}'; {nearest(word, known.files)}")
    from datasets import ReadInstruction

    counts = {word: sum(count_rows(file, csv_format=known.csv_format) for file in known.files[word]) for word in words}
    try:
        parts = ReadInstruction.from_spec(spec).to_absolute(counts)
    except (ValueError, AssertionError) as error:
        raise InputError(f"{key}: '{spec}' names no part of a split ({str(error).splitlines()[0]})") from error
    return [Part(split=str(part.splitname), first=part.from_, end=part.to) for part in parts]


def read_part(
    part: Part, known: SplitFiles, *, required: Sequence[str], remark: Callable[[str], None]
) -> Iterator[tuple[TableFile, Row]]:
    """The rows of ``part``, file by file; ``remark`` as for :func:`~attnspan.data.readers.table.read_table`.

    Raises:
        InputError: a file is invalid, or lacks a required column.
    """

    def rows(file: TableFile) -> Iterator[tuple[TableFile, Row]]:
        name = PurePosixPath(file.name).name
        for row in read_table(
            file, required=required, csv_format=known.csv_format, remark=lambda words: remark(f"{name}: {words}")
        ):
            yield file, row

    return islice(chain.from_iterable(map(rows, known.files[part.split])), part.first, part.end)


def _relative(location: str, directory: Path | None) -> str:
    """The path of a file within its dataset."""
    for root in () if directory is None else (directory, directory.absolute(), directory.resolve()):
        with suppress(ValueError):
            return Path(location).relative_to(root).as_posix()
    return re.sub(r"^hf://datasets/[^@]*@[^/]*/", "", location)


def _check_series(names: Sequence[str], split: str, directory: Path) -> None:
    """Refuse files that may be versions of each other: the files of a split differ in nothing but numbers, or they are
    all in one folder that is named for the split, or the card names them. No numbered part may be missing.
    """
    from datasets.data_files import SPLIT_KEYWORDS

    stems = [_stem(name) for name in names]
    for shard in filter(None, map(_SHARD.fullmatch, stems)):
        there = sum(stem.startswith(f"{shard[1]}-") and stem.endswith(f"-of-{shard[3]}") for stem in stems)
        if there != int(shard[3]):
            problem = f"there are {there} files {shard[1]}-...-of-{shard[3]}, and their names say {int(shard[3])}"
            raise InputError(f"data.path: {directory}: split '{split}': {problem}")
    parents = {PurePosixPath(name).parent for name in names}
    is_series = len({re.sub(r"\d+", "#", stem) for stem in stems}) == 1
    is_folder = any(word in parent.name for parent in parents for word in SPLIT_KEYWORDS.get(split, [split]))
    if len(names) > 1 and (len(parents) > 1 or not (is_series or is_folder)) and not _card_names_files(directory):
        problem = f"split '{split}' has {len(names)} files that are no parts of one table: {', '.join(sorted(names))}"
        remedy = "move away those that do not belong, or name the right ones in README.md (configs: data_files)"
        raise InputError(f"data.path: {directory}: {problem}; {remedy}")


def _stem(name: str) -> str:
    """The name of a file without folder and endings."""
    path = PurePosixPath(name)
    return path.with_suffix("").stem if path.suffix in COMPRESSIONS else path.stem


def _card_names_files(directory: Path) -> bool:
    """Whether the card of a dataset says which files each split has."""
    from huggingface_hub import metadata_load

    card = directory / "README.md"
    configs = (metadata_load(card) or {}).get("configs") if card.is_file() else None
    return any("data_files" in config for config in configs or ())


def _csv_format(config: Any, path: str, quotes: bool) -> CsvFormat:
    """How csv files are written, as the card says.

    Raises:
        InputError: it has a setting that the readers do not follow.
    """
    usual, common = type(config)(), {"name", "version", "data_dir", "data_files", "description"}
    given = {
        one.name: value for one in fields(config) if (value := getattr(config, one.name)) != getattr(usual, one.name)
    }
    followed = _CSV_SETTINGS if hasattr(config, "sep") else set()
    for key, value in given.items():
        if key not in common | followed | _HARMLESS:
            raise InputError(f"data.path: {path}: its card sets {key}={value!r}, which attnspan does not follow")
    columns, header = given.get("names"), given.get("header", "infer")
    if header != "infer" and not (header is None and columns) and not (header == 0 and not columns):
        raise InputError(f"data.path: {path}: its card sets header={header!r}, which attnspan does not follow")
    return CsvFormat(separator=given.get("sep"), columns=columns, quotes=quotes)
