"""Switches of any class: an argument that takes true or false takes no word, such as ``no``, which would count as true.

Our own classes check their arguments themselves. This is for those of torch, of Lightning, and of the user.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from attnspan.errors import SettingError


def refuse_words_for_switches(target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Check the ``arguments`` of ``target`` that its annotations call a switch.

    Raises:
        SettingError: one is neither true nor false nor anything else that the annotation allows.
    """
    hints = _hints(target)
    for name, value in arguments.items():
        allowed = [*_members(hints.get(name))]
        if bool in allowed and not any(_is(value, kind) for kind in allowed):
            words = ["true or false", *(repr(kind) for kind in allowed if isinstance(kind, str))]
            raise SettingError(name, f"must be {', or '.join(words)}, not {value!r}")


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Argument to its annotation; of a class, those of all its constructors, the nearest first."""
    while isinstance(target, functools.partial):
        target = target.func
    functions: list[Any] = [target]
    if inspect.isclass(target):
        functions = [vars(base)["__init__"] for base in inspect.getmro(target) if "__init__" in vars(base)]
    found: dict[str, Any] = {}
    for function in reversed(functions):
        try:
            found |= get_type_hints(function)
        except (NameError, TypeError, AttributeError):  # an annotation that only a type checker can resolve
            continue
    return found


def _members(hint: Any) -> Iterator[Any]:
    """The types and the literal values that a hint allows, in plain types."""
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    elif get_args(hint) and get_origin(hint) not in (list, tuple, dict):
        for part in get_args(hint):
            yield from _members(part)
    else:
        yield get_origin(hint) or hint


def _is(value: Any, kind: Any) -> bool:
    """Whether ``value`` is of the type, or is the literal value, ``kind``."""
    if kind in (None, NoneType):
        return value is None
    try:
        return isinstance(value, kind) if isinstance(kind, type) else bool(value == kind)
    except TypeError:  # Any, or a protocol
        return True
