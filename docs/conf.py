"""The documentation: pages in Markdown, and a reference that is generated from conf/, the schema and the docstrings.

``make docs`` builds it without a network. Warnings are errors, so a link, an anchor or a Python name that is not there
fails the build.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generated_pages  # noqa: E402

import attnspan  # noqa: E402

project = "attnspan"
author = "the authors of attnspan"
version = release = attnspan.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
source_suffix = {".md": "markdown"}
exclude_patterns = [
    "_build",
    "_generated",
    "decisions",
    "results/**/report.md",
    "results/**/table.md",
    "results/published.md",
    "results/**/notes.md",
    "benchmarks/NOTES.md",
]
suppress_warnings = ["myst.xref_ambiguous"]

html_theme = "furo"
html_title = "attnspan"
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["attnspan.css"]
html_theme_options = {"navigation_with_keys": True}
math_number_all = False
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
nitpick_ignore_regex = [(r"py:.*", r"(?!attnspan\.).*")]  # other packages' names: no network to look them up


def setup(app: Sphinx) -> None:
    """Write the generated part of the reference before pages are read; render equations as MathML."""
    app.connect("builder-inited", lambda app: generated_pages.write(HERE / "_generated"))
    app.add_html_math_renderer("mathml", (inline_math, None), (displayed_math, None))
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)  # before napoleon
    app.connect("missing-reference", name_without_a_page)


def inline_math(writer: HTML5Translator, node: nodes.math) -> None:
    """Browsers draw MathML themselves, where Sphinx's own renderers fetch a script or call LaTeX."""
    writer.body.append(as_mathml(node, as_block=False))
    raise nodes.SkipNode


def displayed_math(writer: HTML5Translator, node: nodes.math_block) -> None:
    """As :func:`inline_math`, on lines of its own."""
    writer.body.append(as_mathml(node, as_block=True))
    raise nodes.SkipNode


def as_mathml(node: nodes.Element, *, as_block: bool) -> str:
    """The equation; what docutils does not know is a warning that names the page and the line."""
    try:
        return str(tex2mathml(node.astext().replace(r"\dots", r"\ldots"), as_block=as_block))
    except MathError as error:
        logging.getLogger(__name__).warning("%s in the equation %s", error, node.astext(), location=node)
        return ""


def as_restructured_text(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Make of a docstring what Sphinx reads as it is meant: equations have stars, bars and underscores."""
    text = "\n".join(lines)
    text = re.sub(r"^( *)Args, besides (.*):$", r"\1Besides \2:\n\n\1Args:", text, flags=re.MULTILINE)
    parts = re.split(r"(``.+?``|:\w+:`.+?`|::\n(?:\n| +.*\n?)+)", text, flags=re.DOTALL)
    parts[::2] = [re.sub(r"([|*]|_(?!\w))", r"\\\1", part) for part in parts[::2]]
    lines[:] = "".join(parts).split("\n")


def name_without_a_page(app: Sphinx, env: object, node: nodes.Element, content: nodes.Element) -> nodes.Element | None:
    """A name of attnspan's that is not in the reference is text; one that does not exist is a warning."""
    target = str(node.get("reftarget"))
    if node.get("refdomain") != "py" or not target.startswith("attnspan."):
        return None
    parts = target.split(".")
    for at in range(len(parts), 0, -1):
        with contextlib.suppress(ImportError, AttributeError):
            found = importlib.import_module(".".join(parts[:at]))
            for part in parts[at:]:
                found = getattr(found, part)
            return content
    return None
