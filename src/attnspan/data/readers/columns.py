"""Checks of a user's table: the required columns exist and hold nothing but text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from attnspan.data.white_space import strip
from attnspan.errors import BadRowError, InputError, nearest

READ_IMAGES = "data=image_files reads images of yours, and data=hub_images those of a dataset in the hub's layout"


def text_cell(row: Mapping[str, Any], column: str, location: str) -> str:
    """The text in ``column`` of ``row``.

    Args:
        row: cells by column.
        column: a name, or a dotted path into nested columns (``translation.en``).
        location: of the row, for error messages.

    Raises:
        InputError: there is no such column.
        BadRowError: the cell is null, empty or not text.
    """
    cell = _find(row, column, location)
    if cell is None:
        raise BadRowError(f"{location}: column '{column}' is null")
    if isinstance(cell, bytes) or (isinstance(cell, Mapping) and set(cell) == {"bytes", "path"}):
        raise BadRowError(f"{location}: column '{column}' holds an image instead of text; {READ_IMAGES}")
    if not isinstance(cell, str):
        raise BadRowError(f"{location}: column '{column}' holds {_type_name(cell)} instead of text: {_short(cell)}")
    if not strip(cell):
        raise BadRowError(f"{location}: column '{column}' is empty")
    if not cell.isascii():
        try:
            cell.encode()
        except UnicodeEncodeError:
            raise BadRowError(f"{location}: column '{column}' holds an unpaired surrogate: {_short(cell)}") from None
    return cell


def check_columns(known: Iterable[str], required: Iterable[str], location: str) -> None:
    """Check that a table has the required columns.

    Raises:
        InputError: one is missing; names it and the known ones.
    """
    known = list(known)
    for column in required:
        if column not in known:
            raise InputError(f"{location}: there is no column '{column}'; {nearest(column, known)}")


def top_level_columns(schema: pa.Schema, required: Iterable[str], location: str) -> list[str]:
    """The top-level columns of ``schema`` that hold the required, possibly nested, columns.

    Raises:
        InputError: a required column is missing, or two have its name; names it and the known ones.
    """
    required = list(required)
    for column in required:
        if (count := schema.names.count(column)) > 1:
            raise InputError(f"{location}: column '{column}' occurs {count} times")
    nested = [column for column in required if column not in schema.names]
    check_columns(_schema_leaves(schema), nested, location)
    return sorted({column.split(".")[0] if column in nested else column for column in required})


def _schema_leaves(fields: Iterable[pa.Field], prefix: str = "") -> Iterator[str]:
    """The dotted path of every column of a schema."""
    for field in fields:
        if pa.types.is_struct(field.type):
            inner = [field.type.field(i) for i in range(field.type.num_fields)]
            yield from _schema_leaves(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def _leaves(row: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted path of every cell of ``row``."""
    for name, cell in row.items():
        if isinstance(cell, Mapping) and cell:
            yield from _leaves(cell, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _find(row: Mapping[str, Any], column: str, location: str) -> Any:
    if column in row:  # a name may contain a dot
        return row[column]
    cell: Any = row
    for name in column.split("."):
        if cell is None:  # everything in a null struct is null
            return None
        if not isinstance(cell, Mapping) or name not in cell:
            check_columns(_leaves(row), [column], location)
            return cell  # the path ends at an empty struct
        cell = cell[name]
    return cell


def _type_name(cell: Any) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(cell), f"a {type(cell).__name__}")


def _short(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:37]}..."
