"""Parallel text: two files per split, one per language, aligned line by line, such as ``train.de`` and ``train.en``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from attnspan.checksums import sha256
from attnspan.data.corpora.base import SIDES, SPLITS, BuildContext, without_splits
from attnspan.data.corpora.kinds import FilePath
from attnspan.data.corpora.text import TextCorpus
from attnspan.data.readers.lines import CARRIAGE_RETURN, decode_lines
from attnspan.data.readers.row import Row
from attnspan.errors import BadRowError, InputError, SettingError, nearest


@dataclass(frozen=True, kw_only=True)
class Parallel(TextCorpus):
    """Pairs of lines of two files. ``source`` and ``target`` are the file endings, such as ``de`` and ``en``."""

    train: FilePath
    validation: FilePath
    test: FilePath
    """Paths without the language: ``corpus/train`` stands for ``corpus/train.de`` and ``corpus/train.en``."""

    def _check(self) -> None:
        super()._check()
        if self.source == self.target:
            raise SettingError("target", f"must differ from data.source, '{self.source}'")

    def _check_split(self, split: str) -> None:
        if not getattr(self, split):
            raise SettingError(split, "is empty; give the path of the files without the language")
        for side in SIDES:
            if not self.file(split, side).is_file():
                stem, language = Path(getattr(self, split)), str(getattr(self, side))
                known = [path.suffix[1:] for path in stem.parent.glob(f"{stem.name}.*") if path.stem == stem.name]
                if not known:
                    raise SettingError(split, f"{self.file(split, side)}: no such file")
                raise SettingError(side, f"there is no {stem}.{language}; {nearest(language, known)}")

    def identity(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """The fields, with the hashes of both files of ``splits`` in place of their paths."""
        files = {split: [sha256(self.file(split, side)) for side in SIDES] for split in splits}
        return without_splits(super().identity(splits)) | files

    def split_location(self, split: str) -> str:
        """The paths of both files."""
        return f"{getattr(self, split)}.{{{self.source},{self.target}}}"

    def raw_rows(self, split: str, context: BuildContext) -> Iterator[Row]:
        """Pairs of lines, without their line ends.

        Raises:
            InputError: one file has more lines than the other.
        """
        source, target = (self.file(split, side) for side in SIDES)
        with source.open("rb") as sources, target.open("rb") as targets:
            lines = zip_longest(decode_lines(sources, str(source)), decode_lines(targets, str(target)))
            for number, (one, other) in enumerate(lines, start=1):
                if one is None or other is None:
                    longer, shorter = (target, source) if one is None else (source, target)
                    rest = number + sum(1 for _ in lines)
                    counts = f"{longer} has {rest} lines and {shorter} has {number - 1}"
                    raise InputError(f"{split}: {counts}; both need the same number")
                texts = {self.source: one.rstrip("\r\n"), self.target: other.rstrip("\r\n")}
                yield f"{self.split_location(split)} line {number}", texts

    def check_row(self, texts: dict[str, str], location: str) -> None:
        """Refuse a line that editors show as several, as where a file has carriage returns for line ends."""
        for side in SIDES:
            if "\r" in texts[side]:
                raise BadRowError(f"{location}: column '{getattr(self, side)}': {CARRIAGE_RETURN}")

    def file(self, split: str, side: str) -> Path:
        """The file of one ``side`` of ``split``."""
        return Path(f"{getattr(self, split)}.{getattr(self, side)}")
