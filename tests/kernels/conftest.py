"""What the tests of several kernels need."""

from __future__ import annotations

import pytest

from attnspan.kernels import additive, cells


@pytest.fixture(params=["numba", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the steps are computed with: kernels that numba compiles, or, as on a GPU, torch's operations."""
    if request.param == "torch":
        for module in (additive, cells):
            monkeypatch.setattr(module, "uses_numba", lambda tensor: False)
