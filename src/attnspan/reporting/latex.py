"""Tables for papers: LaTeX that fits one column of text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attnspan.analysis.study import AT_CHANCE, IMPROVING
from attnspan.reporting.formatting import number
from attnspan.reporting.tables import Row, Table

COLUMN = 345
"""Points, the width of LaTeX's article class."""
_POINTS, _BETWEEN = 4.3, 6
"""Points of a character in footnotesize, and between two columns."""

_MARKS = {
    IMPROVING: "a run of the arm was still improving when its training ended",
    AT_CHANCE: "a run of the arm ended no better than chance",
}

_INTERVAL = re.compile(r"(−?[\d.]+) \[(−?[\d.]+), (−?[\d.]+)\]")
_GROUPS = re.compile(r"−?[\d.]+ / −?[\d.]+")

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "−": "$-$",
    "–": "--", "±": r"$\pm$", "†": r"\dag{}", "‡": r"\ddag{}",
}  # fmt: skip


def latex(tables: Sequence[Table]) -> str:
    """The content of a file with a ``table`` environment for each table; it needs ``booktabs`` and ``graphicx``.

    A value with its interval stands as value ± half of the interval, the larger half where it was clipped. The caption
    says what the interval is over, and what marks in the table mean. A table that would be wider than a column is
    scaled to it.
    """
    head = "% Made by attnspan-report; \\usepackage{booktabs,graphicx} and \\input{} this file, or copy a table.\n"
    return head + "\n".join(_environment(table, place) for place, table in enumerate(tables, start=1))


def _environment(table: Table, place: int) -> str:
    rows = [Row(tuple(map(_short, row.cells)), row.kind) for row in table.rows]
    widest = [
        max(map(len, cells))
        for cells in zip(table.columns, *(row.cells for row in rows if row.kind != "heading"), strict=True)
    ]
    fits = _POINTS * sum(widest) + _BETWEEN * len(widest) <= COLUMN
    lines = [
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{_escape('; '.join([table.caption, *_notes(table, rows)]))}.}}",
        rf"\label{{tab:{_label(table.caption)}-{place}}}",
        *([] if fits else [r"\resizebox{\columnwidth}{!}{%"]),
        *_tabular(table, rows),
        *([] if fits else ["}"]),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _notes(table: Table, rows: Sequence[Row]) -> list[str]:
    """What a reader of the table alone must be told: what ± is, and what its marks are."""
    cells = [*table.columns, *(cell for row in rows for cell in row.cells)]
    kind = f"95% interval {table.interval}".rstrip()
    half = [f"± is half of the {kind}"] if any("±" in cell for cell in cells) else []
    whole = [f"the {kind}"] if not half and table.interval and any("interval" in name for name in table.columns) else []
    in_groups = any(map(_GROUPS.fullmatch, cells))
    groups = ["two numbers are the means of two groups of seeds"] if in_groups else []
    return [
        *half,
        *whole,
        *groups,
        *(f"{mark} {words}" for mark, words in _MARKS.items() if any(mark in cell for cell in cells)),
    ]


def _tabular(table: Table, rows: Sequence[Row]) -> list[str]:
    columns = len(table.columns)
    lines = [
        rf"\begin{{tabular}}{{{'l' * table.labels}{'r' * (columns - table.labels)}}}",
        r"\toprule",
        " & ".join(map(_escape, table.columns)) + r" \\",
    ]
    for row in rows:
        if row.kind == "heading":
            lines += [r"\midrule", rf"\multicolumn{{{columns}}}{{l}}{{\textit{{{_escape(row.cells[0])}}}}} \\"]
        else:
            if row is rows[0]:
                lines.append(r"\midrule")
            lines.append(" & ".join(map(_escape, row.cells)) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _short(cell: str) -> str:
    """``0.712 [0.690, 0.734]`` as ``0.712 ± 0.022``."""
    match = _INTERVAL.fullmatch(cell)
    if match is None:
        return cell
    value, low, high = (float(one.replace("−", "-")) for one in match.groups())
    digits = len(match[1].partition(".")[2])
    return f"{match[1]} ± {number(max(high - value, value - low), digits)}"


def _label(caption: str) -> str:
    return "-".join(re.findall("[a-z]+", caption.lower())[:4])


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in text)
