"""attnspan: by how much does attention beat a plain RNN encoder-decoder, on which lengths, and how sure are we?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnspan.evaluation.loaded_run import Hypothesis, LoadedRun, load_run

__all__ = ["Hypothesis", "LoadedRun", "load_run"]


def __getattr__(name: str) -> Any:
    # Only who loads a run waits for torch; a report opens without it.
    if name in __all__:
        from attnspan.evaluation import loaded_run as loaded

        return getattr(loaded, name)
    raise AttributeError(f"module 'attnspan' has no attribute '{name}'")
