"""What kind of value a key of the data takes, by the annotation of its field, and what to say of another.

Numbers are left to the class, which knows their range.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from attnspan.errors import SettingError

FilePath = Annotated[str, "a path"]
ColumnName = Annotated[str, "the name of a column"]
ColumnNames = Annotated[Sequence[str], "a list of names, as in [word,phones]"]
Range = Annotated[Sequence[int], "[shortest, longest]"]

_WORDS = {str: "a name", bool: "true or false", NoneType: "null"}


def check_kinds(corpus: Any, left_out: Sequence[str]) -> None:
    """Check the fields of a dataclass against their annotations, as far as these are of JSON's kinds.

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
        value = getattr(corpus, one.name)
        if one.name in left_out or _fits(value, hints[one.name]):
            continue
        quotes = ""
        if isinstance(value, bool | int | float) and _fits(str(value), hints[one.name]):
            quotes = f"; as a name it needs quotes, as in \"data.{one.name}='{_shown(value)}'\""
        raise SettingError(one.name, f"must be {_words(hints[one.name])}, not {_shown(value)}{quotes}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, arguments[0])
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in arguments)
    if hint in (str, bool, NoneType):
        return isinstance(value, hint)
    if origin is Sequence:
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        return is_list and all(_fits(part, arguments[0]) for part in value)
    return isinstance(value, Mapping) if origin is Mapping else True


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return str(arguments[1])
    if origin in (Union, UnionType):
        return " or ".join(_words(part) for part in sorted(arguments, key=lambda part: part is not NoneType))
    return _WORDS.get(hint, "a mapping" if origin is Mapping else "a list")


def _shown(value: Any) -> str:
    """A value as YAML has it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
