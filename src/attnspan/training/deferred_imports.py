"""Start-up without modules that a run never uses: torch's compiler, and what torchmetrics imports for speech.

Lightning, torch's optimizers and torchmetrics import them for a name or two, which takes a third of the time before the
first update. Until something asks for more, a stand-in has these names; then it makes way for the module itself, so a
part of the user's own may call ``torch.compile``. Names that a later release asks for cost their time again, no more.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_COMPILER, _INDUCTOR, _SIGNAL = "torch._dynamo", "torch._inductor", "scipy.signal"


class StandIn(ModuleType):
    """Has some names of a module; the first other name, or submodule, replaces it by the module."""

    def __init__(self, name: str, **names: Any) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # of a package
        self.__dict__.update(names)
        self.__dict__["_given"] = set(self.__dict__) | {"_given"}

    def make_way(self) -> ModuleType:
        """Import the module itself; what was set on the stand-in is set there."""
        for name in [name for name, module in sys.modules.items() if isinstance(module, StandIn)]:
            del sys.modules[name]  # all, for they import each other
        module = importlib.import_module(self.__name__)
        for name in self.__dict__.keys() - self._given:
            setattr(module, name, self.__dict__[name])
        return module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # inspect asks every module for its file
            raise AttributeError(name)
        return getattr(self.make_way(), name)


class _Submodules:
    """A finder that replaces a stand-in before a submodule is imported from it."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        package = sys.modules.get(name.rpartition(".")[0])
        if not isinstance(package, StandIn):
            return None
        return PathFinder.find_spec(name, package.make_way().__path__)


class _IsCompiled(type):
    def __instancecheck__(cls, value: object) -> bool:
        compiler = sys.modules.get(_COMPILER)
        return (
            compiler is not None and not isinstance(compiler, StandIn) and isinstance(value, compiler.OptimizedModule)
        )


class OptimizedModule(metaclass=_IsCompiled):
    """What Lightning asks for: whether a module was compiled."""


def _disable(function: Callable[..., Any], recursive: bool = True, **options: Any) -> Callable[..., Any]:
    """The optimizers' request not to be compiled: nothing is."""
    return function


def _graph_break(*args: Any, **kwargs: Any) -> None:
    """Where a compiled function would be split."""


def defer_imports() -> None:
    """Put the stand-ins in place, before Lightning is imported; modules that are there already stay."""
    config = StandIn(f"{_INDUCTOR}.config")  # torch.use_deterministic_algorithms sets a name of it
    stand_ins = (
        StandIn(_COMPILER, OptimizedModule=OptimizedModule, disable=_disable, graph_break=_graph_break),
        StandIn(_INDUCTOR, config=config),
        config,
        StandIn(_SIGNAL, hamming=None),  # torchmetrics adds it where it is missing
    )
    if not {module.__name__ for module in stand_ins} & sys.modules.keys():
        sys.modules.update({module.__name__: module for module in stand_ins})
        sys.meta_path.insert(0, _Submodules)
