"""Run directories -> the runs that can be compared: finding, reading and checking them, and naming variants.

A run that cannot be trusted (unfinished, truncated, with NaN), or that has another test set, is excluded by name and
never averaged in. Sound runs that cannot be told apart, or whose data differ under one config, are refused.

An evaluation of a run is read as a run is. Those in which a run decoded different examples in the same way stand
together: their examples are one test set. Those that differ in how it decoded are variants of its arm.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnspan.config.config_files import ATTNSPANS, ConfigFiles
from attnspan.config.identity import CHANGES_NOTHING, LATER_KEYS, comparable, flatten, with_stable_names
from attnspan.errors import InputError
from attnspan.runs.finished_run import Run, read_run
from attnspan.runs.layout import find_runs

_NO_VARIANT = (*CHANGES_NOTHING, "arm", "seed", "hydra", "evaluation")
"""Config keys that cannot change a run's numbers, or that a study compares anyway: they do not make a variant."""

_TEST_SET = ["example_id", "source_length", "target_length", "source", "reference"]


@dataclass(frozen=True)
class Excluded:
    """A run directory that was given but is not in the report."""

    directory: Path
    reason: str


@dataclass(frozen=True)
class Collection:
    """The runs of one data set, and the run directories that were excluded."""

    runs: tuple[Run, ...]
    excluded: tuple[Excluded, ...]
    files: ConfigFiles = ATTNSPANS
    """That say how arms, their parts and the data set are called."""


def collect(paths: Sequence[Path], files: ConfigFiles = ATTNSPANS) -> Collection:
    """Read the run directories in or below ``paths``, all of one data set.

    Args:
        paths: as :func:`collect_each`.
        files: as :func:`collect_each`.

    Raises:
        InputError: as :func:`collect_each`, or two runs are of different data sets.
    """
    collections, excluded = collect_each(paths, files)
    if len(collections) > 1:
        one, another = (collection.runs[0] for collection in collections[:2])
        raise InputError(
            f"different data sets: {one.directory} is on '{one.summary['data']}', {another.directory} on "
            f"'{another.summary['data']}'; give the runs of one data set"
        )
    return replace(collections[0], excluded=excluded)


def collect_each(
    paths: Sequence[Path], files: ConfigFiles = ATTNSPANS
) -> tuple[list[Collection], tuple[Excluded, ...]]:
    """Read the run directories in or below ``paths``: one collection per data set, by name, and all that was excluded.

    A run whose test set is not that of most runs is excluded too; if two test sets have equally many runs, the larger
    one stays.

    Args:
        paths: run directories, or directories above some.
        files: that say how arms, their parts and data sets are called.

    Raises:
        InputError: a path does not exist or has no run; no run is usable; two runs of one arm and seed cannot be told
            apart; the data of two runs differ under one config; two arms have one label.
    """
    runs: dict[str, Run] = {}
    excluded = []
    for directory in find_runs(paths):
        try:
            run = read_run(directory)
        except InputError as error:
            reason = str(error).removeprefix(f"{directory}/").removeprefix(f"{directory}: ")
            excluded.append(Excluded(directory, reason))
            continue
        if (twin := runs.setdefault(run.result_id, run)) is not run:
            excluded.append(Excluded(directory, f"the same run as {twin.directory}, which counts once"))
    if not runs:
        reasons = f" ({'; '.join(f'{one.directory}: {one.reason}' for one in excluded)})" if excluded else ""
        raise InputError(f"none of the {len(excluded)} run directories given can be used{reasons}")
    collections = []
    for data in sorted({str(run.summary["data"]) for run in runs.values()}):
        of_data, others = _of_one_test_set(pooled([run for run in runs.values() if run.summary["data"] == data]))
        excluded += others
        named = name_variants(of_data, files)
        _refuse_mixtures(named)
        # A run directory is <data>/<arm>/<run id>.
        of_this_data = [one for one in excluded if one in others or one.directory.parent.parent.name == data]
        collections.append(Collection(tuple(named), tuple(of_this_data), files))
    shown: dict[str, str] = {}
    for data in (str(one.runs[0].summary["data"]) for one in collections):
        if (other := shown.setdefault(label := files.label("data", data), data)) != data:
            raise InputError(f"data/{data}.yaml: label: '{label}' is what {other} is called, too")
    if len(collections) == 1:
        collections = [replace(collections[0], excluded=tuple(excluded))]
    return collections, tuple(excluded)


def _of_one_test_set(runs: Sequence[Run]) -> tuple[list[Run], list[Excluded]]:
    """The runs with the most frequent test set, and the others."""
    groups: list[list[Run]] = []
    for run in runs:
        same = next((group for group in groups if not _difference(group[0].records, run.records)), None)
        if same is None:
            groups.append([run])
        else:
            same.append(run)
    groups.sort(key=lambda group: (len(group), len(group[0].records)), reverse=True)
    first, *others = groups
    return first, [
        Excluded(
            run.directory,
            f"another test set than {len(first)} other run{'s' * (len(first) > 1)}: {first[0].directory} and this run: "
            f"{_difference(first[0].records, run.records)}",
        )
        for group in others
        for run in group
    ]


def pooled(runs: Sequence[Run]) -> list[Run]:
    """The runs, of which those with the same weights and the same decoding have become one, on all their examples.

    An example that several of them have counts once. Where two have different examples of one id, the later one's gets
    the fingerprint of its set of examples, so it is the same example in every arm. The test of the run itself comes
    first, and its attention maps are kept.
    """
    same: dict[str, list[Run]] = {}
    for run in runs:
        decoded = {key: value for key, value in _flat(comparable(run.config)).items() if not _is_no_variant(key)}
        same.setdefault(repr((run.run_id, sorted(decoded.items()))), []).append(run)
    return [_one(group) if len(group) > 1 else group[0] for group in same.values()]


def _one(group: Sequence[Run]) -> Run:
    """The runs of a group as one."""
    first, *others = sorted(group, key=lambda run: (run.evaluation is not None, run.part.fingerprint))
    parts, frames = [first.part], [first.records]
    known = _texts(first.records)
    for run in others:
        texts = _texts(run.records)
        is_new = [known.get(name) != text for name, text in texts.items()]
        records = run.records[is_new].copy()
        if records.empty:
            continue
        taken = records["example_id"].isin(known)
        records.loc[taken, "example_id"] += f"@{run.part.fingerprint[:8]}"
        known |= _texts(records)
        parts.append(replace(run.part, examples=len(records)))
        frames.append(records)
    if len(parts) == 1:
        return first
    records = pd.concat(frames).sort_values(["source_length", "example_id"], kind="stable", ignore_index=True)
    return replace(first, records=records, parts=tuple(parts))


def _texts(records: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Source and reference of every example."""
    pairs = zip(records["source"], records["reference"], strict=True)
    return dict(zip(records["example_id"], pairs, strict=True))


def name_variants(runs: Sequence[Run], files: ConfigFiles) -> list[Run]:
    """Label each run with its arm, and with the settings in which it differs from other runs of that arm."""
    named, labels = [], dict[str, str]()
    for arm in sorted({run.arm for run in runs}):
        label = files.label("decoder", arm)
        if (other := labels.setdefault(label, arm)) != arm:
            raise InputError(f"decoder/{arm}.yaml: label: '{label}' is what {other} is called, too")
        same = [run for run in runs if run.arm == arm]
        differing = differing_keys(same)
        for run in same:
            shown = [key for key in differing if _says_more(key, run, same, differing)]
            settings = dict.fromkeys(setting(run, key, files) for key in shown)  # a choice may set several classes
            of_label, of_variant = (" ".join([name, *settings]) for name in (label, arm))
            named.append(replace(run, label=of_label, variant=of_variant))
    return named


def setting(run: Run, key: str, files: ConfigFiles) -> str:
    """A setting of a run, as a label has it: ``hidden_size=64``, or the choice that a class comes from."""
    config = _with_later_keys(run.config)
    if key.endswith("._target_") and key in _flat(config):
        return files.choice(config, key.removesuffix("._target_"))
    return f"{key}={_flat(config).get(key, 'unset')}"


def _with_later_keys(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the keys that came later, with what its run did; of parts that it has."""
    config = copy.deepcopy(config)
    for key, value in LATER_KEYS.items():
        *parents, last = key.split(".")
        part: Any = config
        for parent in parents:
            part = part.get(parent) if isinstance(part, dict) else None
        if isinstance(part, dict):
            part.setdefault(last, value)
    return config


def _says_more(key: str, run: Run, runs: Sequence[Run], differing: Sequence[str]) -> bool:
    """Whether a differing key says something that the class of the part that it belongs to does not say already."""
    words = key.split(".")
    above = [".".join([*words[:end], "_target_"]) for end in range(1, len(words))]
    for target in above:
        if target in differing and target != key:
            of_one_class = [one for one in runs if _flat(one.config).get(target) == _flat(run.config).get(target)]
            return len({_flat(one.config).get(key) for one in of_one_class}) > 1
    return True


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """The config keys, dotted, that change numbers and are not the same in all ``runs``.

    Classes are compared by their stable names: a class that was moved since an old run is still the same.
    """
    same_data = all(_have_same_data(runs[0], run) for run in runs)
    configs = [_flat(comparable(run.config)) for run in runs]
    differing = []
    for key in sorted({key for config in configs for key in config}):
        of_data = key.startswith("data.")
        free = not of_data and _is_no_variant(key)
        if not free and not (of_data and same_data) and len({config.get(key) for config in configs}) > 1:
            differing.append(key)
    return [key for key in differing if key == _shortest_twin(key, differing, configs)]


def _is_no_variant(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in _NO_VARIANT)


def _shortest_twin(key: str, keys: Sequence[str], configs: Sequence[dict[str, str]]) -> str:
    """The shortest of the keys that equal ``key`` in every config, as where one is interpolated from another."""
    twins = [other for other in keys if all(config.get(other) == config.get(key) for config in configs)]
    return min(twins, key=lambda twin: (len(twin), twin))


def _flat(config: dict[str, Any]) -> dict[str, str]:
    """The config's values as text, under their dotted keys."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)
        for key, value in flatten(config).items()
    }


def _refuse_mixtures(runs: Sequence[Run]) -> None:
    configs = [(with_stable_names(run.config.get("data")), run) for run in runs]
    for (config, one), (other_config, other) in itertools.combinations(configs, 2):
        if config == other_config and not _have_same_data(one, other):  # it must have meant the same data
            fingerprints = [run.summary.get("data_fingerprint") for run in (one, other)]
            raise InputError(
                f"different data under one config: {one.directory} has data_fingerprint {fingerprints[0]}, "
                f"{other.directory} has {fingerprints[1]}"
            )
    first: dict[tuple[str, int], Run] = {}
    for run in runs:
        twin = first.setdefault((run.label, run.seed), run)
        if twin is not run:
            raise InputError(
                f"{twin.directory} and {run.directory} are both {run.label} with seed {run.seed}, and their configs do "
                "not differ: give only one of them"
            )


def _difference(first: pd.DataFrame, other: pd.DataFrame) -> str | None:
    """In words, how two test sets differ; None if they are equal."""
    if len(first) == len(other) and all(np.array_equal(first[column], other[column]) for column in _TEST_SET):
        return None
    ids, other_ids = set(first["example_id"]), set(other["example_id"])
    if ids != other_ids:
        only = [
            f"{len(some)} only in the {which} (such as '{min(some)}')"
            for some, which in ((ids - other_ids, "first"), (other_ids - ids, "second"))
            if some
        ]
        return f"{len(first)} and {len(other)} examples, {', '.join(only)}"
    left, right = first.set_index("example_id"), other.set_index("example_id").loc[first["example_id"]]
    columns = [column for column in _TEST_SET[1:] if not np.array_equal(left[column], right[column])]
    example = left.index[left[columns[0]].to_numpy() != right[columns[0]].to_numpy()][0]
    a, b = left.loc[example, columns[0]], right.loc[example, columns[0]]
    return f"example '{example}' has {columns[0]} {a!r} in the first and {b!r} in the second"


def _have_same_data(first: Run, other: Run) -> bool:
    """Whether two runs have the same data.

    The fingerprint of a run without ``code`` in its summary depends on the module of the corpus, so it cannot be
    compared with a newer one. There the contents of the test set and the numbers of examples decide.
    """
    same_age = ("code" in first.summary) == ("code" in other.summary)
    keys = ("data_fingerprint",) if same_age else ("test_fingerprint", "examples", "training_lengths")
    return all(first.summary.get(key) == other.summary.get(key) for key in keys)
