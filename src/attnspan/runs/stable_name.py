"""A name for a class that survives moving it to another module, for hashes that outlive the code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

RENAMED = {"recall_two_hop": "recall", "recall": "recall_one_hop"}
"""Stable name of a class of this package to the one that it had first, for classes that were renamed.

The second entry is no renaming. Today's ``Recall`` is another task than the one that has the name ``recall`` in hashes.
"""

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def stable_name(path: str) -> str:
    """The class at a dotted path, named by what it is and not by where it lies.

    A class of this package is its name in snake case: ``attnspan.data.corpora.synthetic.reverse.Reverse`` is
    ``reverse``. A class from elsewhere keeps its path, for we do not know what else has its name. Nothing is imported.
    """
    if not path.startswith("attnspan."):
        return path
    name = _WORD_START.sub("_", path.rpartition(".")[2]).lower()
    return RENAMED.get(name, name)


def rename_classes(node: Any, rename: Callable[[str], str]) -> Any:
    """The config with ``rename(path)`` in place of the path of each class, at any depth."""
    if isinstance(node, list):
        return [rename_classes(child, rename) for child in node]
    if not isinstance(node, dict):
        return node
    return {
        key: rename(value) if key == "_target_" and isinstance(value, str) else rename_classes(value, rename)
        for key, value in node.items()
    }


def class_paths(node: Any) -> Iterator[str]:
    """The dotted path of every class or function that a config names, at any depth."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        if str(node.get("_target_")).startswith("hydra.utils.") and "path" in node:  # as hydra.utils.get_method
            yield str(node["path"])
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        yield from class_paths(child)
