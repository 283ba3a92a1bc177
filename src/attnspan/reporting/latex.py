"""Tables in LaTeX, with booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from attnspan.reporting.tables import Table

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "−": "$-$",
    "–": "--",
}  # fmt: skip


def latex(tables: Sequence[Table]) -> str:
    """The content of a file with a ``table`` environment for each table; it needs ``\\usepackage{booktabs}``."""
    head = "% Made by attnspan-report; \\usepackage{booktabs} and \\input{} this file, or copy a table out of it.\n"
    return head + "\n".join(_environment(table) for table in tables)


def _environment(table: Table) -> str:
    columns = len(table.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape(table.caption)}.}}",
        rf"\begin{{tabular}}{{{'l' * table.labels}{'r' * (columns - table.labels)}}}",
        r"\toprule",
        " & ".join(map(_escape, table.columns)) + r" \\",
    ]
    for row in table.rows:
        if row.kind == "heading":
            lines += [r"\midrule", rf"\multicolumn{{{columns}}}{{l}}{{\textit{{{_escape(row.cells[0])}}}}} \\"]
        else:
            if row is table.rows[0]:
                lines.append(r"\midrule")
            lines.append(" & ".join(map(_escape, row.cells)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in text)
