"""Preparing data, as the tests of data do."""

from tests.data.conftest import ready

__all__ = ["ready"]
