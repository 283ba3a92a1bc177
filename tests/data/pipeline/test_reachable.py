"""References that no hypothesis can reach, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnspan.data.corpora.files import Files
from attnspan.data.pipeline.reachable import check_references, limit_of_training
from attnspan.errors import InputError
from attnspan.models.decoding.length_limit import LengthLimit
from tests.data.pipeline.test_prepare import Ready
from tests.data.small_corpora import ANY_LENGTH

ROWS = {
    "train": [("a b", "x"), ("a", "x y z"), ("a b c d", "x y x y x")],
    "validation": [("a", "x y z x")],
    "test": [("a", "x " * 8), ("a", "x " * 9), ("a b", "y " * 12), ("b a", "x")],
}


def corpus(folder: Path) -> Files:
    """Longest source 4, longest target 5, largest ratio 3, of which the limit takes 2 * 5 / 4 = 2.5."""
    for split, rows in ROWS.items():
        text = "".join(f"{source}\t{target.strip()}\n" for source, target in [("s", "t"), *rows])
        (folder / f"{split}.tsv").write_text(text, encoding="utf-8")
    files = {split: str(folder / f"{split}.tsv") for split in ROWS}
    return Files(**files, source="s", target="t", source_tokens="symbols", target_tokens="symbols", limits=ANY_LENGTH)


def test_references_out_of_reach_are_counted(ready: Ready, tmp_path: Path) -> None:
    data = ready(corpus(tmp_path))
    assert data.training_target_lengths == (1, 5)
    assert data.training_target_ratio == 3.0
    limit = limit_of_training(data)
    assert limit == LengthLimit(ratio=2.5, margin=5)  # 7 tokens from one, 10 from two
    found = check_references(data, limit)
    assert (found.count, found.needed_margin) == (3, 7)
    assert str(found) == (
        "test: 3 of 4 references are longer than a hypothesis may become, 2.5 * source tokens + 5 (decoding.limit); "
        "decoding.limit.margin=7 reaches them all"
    )
    assert check_references(data, LengthLimit(ratio=2.5, margin=7)).count == 0


def test_references_of_validation_must_be_in_reach(ready: Ready, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        check_references(ready(corpus(tmp_path)), LengthLimit(ratio=0.5, margin=3))
    assert str(refused.value) == (
        "validation: 1 of 1 references are longer than a hypothesis may become, 0.5 * source tokens + 3 "
        "(decoding.limit); decoding.limit.margin=4 reaches them all"
    )
