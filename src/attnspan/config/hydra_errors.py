"""From an error of Hydra's, OmegaConf's or YAML's to one line that names the file or the key, and what to do."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator

import yaml
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from hydra.utils import get_object
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException, ValidationError

from attnspan.config.overrides import how_to_give
from attnspan.errors import first_line, nearest
from attnspan.runs.former_names import nearest_key

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError)
"""What composing a config may raise."""

_SWEEPS = (r"^Ambiguous value for argument '(.*)'$", r"^Sweep parameters '(.*)' requires --multirun$")
_FILE = re.compile(r"^In '(.*)': ")
_ARGUMENT = re.compile(r"Error in call to target '([\w.]+)':.*unexpected keyword argument '(\w+)'", re.DOTALL)
_PLUGIN_KEY = re.compile(r"^full_key: (\S+)$", re.MULTILINE)


def explain(error: BaseException) -> str:
    """One line for one of ``COMPOSITION_ERRORS``, with the nearest name that there is."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark) is not None:
        return f"{mark.name}: line {mark.line + 1}: {error.problem or error.context}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if not error.options and "/" in group:
            top = group.rpartition("/")[2]
            return (
                f"{group}={name}: there is no such group; in a defaults list, 'override /{top}: {name}' chooses a {top}"
            )
        if group:
            return _unknown_choice(group, name, error.options or ())
    words = first_line(error) or type(error).__name__
    for pattern in _SWEEPS:
        if match := re.match(pattern, words):
            return how_to_give(match[1])
    if isinstance(error, InstantiationException) and (line := _unknown_argument(str(error))):
        return line
    if isinstance(error, ConfigCompositionException):
        file = f"{match[1]}.yaml: " if (match := _FILE.match(words)) else ""
        for cause in _causes(error):
            if isinstance(cause, OmegaConfBaseException):
                return file + _of_key(cause)
    if words.startswith("Could not append to config."):
        return f"{words} Leave out the + to change it."
    return words


def _unknown_choice(group: str, name: str, known: Iterable[str]) -> str:
    """The line for a file that is not there: the nearest that is, and where one's own belongs."""
    group, _, rest = group.partition("/") if group.partition("/")[0] == "sweep" else (group, "", "")
    given = f"{rest}/{name}" if rest else name  # sweep=sweeps/mine.yaml
    own = name.removesuffix(".yaml")
    what = group.rpartition("/")[2]
    return (
        f"{group}={given}: there is no such {what}; {nearest(own, known)}; one of your own is a file "
        f"DIR/{group}/{own}.yaml, and is given by --config-dir DIR {group}={own}"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _of_key(error: OmegaConfBaseException) -> str:
    parent, key = error.parent_node, str(error.key)
    known = [str(name) for name in parent if str(name) != "hydra"] if isinstance(parent, DictConfig) else []
    if known and error.key is not None and key not in known:
        return f"{error.full_key}: there is no such key; {nearest_key(key, known)}"
    words = first_line(error)
    if not error.full_key and words.startswith(("Merge error", "Cannot merge")):
        return f"{words[0].lower()}{words[1:]}: a mapping stands here elsewhere"
    remedy = "; in capitals" if isinstance(error, ValidationError) and error.full_key == "hydra.mode" else ""
    return f"{error.full_key}: {words}{remedy}" if error.full_key else words


def _unknown_argument(words: str) -> str | None:
    """The line for an argument that a plugin of Hydra's does not have."""
    if not (match := _ARGUMENT.search(words)):
        return None
    key = f"{found[1]}." if (found := _PLUGIN_KEY.search(words)) else ""
    known = [name for name in inspect.signature(get_object(match[1])).parameters if name != "max_batch_size"]
    return f"{key}{match[2]}: there is no such key; {nearest(match[2], known)}"


def is_hydras(error: Exception) -> bool:
    """Whether Hydra or OmegaConf itself raised ``error``, which may be of any class."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith(("hydra.", "omegaconf."))
