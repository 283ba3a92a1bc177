"""From a run's config to the objects that it names."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate

from attnspan.data.corpora.base import Corpus
from attnspan.errors import InputError, nearest

if TYPE_CHECKING:  # torch takes seconds to load, and a corpus needs none
    from torch import Tensor

    from attnspan.models.seq2seq import Seq2Seq


_CELLS = {"torch.nn.GRU", "torch.nn.LSTM"}
"""Foreign classes that ``conf/rnn/`` names, which hold weights and do nothing else."""


def build(config: dict[str, Any], key: str) -> Any:
    """Make what ``config[key]`` describes with ``_target_``.

    Raises:
        InputError: it cannot be made; names the key and says why.
    """
    try:
        return instantiate(config[key], _convert_="all")
    except InstantiationException as error:
        raise _unknown_target(config[key], key) or _explained(key, error) from error


def build_corpus(config: dict[str, Any]) -> Corpus:
    """Make the corpus; preparing it checks its keys.

    Raises:
        InputError: ``data`` lacks a key, or has one that is not known.
    """
    return build(config, "data")


def refuse_foreign_targets(config: dict[str, Any], trusted: tuple[str, ...]) -> None:
    """Allow only classes of trusted packages as ``_target_``: a config that came with a run could name any function.

    Args:
        config: of a run that was perhaps made elsewhere.
        trusted: names of top-level packages.

    Raises:
        InputError: names the target.
    """
    for target in _targets(config):
        if target in _CELLS:
            continue
        package = target.partition(".")[0]
        if package in trusted:
            try:
                found = get_class(target)
            except (ImportError, ValueError) as error:
                raise InputError(f"{target}: there is no such class ({str(error).splitlines()[0]})") from error
            if found.__module__.partition(".")[0] in trusted:
                continue
        raise InputError(
            f"the run's config builds '{target}', and only classes of {', '.join(trusted)} are trusted; "
            f"if you know what it is: load_run(directory, trusted=('{package}',))"
        )


def _targets(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["_target_"]] if "_target_" in node else []
        return own + [target for child in node.values() for target in _targets(child)]
    if isinstance(node, list):
        return [target for child in node for target in _targets(child)]
    return []


def _unknown_target(node: Any, key: str) -> InputError | None:
    """What to say of the first ``_target_`` in ``node`` that is nowhere; None if all of them are somewhere."""
    if not isinstance(node, dict):
        return None
    module, name = _lost(str(node.get("_target_", "")))
    if module:
        offers = _offers(module, name)
        return InputError(f"{key}._target_: {module.__name__} has no '{name}'; {nearest(name, offers)}")
    found = (_unknown_target(child, f"{key}.{part}") for part, child in node.items())
    return next((error for error in found if error), None)


def _lost(path: str) -> tuple[ModuleType | None, str]:
    """The module where a dotted path ends, and the word that it does not know; no module if all is there."""
    parent, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(parent) if parent else None
    except ImportError:
        return _lost(parent)
    return (None if module is None or hasattr(module, name) else module), name


def _offers(module: ModuleType, name: str) -> list[str]:
    """What can be built from a module, or else its modules; of many, those most like ``name``."""
    offers = [
        word
        for word, thing in vars(module).items()
        if not word.startswith("_")
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__.startswith(module.__name__)  # not what it imports
        and not inspect.isabstract(thing)
        and not getattr(thing, "_is_protocol", False)
    ]
    offers = offers or [part.name for part in pkgutil.iter_modules(getattr(module, "__path__", []))]
    return offers if len(offers) <= 30 else difflib.get_close_matches(name, offers, n=5, cutoff=0.0)


def _explained(key: str, error: Exception) -> InputError:
    """One line from Hydra's chain: what went wrong first."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, InputError):
        return cause
    return InputError(f"{key}: {str(cause).strip().splitlines()[0]}")


def assemble_model(config: dict[str, Any], *, source_vocabulary_size: int, target_vocabulary_size: int) -> Seq2Seq:
    """Make the model, its weights freshly drawn.

    Args:
        config: of a run, resolved.
        source_vocabulary_size: number of source tokens.
        target_vocabulary_size: V.

    Raises:
        InputError: the config's sizes or settings do not fit each other.
    """
    from attnspan.models.seq2seq import Seq2Seq

    parts = {key: build(config, key) for key in ("encoder", "decoder", "rnn")}
    try:
        return Seq2Seq(
            **parts,
            **config["model"],
            source_vocabulary_size=source_vocabulary_size,
            target_vocabulary_size=target_vocabulary_size,
        )
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises any of them for sizes that cannot be
        raise InputError(f"the model cannot be built: {str(error).splitlines()[0]}") from error


def check_optimizer(config: dict[str, Any], parameters: Iterable[Tensor]) -> None:
    """Make the optimizer and its schedule, and throw them away.

    Raises:
        InputError: they cannot be made.
    """
    optimizer, schedule = build(config, "optimizer"), build(config, "schedule")
    try:
        schedule(optimizer(parameters))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"optimizer or schedule: {str(error).splitlines()[0]}") from error
