"""Small corpora for tests."""

from __future__ import annotations

from typing import Any

from attnspan.data.corpora.synthetic.reverse import Reverse

GOOD_CSV = "source,target\nab,x y\nba,y x\nabc,x y z\n"
ANY_LENGTH = {side: {"source": None, "target": None} for side in ("train", "evaluation")}


def reverse(**changes: Any) -> Reverse:
    return Reverse(
        **{
            "source_tokens": "symbols",
            "target_tokens": "symbols",
            "symbols": 7,
            "train_lengths": [3, 12],
            "test_lengths": [3, 20],
            "train_size": 500,
            "validation_size": 40,
            "test_size": 60,
            "data_seed": 1,
            "limits": ANY_LENGTH,
        }
        | changes
    )
