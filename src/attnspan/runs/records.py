"""Records: one row per test example of one run. They are the only thing that a study reads."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rapidfuzz.distance import Levenshtein

from attnspan.errors import InputError
from attnspan.files import write_whole


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one run did on one test example. Lengths and edits are in tokens; ``<eos>`` counts only where said.

    Teacher-forced means that every token is predicted from the reference's own tokens before it, not from the
    hypothesis's.
    """

    run_id: str
    arm: str
    data: str
    seed: int
    example_id: str
    source_length: int
    target_length: int
    nll: float
    """Teacher-forced negative log-likelihood of the reference in nats, summed over ``target_tokens`` tokens."""
    target_tokens: int
    """Tokens that ``nll`` and ``tokens_correct`` count: the reference and its ``<eos>``."""
    tokens_correct: int
    """Teacher-forced: how many of ``target_tokens`` the model ranks first."""
    exact_match: bool
    """The free-running hypothesis is the reference, token by token."""
    edits: int
    """Levenshtein distance of the free-running hypothesis to the reference, in tokens."""
    empty: bool
    """The hypothesis has no token."""
    truncated: bool
    """The hypothesis reached the length limit without ``<eos>``."""
    repeating: bool
    """The hypothesis loops where the reference does not, see :func:`attnspan.runs.records.is_repeating`."""
    source: str
    hypothesis: str
    reference: str
    attention_entropy: list[float | None] | None = None
    """Teacher-forced: entropy in nats of the attention by which each reference token is predicted (<eos> is none).

    Null where an arm has no attention, as the columns that follow, and for a token at which all weights are 0.
    """
    gold_attention: list[float | None] | None = None
    """Teacher-forced: mass of the attention on the sure gold source positions of each reference token.

    Null where no gold alignment is known, as the columns that follow, and for a token without a sure link.
    """
    links: int | None = None
    """|A|, the links of teacher-forced attention: from each reference token to the source token of largest weight."""
    gold_links: int | None = None
    """|S|, the sure gold links."""
    links_in_sure: int | None = None
    """|A n S|, see :func:`attnspan.analysis.alignment.alignment_errors`."""
    links_in_possible: int | None = None
    """|A n P|: sure gold links are possible too."""


_ARROW = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "list[float | None]": pa.list_(pa.float32()),
}


def _field(name: str, kind: str) -> pa.Field:
    return pa.field(name, _ARROW[kind.removesuffix(" | None")], nullable=kind.endswith(" | None"))


SCHEMA = pa.schema([_field(field.name, str(field.type)) for field in fields(Record)])


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write ``records`` as parquet, whole or not at all."""
    table = pa.Table.from_pylist([asdict(record) for record in records], schema=SCHEMA)
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression="zstd")
    write_whole(path, memoryview(content.getvalue()))


def read_records(path: Path) -> pd.DataFrame:
    """Read the records of one run, one row an example.

    Raises:
        InputError: the file is missing, is no whole parquet file, lacks a column or holds no row; a column is of
            another type, or has a null or a NaN where :class:`Record` has none.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a whole parquet file ({str(error).splitlines()[0]})") from error
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise InputError(f"{path}: column '{missing[0]}' is missing; there are {', '.join(table.column_names)}")
    if table.num_rows == 0:
        raise InputError(f"{path}: holds no record")
    for field in SCHEMA:
        column = table.column(field.name)
        try:
            column = column.cast(field.type)
        except (pa.ArrowException, ValueError) as error:
            raise InputError(f"{path}: column '{field.name}' is {column.type}, not {field.type}") from error
        if pa.types.is_list(field.type) and pc.all(pc.is_finite(pc.list_flatten(column))).as_py() is False:
            raise InputError(f"{path}: column '{field.name}' holds numbers that are not finite")
        if not field.nullable and column.null_count:
            row = pc.index(pc.is_null(column), True).as_py()
            raise InputError(f"{path}: row {row}, column '{field.name}' is null ({column.null_count} such rows)")
    return table.select(SCHEMA.names).to_pandas()


REPEATS = 4
"""So many times in a row must something stand to count as a loop."""


LONGEST_LOOP = 8
"""Loops of up to so many tokens are looked for."""


def edits(hypothesis: Sequence[Hashable], reference: Sequence[Hashable]) -> int:
    """Levenshtein distance: the least number of insertions, deletions and substitutions, each costing 1."""
    return int(Levenshtein.distance(hypothesis, reference))


def longest_loop(tokens: Sequence[Hashable]) -> int:
    """How many times the most repeated n-gram (n up to ``LONGEST_LOOP``) stands in a row; 1 where nothing repeats."""
    most = 1
    for n in range(1, min(LONGEST_LOOP, len(tokens) // 2) + 1):
        same = 0  # tokens in a row that equal the one n before
        for a, b in zip(tokens[n:], tokens, strict=False):
            same = same + 1 if a == b else 0
            most = max(most, same // n + 1)
    return most


def is_repeating(hypothesis: Sequence[Hashable], reference: Sequence[Hashable]) -> bool:
    """Whether the hypothesis says something ``REPEATS`` times or more in a row, and oftener than the reference does."""
    loop = longest_loop(hypothesis)
    return loop >= REPEATS and loop > longest_loop(reference)
