"""The first test examples of each bin of a study, decoded again by one run of every arm, for its explorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnspan.analysis.arms import Arm
from attnspan.analysis.examples import first_examples
from attnspan.analysis.lengths.bins import joined
from attnspan.analysis.study import Study
from attnspan.data.alignment import Link
from attnspan.errors import InputError
from attnspan.evaluation.decoded_again import DecodedRun, decode_again, tokenise_records


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedStudy:
    """What was decoded again."""

    per_bin: int
    """The number of examples in each bin that has so many."""
    runs: Mapping[str, DecodedRun]
    """Of every arm, by its label."""
    gold: Mapping[str, Sequence[Link]]
    """Example id -> its sure links, (source position, reference position); empty where none are known."""
    notes: tuple[str, ...]
    """What could not be had, one sentence each."""


def decode_study(study: Study, per_bin: int, *, trusted: Sequence[str] = ()) -> DecodedStudy:
    """Decode the first ``per_bin`` examples of each bin again.

    Of each arm it is the run of lowest seed that can be loaded. Where none can, the texts of the records have to do.

    Args:
        study: of any runs.
        per_bin: at least 1.
        trusted: packages whose classes the configs may name, besides attnspan.
    """
    names = study.test_set["example_id"]
    ids = {str(names.iloc[row]) for rows in first_examples(study, per_bin) for row in rows}
    runs = {arm.label: _decode_arm(arm, ids, trusted) for arm in study.arms}
    has_weights = any(one.weights is not None for run in runs.values() for one in run.examples.values())
    gold, notes = _gold(study, sorted(ids), trusted) if has_weights else ({}, [])
    return DecodedStudy(per_bin=per_bin, runs=runs, gold=gold, notes=(*_notes(runs), *notes))


def _decode_arm(arm: Arm, ids: set[str], trusted: Sequence[str]) -> DecodedRun:
    problems = []
    for run in arm.runs:
        try:
            return decode_again(run, ids, trusted=trusted)
        except InputError as error:
            problems.append(str(error))
    return tokenise_records(arm.runs[0], ids, problem=problems[0])


def _notes(runs: Mapping[str, DecodedRun]) -> list[str]:
    problems = {label: one.problem for label, one in runs.items() if one.problem}
    notes = []
    if problems:
        notes.append(f"No attention is shown of {joined(problems)}: {next(iter(problems.values()))}.")
    for label, one in runs.items():
        if one.different:
            examples = f"{one.different} example{'s' * (one.different > 1)}"
            notes.append(f"{label} decodes {examples} to other texts than its records have; they have no attention.")
    return notes


def _gold(study: Study, ids: Sequence[str], trusted: Sequence[str]) -> tuple[Mapping[str, Sequence[Link]], list[str]]:
    """The gold links, if the records say that there are any, and why they are missing."""
    known = [run for run in study.collection.runs if run.records["gold_links"].notna().any()]
    if not known:
        return {}, []
    from attnspan.evaluation.prepared_test import kept_gold_links  # what prepares data takes a second to load

    try:
        return kept_gold_links(known[0], ids, trusted), []
    except InputError as error:
        return {}, [f"Gold links are not drawn: {error}."]
