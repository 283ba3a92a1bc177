"""Bins of one length, in range or not by both, in whole studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnspan.analysis.collection import collect
from attnspan.analysis.lengths.training_range import EXTRAPOLATION, IN_RANGE
from attnspan.analysis.metrics import ERROR_RATE
from attnspan.analysis.study import Study, build_study
from attnspan.cli import report
from attnspan.data.corpora.scan import LONGEST_TRAINED, commands
from attnspan.errors import InputError
from attnspan.reporting import tables
from attnspan.reporting.findings import findings
from tests.fake_runs import example, fake_run


def examples_of(lengths: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Test examples with these source and target lengths."""
    return [
        example(n, source, target_length=target, target_tokens=target + 1) for n, (source, target) in enumerate(lengths)
    ]


def study_of(
    root: Path, lengths: Sequence[tuple[int, int]], edits: Sequence[int], *, trained: tuple[int, int], **options: Any
) -> Study:
    """Two seeds of plain and bahdanau, with the same edits, trained up to ``trained`` source and target tokens."""
    for arm in ("plain", "bahdanau"):
        for seed in (0, 1):
            fake_run(
                root, arm, seed, examples_of(lengths), edits,
                training_lengths=(1, trained[0]), training_target_lengths=(1, trained[1]),
            )  # fmt: skip
    return build_study(collect([root]), **options)


def rows(study: Study) -> list[tuple[str, str, int]]:
    return [(one.label, one.side, one.examples) for one in study.regions(study.arms[0]) if not one.total]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The test of SCAN's length split, every eighth command: sources as in training, longer targets."""
    test = [command for command in commands() if len(command.named_by) > LONGEST_TRAINED][::8]
    lengths = [(len(command.words), len(command.named_by)) for command in test]
    assert max(source for source, _ in lengths) == 9
    return study_of(tmp_path_factory.mktemp("scan"), lengths, [2] * len(lengths), trained=(9, LONGEST_TRAINED))


def test_the_length_split_of_scan_is_extrapolation_and_goes_by_targets(scan: Study) -> None:
    assert scan.axis.name == "target"
    assert {side for _, side, _ in rows(scan)} == {EXTRAPOLATION}
    assert sum(count for *_, count in rows(scan)) == len(scan.test_set) == 490
    first, *_, span = findings(scan)
    assert first.startswith("On targets of 33–52 tokens, longer than any seen in training, ")
    assert "best arm has on the shortest targets" in span


def test_it_is_extrapolation_by_source_too(scan: Study) -> None:
    by_source = build_study(scan.collection, length="source")
    assert {side for _, side, _ in rows(by_source)} == {EXTRAPOLATION}
    assert findings(by_source)[0].startswith(
        "On sources of 9 tokens, whose targets are longer than any seen in training, "
    )
    headings = [row.cells[0] for row in tables.by_length(by_source, ERROR_RATE).rows if row.kind == "heading"]
    assert headings == ["extrapolation: source or target longer than any seen"]


# 40 sources of 4 with a target of 4, 40 of 4 with one of 12, 40 of 8 with one of 8; trained up to 8 and 8
MIXED = [(4, 4)] * 40 + [(4, 12)] * 40 + [(8, 8)] * 40


def test_a_bin_with_examples_of_both_kinds_is_two_rows(tmp_path: Path) -> None:
    edits = [1] * 40 + [9] * 40 + [4] * 40
    study = study_of(tmp_path, MIXED, edits, trained=(8, 8), length="source", edges=[0, 4, 8])
    assert rows(study) == [("1–4", IN_RANGE, 40), ("5–8", IN_RANGE, 40), ("1–4", EXTRAPOLATION, 40)]
    curve = {
        (one.region.label, one.region.side): one.metrics["error_rate"].value
        for one in study.curve
        if one.arm == "plain"
    }
    assert curve["1–4", IN_RANGE] == pytest.approx(1 / 4)
    assert curve["1–4", EXTRAPOLATION] == pytest.approx(9 / 12)
    assert curve[IN_RANGE, IN_RANGE] == pytest.approx((40 * 1 + 40 * 4) / (40 * 4 + 40 * 8))
    table = tables.by_length(study, ERROR_RATE).rows
    assert [row.cells[:3] for row in table if row.kind == ""] == [
        ("1–4", "40", "0.250 (no variation)"),
        ("5–8", "40", "0.500 (no variation)"),
        ("1–4", "40", "0.750 (no variation)"),
    ]
    # the span is by length alone: the bin 1–4 has (40 + 360) / (160 + 480) errors per token
    (whole, _) = study.partition.whole_bins
    assert study.arms[0].rates(ERROR_RATE, [whole]).mean[0] == pytest.approx(400 / 640)


def test_every_example_is_in_one_bin_and_in_one_total(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    lengths = [(int(s), int(t)) for s, t in random.integers(1, 40, (600, 2))]
    study = study_of(tmp_path, lengths, [0] * 600, trained=(25, 30))
    regions = study.regions(study.arms[0])
    beyond = np.array([s > 25 or t > 30 for s, t in lengths])
    order = np.argsort([f"{s:02d} e{n:05d}" for n, (s, _) in enumerate(lengths)])  # as the records are sorted
    for total in (False, True):
        inside = np.stack([one.inside for one in regions if one.total == total])
        assert (inside.sum(axis=0) == 1).all()
        sides = np.array([one.side for one in regions if one.total == total])
        assert np.array_equal(sides[inside.argmax(axis=0)] == EXTRAPOLATION, beyond[order])


def test_too_few_examples_of_one_kind_are_merged_within_it(tmp_path: Path) -> None:
    lengths = [(4, 4)] * 40 + [(8, 8)] * 40 + [(8, 12)] * 3 + [(12, 12)] * 40
    study = study_of(tmp_path, lengths, [0] * 123, trained=(8, 8), edges=[0, 4, 8, 12])
    assert rows(study) == [("1–4", IN_RANGE, 40), ("5–8", IN_RANGE, 40), ("5–12", EXTRAPOLATION, 43)]
    assert any("merged into a neighbour on that side: 5–8 (3)" in note for note in study.notes)
    alone = study_of(tmp_path / "alone", lengths[:83], [0] * 83, trained=(8, 8), length="source", edges=[0, 4, 8])
    assert rows(alone)[-1] == ("5–8", EXTRAPOLATION, 3)
    assert "The bin 5–8 has only 3 examples on one side of the training lengths." in alone.notes


def test_multiples_have_an_edge_on_the_longest_in_training(tmp_path: Path) -> None:
    lengths = [(n, n) for n in range(11, 111) for _ in range(4)]
    study = study_of(tmp_path, lengths, [n // 2 for n, _ in lengths], trained=(50, 50), length="source-multiple")
    assert study.bins.labels == ["0–0.5×", "0.5–1×", "1–1.5×", "1.5–2×", "2–2.5×"]
    assert rows(study) == [
        ("0–0.5×", IN_RANGE, 60), ("0.5–1×", IN_RANGE, 100),
        ("1–1.5×", EXTRAPOLATION, 100), ("1.5–2×", EXTRAPOLATION, 100), ("2–2.5×", EXTRAPOLATION, 40),
    ]  # fmt: skip
    assert str(study.spans[0].span.length) == "> 2.20"
    first, _, _, beyond, span = findings(study)
    assert first.startswith("On sources of 0.5–1 times the longest in training, bahdanau makes ")
    assert beyond.startswith("On sources of 2–2.5 times the longest in training, bahdanau makes ")
    assert "is > 2.20 × the longest source in training for plain" in span
    finer = build_study(study.collection, length="source-multiple", edges=[0, 0.4, 1, 2.2])
    assert finer.bins.labels == ["0–0.4×", "0.4–1×", "1–2.2×"]
    with pytest.raises(InputError, match=r"--bins: 0.25 is not a whole number, and lengths are in source tokens"):
        build_study(study.collection, length="source", edges=[0, 0.25, 1])


def test_references_out_of_reach_are_counted_by_bin_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit of 1.5 S + 2: 8 tokens for a source of 4, so its targets of 12 are out of reach."""
    for arm, margin in (("plain", 2), ("bahdanau", 6)):
        fake_run(
            tmp_path / "runs", arm, 0, examples_of(MIXED), [1] * 120, training_lengths=(1, 8),
            training_target_lengths=(1, 8), length_limit={"ratio": 1.5, "margin": margin}, references_over_limit=40,
        )  # fmt: skip
    study = build_study(collect([tmp_path / "runs"]), length="target", edges=[0, 4, 8, 12])
    table = tables.by_length(study, ERROR_RATE)
    assert table.columns[:3] == ("target tokens", "examples", "out of reach")
    counts = {row.cells[0]: row.cells[2] for row in table.rows if row.kind != "heading"}
    assert counts == {"1–4": "0", "5–8": "0", "9–12": "0–40", "all in range": "0", "all extrapolation": "0–40"}
    (note,) = (note for note in study.notes if "decoding.limit" in note)
    assert note == (
        "40 of 120 references are longer than decoding.limit lets an output of plain be, so no output can equal them; "
        "decoding.limit.margin=6 reaches them all."
    )
    out = tmp_path / "out"
    assert report.main([str(tmp_path / "runs"), "--out", str(out), "--bins", "0,4,8,12"]) == 0
    for text in (capsys.readouterr().out, *((out / name).read_text() for name in ("index.html", "report.md"))):
        assert "out of reach" in text
        assert "no output can equal them" in " ".join(text.split())


def test_nothing_out_of_reach_has_no_column(scan: Study) -> None:
    assert "out of reach" not in tables.by_length(scan, ERROR_RATE).columns


def test_an_older_run_that_does_not_keep_its_limit_has_it_in_its_config(tmp_path: Path) -> None:
    limit = {"decoding": {"limit": {"ratio": 1.5, "margin": 2}}}
    fake_run(tmp_path / "a", "plain", 0, examples_of(MIXED), [0] * 120, config=limit, references_over_limit=40)
    assert tables.any_unreachable(build_study(collect([tmp_path / "a"])))
    fake_run(tmp_path / "b", "plain", 0, examples_of(MIXED), [0] * 120, references_over_limit=40)
    unknown = build_study(collect([tmp_path / "b"]))
    assert "plain: 40 references are longer than decoding.limit lets an output be." in unknown.notes
    assert "out of reach" not in tables.by_length(unknown, ERROR_RATE).columns


def test_older_runs_are_judged_by_their_sources_and_say_so(tmp_path: Path) -> None:
    fake_run(tmp_path, "plain", 0, examples_of(MIXED), [0] * 120, training_lengths=(1, 4))
    study = build_study(collect([tmp_path]))
    assert study.axis.name == "source"
    assert [(side, count) for _, side, count in rows(study)] == [(IN_RANGE, 80), (EXTRAPOLATION, 40)]
    assert any("plain do not record the longest target in training" in note for note in study.notes)
    headings = [row.cells[0] for row in tables.by_length(study, ERROR_RATE).rows if row.kind == "heading"]
    assert headings[-1] == "extrapolation: source longer than any seen"
    assert build_study(study.collection, length="target").axis.name == "target"
    with pytest.raises(InputError, match="do not say how long the longest target in training was; --length target"):
        build_study(study.collection, length="target-multiple")


def test_arms_trained_on_targets_of_different_lengths_have_parts_of_their_own(tmp_path: Path) -> None:
    for longest in (4, 8):
        fake_run(
            tmp_path, "plain", 0, examples_of(MIXED), [0] * 120, config={"data.max_length": longest},
            training_lengths=(1, 8), training_target_lengths=(1, longest), data_fingerprint=str(longest),
        )  # fmt: skip
    study = build_study(collect([tmp_path]), length="target", edges=[0, 4, 8, 12])
    table = tables.by_length(study, ERROR_RATE).rows
    headings, heading = {}, ""
    for row in table:
        heading = row.cells[0] if row.kind == "heading" else heading
        headings[row.cells[0]] = heading
    assert headings["1–4"] == "in range of every arm"
    assert headings["5–8"] == "longer than any seen by arms trained up to 4 target tokens"
    assert headings["9–12"] == "longer than any arm has seen"
    assert any("The longest target seen in training differs" in note for note in study.notes)
