"""What is shipped: the wheel holds the package, the launcher, the configs and the sweeps, and works from there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = out.glob("*.whl")
    return path


def test_configs_and_sweeps_travel(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for path in [*(ROOT / "conf").rglob("*.yaml")]:
        assert f"attnspan/conf/{path.relative_to(ROOT / 'conf')}" in inside
    for path in (ROOT / "sweeps").rglob("*.yaml"):
        assert f"attnspan/conf/sweep/{path.relative_to(ROOT / 'sweeps')}" in inside
    assert "hydra_plugins/attnspan_sweeps/launchers.py" in inside
    assert any(name.endswith(".j2") for name in inside)


def test_the_unpacked_wheel_composes_a_sweep(wheel: Path, tmp_path: Path) -> None:
    """No checkout in reach: the commands find their configs beside the code."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    environment = os.environ | {"PYTHONPATH": str(site)}
    code = "import attnspan.cli.train as t; assert 'site' in t.__file__, t.__file__; t.main()"
    for arguments, word in ((["--help"], "long_sequences"), (["sweep=smoke", "--cfg", "job"], "_target_")):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert word in done.stdout
