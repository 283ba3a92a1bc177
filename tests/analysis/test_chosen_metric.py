"""A study by another metric than the error rate."""

import dataclasses
import itertools

import numpy as np
import pytest

from attnspan.analysis.collection import collect
from attnspan.analysis.comparison import _randomised
from attnspan.analysis.metrics import ERROR_RATE, METRICS
from attnspan.analysis.ranking import rank
from attnspan.analysis.study import build_study
from attnspan.analysis.text_metrics import CORPUS_SCORES, PERPLEXITIES
from attnspan.errors import InputError
from attnspan.reporting import plots, ranking_page, tables
from attnspan.reporting.findings import findings
from tests.fake_runs import example, fake_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every output is right or wrong in every token: the error rate is 1 - exact match."""
    root = tmp_path_factory.mktemp("runs")
    examples = [example(n, length) for n, length in enumerate(np.repeat([4, 8, 12, 16], 40))]
    length = np.array([one["target_length"] for one in examples])
    generator = np.random.default_rng(1)
    for arm, wrong in (("plain", length / 18), ("bahdanau", length / 40)):
        for seed in (0, 1, 2):
            edits = length * (generator.random(len(length)) < wrong + 0.03 * seed)
            fake_run(root, arm, seed, examples, edits, training_lengths=(1, 8))
    return root


def study_of(runs, metric, **options):
    return build_study(collect([runs]), edges=[0, 4, 8, 12, 16], metric=metric, **options)


def test_a_metric_and_its_complement_say_the_same(runs):
    of_errors, of_matches = study_of(runs, "error_rate"), study_of(runs, "exact_match")
    for one, other in zip(of_errors.differences, of_matches.differences, strict=True):
        if not one.region.total:  # there an error rate weighs an example by its length
            assert dataclasses.astuple(one.advantage) == pytest.approx(dataclasses.astuple(other.advantage))
            assert (one.p, one.p_holm, one.p_models) == pytest.approx((other.p, other.p_holm, other.p_models))
            assert one.by_seed == pytest.approx(other.by_seed)
    for span, other_span in zip(of_errors.spans, of_matches.spans, strict=True):
        assert span.best == other_span.best
        assert str(span.span.length) == str(other_span.span.length)
        assert span.span.threshold == pytest.approx(other_span.span.threshold)
        assert (str(span.span.low), str(span.span.high)) == (str(other_span.span.low), str(other_span.span.high))
    for trend, other_trend in zip(of_errors.trends, of_matches.trends, strict=True):
        for name in ("relative_drop", "growth"):
            one, other = getattr(trend, name), getattr(other_trend, name)
            assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(other), nan_ok=True)


def test_what_is_said_follows_the_metric(runs):
    study = study_of(runs, "exact_match")
    headline, rests_on, growth, *_ = findings(study)
    best = {(point.arm, point.region.label): point.metrics["exact_match"].value for point in study.curve}
    values = [f"{best[arm, '5–8']:.3f}" for arm in ("bahdanau", "plain")]
    assert headline.startswith(f"By exact match, bahdanau has {values[0]} on sources of 5–8 tokens")
    assert f"where plain has {values[1]}" in headline
    assert rests_on.startswith("That is better by 0.")
    assert "the advantage of bahdanau over plain in exact match grows by" in growth
    assert not any("error" in sentence for sentence in findings(study))
    assert tables.differences(study).caption == "Advantage: exact match of the arm minus exact match of the baseline"
    assert tables.degradation_blocks(study)[0].caption.startswith("Exact match by source length")
    drawn = plots.draw_plots(study)
    assert drawn["degradation"].figure.axes[0].get_ylabel() == "Exact match"
    assert drawn["advantage"].figure.axes[0].get_ylabel() == "advantage in exact match"
    assert "Exact match against source length: plain from" in drawn["degradation"].text


def test_a_metric_without_a_worst_value_has_neither_span_nor_ranking(runs):
    study = study_of(runs, "nll")
    assert study.spans == []
    assert all(np.isnan(trend.relative_drop.value) for trend in study.trends)
    assert all(one.advantage.value > 0 for one in study.differences if one.region.label == "13–16")
    assert rank([study, study]) == []
    (said,) = ranking_page.ranking_findings([study, study], [])
    assert said.startswith("There is no ranking by teacher-forced negative log-likelihood")


def test_a_score_of_the_corpus_compares_arms_too(runs):
    study = study_of(runs, "bleu", text=True)
    assert all(np.isnan(one.p_models) for one in study.differences)  # swapping examples is no sum
    by_arm = {(point.arm, point.region.label): point.by_seed["bleu"] for point in study.translation}
    for one in study.differences:
        own, its = (by_arm[arm, one.region.label] for arm in (one.arm, one.baseline))
        assert one.by_seed == pytest.approx(own - its)


def test_ranking_by_exact_match_is_by_its_mean(runs):
    first = study_of(runs, "exact_match")
    second = dataclasses.replace(
        first, collection=dataclasses.replace(first.collection, runs=tuple(
            dataclasses.replace(run, summary=run.summary | {"data": "other"}) for run in first.collection.runs
        )),
    )  # fmt: skip
    whole = [region for region in first.regions(first.arms[0]) if region.total]
    for ranking, region in zip(rank([first, second]), whole, strict=True):
        for standing in ranking.standings:
            arm = first.arm(standing.arm)
            means = [run.records["exact_match"][region.inside].mean() for run in arm.runs]
            assert standing.scores[0] == pytest.approx(means)


def test_a_swap_of_examples_counts_what_each_arm_divides_by(tmp_path):
    """Of alignment errors each arm has its own denominators: against a slow loop over all swaps."""
    generator = np.random.default_rng(3)
    examples = [example(n, 4) for n in range(9)]
    for arm in ("plain", "bahdanau"):
        links = generator.integers(2, 6, 9)
        attention = [
            {"attention_entropy": [0.5] * 4, "links": int(n), "links_in_sure": int(generator.integers(0, n))}
            for n in links
        ]
        fake_run(tmp_path, arm, 0, examples, [1] * 9, attention=attention, training_lengths=(1, 4))
    study = build_study(collect([tmp_path]))
    (metric,) = (one for one in METRICS if one.name == "pointing_accuracy")
    plain, bahdanau = study.arm("plain"), study.arm("bahdanau")
    (region,) = [one for one in study.regions(plain) if not one.total]
    (found,) = _randomised(bahdanau, plain, (0,), [region], metric)
    (a, c), (b, d) = ([part[0] for part in one.sums(metric)] for one in (plain, bahdanau))
    observed, extreme = abs(a.sum() / c.sum() - b.sum() / d.sum()), 0
    for swap in itertools.product([False, True], repeat=9):
        first, second = np.where(swap, b, a), np.where(swap, a, b)
        below, under = np.where(swap, d, c), np.where(swap, c, d)
        extreme += abs(first.sum() / below.sum() - second.sum() / under.sum()) >= observed - 1e-12
    assert found == pytest.approx(extreme / 2**9, abs=0.02)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("exact_macth", r"--metric exact_macth: there is no such metric; did you mean 'exact_match'\?"),
        ("attention_entropy", "--metric attention_entropy: neither more nor less of it is better"),
        ("bleu", "--metric bleu: says something about text only; if the target is text, add --text"),
        ("gold_attention", "--metric gold_attention: no arm has it$"),
        ("oracle_exact_match", "--metric oracle_exact_match: no arm has it; runs have it with oracle_length=true"),
    ],
)
def test_a_metric_that_compares_nothing_is_refused_in_one_line(runs, metric, message):
    with pytest.raises(InputError, match=message):
        study_of(runs, metric)


def test_arms_without_the_metric_are_named(tmp_path):
    examples = [example(n, 4) for n in range(30)]
    shown = [{"attention_entropy": [0.5] * 4, "gold_attention": [0.5] * 4}] * 30
    for arm, attention in (("plain", None), ("bahdanau", shown)):
        fake_run(tmp_path, arm, 0, examples, [1] * 30, attention=attention)
    with pytest.raises(InputError, match="plain does not have it; give the runs of the others only"):
        build_study(collect([tmp_path]), metric="gold_attention")


def test_quality_is_1_at_the_best_value_and_0_at_the_worst():
    for metric in (*METRICS, *CORPUS_SCORES, *PERPLEXITIES):
        if metric.has_quality:
            assert metric.quality(np.array([metric.worst, metric.best])).tolist() == [0, 1]
            assert (metric.best > metric.worst) == (metric.sign > 0)
    assert ERROR_RATE.quality(np.array([0.25, 1.5])).tolist() == [0.75, 0]
    words = {one.name: one.quality_in_words for one in (*METRICS, *CORPUS_SCORES)}
    assert words["error_rate"] == "1 − error rate, not below 0"
    assert words["exact_match"] == "exact match"
    assert words["bleu"] == "BLEU / 100"
    assert words["ter"] == "1 − TER / 100, not below 0"
    assert words["nll"] == ""
