"""SIGMORPHON 2020 task 1: grapheme-to-phoneme conversion in many languages (Gorman et al. 2020).

::

    source   b o n j o u r         characters
    target   b ɔ̃ ʒ u ʁ             phones, separated by spaces
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnspan.data.corpora.base import SPLITS
from attnspan.data.corpora.files import Files
from attnspan.data.corpora.kinds import FilePath
from attnspan.errors import SettingError, nearest


@dataclass(frozen=True, kw_only=True)
class Sigmorphon2020(Files):
    """One language: ``<root>/<language>/train.tsv``, ``validation.tsv`` and ``test.tsv``."""

    root: FilePath
    """The directory with one folder per language."""
    language: str | None
    """The folder of the language, such as ``fre``."""

    def _check(self) -> None:
        root = Path(self.root)
        if not root.is_dir():
            raise SettingError("root", f"{root}: no such directory")
        known = {path.parent.name for split in SPLITS for path in root.glob(f"*/{split}.tsv") if path.is_file()}
        if self.language not in known:
            what = f"{root} has no language '{self.language}'" if self.language else "no language is given"
            raise SettingError("language", f"{what}; {nearest(str(self.language), known)}")
        super()._check()

    def identity(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """That of the files; the directory does not matter."""
        return {key: value for key, value in super().identity(splits).items() if key != "root"}
