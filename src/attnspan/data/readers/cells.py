"""The strict check of a user's table: two columns of text, and nothing but text in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from attnspan.errors import BadRowError, InputError, nearest


def text_cell(row: Mapping[str, Any], column: str, where: str) -> str:
    """The text in ``column`` of ``row``.

    Args:
        row: column to cell.
        column: a name, or a dotted path into nested columns (``translation.en``).
        where: names the row in an error.

    Raises:
        InputError: there is no such column.
        BadRowError: its cell is null, empty or not text.
    """
    cell = _find(row, column, where)
    if cell is None:
        raise BadRowError(f"{where}: column '{column}' is null")
    if not isinstance(cell, str):
        raise BadRowError(f"{where}: column '{column}' holds no text but {_kind(cell)}: {_short(cell)}")
    if not cell.strip():
        raise BadRowError(f"{where}: column '{column}' is empty")
    if not cell.isascii():
        try:
            cell.encode()
        except UnicodeEncodeError:
            raise BadRowError(f"{where}: column '{column}' holds half a surrogate pair: {_short(cell)}") from None
    return cell


def check_columns(known: Iterable[str], wanted: Iterable[str], where: str) -> None:
    """Refuse a table that lacks a column of ``wanted``.

    Raises:
        InputError: names the column, and those that there are.
    """
    known = list(known)
    for column in wanted:
        if column not in known:
            raise InputError(f"{where}: there is no column '{column}'; {nearest(column, known)}")


def check_schema(schema: pa.Schema, wanted: Iterable[str], where: str) -> list[str]:
    """The top-level columns of ``schema`` that ``wanted`` lead into.

    Raises:
        InputError: names a column that is not there, and those that are.
    """
    wanted = list(wanted)
    nested = [column for column in wanted if column not in schema.names]
    check_columns(_schema_leaves(schema), nested, where)
    return sorted({column.split(".")[0] if column in nested else column for column in wanted})


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


def _find(row: Mapping[str, Any], column: str, where: str) -> Any:
    if column in row:  # a plain name, which may have a dot in it
        return row[column]
    cell: Any = row
    for name in column.split("."):
        if cell is None:  # a null struct: all that it would hold is null
            return None
        if not isinstance(cell, Mapping) or name not in cell:
            check_columns(_leaves(row), [column], where)
            return cell  # an empty struct at the end of the path
        cell = cell[name]
    return cell


def _kind(cell: Any) -> str:
    kinds = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(cell), f"a {type(cell).__name__}")


def _short(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:37]}..."
