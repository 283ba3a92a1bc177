"""Words of docstrings, as Markdown."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap

from markdown import escaped


def field_docs(owner: type) -> dict[str, tuple[str, str]]:
    """Field of a dataclass to the docstring below it, and that of the next field that has one."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, tuple[str, str]] = {}
    waiting: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            waiting.append(node.target.id)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and waiting:
            words = " ".join(str(node.value.value).split())
            found |= dict.fromkeys(waiting, ("", words)) | {waiting[-1]: (words, words)}
            waiting = []
        else:
            waiting = []
    return found


def argument_docs(owner: type) -> dict[str, str]:
    """Argument of a class to what the class says of it: under ``Args``, or below a field or a group of fields."""
    found = {name: words for name, (_, words) in field_docs(owner).items()} if "attnspan" in owner.__module__ else {}
    text = inspect.cleandoc(owner.__doc__ or "")
    if section := re.search(r"^Args.*:\n((?:    .*\n?|\n)+)", text, flags=re.MULTILINE):
        for one in re.finditer(r"^    (\w+): (.*(?:\n        .*)*)", section[1], flags=re.MULTILINE):
            found[one[1]] = " ".join(one[2].split())
    return found


def prose(text: str) -> str:
    """A docstring's words as Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"``\1``", text)
    parts = text.split("``")
    return "".join(f"`{part}`" if at % 2 else escaped(part) for at, part in enumerate(parts))
