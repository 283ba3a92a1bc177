"""What kind of value a key of a config takes, by an annotation, and what to say of another.

The fields of a corpus are checked here, but for numbers: the class knows their range. The arguments of other parts are
checked by :mod:`attnspan.config.argument_kinds`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from attnspan.errors import SettingError

FilePath = Annotated[str, "a path"]
ColumnName = Annotated[str, "the name of a column"]
ColumnNames = Annotated[Sequence[str], "a list of names, as in [word,phones]"]
Range = Annotated[Sequence[int], "[shortest, longest]"]

_WORDS = {
    str: "a name", bool: "true or false", int: "a whole number", float: "a number", NoneType: "null", None: "null",
}  # fmt: skip
_LISTS = (list, tuple, Sequence, Collection, Iterable)
_MAPPINGS = (dict, Mapping)
_KNOWN_PACKAGES = ("attnspan", "torch", "lightning")
"""No value of YAML is an object of one of their classes."""


def check_kinds(corpus: Any, left_out: Sequence[str]) -> None:
    """Check the fields of a dataclass against their annotations, numbers left out.

    A description in the annotation, as in ``Annotated[str, "a path"]``, is part of the message.

    Args:
        corpus: the dataclass.
        left_out: names of fields that may hold anything.

    Raises:
        SettingError: the first field that holds another kind of value.
    """
    try:
        hints = get_type_hints(type(corpus), include_extras=True)
    except (NameError, TypeError):  # a user's annotation that only a type checker can resolve
        return
    for one in fields(corpus):
        value, hint = getattr(corpus, one.name), hints[one.name]
        if one.name in left_out or _is_number(hint) or fits(value, hint):
            continue
        quotes = ""
        if isinstance(value, bool | int | float) and fits(str(value), hint):
            quotes = f"; as a name it needs quotes, as in \"data.{one.name}='{shown(value)}'\""
        raise SettingError(one.name, f"must be {in_words(hint)}, not {shown(value)}{quotes}")


def fits(value: Any, hint: Any) -> bool:
    """Whether an annotation allows a value of a config.

    A whole number is a number, true is no number, and a list is a tuple. What cannot be judged is allowed: a class of
    the user's may take a word for a path, or a mapping for settings of its own.
    """
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        return fits(value, arguments[0])
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in arguments)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if origin in (int, float):
        return not isinstance(value, bool) and isinstance(value, int if origin is int else (int, float))
    if origin in (str, bool, NoneType, None):
        return value is None if origin in (NoneType, None) else isinstance(value, origin)
    if origin in _LISTS:
        return isinstance(value, Sequence) and not isinstance(value, str) and _members_fit(value, origin, arguments)
    if origin in _MAPPINGS:
        return isinstance(value, Mapping)
    if origin is Callable or getattr(origin, "_is_protocol", False):
        return callable(value)
    if isinstance(origin, type) and origin.__module__.partition(".")[0] in _KNOWN_PACKAGES:
        return isinstance(value, origin)
    return True


def _members_fit(value: Sequence[Any], origin: Any, arguments: tuple[Any, ...]) -> bool:
    if origin is tuple and arguments and arguments[-1] is not ...:
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    return all(fits(part, arguments[0]) for part in value) if arguments else True


def _is_number(hint: Any) -> bool:
    return {*(get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,))} <= {int, float, NoneType}


def in_words(hint: Any) -> str:
    """What an annotation allows, as in ``null or a number``."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        return str(arguments[1]) if isinstance(arguments[1], str) else in_words(arguments[0])
    if origin in (Union, UnionType):
        parts = sorted(arguments, key=lambda part: part is not NoneType)
        words = list(dict.fromkeys(in_words(part) for part in parts if not _is_object(part) or len(parts) == 1))
        return " or ".join(word for word in words if word != "a whole number" or "a number" not in words)
    if origin is Literal:
        return " or ".join(map(shown, arguments))
    if origin in _LISTS:
        return _list_in_words(origin, arguments)
    if origin in _MAPPINGS:
        return "a mapping"
    return _WORDS.get(origin, "a part, a mapping with _target_")


def _list_in_words(origin: Any, arguments: tuple[Any, ...]) -> str:
    if origin is tuple and arguments and arguments[-1] is not ...:
        return f"a list, [{', '.join(map(in_words, arguments))}]"
    return f"a list, each of it {in_words(arguments[0])}" if arguments else "a list"


def _is_object(hint: Any) -> bool:
    """Whether it is a class of which no value of YAML is, such as a tensor."""
    return isinstance(hint, type) and hint not in _WORDS and hint.__module__ != "builtins"


def shown(value: Any) -> str:
    """A value as YAML has it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
