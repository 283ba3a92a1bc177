"""The house's rules: who may import whom, what loads nothing heavy, how large a file and a function may be."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import attnspan

PACKAGE = Path(attnspan.__file__).parent
PATHS = sorted(PACKAGE.rglob("*.py"))

FLOORS = (
    ("errors", "files", "checksums"),
    ("kernels",),
    ("models",),
    ("runs",),
    ("data",),
    ("config",),
    ("analysis",),
    ("evaluation",),
    ("reporting",),
    ("tracking",),
    ("training",),
    ("sweeps",),
    ("cli",),
    ("notebook",),
)
"""From the ground up: a package imports from its own floor and from those below."""

MOST_LINES, MOST_FUNCTION_LINES, MOST_MODULES = 400, 60, 15


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Modules that a file imports anywhere, dotted."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)


def floor_of(part: str) -> int:
    (floor,) = (number for number, parts in enumerate(FLOORS) if part in parts)
    return floor


def upward_imports(path: Path, package: Path) -> Iterator[str]:
    """Imports of a file from a higher floor."""
    own = path.relative_to(package).parts[0].removesuffix(".py")
    for name in sorted(imports(path)):
        words = name.split(".")
        if words[0] == "attnspan" and len(words) > 1 and own != "__init__" and floor_of(words[1]) > floor_of(own):
            yield f"{path.relative_to(package)} imports {name}"


def large_functions(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if lines > MOST_FUNCTION_LINES:
                yield f"{node.name}, line {node.lineno}: {lines} lines"


def test_packages_import_downwards_only() -> None:
    assert [one for path in PATHS for one in upward_imports(path, PACKAGE)] == []


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "a.py"
    path.write_text("def f():\n    from attnspan.training import run\n", encoding="utf-8")
    found = list(upward_imports(path, tmp_path))
    assert found == ["models/a.py imports attnspan.training", "models/a.py imports attnspan.training.run"]


def test_no_more_than_four_modules_at_the_top() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 4


@pytest.mark.parametrize("directory", sorted({path.parent for path in PATHS}), ids=name_of)
def test_a_package_has_a_dozen_modules(directory: Path) -> None:
    assert len([path for path in directory.glob("*.py") if path.stem != "__init__"]) <= MOST_MODULES


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_a_file_has_one_reason_to_change(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert list(large_functions(path)) == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "models").rglob("*.py")), ids=name_of)
def test_models_import_torch_only(path: Path) -> None:
    pretrained = {"timm", "safetensors"} if path.stem == "backbone" else set()
    assert roots(path) <= {"torch", "attnspan", "jaxtyping"} | pretrained


@pytest.mark.parametrize("path", sorted((PACKAGE / "kernels").glob("*.py")), ids=name_of)
def test_kernels_import_torch_and_numba_only(path: Path) -> None:
    compiled = {"numba", "llvmlite", "numpy"} if path.stem.startswith("compiled") else set()
    assert roots(path) <= {"torch", "attnspan", "jaxtyping"} | compiled


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_only_config_and_commands_import_hydra(path: Path) -> None:
    if path.relative_to(PACKAGE).parts[0] not in ("config", "cli"):
        assert not roots(path) & {"hydra", "omegaconf"}


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_nothing_imports_the_entry_point(path: Path) -> None:
    assert "attnspan.cli.train" not in imports(path)


def test_module_and_model_name_no_arm() -> None:
    for name in ("training/lightning_module.py", "models/seq2seq.py", "models/decoding/strategy.py"):
        tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not any(word in name for name in names for word in ("Plain", "Bahdanau", "Luong")), name


HEAVY = ("torch", "lightning", "hydra", "datasets", "wandb")
LIGHT = sorted(
    ".".join(("attnspan", *path.relative_to(PACKAGE).with_suffix("").parts))
    for package in ("analysis", "reporting")
    for path in (PACKAGE / package).rglob("[a-z]*.py")
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (LIGHT, HEAVY),
        (["attnspan.runs.records", "attnspan.runs.status", "attnspan.runs.finished_run"], HEAVY),
        (["attnspan.cli.report", "attnspan.cli.inspect", "attnspan.cli.gradient_flow"], HEAVY),
        (["attnspan.cli.status"], (*HEAVY, "pandas", "numpy")),
        (["attnspan.cli.train"], ("torch", "lightning", "datasets", "wandb")),
        (["attnspan.sweeps.processes"], ("torch", "lightning")),
    ],
    ids=lambda part: part[0] if isinstance(part, list) else "",
)
def test_what_must_open_at_once_loads_nothing_heavy(modules: list[str], heavy: tuple[str, ...]) -> None:
    code = f"import sys, {', '.join(modules)}; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
