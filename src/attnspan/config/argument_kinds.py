"""The kinds of the arguments that a config gives a class, whoever's class it is, by the annotations of its constructor.

Our own classes say more of their arguments, such as a range, and say it first. This is for what they leave open, and
for classes of torch, of Lightning and of the user: ``no`` for a switch, which would count as true, or a word for a
number.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from attnspan.data.corpora.kinds import fits, in_words, shown
from attnspan.errors import SettingError


def check_argument_kinds(target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Check the ``arguments`` of ``target`` against its annotations; an argument's default may always be given.

    Raises:
        SettingError: the first that is of a wrong kind.
    """
    hints, defaults = _hints(target), _defaults(target)
    for name, value in arguments.items():
        if name in hints and not fits(value, hints[name]) and not (name in defaults and value is defaults[name]):
            raise SettingError(name, f"must be {in_words(hints[name])}, not {shown(value)}")


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
            found |= get_type_hints(function, include_extras=True)
        except (NameError, TypeError, AttributeError):  # an annotation that only a type checker can resolve
            continue
    return found


def _defaults(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # a class written in C may have none
        return {}
    return {name: one.default for name, one in parameters.items() if one.default is not one.empty}
