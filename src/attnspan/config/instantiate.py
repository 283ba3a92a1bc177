"""From a run's config to the objects that it describes.

A mapping with ``_target_`` describes a part: a class and its arguments. With ``_partial_: true`` the parent builds the
part later and passes further arguments, such as sizes. A part checks its own arguments; the key is added here.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate

from attnspan.config.argument_kinds import check_argument_kinds
from attnspan.data.corpora.base import Corpus
from attnspan.data.tokenizer import UNK
from attnspan.errors import InputError, SettingError, first_line, nearest
from attnspan.runs.stable_name import class_paths

if TYPE_CHECKING:  # torch takes seconds to load, and a corpus does not need it
    from torch import Tensor

    from attnspan.models.decoding.length_limit import LengthLimit
    from attnspan.models.decoding.strategy import DecodingStrategy
    from attnspan.models.seq2seq import Seq2Seq


_CELLS = {"torch.nn.GRU", "torch.nn.LSTM"}
"""Classes of torch that ``conf/rnn/`` names. They hold weights and do nothing else."""

_REFUSALS = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, ImportError, InstantiationException)
"""What a class raises that cannot be built of its arguments."""

_HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_convert_", "_recursive_"}


class Builder:
    """A class and the arguments that the config gives it. A call adds the parent's arguments and builds the object.

    An argument of the call replaces one of the config. Errors begin with the dotted ``key`` of the config node.

    Raises:
        InputError: the class has no such argument.
    """

    def __init__(self, key: str, target: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self._key, self._target, self._arguments = key, target, arguments
        try:
            self._signature = inspect.signature(target)
        except ValueError:  # a class written in C may have none
            self._signature = inspect.signature(lambda *_, **__: None)
        known = self._signature.parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
            for name in arguments:
                if name not in known:
                    raise InputError(f"{key}.{name}: there is no such argument; {nearest(name, known)}")

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        """Build the object; :class:`InputError` if the class refuses an argument."""
        arguments = {**self._arguments, **arguments}
        try:
            self._signature.bind(*args, **arguments)  # says in plain words which argument is missing
            built = self._target(*args, **arguments)
        except SettingError as error:
            raise InputError(f"{self._key}.{error.name}: {error.problem}") from error
        except _REFUSALS as error:
            self._check_kinds()  # says more than '<=' not supported between instances of 'float' and 'str'
            raise InputError(f"{self._key}: {_cause(error)}") from error
        self._check_kinds()
        return built

    def function(self) -> Callable[..., Any]:
        """The class or function with the config's arguments, whose calls check nothing."""
        self._check_kinds()
        return functools.partial(self._target, **self._arguments)

    def _check_kinds(self) -> None:
        """Raise :class:`InputError` if the config gives an argument of another kind than the class annotates."""
        try:
            check_argument_kinds(self._target, self._arguments)
        except SettingError as error:
            raise InputError(f"{self._key}.{error.name}: {error.problem}") from None


def build(config: dict[str, Any], key: str) -> Any:
    """Make what ``config[key]`` describes: an object, or a :class:`Builder` that its parent calls later.

    Raises:
        InputError: it cannot be made; names the key and says why.
    """
    return _build(config[key], key)


def _build(node: Any, key: str) -> Any:
    if isinstance(node, list):
        return [_build(child, f"{key}.{position}") for position, child in enumerate(node)]
    if not isinstance(node, dict):
        return node
    is_recursive = node.get("_recursive_", True)
    arguments = {
        name: _build(child, f"{key}.{name}") if is_recursive else child
        for name, child in node.items()
        if name not in _HYDRA_KEYS
    }
    if "_target_" not in node:
        return arguments
    target = {"_target_": node["_target_"], "_args_": node.get("_args_", []), "_partial_": True}
    try:
        part = Builder(key, instantiate(target, _convert_="all"), arguments)
    except InstantiationException as error:
        raise InputError(f"{key}._target_: {_why_not(str(node['_target_']), error)}") from error
    return part if node.get("_partial_") else part()


def build_function(node: dict[str, Any], key: str) -> Callable[..., Any]:
    """The function that ``node`` names, with the arguments that it gives.

    Raises:
        InputError: there is no such function, or it has no such argument; begins with ``key``.
    """
    part: Builder = _build({**node, "_partial_": True}, key)
    return part.function()


def build_corpus(config: dict[str, Any]) -> Corpus:
    """Make the corpus; preparing it checks its keys."""
    return build(config, "data")


def build_decoding(config: dict[str, Any], *, limit: LengthLimit) -> DecodingStrategy:
    """Make the decoding strategy; ``limit`` stands in for what its own limit leaves open.

    Raises:
        InputError: the strategy refuses an argument.
    """
    strategy: DecodingStrategy = build(config, "decoding")
    strategy.limit = strategy.limit.or_else(limit)
    return strategy


def check_decoding(strategy: DecodingStrategy, model: Seq2Seq) -> None:
    """Raise :class:`InputError` if ``strategy`` is about attention, and ``model`` has none."""
    if strategy.needs_attention and not model.has_attention():
        raise InputError(
            f"decoding.{strategy.needs_attention}: is about attention, and this arm has none; leave it out"
        )


LOSSES_OF_ATTENTION = ("coverage_loss", "guidance")
"""Keys of losses on attention weights; each is off if it is 0 or null."""


def check_losses_of_attention(config: dict[str, Any], model: Seq2Seq) -> None:
    """Raise :class:`InputError` if a loss is about attention, and ``model`` has none."""
    for key in LOSSES_OF_ATTENTION:
        if config.get(key) and not model.has_attention():
            raise InputError(f"{key}: is about attention, and this arm has none; leave it out")


def assemble_model(
    config: dict[str, Any], *, source_vocabulary_size: int | None, target_vocabulary_size: int
) -> Seq2Seq:
    """Make the model of a run with freshly drawn weights; where sources are images, they have no vocabulary.

    Raises:
        InputError: a part refuses an argument, or the parts do not fit each other.
    """
    import torch

    from attnspan.models.seq2seq import Seq2Seq

    sizes = config["model"]
    model = Builder("model", Seq2Seq, sizes)
    parts = {key: build(config, key) for key in ("encoder", "decoder", "rnn")}
    with torch.random.fork_rng(devices=[]):  # alone, for its own keys to be named, and in arms without cells too
        parts["rnn"](input_size=sizes["embedding_size"], hidden_size=sizes["hidden_size"])
    return model(
        **parts,
        source_vocabulary_size=source_vocabulary_size,
        target_vocabulary_size=target_vocabulary_size,
        unknown_id=UNK,
    )


def check_optimizer(config: dict[str, Any], parameters: Iterable[Tensor]) -> None:
    """Raise :class:`InputError` if the optimizer and its schedule cannot be made."""
    build(config, "schedule")(build(config, "optimizer")(parameters))


def refuse_foreign_targets(node: Any, trusted: tuple[str, ...]) -> None:
    """Allow only classes of the packages ``trusted`` as ``_target_``: a config from elsewhere could name any function.

    Raises:
        InputError: names the target.
    """
    for target in class_paths(node):
        if target in _CELLS:
            continue
        package = target.partition(".")[0]
        if package in trusted:
            try:
                found = get_class(target)
            except (ImportError, ValueError) as error:
                raise InputError(f"{target}: there is no such class ({_cause(error)})") from error
            if found.__module__.partition(".")[0] in trusted:
                continue
        raise InputError(
            f"the run's config builds '{target}', and only classes of {', '.join(trusted)} are trusted; "
            f"if you know what it is, give --trusted {package}, in Python load_run(directory, trusted=['{package}'])"
        )


def _why_not(path: str, error: InstantiationException) -> str:
    """Why the class of a dotted path cannot be had."""
    try:
        return _missing_name(path) or _cause(error)
    except Exception as raised:  # a module of the user's may raise anything when it is imported
        last = traceback.extract_tb(raised.__traceback__)[-1]
        what = f"{type(raised).__name__}: {first_line(raised)}"
        return f"{path} cannot be imported ({last.filename} line {last.lineno}: {what})"


def _missing_name(path: str) -> str | None:
    """Which name of a dotted path does not exist, and what its module offers instead; None if all names exist."""
    parent, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(parent) if parent else None
    except ImportError:
        return _missing_name(parent)
    if module is None or hasattr(module, name):
        return None
    offers = [  # its classes and functions, or else its submodules; of many, those most like the name
        word
        for word, thing in vars(module).items()
        if not word.startswith("_")
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__.startswith(module.__name__)  # not what it imports
        and not inspect.isabstract(thing)
        and not getattr(thing, "_is_protocol", False)
    ]
    offers = offers or [part.name for part in pkgutil.iter_modules(getattr(module, "__path__", []))]
    offers = offers if len(offers) <= 30 else difflib.get_close_matches(name, offers, n=5, cutoff=0.0)
    return f"{module.__name__} has no '{name}'; {nearest(name, offers)}"


def _cause(error: BaseException) -> str:
    """What went wrong first, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{first_line(error)}; if it is a file of yours, start the command with PYTHONPATH=DIR, its directory"
    return first_line(error) or type(error).__name__
