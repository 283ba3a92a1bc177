"""A page of its own inside a notebook: it runs without a kernel, and stays in the saved file."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

from attnspan.files import write_text


@dataclass(frozen=True, repr=False)
class Frame:
    """An HTML page that a notebook shows inline."""

    page: str
    """The whole HTML file."""
    height: int = 720
    """In pixels."""

    def save(self, path: str | Path) -> None:
        """Write the page to a file, which a browser opens by itself.

        Raises:
            InputError: it cannot be written.
        """
        write_text(Path(path), self.page)

    def _repr_html_(self) -> str:
        # The sandbox lets its script run, and lets it reach nothing else.
        return (
            f'<iframe sandbox="allow-scripts" width="100%" height="{self.height}" style="border: 0" '
            f'srcdoc="{html.escape(self.page)}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Frame of {len(self.page) / 1e6:.1f} MB; a notebook shows it, and save(path) writes it"
