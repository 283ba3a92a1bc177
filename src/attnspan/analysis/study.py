"""Runs -> quality by source length, paired differences to a baseline, spans and trends. Neither torch nor files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnspan.analysis import text_metrics as texts
from attnspan.analysis.bins import Bins, make_bins
from attnspan.analysis.collection import Collection, differing_keys
from attnspan.analysis.metrics import ATTENTION_METRICS, ERROR_RATE, METRICS, UNBOUNDED, is_known, sums
from attnspan.analysis.spans import Span, find_span
from attnspan.analysis.statistics import NOTHING, Estimate, Floats, Rates, holm, randomisation
from attnspan.errors import InputError, nearest
from attnspan.runs.finished_run import Run

IN_RANGE = "in range"
"""Source lengths up to the longest seen in training."""
EXTRAPOLATION = "extrapolation"
"""Source lengths longer than any seen in training."""

PER = 10
"""Slopes are per this many source tokens."""


@dataclass(frozen=True)
class Arm:
    """All runs of one arm (of one variant of it), one a seed."""

    label: str
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The arm's config name, without what makes it a variant."""
        return self.runs[0].arm

    @property
    def seeds(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(run.seed for run in self.runs)

    @property
    def training_max(self) -> int:
        """The longest source that every run of the arm saw in training."""
        return min(run.training_lengths[1] for run in self.runs)


@dataclass(frozen=True)
class Region:
    """Some source lengths: a bin, or all bins on one side of the longest training length."""

    label: str
    side: str
    """``in range`` or ``extrapolation``."""
    total: bool
    """Whether it is the whole side."""
    above: int
    """Sources are longer than this ..."""
    up_to: int
    """... and no longer than this."""
    mean_length: float
    examples: int


@dataclass(frozen=True)
class Point:
    """One arm on the sources of one region."""

    arm: str
    region: Region
    seeds: tuple[int, ...]
    metrics: dict[str, Estimate]
    by_seed: dict[str, Floats]


@dataclass(frozen=True)
class Difference:
    """By how much an arm makes fewer errors than its baseline, on the same examples with the same seeds."""

    arm: str
    baseline: str
    region: Region
    seeds: tuple[int, ...]
    advantage: Estimate
    """The baseline's error rate minus the arm's: above 0, the arm is better."""
    by_seed: Floats
    p: float
    """The interval's p-value against no advantage."""
    p_holm: float
    """``p``, corrected (Holm) for the number of bins of this comparison."""
    p_models: float
    """Paired randomisation over examples: are *these trained models* different? It knows nothing of other seeds."""
    p_models_holm: float


@dataclass(frozen=True)
class ArmSpan:
    """The span of one arm."""

    arm: str
    seeds: tuple[int, ...]
    best: str
    """The arm that sets the threshold."""
    span: Span


@dataclass(frozen=True)
class Trend:
    """How one arm changes with source length over one side of the longest training length."""

    arm: str
    side: str
    bins: int
    seeds: tuple[int, ...]
    error_factor: Estimate
    """By what the error rate is multiplied with every 10 more source tokens (a line through log error rates)."""
    relative_drop: Estimate
    """The share of its quality in the shortest bin that the arm has lost in the longest."""
    baseline: str | None
    growth: Estimate
    """Interaction of arm and length: by how much the advantage over the baseline grows with every 10 more tokens."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Runs of several arms on one test set."""

    collection: Collection
    arms: tuple[Arm, ...]
    """The baseline first, then by label."""
    baseline: str
    compared: dict[str, str]
    """Arm -> the arm it is compared to."""
    legend: tuple[str, ...]
    """Labels in the order of their colours, with those of arms that only other studies of the report have."""
    bins: Bins
    keep: float
    """The share of quality that ends a span."""
    text: bool = False
    """Whether the target is text, so that BLEU and chrF say something."""
    ter: bool = False
    """Whether TER is given beside BLEU and chrF."""
    loss: float | None = None
    """The validation loss to which training is timed; None for the least that every run came down to."""
    notes: tuple[str, ...] = field(default=())
    """What a reader must know before believing the numbers, one sentence each."""

    @property
    def data(self) -> str:
        """The dataset's config name."""
        return str(self.collection.runs[0].summary["data"])

    @property
    def test_set(self) -> pd.DataFrame:
        """The records of one run, whose sources and references are those of all."""
        return self.collection.runs[0].records

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Source length of every test example."""
        return self.test_set["source_length"].to_numpy()

    def arm(self, label: str) -> Arm:
        """The arm of that label."""
        return next(arm for arm in self.arms if arm.label == label)

    def regions(self, training_max: int) -> list[Region]:
        """The bins, then the two sides of ``training_max`` as wholes (those with examples)."""
        described = []
        edges = self.bins.edges
        for b, label in enumerate(self.bins.labels):
            longest = min(edges[b + 1], int(self.lengths.max()))  # the last edge may lie beyond all sources
            side = IN_RANGE if longest <= training_max else EXTRAPOLATION
            described.append((label, side, False, edges[b], edges[b + 1]))
        for side in (IN_RANGE, EXTRAPOLATION):
            of_side = [row for row in described if row[1] == side]
            if of_side:
                described.append((side, side, True, of_side[0][3], of_side[-1][4]))
        inside = [(self.lengths > above) & (self.lengths <= up_to) for *_, above, up_to in described]
        return [
            Region(*row, mean_length=float(self.lengths[mask].mean()), examples=int(mask.sum()))
            for row, mask in zip(described, inside, strict=True)
        ]

    @cached_property
    def curve(self) -> list[Point]:
        """Every metric of every arm in every region."""
        return self._points(METRICS)

    @cached_property
    def attention(self) -> list[Point]:
        """Where teacher-forced attention looks, of every arm that has attention, in every region."""
        return self._points(ATTENTION_METRICS)

    @property
    def attention_metrics(self) -> list[str]:
        """What is known of the attention of any arm."""
        return [metric for metric in ATTENTION_METRICS if any(metric in point.metrics for point in self.attention)]

    @property
    def text_metrics(self) -> list[str]:
        """The corpus scores that are given; none where the target is no text."""
        return [metric for metric in texts.TEXT_METRICS if self.text and (self.ter or metric != "ter")]

    @cached_property
    def translation(self) -> list[Point]:
        """Corpus scores and perplexities of every arm in every region, where the target is text."""
        return [point for arm in self.arms for point in self._texts_of(arm)] if self.text else []

    def _texts_of(self, arm: Arm) -> list[Point]:
        regions = self.regions(arm.training_max)
        members = self._members(regions)
        rates = {
            metric: texts.measure([texts.statistics(run.records, metric) for run in arm.runs], metric, members)
            for metric in self.text_metrics
        }
        records = [run.records for run in arm.runs]
        rates |= {metric: texts.perplexity(records, metric, members) for metric in texts.PERPLEXITIES}
        return [
            Point(
                arm.label, region, arm.seeds,
                {
                    metric: rate.estimate(_unit(k, len(regions))).clipped(*texts.possible(metric))
                    for metric, rate in rates.items()
                },
                {metric: rate.by_seed[:, k] for metric, rate in rates.items()},
            )
            for k, region in enumerate(regions)
        ]  # fmt: skip

    def _points(self, metrics: Iterable[str]) -> list[Point]:
        """Those of ``metrics`` that are known of an arm, of every arm of which any is, in every region."""
        points = []
        for arm in self.arms:
            known = [metric for metric in metrics if all(is_known(run.records, metric) for run in arm.runs)]
            of_arm = {metric: self._sums(arm, arm.seeds, metric) for metric in known}
            for region in self.regions(arm.training_max) if known else ():
                rates = {metric: Rates.measure(*of_arm[metric], self._members([region])) for metric in known}
                estimates = {
                    metric: rate.estimate(np.ones(1)).clipped(0.0, np.inf if metric in UNBOUNDED else 1.0)
                    for metric, rate in rates.items()
                }
                by_seed = {metric: rate.by_seed[:, 0] for metric, rate in rates.items()}
                points.append(Point(arm.label, region, arm.seeds, estimates, by_seed))
        return points

    @cached_property
    def differences(self) -> list[Difference]:
        """The advantage of every compared arm over its baseline, in every region."""
        differences = []
        for arm, baseline in self._pairs():
            seeds = _common(arm, baseline)
            regions = self.regions(min(arm.training_max, baseline.training_max))
            rates = self._paired(baseline, arm, seeds, regions)
            K = len(regions)
            contrasts = [_unit(k, 2 * K) - _unit(K + k, 2 * K) for k in range(K)]
            p = np.array([rates.p_value(contrast) for contrast in contrasts])
            p_models = self._randomised(arm, baseline, seeds, regions)
            is_bin = np.array([not region.total for region in regions])
            p_holm = _holm_over(p, is_bin)
            p_models_holm = _holm_over(p_models, is_bin)
            for k, region in enumerate(regions):
                by_seed = rates.by_seed[:, k] - rates.by_seed[:, K + k]
                differences.append(
                    Difference(
                        arm.label, baseline.label, region, seeds, rates.estimate(contrasts[k]), by_seed,
                        float(p[k]), float(p_holm[k]), float(p_models[k]), float(p_models_holm[k]),
                    )
                )  # fmt: skip
        return differences

    @cached_property
    def spans(self) -> list[ArmSpan]:
        """The span of every arm; none if no arm has any quality in the shortest bin."""
        best, spans = self._best, []
        for arm in self.arms:
            seeds = _common(arm, best) or arm.seeds
            own = self._bins_of(arm, seeds)
            B = len(self.bins)
            if arm is best:
                rates, column = own, 0
            elif _common(arm, best):
                rates, column = Rates.beside(own, self._bins_of(best, seeds)), B
            else:
                rates, column = Rates.beside(own, _constant(self._bins_of(best, best.seeds), len(seeds))), B
            span = find_span(
                rates,
                arm=list(range(B)),
                best=column,
                at=np.array([region.mean_length for region in self._bin_regions()]),
                shortest=int(self.lengths.min()),
                longest=int(self.lengths.max()),
                keep=self.keep,
            )
            if span:
                spans.append(ArmSpan(arm.label, seeds, best.label, span))
        return spans

    @cached_property
    def _best(self) -> Arm:
        """The arm that makes the fewest errors on the shortest sources."""
        return min(self.arms, key=lambda arm: self._bins_of(arm, arm.seeds).mean[0])

    def about_spans(self) -> list[str]:
        """What a reader must know before believing the spans."""
        alone = [arm.label for arm in self.arms if not _common(arm, self._best)]
        return [
            f"{label} has no seed in common with {self._best.label}, the best arm on the shortest sources, so the "
            "quality that its span asks for is taken as known: that interval is too narrow."
            for label in alone
        ]

    @cached_property
    def trends(self) -> list[Trend]:
        """Slopes and drops of every arm on each side that has two bins or more."""
        trends = []
        for arm in self.arms:
            baseline = self.arm(self.compared[arm.label]) if arm.label in self.compared else None
            wall = min(one.training_max for one in (arm, baseline) if one)
            for side in (IN_RANGE, EXTRAPOLATION):
                regions = [r for r in self.regions(wall) if r.side == side and not r.total]
                if len(regions) < 2:
                    continue
                own = self.rates(arm, arm.seeds, ERROR_RATE, regions)
                slope = _slope_weights(np.array([region.mean_length for region in regions]))
                growth = NOTHING
                if baseline and _common(arm, baseline):
                    paired = self._paired(baseline, arm, _common(arm, baseline), regions)
                    growth = paired.estimate(np.concatenate([slope, -slope]))
                trends.append(
                    Trend(
                        arm.label, side, len(regions), arm.seeds, _error_factor(own, slope), _relative_drop(own),
                        baseline.label if baseline else None, growth,
                    )
                )  # fmt: skip
        return trends

    def rates(self, arm: Arm, seeds: Sequence[int], metric: str, regions: Sequence[Region]) -> Rates:
        """One metric of one arm in ``regions``, with the seeds named."""
        return Rates.measure(*self._sums(arm, seeds, metric), self._members(regions))

    def _sums(self, arm: Arm, seeds: Sequence[int], metric: str) -> tuple[Floats, Floats]:
        """Numerators and denominators [S, N] of a metric, of every example with the S seeds named."""
        of_runs = [sums(run.records, metric) for run in arm.runs if run.seed in seeds]
        numerators, denominators = zip(*of_runs, strict=True)
        return np.stack(numerators), np.stack(denominators)

    def _members(self, regions: Sequence[Region]) -> NDArray[np.bool_]:
        return np.stack([(self.lengths > region.above) & (self.lengths <= region.up_to) for region in regions])

    def _pairs(self) -> list[tuple[Arm, Arm]]:
        pairs = [(self.arm(label), self.arm(baseline)) for label, baseline in self.compared.items()]
        return [(arm, baseline) for arm, baseline in pairs if _common(arm, baseline)]

    def _paired(self, first: Arm, second: Arm, seeds: Sequence[int], regions: Sequence[Region]) -> Rates:
        return Rates.beside(*(self.rates(arm, seeds, ERROR_RATE, regions) for arm in (first, second)))

    def _bin_regions(self) -> list[Region]:
        return [region for region in self.regions(0) if not region.total]

    def _bins_of(self, arm: Arm, seeds: Sequence[int]) -> Rates:
        return self.rates(arm, seeds, ERROR_RATE, self._bin_regions())

    def _randomised(self, arm: Arm, baseline: Arm, seeds: Sequence[int], regions: Sequence[Region]) -> Floats:
        edits = [
            sum(run.records["edits"].to_numpy() for run in one.runs if run.seed in seeds) for one in (baseline, arm)
        ]
        return randomisation(np.asarray(edits[0] - edits[1], dtype=np.float64), self._members(regions))


def build_study(
    collection: Collection,
    *,
    baseline: str | None = None,
    edges: Sequence[int] | None = None,
    keep: float = 0.5,
    text: bool | None = None,
    ter: bool = False,
    loss: float | None = None,
) -> Study:
    """Put runs together.

    Args:
        collection: the runs.
        baseline: an arm, or the label of a variant; left out it is ``plain`` if there is one, else the first arm.
        edges: of the length bins; left out they are even, with an edge on the longest training length.
        keep: the share of the best arm's quality on the shortest sources that ends a span.
        text: whether the target is text; left out, it is if it is cut into subwords, or words and signs.
        ter: whether to give TER too.
        loss: the validation loss to which training is timed; left out, the least that every run came down to.

    Raises:
        InputError: there is no such arm, or TER is asked for of what is no text.
    """
    is_text = all(map(texts.is_text, collection.runs)) if text is None else text
    if ter and not is_text:
        raise InputError("--ter: edits of words say something about text only; if the target is text, add --text")
    if not 0 < keep < 1:
        raise InputError(f"--keep {keep:g}: a share of quality lies between 0 and 1")
    labels = sorted({run.label for run in collection.runs}, key=_natural)
    arms = [Arm(label, _of_label(collection, label)) for label in labels]
    chosen = baseline or ("plain" if any(arm.name == "plain" for arm in arms) else arms[0].label)
    compared = _compare(arms, chosen)
    first = chosen if chosen in labels else next(arm.label for arm in arms if arm.name == chosen)
    arms.sort(key=lambda arm: (arm.label not in {first, *compared.values()}, arm.name != chosen))
    lengths = collection.runs[0].records["source_length"].to_numpy()
    bins = make_bins(lengths, [arm.training_max for arm in arms], edges)
    study = Study(
        collection=collection,
        arms=tuple(arms),
        baseline=chosen,
        compared=compared,
        legend=tuple(arm.label for arm in arms),
        bins=bins,
        keep=keep,
        text=is_text,
        ter=ter,
        loss=loss,
    )
    notes = (*_notes(arms, compared), *study.about_spans(), *_about_machines(collection.runs), *bins.notes)
    return replace(study, notes=notes)


def with_one_legend(studies: Sequence[Study]) -> list[Study]:
    """The same studies, in which an arm has the same colour as in all others."""
    every = tuple(dict.fromkeys(label for study in studies for label in study.legend))
    return [replace(study, legend=every) for study in studies]


def _of_label(collection: Collection, label: str) -> tuple[Run, ...]:
    return tuple(sorted((run for run in collection.runs if run.label == label), key=lambda run: run.seed))


def _compare(arms: Sequence[Arm], baseline: str) -> dict[str, str]:
    """To which arm each is compared: with variants, to the baseline of the same settings."""
    labels = [arm.label for arm in arms]
    if baseline in labels:
        return {label: baseline for label in labels if label != baseline}
    if baseline not in {arm.name for arm in arms}:
        raise InputError(f"--baseline {baseline}: no such arm among these runs; {nearest(baseline, labels)}")
    settings = {arm.label.removeprefix(arm.name): arm.label for arm in arms if arm.name == baseline}
    compared = {
        arm.label: settings[arm.label.removeprefix(arm.name)]
        for arm in arms
        if arm.name != baseline and arm.label.removeprefix(arm.name) in settings
    }
    if compared:
        return compared
    first = next(iter(settings.values()))
    return {label: first for label in labels if label != first}


def _notes(arms: Sequence[Arm], compared: dict[str, str]) -> list[str]:
    notes = []
    if len(arms) == 1:
        notes.append(f"There is one arm only ({arms[0].label}), so there are no differences to show.")
    every_seed = sorted({seed for arm in arms for seed in arm.seeds})
    by_label = {arm.label: arm for arm in arms}
    for arm in arms:
        if missing := [seed for seed in every_seed if seed not in arm.seeds]:
            notes.append(
                f"{arm.label} has no run with seed {', '.join(map(str, missing))}; differences to it use the seeds "
                "that both arms have."
            )
    for label, baseline in compared.items():
        if not _common(by_label[label], by_label[baseline]):
            notes.append(f"{label} and {baseline} have no seed in common, so their difference is not given.")
    if uncompared := [arm.label for arm in arms if len(arms) > 1 and arm.label not in {*compared, *compared.values()}]:
        notes.append(f"No baseline of the same settings for {', '.join(uncompared)}.")
    for arm in arms:
        if len(arm.seeds) == 1:
            notes.append(f"{arm.label} has one seed: its intervals cover the draw of test examples only, not of seeds.")
    if max(len(arm.seeds) for arm in arms) == 2:
        notes.append("With two seeds an interval rests on one degree of freedom: it holds, but it is wide.")
    if len({arm.training_max for arm in arms}) > 1:
        lengths = ", ".join(f"{arm.label} {arm.training_max}" for arm in arms)
        notes.append(f"The longest source seen in training differs ({lengths}); each arm is in range up to its own.")
    return notes + _unequal_settings(arms)


def _about_machines(runs: Sequence[Run]) -> list[str]:
    """Where the runs were made, if not all in one place or not all by the same code."""
    processors = Counter((run.summary.get("machine") or {}).get("processor") or "unknown" for run in runs)
    commits = Counter(run.summary.get("git_commit") or "unknown" for run in runs)
    notes = []
    if len(processors) > 1:
        on = ", ".join(f"{count} on {name}" for name, count in processors.most_common())
        notes.append(
            f"The runs were made on several processors ({on}): one run has the same numbers on one machine only, and "
            "may differ in the third decimal between two."
        )
    if len(commits) > 1:
        by = ", ".join(f"{count} by {name[:12]}" for name, count in commits.most_common())
        notes.append(f"The runs were made by several commits of this code ({by}).")
    return notes


def _unequal_settings(arms: Sequence[Arm]) -> list[str]:
    """A comparison is fair if arms differ in their decoder only; where more differs, say what."""
    variants = [[arm.runs[0] for arm in arms if arm.name == name] for name in {arm.name for arm in arms}]
    own = ("decoder.", *(key for runs in variants for key in differing_keys(runs)))  # a variant's label has said it
    differing = [key for key in differing_keys([arm.runs[0] for arm in arms]) if not key.startswith(own)]
    return [f"Besides the decoder, the arms differ in {', '.join(differing)}."] if differing else []


def _natural(label: str) -> list[tuple[int, float, str]]:
    """Sort ``hidden_size=64`` before ``hidden_size=512``."""
    words = label.replace("=", " ").split()
    return [(0, float(word), "") if word.replace(".", "", 1).isdigit() else (1, 0.0, word) for word in words]


def _common(first: Arm, second: Arm) -> tuple[int, ...]:
    return tuple(seed for seed in first.seeds if seed in second.seeds)


def _constant(rates: Rates, seeds: int) -> Rates:
    """The same rates, taken as known, beside any ``seeds`` seeds."""
    by_seed = np.tile(rates.mean, (seeds, 1))
    return Rates(by_seed, np.zeros((seeds, *rates.influence.shape[1:])), rates.counts)


def _unit(k: int, size: int) -> Floats:
    unit = np.zeros(size)
    unit[k] = 1.0
    return unit


def _holm_over(p_values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Holm's correction over the chosen p-values; the others stay as they are."""
    corrected = p_values.copy()
    corrected[chosen] = holm(p_values[chosen].tolist())
    return corrected


def _slope_weights(at: Floats) -> Floats:
    """Weights that give the slope, per 10 tokens, of the least-squares line through one value a bin."""
    centred = at - at.mean()
    return np.asarray(PER * centred / (centred**2).sum())


def _error_factor(rates: Rates, slope: Floats) -> Estimate:
    if not (rates.mean > 0).all():
        return NOTHING  # the log of no error is not a number
    logarithm = rates.estimate(slope / rates.mean, float(slope @ np.log(rates.mean)))
    value, low, high = np.exp([logarithm.value, logarithm.low, logarithm.high])
    return Estimate(float(value), float(low), float(high), rates.seeds)


def _relative_drop(rates: Rates) -> Estimate:
    first, last = 1 - rates.mean[0], max(1 - rates.mean[-1], 0.0)
    if not first > 0:
        return NOTHING
    weights = np.zeros(len(rates.mean))
    weights[0], weights[-1] = -last / first**2, 1 / first
    return rates.estimate(weights, float(1 - last / first)).clipped(-np.inf, 1.0)  # quality is not below 0
