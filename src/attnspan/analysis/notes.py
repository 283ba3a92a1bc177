"""What a reader must know before believing the numbers of a study, one sentence each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from attnspan.analysis.arms import Arm
from attnspan.analysis.collection import differing_keys
from attnspan.analysis.lengths.bins import joined
from attnspan.analysis.lengths.training_range import EXTRAPOLATION, IN_RANGE
from attnspan.analysis.seed_groups import Groups
from attnspan.data.corpora.base import SIDES
from attnspan.runs.finished_run import Run
from attnspan.runs.summary import AGAINST_EXPLOSION, ends_at_chance


def notes_on_arms(arms: Sequence[Arm], compared: Mapping[str, str], best: Arm) -> list[str]:
    """Notes on seeds, baselines and training lengths; ``best`` is the arm that sets the threshold of spans."""
    several = len(arms) > 1
    return [
        *([] if several else [f"There is one arm only ({arms[0].label}), so there are no differences to show."]),
        *_notes_on_seeds(arms),
        *_notes_on_baselines(arms, compared),
        *_notes_on_few_seeds(arms),
        *_notes_on_training_lengths(arms),
        *_notes_on_unreachable(arms),
        *_notes_on_settings(arms),
        *(
            f"{arm.label} has no seed in common with {best.label}, the best arm on the shortest examples, so the "
            "threshold of its span is taken as known: that interval is too narrow."
            for arm in arms
            if not arm.common_seeds(best)
        ),
    ]


def notes_on_training(improving: Collection[str], mark: str) -> list[str]:
    """Which arms were still improving when their training ended."""
    if not improving:
        return []
    names = joined(sorted(improving))
    return [
        f"{mark} {names}: the cap on the updates ended the training of a run or more while validation was still "
        "improving, so more training would lower the error rate; see how the arms learned."
    ]


def notes_on_chance(arms: Sequence[Arm], mark: str) -> list[str]:
    """Which runs were no better at the end of their training than equal probabilities for all symbols."""
    failed = {arm.label: [run.seed for run in arm.runs if ends_at_chance(run.summary)] for arm in arms}
    if not any(failed.values()):
        return []
    names = joined(f"{label} (seed {', '.join(map(str, seeds))})" for label, seeds in failed.items() if seeds)
    return [
        f"{mark} {names}: the loss was no lower at the end of training than that of equal probabilities for all "
        f"symbols, so these numbers say nothing about the arm; {AGAINST_EXPLOSION} may help."
    ]


def notes_on_groups(groups: Mapping[tuple[str, str], Groups]) -> list[str]:
    """Which arms have seeds that fall into groups, and on which side of the lengths of training."""
    sides: dict[tuple[str, Groups], list[str]] = {}
    for (label, side), both in groups.items():
        sides.setdefault((label, both), []).append(_WHERE[side])
    return [
        f"The seeds of {label} fall into two groups ({' / '.join(map(_named, both))}) on "
        f"{joined(where)}, as where some learn and others fail. Neither a mean nor an interval describes that, so the "
        "tables give the mean of each group there, the better first, and no interval."
        for (label, both), where in sides.items()
    ]


def _named(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {joined(map(str, seeds))}"


_WHERE = {IN_RANGE: "lengths seen in training", EXTRAPOLATION: "lengths beyond training"}


def _notes_on_seeds(arms: Sequence[Arm]) -> Iterable[str]:
    every_seed = sorted({seed for arm in arms for seed in arm.seeds})
    for arm in arms:
        if missing := [seed for seed in every_seed if seed not in arm.seeds]:
            yield (
                f"{arm.label} has no run with seed {', '.join(map(str, missing))}; differences to it use the seeds "
                "that both arms have."
            )


def _notes_on_baselines(arms: Sequence[Arm], compared: Mapping[str, str]) -> Iterable[str]:
    by_label = {arm.label: arm for arm in arms}
    for label, baseline in compared.items():
        if not by_label[label].common_seeds(by_label[baseline]):
            yield f"{label} and {baseline} have no seed in common, so their difference is not given."
    uncompared = [arm.label for arm in arms if arm.label not in {*compared, *compared.values()}]
    if uncompared and len(arms) > 1:
        yield f"There is no baseline with the same settings for {', '.join(uncompared)}."


def _notes_on_few_seeds(arms: Sequence[Arm]) -> Iterable[str]:
    for arm in arms:
        if len(arm.seeds) == 1:
            yield f"{arm.label} has one seed: its intervals cover the draw of test examples only, not of seeds."
    if max(len(arm.seeds) for arm in arms) == 2:
        yield "With two seeds an interval rests on one degree of freedom: it is valid, but wide."


def _notes_on_training_lengths(arms: Sequence[Arm]) -> Iterable[str]:
    for side in SIDES:
        longest = {arm.label: arm.training_range.longest(side) for arm in arms}
        if len(set(longest.values())) > 1:
            lengths = ", ".join(f"{label} {'unknown' if one is None else one}" for label, one in longest.items())
            yield f"The longest {side} seen in training differs ({lengths}); each arm is in range up to its own."
    if unknown := [arm.label for arm in arms if arm.training_range.target is None]:
        yield (
            f"The runs of {joined(unknown)} do not record the longest target in training, so for them in range and "
            "extrapolation are judged by source length alone."
        )


def _notes_on_unreachable(arms: Sequence[Arm]) -> Iterable[str]:
    """References that no output can equal, by arms that have the same ones."""
    alike: dict[tuple[bytes, int], list[Arm]] = {}
    for arm in arms:
        if arm.unreachable is None:
            told = max(int(run.summary.get("references_over_limit") or 0) for run in arm.runs)
            if told:
                yield f"{arm.label}: {told:,} references are longer than decoding.limit lets an output be."
        elif arm.unreachable.count:
            alike.setdefault((arm.unreachable.inside.tobytes(), arm.unreachable.needed_margin), []).append(arm)
    for (_, margin), some in alike.items():
        found = some[0].unreachable
        assert found is not None
        of = "" if len(some) == len(arms) else f" of {joined(arm.label for arm in some)}"
        yield (
            f"{found.count:,} of {len(found.inside):,} references are longer than decoding.limit lets an output{of} "
            f"be, so no output can equal them; decoding.limit.margin={margin} reaches them all."
        )


def _notes_on_settings(arms: Sequence[Arm]) -> Iterable[str]:
    """A comparison is fair if arms differ in their decoder only."""
    variants = [[arm.runs[0] for arm in arms if arm.name == name] for name in {arm.name for arm in arms}]
    own = ("decoder.", *(key for runs in variants for key in differing_keys(runs)))  # a variant's label names them
    differing = [key for key in differing_keys([arm.runs[0] for arm in arms]) if not key.startswith(own)]
    if differing:
        yield f"Besides the decoder, the arms differ in {', '.join(differing)}."


def notes_on_evaluations(runs: Sequence[Run]) -> list[str]:
    """What was decoded, if it is not only the test of each run."""
    if all(run.evaluation is None and not run.parts for run in runs):
        return []
    parts = Counter(tuple(f"{part.name} ({part.examples:,})" for part in run.parts) for run in runs)
    several = [joined(names) for names in parts if names]
    if several:
        return [f"The examples of several evaluations stand together: {', or '.join(several)}."]
    names = joined(sorted({run.evaluation for run in runs if run.evaluation}))
    beside = ", beside the test of the runs themselves" if any(run.evaluation is None for run in runs) else ""
    return [f"These are evaluations of finished runs: {names}{beside}."]


def notes_on_origin(runs: Sequence[Run]) -> list[str]:
    """Where and by which code the runs were made, if not all by the same."""
    notes = []
    processors = Counter((run.summary.get("machine") or {}).get("processor") or "unknown" for run in runs)
    if len(processors) > 1:
        notes.append(
            f"The runs were made on several processors ({_counted(processors, 'on')}): a run has the same numbers on "
            "one machine only; between two it may differ, by 0.03 to 0.04 in a bin where that was seen."
        )
    states = Counter((_commit(run.summary), run.summary.get("code")) for run in runs)
    if len({code or commit for commit, code in states}) > 1:
        by_commit = len({commit for commit, _ in states}) == len(states)
        names = Counter({commit if by_commit else f"{commit} (code {code})": n for (commit, code), n in states.items()})
        several = "commits" if by_commit else "states"
        notes.append(f"The runs were made by several {several} of this code ({_counted(names, 'by')}).")
    kernels = Counter(run.summary.get("kernels") or "unknown" for run in runs)
    if len(kernels.keys() - {"unknown"}) > 1:
        notes.append(
            f"The runs were made with several kernel implementations ({_counted(kernels, 'with')}), which round "
            "differently: a run may differ between two."
        )
    return notes


def _commit(summary: Mapping[str, Any]) -> str:
    """The commit in 12 digits, with a plus sign if tracked files differed from it."""
    commit = str(summary.get("git_commit") or "unknown")
    return commit.removesuffix("+")[:12] + "+" * commit.endswith("+")


def _counted(names: Counter[str], preposition: str) -> str:
    return ", ".join(f"{count} {preposition} {name}" for name, count in names.most_common())
