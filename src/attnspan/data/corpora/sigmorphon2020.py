"""SIGMORPHON 2020, task 1: spelling to sounds in many languages (Gorman et al. 2020), from the files as published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnspan.data.corpora.base import SPLITS
from attnspan.data.corpora.files import Files
from attnspan.errors import InputError, nearest


@dataclass(frozen=True, kw_only=True)
class Sigmorphon2020(Files):
    """One language: ``<root>/<language>/train.tsv``, ``validation.tsv`` and ``test.tsv``."""

    root: str
    """The directory that holds a folder a language."""
    language: str | None
    """Its folder, such as ``fre``."""

    def check(self) -> None:
        """Refuse a language that is not there.

        Raises:
            InputError: names the key, and the languages that there are.
        """
        root = Path(self.root)
        if not root.is_dir():
            raise InputError(f"data.root: {root}: no such directory")
        known = [
            folder.name for folder in root.iterdir() if any((folder / f"{split}.tsv").is_file() for split in SPLITS)
        ]
        if self.language not in known:
            what = f"{root} has no '{self.language}'" if self.language else "names no language"
            raise InputError(f"data.language: {what}; {nearest(str(self.language), known)}")
        super().check()

    def identity(self) -> dict[str, Any]:
        """As for any files: their content, and not the directory where they lie."""
        identity = super().identity()
        del identity["root"]
        return identity
