"""The size of the decoder's state, against counts by hand for H = 8."""

from __future__ import annotations

import pytest
import torch

from attnspan.models.state_size import StateSize, state_size
from tests.conftest import Compose
from tests.models.arms import small

SIZES = {
    ("plain",): (8, 0, 0),
    ("plain", "rnn=lstm", "rnn.layers=2"): (32, 0, 0),
    ("bahdanau",): (8, 8 + 64, 0),  # states and keys
    ("coverage",): (8, 8 + 64 + 1, 0),
    ("luong_dot",): (8, 8, 0),  # states are their own keys
    ("luong_general_feeding",): (8 + 8, 8 + 8, 0),
    ("transformer",): (0, 8 + 2 * 16, 2 * 16),  # keys and values of two layers
    ("plain", "rnn=min_lstm"): (8, 0, 0),
    ("plain", "rnn=mlstm", "rnn.cell.head_size=4"): (3 * 8 + 8 + 2 * 4 * 4 + 8 + 2, 0, 0),  # inputs, h, C, n, m
    ("luong_general", "rnn=delta_net", "rnn.cell.head_size=2"): (3 * 8 + 8 + 4 * 2 * 2, 8 + 8, 0),
}


@pytest.mark.parametrize(("wiring", "size"), SIZES.items(), ids=lambda part: " ".join(map(str, part)))
def test_sizes_by_hand(composed: Compose, wiring: tuple[str, ...], size: tuple[int, int, int]) -> None:
    model = small(composed, *wiring).train()
    before = torch.get_rng_state()
    fixed, per_source_token, per_target_token = size
    assert state_size(model) == StateSize(
        fixed=fixed, per_source_token=per_source_token, per_target_token=per_target_token
    )
    assert torch.equal(torch.get_rng_state(), before)
