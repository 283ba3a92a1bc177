"""The types of tensors are checked while tests run: what kind of numbers, and which sizes are the same."""

from __future__ import annotations

import functools
import inspect
import random
import re
import types
from collections.abc import Callable
from typing import Any

import jaxtyping
import numpy as np
import torch
from beartype import beartype
from jaxtyping import install_import_hook

CHECKED = (
    "attnspan.models",
    "attnspan.evaluation",
    "attnspan.data.pipeline.batches",
    *(f"attnspan.kernels.{name}" for name in ("additive", "backend", "bahdanau", "cells", "luong", "recurrence")),
)
"""Everything but ``attnspan.kernels.compiled``, whose functions numba reads."""

_OF_ARRAYS = re.compile(r"Tensor|Int\d*\[.*ndarray|State")
_JAXTYPED = jaxtyping.jaxtyped
_RANDOM = random.Random(0)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype for annotations of arrays only: classes check the values of the config, and say more about them."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if _OF_ARRAYS.search(str(hint))}
    checked = beartype(function)
    defaults = getattr(checked, "__kwdefaults__", None) or {}
    if "__beartype_getrandbits" in defaults:  # it checks one item of a tuple, chosen by the generator that runs use
        defaults["__beartype_getrandbits"] = _RANDOM.getrandbits
    return checked


def facts(value: Any) -> Any:
    """All of a value that the check of a tensor's type looks at."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return type(value), value.dtype, value.shape
    if isinstance(value, (tuple, list)):
        return type(value), *map(facts, value)
    if isinstance(value, dict):
        return dict, *((name, facts(one)) for name, one in value.items())
    return type(value)


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """jaxtyping's decorator, which checks a function once for all calls with the same kinds and sizes.

    No size of ours depends on the value of an argument, so another call has nothing else to be checked.
    """
    checking = _JAXTYPED(typechecker=typechecker)

    def decorate(thing: Any) -> Any:
        if not inspect.isfunction(thing):
            return checking(thing)
        if not any(_OF_ARRAYS.search(str(hint)) for hint in thing.__annotations__.values()):
            return thing
        checked, result = checking(thing), list[Any]()
        last = _in_the_place_of(thing, lambda *args, **named: result.pop())
        check_result = checking(last)
        right: dict[Any, set[Any]] = {}

        @functools.wraps(thing)
        def call(*args: Any, **named: Any) -> Any:
            known = right.get(key := (facts(args), facts(named)))
            if known is None:
                value = checked(*args, **named)
                right[key] = {facts(value)}
                return value
            value = thing(*args, **named)
            if (kind := facts(value)) not in known:
                result.append(value)
                check_result(*args, **named)
                known.add(kind)
            return value

        return call

    return decorate


def _in_the_place_of(thing: Any, other: Any) -> Any:
    """Another function with the signature of this one, whose annotations mean what they mean there."""
    there = types.FunctionType(other.__code__, thing.__globals__, thing.__name__, None, other.__closure__)
    return functools.update_wrapper(there, thing)


def install() -> None:
    """Check the modules that are imported from now on."""
    jaxtyping.jaxtyped = jaxtyped  # what the hook writes above each function
    install_import_hook(CHECKED, "tests.tensor_types.check")
