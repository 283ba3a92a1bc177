"""Who may import whom: the house's rules, held against the imports as they are written and as they happen."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import attnspan

PACKAGE = Path(attnspan.__file__).parent
ENTRY_POINTS = {"train", "settings", "build"}  # attnspan-train, and the two that turn configs into things for it
REPORT = (
    "records", "study", "report", "rundir", "errors", "status",
    "heatmap", "heatmap_plot", "inspect", "reach", "reach_plot",
)  # fmt: skip


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, dotted."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", sorted((PACKAGE / "models").glob("*.py")), ids=lambda path: path.stem)
def test_models_import_torch_only(path: Path) -> None:
    compiled = {"numba", "llvmlite", "numpy"} if path.stem == "fused_rows" else set()
    assert roots(path) <= {"torch", "attnspan"} | compiled
    assert all(name.startswith("attnspan.models") for name in imports(path) if name.startswith("attnspan"))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_entry_points_import_hydra(path: Path) -> None:
    if path.stem not in ENTRY_POINTS:
        assert not roots(path) & {"hydra", "omegaconf"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_the_entry_point(path: Path) -> None:
    assert "attnspan.train" not in imports(path)


def test_lit_and_seq2seq_name_no_arm() -> None:
    for path in (PACKAGE / "lit.py", PACKAGE / "models" / "seq2seq.py", PACKAGE / "models" / "search.py"):
        names = {
            node.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Name)
        }
        assert not any(word in name for name in names for word in ("Plain", "Bahdanau", "Luong")), path


@pytest.mark.parametrize(
    ("module", "heavy"),
    [(f"attnspan.{name}", ("torch", "lightning", "hydra", "datasets", "wandb")) for name in REPORT]
    + [("attnspan.overview", ("torch", "lightning", "hydra", "datasets", "wandb", "pandas", "numpy"))]
    + [("attnspan.train", ("torch", "lightning", "datasets", "wandb")), ("attnspan.sweep", ("torch", "lightning"))],
)
def test_what_must_open_at_once_loads_nothing_heavy(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
