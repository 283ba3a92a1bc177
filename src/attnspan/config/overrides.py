"""The words of a command line, checked before Hydra reads them: what is none of its words gets a line that helps."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from attnspan.errors import InputError

_DECIMAL_COMMA = re.compile(r"^-?\d+,\d+$")


def options_first(words: Sequence[str]) -> list[str]:
    """The words with options before overrides, as Hydra's parser needs them.

    Raises:
        InputError: a word is neither an option of Hydra's nor an override; says how to give it.
    """
    takes_value = {name: action.nargs != 0 for action in get_args_parser()._actions for name in action.option_strings}
    options: list[str] = []
    overrides: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        name, equals, _ = word.partition("=")
        if name not in takes_value:
            raise InputError(_no_option(word, next(rest, ""), list(takes_value)))
        options.append(word)
        if takes_value[name] and not equals and name != "--info" and (value := next(rest, None)) is not None:
            options.append(value)
    for word in overrides:
        check_override(word)
    return options + overrides


def _no_option(word: str, following: str, known: list[str]) -> str:
    option, equals, value = word.partition("=")
    near = difflib.get_close_matches(option.lstrip("-"), [name.lstrip("-") for name in known], n=1, cutoff=0.8)
    if near:
        return f"{word}: there is no such option; did you mean '--{near[0]}'?"
    setting = f"{option.lstrip('-')}={value if equals else following or 'VALUE'}"
    return f"{word}: there is no such option (--help lists them); a setting is given as {setting}"


def check_override(word: str) -> None:
    """Raise :class:`InputError` for an override that Hydra cannot read, or reads as something else."""
    key, equals, value = word.partition("=")
    if not key.strip("+~"):
        raise InputError(f"{word}: an override is key=value, without spaces around =, as in seed=3")
    if not equals and not word.startswith("~"):
        raise InputError(f"{word}: is no override; give key=value, without spaces around =, as in {key}=VALUE")
    if value.startswith("="):
        raise InputError(f"{word}: has a sign = too many; give {key}={value.lstrip('=')}")
    if re.fullmatch(r"-?\d+,0\d+", value):  # -m would sweep over 0 and 1
        raise InputError(f"{word}: has a decimal comma; give {key}={value.replace(',', '.')}")
    try:
        OverridesParser.create().parse_override(word)
    except HydraException as error:
        quoted = in_quotes(key, value)
        raise InputError(
            f"{word}: has signs that are not taken as they are; give {quoted}"
            if quoted
            else f"{word}: cannot be read ({str(error).splitlines()[0]})"
        ) from error


def how_to_give(word: str) -> str:
    """What to do where one value is expected and ``word`` has several."""
    key, _, value = word.partition("=")
    ways = ["to sweep over them, add -m"]
    if _DECIMAL_COMMA.match(value):
        ways.append(f"for a number, use a decimal point: {key}={value.replace(',', '.')}")
    if "(" not in value:
        ways.append(f"for a list, give {shlex.quote(f'{key}=[{value}]')}")
        if (quoted := in_quotes(key, value)) is not None:
            ways.append(f"for one value with a comma in it, {quoted}")
    return f"{word}: has several values; {'; '.join(ways)}"


def in_quotes(key: str, value: str) -> str | None:
    """The override as a shell takes it, with ``value`` as one text; None if there is no such form."""
    for quote in ('"', "'"):
        escaped = value.replace(f"\\{quote}", f"\\\\{quote}").replace(quote, f"\\{quote}")
        word = f"{key}={quote}{escaped}{quote}"
        try:
            parsed: Any = OverridesParser.create().parse_override(word).value()
        except HydraException:
            continue
        if str(parsed) == value:
            return shell_quoted(word)
    return None


def shell_quoted(word: str) -> str:
    """A word as a shell takes it, in the quotes that are the easiest to read."""
    if "'" in word and not set(word) & set("$`\\!"):
        return '"' + word.replace('"', '\\"') + '"'
    return shlex.quote(word)
