"""Records: one row per test example of one run. They are the only thing that a study reads.

A new measure of the free-running hypothesis is one field of :class:`Record`, with the function that computes it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rapidfuzz.distance import Levenshtein

from attnspan.errors import InputError
from attnspan.files import write_atomically

Tokens = Sequence[Hashable]

REPEATS = 4
"""An n-gram that stands this many times in a row, or more, counts as a loop."""
LONGEST_LOOP = 8
"""The longest n-gram that is checked for loops."""


def edit_distance(hypothesis: Tokens, reference: Tokens) -> int:
    """Levenshtein distance: the least number of insertions, deletions and substitutions, each costing 1."""
    return int(Levenshtein.distance(hypothesis, reference))


def is_empty(hypothesis: Tokens, reference: Tokens) -> bool:
    """Whether the hypothesis has no token."""
    return not hypothesis


def longest_loop(tokens: Tokens) -> int:
    """How often the most repeated n-gram (n up to ``LONGEST_LOOP``) stands in a row; 1 where nothing repeats."""
    most = 1
    for n in range(1, min(LONGEST_LOOP, len(tokens) // 2) + 1):
        same = 0  # tokens in a row that equal the one n before
        for a, b in zip(tokens[n:], tokens, strict=False):
            same = same + 1 if a == b else 0
            most = max(most, same // n + 1)
    return most


def is_repeating(hypothesis: Tokens, reference: Tokens) -> bool:
    """Whether an n-gram stands ``REPEATS`` times or more in a row, and more often than any does in the reference."""
    loop = longest_loop(hypothesis)
    return loop >= REPEATS and loop > longest_loop(reference)


def scored_tokens(tokens: Tokens, given: Collection[int]) -> list[Hashable]:
    """The tokens at positions that are not ``given``."""
    return [token for position, token in enumerate(tokens) if position not in given]


def score_hypothesis(hypothesis: Tokens, reference: Tokens, given: Collection[int] = ()) -> dict[str, Any]:
    """The columns of :class:`Record` that are computed from the tokens of a hypothesis and its reference.

    The tokens at positions ``given`` are left out on both sides.
    """
    written, expected = (scored_tokens(tokens, given) for tokens in (hypothesis, reference))
    scored = [column for column in fields(Record) if "score" in column.metadata]
    return {column.name: column.metadata["score"](written, expected) for column in scored}


@dataclass(frozen=True, kw_only=True)
class Record:
    """The result of one run on one test example. Lengths and edits are in tokens, without ``<eos>`` unless stated.

    Teacher-forced: every token is predicted from the preceding tokens of the reference, not of the hypothesis.
    """

    run_id: str
    arm: str
    data: str
    seed: int
    example_id: str
    source_length: int
    target_length: int
    """Tokens of the reference, given ones among them."""
    scored_length: int
    """Tokens of the reference that ``edits`` counts: those that are not given. In older records all are."""
    nll: float
    """Teacher-forced negative log-likelihood of the reference in nats, summed over ``target_tokens`` tokens."""
    target_tokens: int
    """The tokens that ``nll`` and ``tokens_correct`` count: of the reference those that are not given, and its
    ``<eos>``, if training has it."""
    tokens_correct: int
    """Teacher-forced: how many of ``target_tokens`` the model ranks first."""
    exact_match: bool
    """The free-running hypothesis equals the reference, token by token, and was not truncated."""
    edits: int = field(metadata={"score": edit_distance})
    """Levenshtein distance of the free-running hypothesis to the reference, in tokens."""
    empty: bool = field(metadata={"score": is_empty})
    """The hypothesis has no token."""
    truncated: bool
    """The hypothesis reached the length limit without ``<eos>``."""
    repeating: bool = field(metadata={"score": is_repeating})
    """The hypothesis loops where the reference does not, see :func:`is_repeating`."""
    source: str
    hypothesis: str
    reference: str
    hypothesis_length: int | None = None
    """Tokens of the free-running hypothesis, given ones among them. Null in the records of older runs."""
    given: list[int] | None = None
    """Positions of the reference, from 0, whose tokens were given to the decoder. They are in no measure of output or
    attention.

    Null where the data gives none.
    """
    oracle_hypothesis: str | None = None
    """Decoded with the length of the reference given: ``<eos>`` forbidden before it and forced at it.

    Null, like the two columns below, where ``oracle_length`` did not ask for it.
    """
    oracle_edits: int | None = None
    """Levenshtein distance of ``oracle_hypothesis`` to the reference, in tokens."""
    oracle_exact_match: bool | None = None
    """``oracle_hypothesis`` equals the reference, token by token."""
    attention_entropy: list[float | None] | None = None
    """Teacher-forced: entropy in nats of the attention for each reference token, without ``<eos>``.

    Null, like the columns below, where an arm has no attention. A token whose weights are all 0 has a null in its list,
    and in the lists below as well one that was given.
    """
    attention_support: list[float | None] | None = None
    """Teacher-forced: how many source positions have any weight, for each reference token. Null in older records."""
    gold_attention: list[float | None] | None = None
    """Teacher-forced: attention mass on the sure gold source positions of each reference token.

    Null, like the columns below, where no gold alignment is known. A token without a sure link has a null in its list.
    """
    links: int | None = None
    """|A|, the links of teacher-forced attention: from each reference token to the source token of largest weight."""
    gold_links: int | None = None
    """|S|, the sure gold links."""
    links_in_sure: int | None = None
    """|A n S|, see :func:`attnspan.analysis.alignment.alignment_errors`."""
    links_in_possible: int | None = None
    """|A n P|, where P contains S."""


_ARROW = {
    "str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(),
    "list[float | None]": pa.list_(pa.float32()), "list[int]": pa.list_(pa.int32()),
}  # fmt: skip


def schema_of(record: type[Record]) -> pa.Schema:
    """The columns of ``records.parquet``."""
    kinds = {column.name: str(column.type) for column in fields(record)}
    return pa.schema(
        pa.field(name, _ARROW[kind.removesuffix(" | None")], kind.endswith(" | None")) for name, kind in kinds.items()
    )


SCHEMA = schema_of(Record)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write ``records`` as one parquet file, completely or not at all."""
    table = pa.Table.from_pylist([asdict(record) for record in records], schema=SCHEMA)
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression="zstd")
    write_atomically(path, memoryview(content.getvalue()))


def read_records(path: Path) -> pd.DataFrame:
    """Read the records of one run, one row per example; a column that older runs do not have is null.

    Raises:
        InputError: the file is missing, is not a complete parquet file, lacks a column or has no rows; a column has
            the wrong type, or a null or NaN that :class:`Record` does not allow.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a whole parquet file ({str(error).splitlines()[0]})") from error
    if "scored_length" not in table.column_names and "target_length" in table.column_names:
        table = table.append_column("scored_length", table["target_length"])
    absent = [column for column in SCHEMA if column.name not in table.column_names]
    missing = [column.name for column in absent if not column.nullable]
    if missing:
        raise InputError(f"{path}: column '{missing[0]}' is missing; there are {', '.join(table.column_names)}")
    for column in absent:
        table = table.append_column(column, pa.nulls(table.num_rows, column.type))
    if table.num_rows == 0:
        raise InputError(f"{path}: holds no record")
    for expected in SCHEMA:
        column = table.column(expected.name)
        try:
            column = column.cast(expected.type)
        except (pa.ArrowException, ValueError) as error:
            raise InputError(f"{path}: column '{expected.name}' is {column.type}, not {expected.type}") from error
        if pa.types.is_list(expected.type) and pc.all(pc.is_finite(pc.list_flatten(column))).as_py() is False:
            raise InputError(f"{path}: column '{expected.name}' holds numbers that are not finite")
        if not expected.nullable and column.null_count:
            row = pc.index(pc.is_null(column), True).as_py()
            raise InputError(f"{path}: row {row}, column '{expected.name}' is null ({column.null_count} such rows)")
    return table.select(SCHEMA.names).to_pandas()
