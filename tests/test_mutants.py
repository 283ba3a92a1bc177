"""No mutant rots; ``make mutants`` shows that a test notices each."""

from __future__ import annotations

import pytest

from tests.mutants import MUTANTS, ROOT


@pytest.mark.parametrize("name", MUTANTS)
def test_what_a_mutant_replaces_stands_there_once(name: str) -> None:
    """So that no mutant rots when the source moves on."""
    mutant = MUTANTS[name]
    assert (ROOT / "src" / "attnspan" / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
