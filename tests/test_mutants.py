"""The tests of the tests: every mutant of the source is killed by its test, which passes without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.mutants import MUTANTS, ROOT


@pytest.fixture(scope="module")
def verdicts() -> dict[str, str]:
    """What ``python -m tests.mutants`` says of each."""
    done = subprocess.run([sys.executable, "-m", "tests.mutants"], cwd=ROOT, capture_output=True, text=True)
    said = dict(line.partition(": ")[::2] for line in done.stdout.splitlines())
    assert "unedited" in said, done.stderr
    return said


@pytest.mark.parametrize("name", MUTANTS)
def test_what_a_mutant_replaces_stands_there_once(name: str) -> None:
    """So that no mutant rots when the source moves on."""
    mutant = MUTANTS[name]
    assert (ROOT / "src" / "attnspan" / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1


def test_without_mutants_their_tests_pass(verdicts: dict[str, str]) -> None:
    assert verdicts["unedited"] == "passes"


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_killed(verdicts: dict[str, str], name: str) -> None:
    assert verdicts.get(name) == "killed"
