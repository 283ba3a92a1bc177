"""A name for a class that survives moving it to another module, for hashes that outlive the code."""

from __future__ import annotations

import re

RENAMED: dict[str, str] = {}
"""Stable name of a class of this package to the one that it had first, for classes that were renamed."""

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def stable_name(path: str) -> str:
    """The class at a dotted path, named by what it is and not by where it lies.

    A class of this package is its name in snake case: ``attnspan.data.corpora.reverse.Reverse`` is ``reverse``. A class
    from elsewhere keeps its path, for we do not know what else has its name. Nothing is imported.
    """
    if not path.startswith("attnspan."):
        return path
    name = _WORD_START.sub("_", path.rpartition(".")[2]).lower()
    return RENAMED.get(name, name)
