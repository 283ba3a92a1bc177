"""Every key of conf/: its type from the schema or from its class, its default and its meaning.

The meaning is the comment beside the key, else what the docstring of its class says. A key with neither stops
the build.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from docstrings import argument_docs, prose
from hydra.utils import get_class
from markdown import code, escaped, table

from attnspan.cli.help import GROUPS
from attnspan.config.config_files import conf_directory
from attnspan.config.schema import kind_of

HIDDEN = ("_target_", "_partial_", "_recursive_", "defaults")
MORE_GROUPS = {
    "rnn": "the cells of encoder and decoder",
    "hydra/launcher": "how the runs of a sweep are started",
    "hydra/sweeper": "which runs a sweep has",
}
NOT_KEYS = ("sweep",)
"""A group whose files are whole studies."""


@dataclass
class Key:
    """A key as it stands in a file."""

    path: str
    default: str
    comment: str
    children: dict[str, Any] = field(default_factory=dict)


def configuration() -> str:
    """The tables, file by file."""
    conf = conf_directory()
    parts = ["## Keys of every run\n", rows_of(conf / "train.yaml", "")]
    parts += ["## Keys of attnspan-evaluate\n", rows_of(conf / "evaluate.yaml", "")]
    for group in sorted({path.parent.relative_to(conf).as_posix() for path in conf.rglob("*/*.yaml")}):
        if group.partition("/")[0] in NOT_KEYS:
            continue
        words = GROUPS.get(group) or MORE_GROUPS.get(group, "")
        parts.append(f"## {group}\n\n{f'`{group}=...`: {escaped(words)}.' if words else ''}\n")
        for path in sorted((conf / group).glob("*.yaml")):
            parts += [f"### {group}={path.stem}\n", header(path), rows_of(path, package(path, group))]
    return "\n".join(parts)


def header(path: Path) -> str:
    """The comment at the head of a file, as paragraphs."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            lines.append(escaped(line.lstrip("# ").rstrip()))
    return "\n".join(lines) + "\n"


def package(path: Path, group: str) -> str:
    """Under which key the keys of a file stand, with a dot at its end."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return "" if first == "# @package _global_" else group.replace("/", ".") + "."


def rows_of(path: Path, prefix: str) -> str:
    """The table of a file's keys, and the file whose keys it has besides."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    based = [one for one in content.get("defaults", []) if isinstance(one, str) and one not in ("_self_", "multirun")]
    rows = [
        (
            code(f"{prefix}{key.path}"),
            escaped(kind(content, key, prefix)),
            code(key.default),
            meaning(content, key, path),
        )
        for key in keys_in(path, content)
    ]
    known = f"The keys of `{based[0]}`, with these values:\n\n" if based and rows else ""
    return known + (table(("key", "type", "default", "meaning"), rows) if rows else "No keys.\n")


def keys_in(path: Path, content: dict[str, Any]) -> Iterator[Key]:
    """The keys of a file that have a value, in their order; what one class takes as a mapping is one key."""
    comments = comments_in(path)

    def walk(node: dict[str, Any], above: tuple[str, ...]) -> Iterator[Key]:
        for name, value in node.items():
            at = (*above, str(name))
            if name in HIDDEN or at[0] == "hydra":
                continue
            is_part = isinstance(value, dict) and value and not (takes(content, at) and "_target_" not in value)
            if is_part:
                yield from walk(value, at)
            else:
                yield Key(".".join(at), shown(value), comments.get(at, ""))

    yield from walk(content, ())


def comments_in(path: Path) -> dict[tuple[str, ...], str]:
    """Key to the comment beside it, and to those that continue it below."""
    found: dict[tuple[str, ...], str] = {}
    open_keys: list[tuple[int, str]] = []
    last: tuple[str, ...] | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if (more := re.match(r"^ +# ?(.*)$", line)) and last in found:
            found[last] += f" {more[1].strip()}"
        elif one := re.match(r"^( *)([\w./@-]+):(?: (.*?))?(?:\s+# (.*))?$", line):
            indent = len(one[1])
            open_keys = [(at, key) for at, key in open_keys if at < indent] + [(indent, one[2])]
            last = tuple(key for _, key in open_keys)
            if one[4]:
                found[last] = one[4].strip()
    return found


def shown(value: Any) -> str:
    """A default as it is typed."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("\n...").strip()


def takes(content: dict[str, Any], path: tuple[str, ...]) -> bool:
    """Whether the class around a key has it as an argument."""
    return argument(content, path) is not None


def argument(content: dict[str, Any], path: tuple[str, ...]) -> tuple[type, Any] | None:
    """The class around a key, and the type of the argument that it has for it."""
    node: Any = content
    for name in path[:-1]:
        node = node[name]
    target = node.get("_target_") if isinstance(node, dict) else None
    if target is None or "lightning" in target:  # Lightning's Trainer says nothing that helps
        return None
    built = get_class(target)
    hints = arguments_of(built)
    return (built, hints[path[-1]]) if path[-1] in hints else None


@cache
def arguments_of(built: type) -> dict[str, Any]:
    """Argument to its type, for a class."""
    parameters = inspect.signature(built).parameters
    owner: Any = built if hasattr(built, "__dataclass_fields__") else built.__init__
    hints: dict[str, Any] = {}
    for base in reversed(built.__mro__):
        try:
            hints |= typing.get_type_hints(base if owner is built else base.__init__, include_extras=True)
        except (NameError, TypeError, AttributeError):
            continue
    return {name: hints.get(name, Any) for name in parameters}


def kind(content: dict[str, Any], key: Key, prefix: str) -> str:
    """The type of a key in words."""
    at = tuple(key.path.split("."))
    if words := kind_of(f"{prefix}{key.path}"):
        return words
    if found := argument(content, at):
        return in_words(found[1])
    return in_words(type(yaml.safe_load(key.default))) if key.default not in ("null", "???") else "null, or a value"


def in_words(kind: Any) -> str:
    """A type as a user of yaml calls it."""
    if typing.get_origin(kind) is typing.Annotated:
        inner, *metadata = typing.get_args(kind)
        return next((one for one in metadata if isinstance(one, str)), in_words(inner))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return ", or ".join(in_words(one) for one in typing.get_args(kind))
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    if kind in names:
        return names[kind]
    origin = typing.get_origin(kind) or kind
    if origin in (list, tuple) or (isinstance(origin, type) and issubclass(origin, typing.get_origin(typing.Sequence))):
        return "a list"
    return "a mapping" if "Mapping" in str(kind) or origin is dict else "a value"


def meaning(content: dict[str, Any], key: Key, path: Path) -> str:
    """What a key does, in words.

    Raises:
        LookupError: nothing says it.
    """
    if key.comment:
        return escaped(key.comment)
    at = tuple(key.path.split("."))
    if found := argument(content, at):
        for base in found[0].__mro__[:-1]:
            if words := argument_docs(base).get(at[-1]):
                return prose(words)
    if base := based_on(path, content):
        below = yaml.safe_load(base.read_text(encoding="utf-8"))
        for one in keys_in(base, below):
            if one.path == key.path:
                return meaning(below, one, base)
    raise LookupError(f"{path}: nothing says what {key.path} means; write a comment beside it")


def based_on(path: Path, content: dict[str, Any]) -> Path | None:
    """The file whose keys a file changes."""
    for one in content.get("defaults", []):
        if isinstance(one, str) and (base := path.with_name(f"{one}.yaml")).is_file():
            return base
    return None
