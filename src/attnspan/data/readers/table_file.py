"""A file that holds a table: its name, its format, and how it is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from fsspec.compression import compr
from fsspec.core import open as open_url

from attnspan.errors import InputError, nearest

SEPARATORS = {".csv": ",", ".tsv": "\t"}
JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
ARROW_ENDINGS = (".arrow", ".parquet")
ENDINGS = (*SEPARATORS, *JSON_ENDINGS, *ARROW_ENDINGS)

COMPRESSIONS = {".bz2": "bz2", ".gz": "gzip", ".xz": "xz"}
"""Second endings, as in ``train.csv.gz``."""

_OTHER_FORMATS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive (such as a spreadsheet; export it as csv)",
    b"\x1f\x8b": "gzip-compressed data",
    b"BZh": "bzip2-compressed data",
    b"\xfd7zXZ": "xz-compressed data",
    b"PAR1": "a parquet file",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": "UTF-16 text (save it as UTF-8)",
    b"\xfe\xff": "UTF-16 text (save it as UTF-8)",
}
"""First bytes of files that users mistake for a table."""

_RIGHT_STARTS = {".parquet": (b"PAR1",), ".arrow": (b"ARROW1", b"\xff\xff\xff\xff")}
"""First bytes of an Arrow file, and of a stream of Arrow batches."""

_UNFINISHED_COMPRESSION = ("EOFError", "BadGzipFile", "LZMAError", "error")
"""Names of the errors of damaged or incomplete compressed data; zlib's is called ``error``."""


@dataclass(frozen=True)
class TableFile:
    """A csv, tsv, json, parquet or Arrow file, perhaps compressed."""

    location: str
    """Path on this machine, or URL."""
    name: str
    """What messages call it."""

    @classmethod
    def at(cls, path: str | Path) -> TableFile:
        """The file at a path on this machine, which is its name, too."""
        return cls(os.fspath(path), os.fspath(path))

    @property
    def is_remote(self) -> bool:
        """Whether ``location`` is a URL."""
        return "://" in self.location

    @property
    def ending(self) -> str:
        """The ending that says the format."""
        path = PurePosixPath(self.name)
        return path.with_suffix("").suffix if self.compression else path.suffix

    @property
    def compression(self) -> str | None:
        """How it is compressed; None if it is not."""
        return COMPRESSIONS.get(PurePosixPath(self.name).suffix)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its content, decompressed."""
        raw: BinaryIO
        with open_url(self.location, "rb") if self.is_remote else open(self.location, "rb") as raw:
            if self.compression is None:
                yield raw
                return
            try:
                with compr[self.compression](raw, mode="rb") as content:
                    yield content
            except Exception as error:  # each module has errors of its own
                if type(error).__name__ not in _UNFINISHED_COMPRESSION:
                    raise
                raise InputError(f"{self.name}: not a complete {self.compression} file ({error})") from error


def check_file(file: TableFile, key: str) -> None:
    """Check the ending and the first bytes of a table, whose config key is ``key``.

    Raises:
        InputError: the file is missing or empty, its ending is unknown, or its content contradicts the ending.
    """
    ending = file.ending
    if ending not in ENDINGS:
        raise InputError(f"{key}: {file.name}: unknown file ending '{ending}'; {nearest(ending, ENDINGS)}")
    try:
        with file.open() as content:
            start = content.read(16)
    except FileNotFoundError:
        raise InputError(f"{key}: {file.name}: no such file") from None
    except OSError as error:
        raise InputError(f"{key}: {file.name}: cannot be read ({error.strerror or error})") from error
    if not start:
        raise InputError(f"{key}: {file.name}: the file is empty")
    if ending in _RIGHT_STARTS and start.startswith(_RIGHT_STARTS[ending]):
        return
    for magic, content_kind in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise InputError(f"{key}: {file.name}: the ending is '{ending}', but the content is {content_kind}")
    if ending in _RIGHT_STARTS:
        raise InputError(f"{key}: {file.name}: the ending is '{ending}', but the content is not")
