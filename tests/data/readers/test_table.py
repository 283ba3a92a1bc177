"""Valid and invalid tables, read through a corpus of files."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.files import Files
from attnspan.data.pipeline.prepare import PreparedData
from attnspan.data.readers.table import count_rows, read_table
from attnspan.data.readers.table_file import TableFile
from attnspan.errors import InputError

Make = Callable[..., Files]
Ready = Callable[[Corpus], PreparedData]
REQUIRED = ("source", "target")


def parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def arrow(columns: dict[str, Any], *, stream: bool = False) -> bytes:
    """Batches of one row, as a file or as a stream."""
    sink, table = io.BytesIO(), pa.table(columns)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    return sink.getvalue()


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


PAIRS = [("ab", "x y"), ("bä", "y ü")]

GOOD: list[tuple[str, str | bytes, dict[str, Any]]] = [
    ("t.csv", "source,target\nab,x y\nbä,y ü\n", {}),
    ("t.csv", "id,target,source\n1,x y,ab\n2,y ü,bä", {}),
    ("t.csv", "\ufeffsource,target\r\nab,x y\r\nbä,y ü\r\n\r\n", {}),
    ("t.csv", '"source","target"\n"ab","x y"\n"bä","y ü"\n\n\n', {}),
    ("t.csv", "ab,x y\nbä,y ü\n", {"columns": ["source", "target"]}),
    ("t.tsv", "source\ttarget\nab\tx y\nbä\ty ü\n", {}),
    ("t.tsv", "ab\tx y\nbä\ty ü\n", {"columns": ["source", "target"]}),
    ("t.jsonl", lines({"source": "ab", "target": "x y"}, {"n": 1, "target": "y ü", "source": "bä"}), {}),
    ("t.jsonl", "\ufeff" + lines(*({"source": s, "target": t} for s, t in PAIRS)).replace("\n", "\r\n") + "\n", {}),
    (
        "t.jsonl",
        lines(*({"translation": {"en": s, "de": t}} for s, t in PAIRS)),
        {"source": "translation.en", "target": "translation.de"},
    ),
    (
        "t.jsonl",
        lines(*({"a.b": s, "c": {"d": {"e": t}}} for s, t in PAIRS)),
        {"source": "a.b", "target": "c.d.e"},
    ),
    ("t.parquet", parquet({"source": ["ab", "bä"], "other": [1, 2], "target": ["x y", "y ü"]}), {}),
    (
        "t.parquet",
        parquet({"translation": [{"en": s, "de": t} for s, t in PAIRS]}),
        {"source": "translation.en", "target": "translation.de"},
    ),
    ("t.arrow", arrow({"source": ["ab", "bä"], "other": [1, 2], "target": ["x y", "y ü"]}), {}),
    ("t.arrow", arrow({"target": ["x y", "y ü"], "source": ["ab", "bä"]}, stream=True), {}),
    ("t.ndjson", lines(*({"source": s, "target": t} for s, t in PAIRS)), {}),
    ("t.json", lines(*({"source": s, "target": t} for s, t in PAIRS)), {}),
    ("t.json", "\ufeff\n" + json.dumps([{"source": s, "target": t} for s, t in PAIRS], indent=1), {}),
    ("t.csv.gz", gzip.compress("source,target\nab,x y\nbä,y ü\n".encode(), mtime=0), {}),
]


@pytest.mark.parametrize(("name", "content", "changes"), GOOD)
def test_good_files_are_read(
    files: Make, ready: Ready, name: str, content: str | bytes, changes: dict[str, Any]
) -> None:
    prepared = ready(files(**dict.fromkeys(("train", "validation", "test"), (name, content)), **changes))
    assert list(zip(prepared.train["source"], prepared.train["target"], strict=True)) == PAIRS
    assert prepared.test["id"][:] == ["test-00000", "test-00001"]


def test_quoted_cells_may_contain_separators_quotes_and_line_ends(files: Make, ready: Ready) -> None:
    cells = ['say "hi", twice', "two\nlines", "two\r\nlines", " padded "]
    text = io.StringIO()
    csv.writer(text).writerows([REQUIRED, *((cell, "x") for cell in cells)])
    assert ready(files(train=("t.csv", text.getvalue()))).train["source"][:] == cells


def test_without_quoting_a_quote_is_text(files: Make, ready: Ready) -> None:
    raw = 'source\ttarget\n"ab" he said\tx\n"ab"\tx\n'
    with pytest.raises(InputError, match=r"t\.tsv line 2: .* set data\.quotes=false$"):
        ready(files(train=("t.tsv", raw)))
    assert ready(files(train=("t.tsv", raw), quotes=False)).train["source"][:] == ['"ab" he said', '"ab"']


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        # '"ab' swallows two lines; in a csv file this may be meant
        ("t.csv", 'source,target\na,b\n"c,d\ne,f\ng",h\n', "train: the quoted text of lines 3 to 5 is one row"),
        ("t.csv", 'source,target\n"a\nb",c\nd,e\n"f\n\ng",h\n', "train: 2 rows have quoted text of several lines, the"),
        ("t.tsv", 'source\ttarget\n"a\nb"\tc\n', "train: the quoted text of lines 2 to 3 is one row"),
        ("t.csv", 'source,target\n"a ""b""",c\n', ""),
    ],
)
def test_quoted_text_of_several_lines_is_remarked(
    files: Make, ready: Ready, name: str, content: str, words: str
) -> None:
    remarks = ready(files(train=(name, content))).remarks
    assert len(remarks) == bool(words)
    assert "".join(remarks).startswith(words)
    again = ready(files(train=(name, content)))  # from the cache
    assert again.remarks == remarks
    assert set(remarks) <= set(again.warnings())


def test_a_stray_quote_swallows_no_row(files: Make, ready: Ready) -> None:
    """Six lines of a tsv file; the quotes of two of them look like one cell that runs over the lines between."""
    rows = [("a", "b"), ('"c', "d"), ("e", "f"), ("g", "h"), ('i"', "j"), ("k", "l")]
    raw = "source\ttarget\n" + "".join(f"{s}\t{t}\n" for s, t in rows)
    with pytest.raises(InputError, match=r"t\.tsv line 3: .* runs to line 6; .* set data\.quotes=false$"):
        ready(files(train=("t.tsv", raw)))
    train = ready(files(train=("t.tsv", raw), quotes=False)).train
    assert list(zip(train["source"], train["target"], strict=True)) == rows


def test_a_long_cell_is_read(files: Make, ready: Ready) -> None:
    """The csv module by itself stops at 131,072 characters."""
    assert ready(files(train=("t.csv", f"source,target\n{'ab ' * 100_000},x\n"))).train["source"][:] == [
        "ab " * 100_000
    ]


HEADERS = [
    ("t.tsv", "source\ttarget\na\tb\nsource\ttarget\nc\td\n", {}, "row 2 (line 3, the header is line 1): 'source' and"),
    ("t.csv", "Source ,TARGET\na,b\n", {"columns": ["source", "target"]}, "remove the line, or leave out data.columns"),
    ("t.csv", "source,target\na,b\n\ufeffsource,target\n", {}, "row 2 (line 3"),  # cat of two files with a mark
    ("t.jsonl", lines({"source": "source", "target": "target"}), {}, "line 1: 'source' and 'target' are the names"),
    ("t.parquet", parquet({"source": ["a", "source"], "target": ["b", "target"]}), {}, "row 2: 'source' and 'target'"),
    (
        "t.jsonl",
        lines({"t": {"en": "a", "de": "b"}}, {"t": {"en": "en", "de": "de"}}),
        {"source": "t.en", "target": "t.de"},
        "line 2: 'en' and 'de' are the names of the columns: a header; remove the line",
    ),
]


@pytest.mark.parametrize(("name", "content", "changes", "words"), HEADERS)
def test_a_header_among_the_rows_is_no_example(
    files: Make, ready: Ready, name: str, content: str, changes: dict[str, Any], words: str
) -> None:
    given = dict.fromkeys(("train", "validation", "test"), (name, content))
    with pytest.raises(InputError) as error:
        ready(files(**given, **changes))
    assert words in str(error.value)


def test_one_cell_that_is_a_columns_name_is_text(files: Make, ready: Ready) -> None:
    assert ready(files(train=("t.csv", "source,target\nsource,origin\ntarget,source\n"))).train.num_rows == 2


def test_a_file_elsewhere_is_opened_by_its_address() -> None:
    address = "memory://corpus/t.csv.gz"
    MemoryFileSystem().pipe(address, gzip.compress(b"source\n007\n", mtime=0))
    assert [row for _, row in read_table(TableFile(address, "t.csv.gz"), required=["source"])] == [{"source": "007"}]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ".arrow"])
def test_rows_at_the_beginning_are_left_out(tmp_path: Path, ending: str) -> None:
    cells = [str(number) for number in range(10)]
    path = tmp_path / f"t{ending}"
    if ending == ".parquet":
        pq.write_table(pa.table({"source": cells}), path, row_group_size=4)
    elif ending == ".arrow":
        path.write_bytes(arrow({"source": cells}))
    else:
        path.write_text(
            lines(*({"source": cell} for cell in cells)) if ending == ".jsonl" else "\n".join(["source", *cells])
        )
    file = TableFile.at(path)
    assert count_rows(file) == 10
    for first in range(12):
        rows = list(read_table(file, required=["source"], first=first))
        assert [row["source"] for _, row in rows] == cells[first:]
        whole = list(read_table(file, required=["source"]))
        assert rows == whole[first:]  # with their locations


def test_two_columns_of_one_name(files: Make, ready: Ready) -> None:
    table = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], names=["source", "target", "source"]
    )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    with pytest.raises(InputError, match=r"t\.parquet: column 'source' occurs 2 times$"):
        ready(files(train=("t.parquet", sink.getvalue())))


def test_null_words_and_numbers_are_text(files: Make, ready: Ready) -> None:
    cells = ["NA", "null", "None", "nan", "1", "1.50", "true", "007"]
    text = "source,target\n" + "".join(f"{cell},{cell}\n" for cell in cells)
    assert ready(files(train=("t.csv", text))).train["source"][:] == cells


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1), min_size=1, max_size=5))
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_any_text_is_read_as_written(tmp_path: Path, ending: str, cells: list[str]) -> None:
    assume(ending != ".tsv" or not any("\t" in cell and "\n" in cell for cell in cells))  # refused as a stray quote
    path = tmp_path / f"t{ending}"
    if ending == ".jsonl":
        path.write_text(lines(*({"source": cell} for cell in cells)), encoding="utf-8", newline="")
    elif ending == ".parquet":
        path.write_bytes(parquet({"source": cells}))
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if ending == ".tsv" else ",", quoting=csv.QUOTE_ALL)
            writer.writerows([["source"], *([cell] for cell in cells)])
    rows = read_table(TableFile.at(path), required=["source"])
    assert [row["source"] for _, row in rows] == cells


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
HEAD = "source,target\n"

BAD: list[tuple[str, str | bytes | None, str]] = [
    # name and content of the test file, and the expected error
    ("t.csv", None, "data.test: {}: no such file"),
    ("t.csv", "", "data.test: {}: the file is empty"),
    ("t.parquet", "", "data.test: {}: the file is empty"),
    (
        "t.txt",
        "a\tb\n",
        "data.test: {}: unknown file ending '.txt'; did you mean '.tsv'? known: .arrow, .csv, .json, .jsonl,",
    ),
    ("t.jso", "{}", "data.test: {}: unknown file ending '.jso'; did you mean '.json'?"),
    ("t.txt.gz", "a", "data.test: {}: unknown file ending '.txt'; did you mean '.tsv'?"),
    ("t", "a", "data.test: {}: unknown file ending ''; known: .arrow, .csv"),
    ("t.csv.gz", HEAD, "{}: not a complete gzip file (Not a gzipped file"),
    (
        "t.csv.gz",
        gzip.compress(b"source,target\n" + b"".join(b"%d,b\n" % n for n in range(999)), mtime=0)[:-90],
        "{}: not a complete gzip file",
    ),
    ("t.csv", gzip.compress(HEAD.encode(), mtime=0), "data.test: {}: the ending is '.csv', but the content is gzip"),
    ("t.arrow", HEAD, "data.test: {}: the ending is '.arrow', but the content is not"),
    ("t.arrow", arrow({"source": ["a"], "target": ["b"]})[:-300], "{}: not a complete arrow file"),
    ("t.csv", PNG, "data.test: {}: the ending is '.csv', but the content is a PNG image"),
    ("t.jsonl", parquet({"source": ["a"]}), "data.test: {}: the ending is '.jsonl', but the content is a parquet file"),
    ("t.tsv", "source\ttarget\n".encode("utf-16"), "data.test: {}: the ending is '.tsv', but the content is UTF-16"),
    ("t.parquet", HEAD + "a,b\n", "data.test: {}: the ending is '.parquet', but the content is not"),
    ("t.parquet", parquet({"source": ["a"], "target": ["b"]})[:-30], "{}: not a complete parquet file"),
    ("t.parquet", b"PAR1", "{}: not a complete parquet file"),
    # columns
    (
        "t.csv",
        "source,targte\na,b\n",
        "{} line 1, the header: there is no column 'target'; did you mean 'targte'? known: s",
    ),
    (
        "t.csv",
        "src;trg\na;b\n",
        "{} line 1, the header: there is no column 'source'; known: src;trg",
    ),
    ("t.csv", "source,target,source\na,b,c\n", "{} line 1, the header: column 'source' occurs 2 times"),
    ("t.csv", lines({"source": "a", "target": "b"}), "{} line 1: looks like JSON; json lines need the ending '.jsonl'"),
    ("t.tsv", HEAD, "{} line 1, the header: cells are separated by ',', and this file needs tabs, or the ending .csv"),
    (
        "t.csv",
        "source\ttarget\n",
        "{} line 1, the header: cells are separated by tabs, and this file needs ',', or the ending .tsv",
    ),
    ("t.csv", 'source;"target"\n', "{} line 1, the header: cells are separated by ';', and this file needs ','"),
    (
        "t.csv",
        HEAD + "a;b\n",
        "has 1 cell, but there are 2 columns; cells are separated by ';', and this file needs ','",
    ),
    (
        "t.jsonl",
        lines({"source": "a", "goal": {"en": "b"}}),
        "{} line 1: there is no column 'target'; known: goal.en, source",
    ),
    ("t.jsonl", lines({"source": "a", "target": "b"}, {"source": "a"}), "{} line 2: there is no column 'target'"),
    (
        "t.parquet",
        parquet({"source": ["a"], "goal": [{"en": "b"}]}),
        "{}: there is no column 'target'; known: goal.en, source",
    ),
    # rows
    ("t.csv", HEAD, "{}: the test split is empty"),
    ("t.jsonl", "\n", "{}: the test split is empty"),
    (
        "t.parquet",
        parquet({"source": pa.array([], pa.string()), "target": pa.array([], pa.string())}),
        "{}: the test split",
    ),
    ("t.csv", HEAD + "a,b\na,b,c\n", "{} row 2 (line 3, the header is line 1): has 3 cells, but there are 2 columns"),
    ("t.csv", HEAD + '"a\nb",c\na\n', "{} row 2 (line 4, the header is line 1): has 1 cell, but there are 2 columns"),
    ("t.tsv", "source\ttarget\na\tb\tc\n", "{} row 1 (line 2, the header is line 1): has 3 cells, but there are 2"),
    ("t.csv", HEAD + "a,b\n\na,b\n", "{} line 3: the line is blank"),
    ("t.jsonl", lines({"source": "a", "target": "b"}) + "\n" + lines({}), "{} line 2: the line is blank"),
    (
        "t.csv",
        HEAD + 'a,"b\nc,d\n',
        "{} line 2: a cell begins with a quote, and the file ends before the quote that closes it; if",
    ),
    (
        "t.csv",
        HEAD + 'a,"b"c\n',
        "{} line 2: text follows the quote that closes a cell; if quotes are ordinary characters, set",
    ),
    ("t.csv", HEAD + 'a,b\n"' + "c" * 200_000 + "\n", "{} line 3: a cell begins with a quote, and the file ends"),
    ("t.csv", HEAD + "a\rb,c\n", "{} line 2: a carriage return (byte 0x0d) stands inside the line; end lines with"),
    ("t.csv", (HEAD + "a,b\n").replace("\n", "\r"), "{} line 1: a carriage return (byte 0x0d) stands inside the line"),
    (
        "t.jsonl",
        lines({"source": "a", "target": "b"}, {}).replace("\n", "\r"),
        "{} line 1: a carriage return (byte 0x0d) stands inside the line",
    ),
    ("t.tsv", 'source\ttarget\n"a\tb\nc\td"\te\n', "{} line 2: a cell that begins with a quote holds tabs and runs to"),
    ("t.jsonl", "[" + lines({"source": "a"}), "{} line 1: is a JSON array; json lines have one object per line"),
    ("t.jsonl", lines({"source": "a", "target": "b"}) + "garbage\n", "{} line 2: not a JSON object (Expecting value"),
    ("t.jsonl", HEAD + "a,b\n", "{} line 1: not a JSON object"),
    ("t.jsonl", '{"source": "a", "source": "b", "target": "c"}\n', "{} line 1: key 'source' occurs 2 times in one obj"),
    ("t.json", '[{"source": "a", "target": "b"}, 3]', "{} row 2: not a JSON object"),
    ("t.json", '[{"source": "a", "target": "b"}', "{}: not readable as JSON (Expecting ',' delimiter"),
    ("t.json", lines({"source": "a", "target": "b"}, "text"), "{} line 2: not a JSON object"),
    ("t.jsonl", lines("text"), "{} line 1: not a JSON object; json lines have one object per line"),
    ("t.jsonl", "{" * 100_000 + "\n", "{} line 1: not a JSON object"),
    ("t.jsonl", '{"a":' * 100_000 + "\n", "{} line 1: not a JSON object"),
    # cells
    ("t.csv", HEAD + "a,b\n,b\n", "{} row 2 (line 3, the header is line 1): column 'source' is empty"),
    ("t.csv", HEAD + "a,  \n", "{} row 1 (line 2, the header is line 1): column 'target' is empty"),
    ("t.jsonl", lines({"source": "a", "target": None}), "{} line 1: column 'target' is null"),
    ("t.jsonl", lines({"source": 12, "target": "b"}), "{} line 1: column 'source' holds a number instead of text: 12"),
    (
        "t.jsonl",
        lines({"source": "a", "target": ["b"]}),
        "{} line 1: column 'target' holds a list instead of text: ['b']",
    ),
    (
        "t.jsonl",
        lines({"source": True, "target": "b"}),
        "{} line 1: column 'source' holds a boolean instead of text: True",
    ),
    (
        "t.jsonl",
        lines({"source": {"en": "a"}, "target": "b"}),
        "{} line 1: column 'source' holds an object instead of text",
    ),
    ("t.jsonl", '{"source": "\\ud800", "target": "b"}\n', "{} line 1: column 'source' holds an unpaired surrogate"),
    ("t.parquet", parquet({"source": ["a", None], "target": ["b", "b"]}), "{} row 2: column 'source' is null"),
    (
        "t.parquet",
        parquet({"source": [1], "target": ["b"]}),
        "{} row 1: column 'source' holds a number instead of text: 1",
    ),
    ("t.parquet", parquet({"source": ["a", ""], "target": ["b", "b"]}), "{} row 2: column 'source' is empty"),
    # bytes
    ("t.csv", HEAD.encode() + b"a,b\nc,\xff\n", "{} line 3: not valid UTF-8 (byte 3 of the line is 0xff)"),
    ("t.csv", "source,target\ncafé,b\n".encode("latin-1"), "{} line 2: not valid UTF-8 (byte 4 of the line is 0xe9)"),
    ("t.jsonl", lines({"source": "a", "target": "b"}).encode() + b'{"\xe9": 1}\n', "{} line 2: not valid UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD)
def test_bad_files_are_named_in_one_line(
    files: Make, ready: Ready, tmp_path: Path, name: str, content: str | bytes | None, words: str
) -> None:
    with pytest.raises(InputError) as error:
        ready(files(test=(name, content)))
    assert words.format(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_nested_column(files: Make, ready: Ready) -> None:
    names = {"source": "translation.en", "target": "translation.fr"}
    rows = [{"translation": {"en": "a", "de": "b"}, "n": 1}]
    for name, content in (("t.jsonl", lines(*rows)), ("t.parquet", parquet({"translation": [rows[0]["translation"]]}))):
        with pytest.raises(InputError, match=r"no column 'translation\.fr'; did you mean 'translation\."):
            ready(files(train=(name, content), **names))


def test_a_null_object_is_a_null_cell(files: Make, ready: Ready) -> None:
    content = lines({"t": {"en": "a", "de": "b"}}, {"t": None})
    with pytest.raises(InputError, match=r"line 2: column 't\.en' is null"):
        ready(files(train=("t.jsonl", content), source="t.en", target="t.de"))
