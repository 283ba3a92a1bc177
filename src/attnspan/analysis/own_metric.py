"""Metrics of a user's own: a function that scores one example, and a file that says what its numbers mean.

The file is ``metric/<name>.yaml`` in a folder of the user's own. Its ``_target_`` names the function, ``title`` and
``better`` are needed, and keys that are none of ``KEYS`` are arguments of the function. The function takes any of
``hypothesis``, ``reference`` and ``source``, each a list of tokens, and returns a number, whose mean over examples is
the metric, or a pair of numbers, which are summed over examples before they are divided.
"""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from attnspan.analysis.collection import Collection
from attnspan.analysis.metrics import HIGHER, LOWER, METRICS, RecordMetric
from attnspan.analysis.text_metrics import CORPUS_SCORES, PERPLEXITIES
from attnspan.config.config_files import ConfigFiles
from attnspan.data.tokenizer import Tokenizer
from attnspan.errors import InputError, first_line, nearest
from attnspan.runs.finished_run import Run
from attnspan.runs.layout import TOKENIZERS

KEYS = ("title", "better", "best", "worst", "digits")
"""Of a metric's file, besides ``_target_``, ``_partial_`` and the arguments of the function."""
_SIDES = {"hypothesis": "target", "reference": "target", "source": "source"}
"""What a function may take, and by whose tokens its text is cut."""


@dataclass(frozen=True)
class OwnMetric(RecordMetric):
    """A metric that is computed from the texts of the records by a user's function."""

    file: Path = field(kw_only=True)
    function: Callable[..., Any] = field(kw_only=True)
    takes: tuple[str, ...] = field(kw_only=True)
    """Which of ``hypothesis``, ``reference`` and ``source``."""

    def columns_of(self, run: Run) -> dict[str, list[float]]:
        """Numerator and denominator of each record, by the names of ``columns``.

        Raises:
            InputError: the function raises, or returns what is no number; names the example.
        """
        texts = zip(*(_tokens(run, name) for name in self.takes), strict=True)
        names = run.records["example_id"]
        pairs = [self._pair(tokens, str(name), run) for tokens, name in zip(texts, names, strict=True)]
        if not pairs or len({is_pair for _, _, is_pair in pairs}) > 1:
            raise InputError(f"{self.file}: returns a number of one example and a pair of another")
        if not any(pair[1] for pair in pairs):
            raise InputError(f"{self.file}: every denominator is 0 in {run.directory}")
        return {column: [pair[k] for pair in pairs] for k, column in enumerate(self.columns)}

    def _pair(self, tokens: Sequence[list[str]], example: str, run: Run) -> tuple[float, float, bool]:
        where = f"{self.file}: example '{example}' of {run.directory}"
        try:
            found = self.function(**dict(zip(self.takes, tokens, strict=True)))
        except Exception as error:  # a user's function may raise anything
            last = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {first_line(error)}".rstrip(": ")
            raise InputError(f"{where}: {what} ({Path(last.filename).name} line {last.lineno})") from error
        is_pair = isinstance(found, tuple | list)
        if is_pair and len(found) != 2:
            raise InputError(f"{where}: returned {len(found)} numbers, not one, or a numerator and a denominator")
        numbers = [*found] if is_pair else [found, 1]
        for number in numbers:
            if not _is_number(number):
                raise InputError(f"{where}: returned {found!r}, not a number or two")
        if numbers[1] < 0:
            raise InputError(f"{where}: returned the denominator {numbers[1]!r}, which is below 0")
        return float(numbers[0]), float(numbers[1]), is_pair


def own_metrics(files: ConfigFiles) -> list[OwnMetric]:
    """The metrics in the folders ``metric/`` of a user's own.

    Raises:
        InputError: a file lacks a key, has one that does not exist, or names no function; two metrics have one name.
    """
    return [_read(name, path, content) for name, (path, content) in files.own_choices("metric").items()]


def with_own_metrics(collection: Collection, metrics: Sequence[OwnMetric]) -> Collection:
    """The same runs, whose records have the columns of ``metrics``."""
    runs = collection.runs
    for metric in metrics:
        runs = tuple(replace(run, records=run.records.assign(**metric.columns_of(run))) for run in runs)
    return replace(collection, runs=runs)


def _read(name: str, path: Path, content: Mapping[str, Any]) -> OwnMetric:
    taken = {one.name for one in (*METRICS, *CORPUS_SCORES, *PERPLEXITIES)} | {"arm", "seed", "examples", "seeds"}
    if name in taken or not name.isidentifier():
        why = "attnspan has a metric or column of that name" if name in taken else "letters, digits and _ only"
        raise InputError(f"{path}: the name of the file is that of the metric: {why}")
    if "_target_" not in content:
        raise InputError(f"{path}: _target_ is missing: the function, as in my_metrics.missing_tokens")
    function, takes = _function(path, content)
    title, better = content.get("title"), content.get("better")
    if not isinstance(title, str) or not title.strip():
        raise InputError(f"{path}: title must be the metric's name in captions, not {title!r}")
    if better not in (HIGHER, LOWER):
        raise InputError(f"{path}: better must be {HIGHER} or {LOWER}, not {better!r}")
    best, worst = _ends(path, content)
    digits = content.get("digits", 3)
    if isinstance(digits, bool) or not isinstance(digits, int) or not 0 <= digits <= 9:
        raise InputError(f"{path}: digits must be a whole number from 0 to 9, not {digits!r}")
    return OwnMetric(
        name, title, (name, f"{name}_of"), digits=digits, better=better, best=best, worst=worst,
        lowest=best if best is not None and better == LOWER else -math.inf,
        highest=best if best is not None and better == HIGHER else math.inf,
        file=path, function=function, takes=takes,
    )  # fmt: skip


def _ends(path: Path, content: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The best and the worst value; None where the file has neither."""
    best: Any = content.get("best")
    worst: Any = content.get("worst")
    if best is None and worst is None:
        return None, None
    for key, value in (("best", best), ("worst", worst)):
        if not _is_number(value):
            raise InputError(f"{path}: {key} must be a number, as best and worst are given together, not {value!r}")
    if (best < worst) != (content["better"] == LOWER) or best == worst:
        raise InputError(f"{path}: best is {best:g} and worst is {worst:g}, but {content['better']} is better")
    return float(best), float(worst)


def _function(path: Path, content: Mapping[str, Any]) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """The function with its arguments from the file, and which texts it takes."""
    from attnspan.config.instantiate import build_function  # Hydra takes half a second to load

    function = build_function({"_target_": content["_target_"]}, str(path))
    parameters = inspect.signature(function).parameters
    arguments = {key: value for key, value in content.items() if key not in ("_target_", "_partial_", *KEYS)}
    for key in arguments:
        if key not in parameters or key in _SIDES:
            known = [*KEYS, *(name for name in parameters if name not in _SIDES)]
            raise InputError(f"{path}: {key}: there is no such key; {nearest(key, known)}")
    takes = tuple(name for name in _SIDES if name in parameters)
    missing = [
        name
        for name, one in parameters.items()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        and name not in (*takes, *arguments)
    ]  # fmt: skip
    if not takes or missing:
        what = f"'{missing[0]}' has no value" if missing else "the function takes none of them"
        raise InputError(f"{path}: {content['_target_']} is given hypothesis, reference and source; {what}")
    return build_function({"_target_": content["_target_"], **arguments}, str(path)), takes


def _tokens(run: Run, name: str) -> list[list[str]]:
    """A text of every record, in the tokens of the run."""
    side = _SIDES[name]
    tokenizer = Tokenizer.load(run.trained_in / TOKENIZERS / f"{side}.json")
    return [tokenizer.cut(text) for text in run.records[name]]


def _is_number(value: object) -> bool:
    """Whether it is a number or a truth value, of Python or numpy, and finite."""
    if value is None or isinstance(value, str | bytes):
        return False
    try:
        return pd.api.types.is_number(value) and math.isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
