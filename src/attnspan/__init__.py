"""By how much does attention beat a plain RNN encoder-decoder, on which lengths, and how sure are we?

``load_run(directory)`` loads a finished run; ``.decode(texts)`` gives a ``Hypothesis`` with its attention weights for
each text. ``load_study(directories)`` compares runs, and ``train(overrides)`` makes one as ``attnspan-train`` does; it
and the other commands have ``--help``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnspan.notebook.run import Hypothesis, LoadedRun, load_run, train
    from attnspan.notebook.study import LoadedStudy, load_study

    __version__: str

__all__ = ["Hypothesis", "LoadedRun", "LoadedStudy", "__version__", "load_run", "load_study", "train"]

_MODULES = dict.fromkeys(("Hypothesis", "LoadedRun", "load_run", "train"), "attnspan.notebook.run")
_MODULES |= dict.fromkeys(("LoadedStudy", "load_study"), "attnspan.notebook.study")
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
