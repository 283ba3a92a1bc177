"""What every reader yields."""

from __future__ import annotations

from typing import Any

Row = tuple[str, dict[str, Any]]
"""The location of a row for error messages (rows count from 1, without the header), and its cells by column."""
