"""By how much does attention beat a plain RNN encoder-decoder, on which lengths, and how sure are we?

``load_run(directory)`` loads a finished run; ``.decode(texts)`` gives a ``Hypothesis`` with its attention weights for
each text. Runs are made by the commands, ``attnspan-train`` and the others; each has ``--help``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnspan.evaluation.loaded_run import Hypothesis, LoadedRun, load_run

    __version__: str

__all__ = ["Hypothesis", "LoadedRun", "__version__", "load_run"]

_MODULES = dict.fromkeys(("Hypothesis", "LoadedRun", "load_run"), "attnspan.evaluation.loaded_run")
"""Public name to its module. Only who uses a name waits for its imports, of which torch takes seconds."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("attnspan")
    if name not in _MODULES:
        raise AttributeError(f"module 'attnspan' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
