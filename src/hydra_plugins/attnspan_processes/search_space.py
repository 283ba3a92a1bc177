"""From a search's overrides, in Hydra's own syntax, to what it may try and what stays as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

if TYPE_CHECKING:
    from attnspan.sweeps.hyperparameters.space import Numbers, Space, Words

_LOG = "log"


def read_space(overrides: Sequence[Override]) -> tuple[Space, list[str]]:
    """Tell what varies from what does not; of two overrides of one key the later one counts.

    Args:
        overrides: ``choice(a,b)`` or ``a,b``, ``range(1,5)`` (as in Hydra without its end), ``interval(0.1,1)``,
            ``int(interval(1,5))``, and ``tag(log,...)`` of a range or an interval vary.

    Raises:
        InputError: one of them cannot be searched over; names its key.
    """
    from attnspan.errors import InputError

    space: dict[str, Numbers | Words] = {}
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


def _part(override: Override) -> Numbers | Words:
    from attnspan.errors import InputError, nearest
    from attnspan.sweeps.hyperparameters.space import Numbers, Words

    sweep = override.value()
    tags = set(getattr(sweep, "tags", ()))
    for tag in tags - {_LOG}:
        raise InputError(f"has the tag '{tag}'; {nearest(str(tag), [_LOG])}")
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        return Numbers(low=sweep.start, high=sweep.end, log=_LOG in tags)
    if isinstance(sweep, RangeSweep):
        steps = _steps(sweep)
        if not steps:
            raise InputError(f"range({sweep.start},{sweep.stop},{sweep.step}) is empty")
        return Numbers(low=min(steps), high=max(steps), step=abs(sweep.step), log=_LOG in tags)
    if tags:
        raise InputError(f"the tag '{_LOG}' is for numbers, in range(...) and interval(...)")
    return Words(values=tuple(dict.fromkeys(override.sweep_string_iterator())))


def _steps(sweep: RangeSweep) -> list[int | float]:
    """The numbers of a range; as decimals, since adding 0.1 to a float again and again ends at what nobody wrote."""
    start, stop, step = (Decimal(str(end)) for end in (sweep.start, sweep.stop, sweep.step))
    numbers = [start + count * step for count in range(max(0, math.ceil((stop - start) / step)))]
    whole = all(isinstance(end, int) for end in (sweep.start, sweep.step))
    return [int(number) if whole else float(number) for number in numbers]
