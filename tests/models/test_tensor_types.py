"""Shapes are types: they are checked while tests run, and cost nothing in a run."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from attnspan.models.memory import Memory
from tests.conftest import Compose
from tests.models.arms import pad, small
from tests.tensor_types import check, jaxtyped


def test_a_wrong_shape_is_an_error(composed: Compose) -> None:
    model = small(composed, "bahdanau")
    source, lengths = pad([[4, 5, 6], [7]])
    with pytest.raises(TypeCheckError, match=r"target_input"):
        model(source, lengths, torch.ones(3, 4, dtype=torch.long))  # three targets of two sources
    with pytest.raises(TypeCheckError, match=r"target_input"):
        model(source, lengths, torch.ones(2, 4))
    with pytest.raises(TypeCheckError, match="mask"):
        Memory(states=torch.ones(2, 3, 4), mask=torch.ones(2, 4, dtype=torch.bool), final_state=())


SIZES = [2, 2, 3]


@jaxtyped(typechecker=check)
def as_many(numbers: Float[Tensor, "B"]) -> Float[Tensor, "B"]:  # noqa: F821, UP037 - a shape is no Python
    return numbers.new_ones(SIZES.pop(0))


def test_a_later_call_that_returns_something_else_is_an_error() -> None:
    """Calls with the same sizes are checked once, and what they return whenever it is of other sizes."""
    for _ in range(2):
        as_many(torch.zeros(2))
    with pytest.raises(TypeCheckError, match="return value"):
        as_many(torch.zeros(2))
    with pytest.raises(TypeCheckError, match="numbers"):
        as_many(torch.zeros(2, 2))


def test_checks_draw_no_random_numbers(composed: Compose) -> None:
    """Or a run in this process would differ from the same run in its own."""
    model = small(composed, "plain_every_step", "rnn=lstm")
    state = random.getstate()
    model(*pad([[4, 5, 6], [7]]), torch.ones(2, 4, dtype=torch.long))
    assert random.getstate() == state


@pytest.mark.slow
def test_a_run_checks_no_types() -> None:
    code = (
        "import sys; from attnspan.models.memory import Memory; import attnspan.models.seq2seq\n"
        "Memory(states=1, mask=2, final_state=3); assert 'beartype' not in sys.modules\n"
        "assert not hasattr(attnspan.models.seq2seq.Seq2Seq.forward, '__wrapped__')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
