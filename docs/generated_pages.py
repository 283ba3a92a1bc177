"""The parts of the reference that are made from the code: config keys, commands, columns, metrics."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

from config_reference import configuration
from docstrings import field_docs, prose
from markdown import escaped, table

ROOT = Path(__file__).parents[1]


def write(directory: Path) -> None:
    """Write all parts; pages include them."""
    directory.mkdir(exist_ok=True)
    parts = {
        "configuration": configuration(),
        "commands": commands(),
        "records": record_columns(),
        "summary": summary_keys(),
        "metrics": metrics(),
        "results": results(),
    }
    for name, text in parts.items():
        path = directory / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:  # an unchanged page is not built again
            path.write_text(text, encoding="utf-8")


def commands() -> str:
    """What ``--help`` prints, for every command."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = []
    for name, entry in project["scripts"].items():
        found.append(f"## {name}\n\n```text\n{help_of(entry).rstrip()}\n```\n")
    return "\n".join(found)


def help_of(entry: str) -> str:
    """What the command at ``module:function`` prints for ``--help``."""
    module, _, function = entry.partition(":")
    out, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            main = getattr(importlib.import_module(module), function)
            arguments(main)
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return re.sub(r"[ \t]+$", "", out.getvalue(), flags=re.MULTILINE)


def arguments(main: object) -> None:
    """Call ``main`` as from the shell with ``--help``: some commands take no arguments but those of the process."""
    before, sys.argv = sys.argv, ["", "--help"]
    try:
        main()  # type: ignore[operator]
    finally:
        sys.argv = before


def record_columns() -> str:
    """The columns of records.parquet."""
    from attnspan.runs.records import Record

    docs = {name: words for name, (words, _) in field_docs(Record).items()}
    plain = {
        "run_id": "The run.", "arm": "Its arm.", "data": "Its data, by ``data_name``.", "seed": "Its seed.",
        "example_id": "The test example, the same in every run on the same data.",
        "source_length": "Tokens of the source.", "target_length": "Tokens of the reference, without ``<eos>``.",
        "source": "The source, as text.", "hypothesis": "The free-running hypothesis, as text.",
        "reference": "The reference, as text.",
    }  # fmt: skip
    rows = [
        (
            f"`{one.name}`",
            escaped(str(one.type).replace(" | None", ", or null")),
            prose(docs.get(one.name) or plain[one.name]),
        )
        for one in fields(Record)
    ]
    return table(("column", "type", "meaning"), rows)


def summary_keys() -> str:
    """The keys of summary.json, from the comments beside them."""
    from attnspan.runs import summary

    source = Path(summary.__file__).read_text(encoding="utf-8")
    body = source.partition("class Summary(TypedDict):")[2].partition("\n\n\n")[0]
    keys = re.findall(r"^    (\w+): ([^#\n]+?)(?:  # (.*))?$", body, flags=re.MULTILINE)
    rows = [(f"`{key}`", escaped(kind.replace(" | None", ", or null")), escaped(words)) for key, kind, words in keys]
    return table(("key", "type", "meaning"), rows)


def results() -> str:
    """RESULTS.md. Its links name pages of the site: as paths they would lead through links of files."""
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]+)\]\(((?:results|benchmarks)/[\w/]+)\.md\)", r"{doc}`\1 </\2>`", text)


def metrics() -> str:
    """The metrics of a report."""
    from attnspan.analysis.metrics import METRICS

    rows = [
        (f"`{one.name}`", escaped(one.title), one.better or "neither", ", ".join(f"`{name}`" for name in one.columns))
        for one in METRICS
    ]
    return table(("metric", "what it is", "better", "columns of the records"), rows)
