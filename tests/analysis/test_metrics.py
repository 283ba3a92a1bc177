"""Sums of record columns, by hand."""

import math

from attnspan.analysis.collection import collect
from attnspan.analysis.metrics import ATTENTION_METRICS, METRICS, is_known, sums
from attnspan.analysis.study import build_study
from tests.fake_runs import example, fake_run


def records(root, seen, **options):
    examples = [example(0, 3), example(1, 5)]
    directory = fake_run(root, "bahdanau", 0, examples, [2, 0], seen=seen, **options)
    return collect([directory]).runs[0].records


def test_every_metric_is_a_sum_over_a_sum(tmp_path):
    table = records(tmp_path, None)
    assert [part.tolist() for part in sums(table, "error_rate")] == [[2, 0], [3, 5]]
    assert [part.tolist() for part in sums(table, "exact_match")] == [[0, 1], [1, 1]]
    assert [part.tolist() for part in sums(table, "token_accuracy")] == [[2, 6], [4, 6]]
    assert all(is_known(table, metric) for metric in METRICS)
    assert not any(is_known(table, metric) for metric in ATTENTION_METRICS)


def test_lists_are_summed_over_what_is_known(tmp_path):
    seen = [
        {"attention_entropy": [0.5, None, 1.5], "gold_attention": [0.25, 0.5, 0.0]},
        {"attention_entropy": [None] * 5, "gold_attention": [1.0, 1.0, None, None, 0.5]},
    ]
    table = records(tmp_path, seen)
    assert [part.tolist() for part in sums(table, "attention_entropy")] == [[2, 0], [2, 0]]
    assert [part.tolist() for part in sums(table, "gold_attention")] == [[0.75, 2.5], [3, 3]]
    assert [is_known(table, metric) for metric in ATTENTION_METRICS] == [True, True, False]


def test_alignment_errors_are_summed_before_they_are_divided(tmp_path):
    seen = [
        {"links": 3, "gold_links": 2, "links_in_sure": 1, "links_in_possible": 2},
        {"links": 5, "gold_links": 5, "links_in_sure": 5, "links_in_possible": 5},
    ]
    table = records(tmp_path, seen)
    assert [part.tolist() for part in sums(table, "alignment_error_rate")] == [[2, 0], [5, 10]]


def test_a_bin_without_a_gold_link_has_no_number_and_spoils_no_other(tmp_path):
    """30 sources of 4 tokens that no output needs, and 30 of 8, at which one of two seeds never looks."""
    examples = [example(n, 4 if n < 30 else 8) for n in range(60)]
    for seed, mass in ((0, 1.0), (1, 0.0)):
        seen = [
            {"attention_entropy": [0.0] * 4, "gold_attention": [None] * 4} if n < 30 else
            {"attention_entropy": [0.0] * 8, "gold_attention": [mass] * 8}
            for n in range(60)
        ]  # fmt: skip
        fake_run(tmp_path, "bahdanau", seed, examples, [1] * 60, training_lengths=(1, 8), seen=seen)
    study = build_study(collect([tmp_path]), edges=[0, 4, 8])
    shorter, longer, both = (point.metrics["gold_attention"] for point in study.attention)
    assert math.isnan(shorter.value)
    assert longer.value == both.value == 0.5
    assert (longer.low, longer.high) == (0, 1)  # two seeds that far apart say nothing
