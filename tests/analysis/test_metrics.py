"""Sums of record columns, by hand."""

import math
from dataclasses import dataclass, field, replace

import pandas as pd
import pytest

from attnspan.analysis import metrics
from attnspan.analysis.collection import collect
from attnspan.analysis.metrics import ATTENTION, DEGENERATE, METRICS, QUALITY, STOPPING, metrics_in
from attnspan.analysis.study import build_study
from attnspan.cli import report
from attnspan.reporting import tables
from attnspan.runs import records as columns
from tests.fake_runs import example, fake_run, sign


def sums(table, name):
    (metric,) = [metric for metric in METRICS if metric.name == name]
    return metric.sums_of(table)


def records(root, attention, **options):
    examples = [example(0, 3), example(1, 5)]
    directory = fake_run(root, "bahdanau", 0, examples, [2, 0], attention=attention, **options)
    return collect([directory]).runs[0].records


def test_every_metric_is_a_sum_over_a_sum(tmp_path):
    table = records(tmp_path, None)
    assert [part.tolist() for part in sums(table, "error_rate")] == [[2, 0], [3, 5]]
    assert [part.tolist() for part in sums(table, "exact_match")] == [[0, 1], [1, 1]]
    assert [part.tolist() for part in sums(table, "token_accuracy")] == [[2, 6], [4, 6]]
    unknown = {metric.name for metric in metrics_in(QUALITY, DEGENERATE) if not metric.is_known(table)}
    assert unknown == {"oracle_error_rate", "oracle_exact_match"}
    assert not any(metric.is_known(table) for metric in metrics_in(ATTENTION))
    assert [metric.is_known(table) for metric in metrics_in(STOPPING)] == [True, True, False]


# (hypothesis, reference, cut at the limit) -> too short, too long, ended at 22, the longest trained
ENDS = {
    (21, 22, False): (1, 0, 0),
    (22, 22, False): (0, 0, 0),  # as long as its reference
    (22, 24, False): (1, 0, 1),
    (22, 20, False): (0, 1, 1),
    (23, 24, False): (1, 0, 0),
    (22, 24, True): (0, 0, 0),  # the limit ended it, not the model
    (30, 24, True): (0, 1, 0),
    (0, 1, False): (1, 0, 0),
}


def test_where_hypotheses_end_by_hand(tmp_path):
    ends = [
        example(n, 9, target_length=reference, target_tokens=reference + 1)
        for n, (_, reference, _) in enumerate(ENDS)
    ]  # fmt: skip

    def ended(records):
        each = zip(records, ENDS, strict=True)
        return [replace(one, hypothesis_length=length, truncated=cut) for one, (length, _, cut) in each]

    same = {"training_lengths": (1, 9), "training_target_lengths": (1, 22), "change_records": ended}
    fake_run(tmp_path, "plain", 0, ends, [1] * len(ENDS), **same)
    table = collect([tmp_path]).runs[0].records
    found = [sums(table, name)[0].tolist() for name in ("too_short", "too_long", "at_longest_trained")]
    assert [*zip(*found, strict=True)] == [*ENDS.values()]


def test_older_records_do_not_say_where_hypotheses_end(tmp_path):
    examples = [example(n, 5) for n in range(30)]
    directory = fake_run(tmp_path, "plain", 0, examples, [1] * 30)
    path = directory / "records.parquet"
    pd.read_parquet(path).drop(columns=["hypothesis_length"]).to_parquet(path)  # as before there was such a column
    sign(directory)
    study = build_study(collect([tmp_path]))
    assert study.stopping_metrics == []
    assert tables.stopping(study).rows == ()
    assert "too_short" not in study.curve[0].metrics


def test_without_the_longest_trained_target_only_that_is_unknown(tmp_path):
    fake_run(tmp_path, "plain", 0, [example(n, 5) for n in range(30)], [1] * 30)
    study = build_study(collect([tmp_path]))
    assert [metric.name for metric in study.stopping_metrics] == ["too_short", "too_long"]
    assert tables.stopping(study).rows[1].cells[2] == "0.0 / 0.0"


def test_lists_are_summed_over_what_is_known(tmp_path):
    attention = [
        {"attention_entropy": [0.5, None, 1.5], "gold_attention": [0.25, 0.5, 0.0]},
        {"attention_entropy": [None] * 5, "gold_attention": [1.0, 1.0, None, None, 0.5]},
    ]
    table = records(tmp_path, attention)
    assert [part.tolist() for part in sums(table, "attention_entropy")] == [[2, 0], [2, 0]]
    assert [part.tolist() for part in sums(table, "gold_attention")] == [[0.75, 2.5], [3, 3]]
    assert [metric.is_known(table) for metric in metrics_in(ATTENTION)] == [True, True, False, False, False]


def test_alignment_errors_are_summed_before_they_are_divided(tmp_path):
    attention = [
        {"links": 3, "gold_links": 2, "links_in_sure": 1, "links_in_possible": 2},
        {"links": 5, "gold_links": 5, "links_in_sure": 5, "links_in_possible": 5},
    ]
    table = records(tmp_path, attention)
    assert [part.tolist() for part in sums(table, "alignment_error_rate")] == [[2, 0], [5, 10]]
    assert [part.tolist() for part in sums(table, "pointing_accuracy")] == [[1, 5], [3, 5]]


def test_a_bin_without_a_gold_link_has_no_number_and_spoils_no_other(tmp_path):
    """30 sources of 4 tokens that no output needs, and 30 of 8, at which one of two seeds never looks."""
    examples = [example(n, 4 if n < 30 else 8) for n in range(60)]
    for seed, mass in ((0, 1.0), (1, 0.0)):
        attention = [
            {"attention_entropy": [0.0] * 4, "gold_attention": [None] * 4} if n < 30 else
            {"attention_entropy": [0.0] * 8, "gold_attention": [mass] * 8}
            for n in range(60)
        ]  # fmt: skip
        fake_run(tmp_path, "bahdanau", seed, examples, [1] * 60, training_lengths=(1, 8), attention=attention)
    study = build_study(collect([tmp_path]), edges=[0, 4, 8])
    shorter, longer, both = (point.metrics["gold_attention"] for point in study.attention)
    assert math.isnan(shorter.value)
    assert longer.value == both.value == 0.5
    assert (longer.low, longer.high) == (0, 1)  # two seeds that far apart say nothing


def test_a_decoding_with_the_length_given_is_shown_beside_the_arms_that_have_none(tmp_path):
    """30 sources of 4 tokens with one edit each, and 30 of 8 without any."""
    examples = [example(n, 4 if n < 30 else 8) for n in range(60)]
    oracle = [{"oracle_hypothesis": "a", "oracle_edits": int(n < 30), "oracle_exact_match": n >= 30} for n in range(60)]
    fake_run(tmp_path / "runs", "plain", 0, examples, [2] * 60, training_lengths=(1, 8), attention=oracle)
    fake_run(tmp_path / "runs", "bahdanau", 0, examples, [2] * 60, training_lengths=(1, 8))
    out = tmp_path / "out"
    assert report.main([str(tmp_path / "runs"), "--bins", "0,4,8", "--out", str(out)]) == 0
    curve = pd.read_csv(out / "curve.csv").set_index(["arm", "lengths"])
    assert curve.loc["plain", "oracle_error_rate"].tolist() == pytest.approx([0.25, 0, 30 / 360])
    assert curve.loc["plain", "oracle_exact_match"].tolist() == [0, 1, 0.5]
    assert curve.loc["bahdanau", "oracle_error_rate"].isna().all()
    page = (out / "index.html").read_text()
    title = "Error rate with the length of the reference given by source length, with 95% intervals"
    assert title in page
    fake_run(tmp_path / "without", "bahdanau", 0, examples, [2] * 60, training_lengths=(1, 8))
    assert report.main([str(tmp_path / "without"), "--out", str(tmp_path / "other")]) == 0
    assert "length of the reference given" not in (tmp_path / "other" / "index.html").read_text()


class TestANewMetric:
    """It needs a column of the records with the function that computes it, and one entry in METRICS."""

    @pytest.fixture(autouse=True)
    def _added(self, monkeypatch):
        @dataclass(frozen=True, kw_only=True)
        class Record(columns.Record):
            missing_tokens: "int" = field(metadata={"score": lambda said, wanted: max(len(wanted) - len(said), 0)})

        added = metrics.RecordMetric("missing", "Missing tokens", ("missing_tokens", "target_length"), digits=2)
        short = metrics.RecordMetric(
            "short", "Short output", ("missing_tokens",), shown=metrics.DEGENERATE, label="short",
            meaning="tokens are missing",
        )  # fmt: skip
        monkeypatch.setattr(columns, "Record", Record)
        monkeypatch.setattr(columns, "SCHEMA", columns.schema_of(Record))
        monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, added, short))

    def test_the_recorder_computes_its_column(self):
        scores = {"edits": 2, "empty": False, "repeating": False, "missing_tokens": 1}
        assert columns.score_hypothesis("ab", "xbc") == scores

    def test_the_report_shows_it_everywhere(self, tmp_path):
        lengths = [4] * 30 + [8] * 30
        examples = [example(n, length, missing_tokens=int(length == 8)) for n, length in enumerate(lengths)]
        fake_run(tmp_path / "runs", "plain", 0, examples, [1] * 60, training_lengths=(1, 8))
        out = tmp_path / "out"
        assert report.main([str(tmp_path / "runs"), "--bins", "0,4,8", "--out", str(out)]) == 0
        curve = pd.read_csv(out / "curve.csv").set_index("lengths")
        assert curve["missing"].tolist()[:2] == [0, 0.125]
        assert curve["short"].tolist()[:2] == [0, 1]
        page = (out / "index.html").read_text()
        assert "Missing tokens by source length, with 95% intervals" in page
        assert "Empty / cut at the length limit / repeating / short output, percent of the test examples" in page
        assert "Short: tokens are missing" in page
        assert ">0.0 / 0.0 / 0.0 / 100.0<" in page
