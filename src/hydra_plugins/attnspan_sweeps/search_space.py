"""Reads the space of a hyper-parameter search from overrides in Hydra's syntax."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

if TYPE_CHECKING:
    from attnspan.sweeps.hyperparameters.space import Choices, NumberRange, Space

_LOG = "log"


def params_as_overrides(params: Any) -> list[str]:
    """``hydra.sweeper.params`` as words of the command line.

    Raises:
        InputError: it is no mapping, or has a list, which could be one value or several, or what Hydra cannot read.
    """
    from attnspan.config.overrides import check_override
    from attnspan.errors import InputError

    if params is None:
        return []
    if not isinstance(params, Mapping):
        raise InputError(f"hydra.sweeper.params: must be a mapping of keys to values, not {params}")
    overrides = []
    for key, value in params.items():
        if isinstance(value, Sequence) and not isinstance(value, str):
            several = ",".join("null" if one is None else str(one) for one in value)
            raise InputError(
                f"hydra.sweeper.params.{key}: is a list; to sweep over its values, give the text '{several}'; for one "
                f"value that is a list, the text '[{several}]'"
            )
        overrides.append(f"{key}={'null' if value is None else value}")
        check_override(overrides[-1])
    return overrides


def read_space(overrides: Sequence[Override]) -> tuple[Space, list[str]]:
    """Separate the keys that vary from the overrides that do not. Of two overrides of a key the later one counts.

    Args:
        overrides: ``choice(a,b)`` or ``a,b``, ``range(1,5)`` (as in Hydra without its end), ``interval(0.1,1)``,
            ``int(interval(1,5))``, and ``tag(log,...)`` of a range or an interval vary.

    Raises:
        InputError: an override is not a valid space; names its key.
    """
    from attnspan.errors import InputError

    space: dict[str, NumberRange | Choices] = {}
    fixed: dict[str, str] = {}
    for override in overrides:
        key = override.get_key_element()
        space.pop(key, None)
        fixed.pop(key, None)
        if not override.is_sweep_override():
            fixed[key] = override.input_line or key
            continue
        try:
            space[key] = _part(override)
        except InputError as error:
            raise InputError(f"{key}: {error}") from error
    return space, list(fixed.values())


def _part(override: Override) -> NumberRange | Choices:
    from attnspan.errors import InputError, nearest
    from attnspan.sweeps.hyperparameters.space import Choices, NumberRange

    sweep = override.value()
    tags = set(getattr(sweep, "tags", ()))
    for tag in tags - {_LOG}:
        raise InputError(f"has the tag '{tag}'; {nearest(str(tag), [_LOG])}")
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        return NumberRange(low=sweep.start, high=sweep.end, log=_LOG in tags)
    if isinstance(sweep, RangeSweep):
        steps = _steps(sweep)
        if not steps:
            raise InputError(f"range({sweep.start},{sweep.stop},{sweep.step}) is empty")
        return NumberRange(low=min(steps), high=max(steps), step=abs(sweep.step), log=_LOG in tags)
    if tags:
        raise InputError(f"the tag '{_LOG}' is for range(...) and interval(...)")
    return Choices(values=tuple(dict.fromkeys(override.sweep_string_iterator())))


def _steps(sweep: RangeSweep) -> list[int | float]:
    """The numbers of a range, computed as decimals: repeated addition of 0.1 as a float accumulates rounding errors."""
    start, stop, step = (Decimal(str(end)) for end in (sweep.start, sweep.stop, sweep.step))
    numbers = [start + count * step for count in range(max(0, math.ceil((stop - start) / step)))]
    whole = all(isinstance(end, int) for end in (sweep.start, sweep.step))
    return [int(number) if whole else float(number) for number in numbers]
