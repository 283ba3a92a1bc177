import numpy as np
import pytest

from attnspan.analysis.collection import collect
from attnspan.analysis.lengths.training_range import EXTRAPOLATION, IN_RANGE
from attnspan.analysis.metrics import ERROR_RATE
from attnspan.analysis.study import Study, build_study
from attnspan.errors import InputError
from attnspan.reporting import tables
from tests.fake_runs import example, fake_run, fake_study

# 30 sources of each of 4, 8, 12 and 16 tokens, with as many reference tokens; trained on 1 to 12.
LENGTHS = np.repeat([4, 8, 12, 16], 30)
EXAMPLES = [example(n, int(length)) for n, length in enumerate(LENGTHS)]
EDGES = [0, 4, 8, 12, 16]


def edits(*each: int) -> np.ndarray:
    """The same number of edits for all 30 sources of a length."""
    return np.repeat(each, 30)


@pytest.fixture(scope="module")
def hand_made(tmp_path_factory) -> Study:
    root = tmp_path_factory.mktemp("runs")
    for arm, seed, wrong in (
        ("plain", 0, edits(1, 4, 9, 12)),
        ("plain", 1, edits(1, 4, 6, 16)),
        ("bahdanau", 0, edits(0, 1, 3, 8)),
        ("bahdanau", 1, edits(1, 1, 3, 8)),
    ):
        fake_run(root, arm, seed, EXAMPLES, wrong, training_lengths=(1, 12))
    return build_study(collect([root]), edges=EDGES)


def point(study: Study, arm: str, label: str, metric: str = "error_rate"):
    return next(one for one in study.curve if one.arm == arm and one.region.label == label).metrics[metric]


def test_error_rates_by_hand(hand_made):
    # plain: 1/4; 4/8; (9/12 + 6/12) / 2; (12/16 + 16/16) / 2
    rates = [point(hand_made, "plain", label).value for label in hand_made.bins.labels]
    assert rates == pytest.approx([0.25, 0.5, 0.625, 0.875])
    # bahdanau: (0 + 1/4) / 2; 1/8; 3/12; 8/16
    rates = [point(hand_made, "bahdanau", label).value for label in hand_made.bins.labels]
    assert rates == pytest.approx([0.125, 0.125, 0.25, 0.5])


def test_totals_by_hand_and_apart(hand_made):
    # plain in range: seed 0 (1 + 4 + 9) / (4 + 8 + 12) = 14/24, seed 1 11/24; the 16s are no part of it
    assert point(hand_made, "plain", IN_RANGE).value == pytest.approx((14 + 11) / 48)
    assert point(hand_made, "plain", EXTRAPOLATION).value == pytest.approx((12 + 16) / 32)


def test_sides_and_counts(hand_made):
    regions = hand_made.regions(hand_made.arms[0])
    assert [(r.label, r.side, r.total, r.examples) for r in regions] == [
        ("1–4", IN_RANGE, False, 30),
        ("5–8", IN_RANGE, False, 30),
        ("9–12", IN_RANGE, False, 30),
        ("13–16", EXTRAPOLATION, False, 30),
        (IN_RANGE, IN_RANGE, True, 90),
        (EXTRAPOLATION, EXTRAPOLATION, True, 30),
    ]


def test_the_other_metrics_by_hand(hand_made):
    # exact match of bahdanau at 1–4: all of seed 0, none of seed 1
    assert point(hand_made, "bahdanau", "1–4", "exact_match").value == pytest.approx(0.5)
    # teacher-forced: 5 tokens with <eos>; seed 0 all right, seed 1 one wrong
    assert point(hand_made, "bahdanau", "1–4", "token_accuracy").value == pytest.approx((1 + 4 / 5) / 2)
    # nll 0.1, and 0.5 more an edit, over 5 tokens
    assert point(hand_made, "bahdanau", "1–4", "nll").value == pytest.approx((0.1 / 5 + 0.6 / 5) / 2)
    assert point(hand_made, "plain", "13–16", "truncated").value == 0


def test_advantage_by_hand(hand_made):
    # plain - bahdanau: 0.25 - 0.125, 0.5 - 0.125, 0.625 - 0.25, 0.875 - 0.5
    ones = [one for one in hand_made.differences if not one.region.total]
    assert [one.advantage.value for one in ones] == pytest.approx([0.125, 0.375, 0.375, 0.375])
    # by seed at 13–16: 12/16 - 8/16 and 16/16 - 8/16, so s = sqrt(2) * 0.125 and the examples do not vary:
    # half = t(1) * s / sqrt(2) = 12.7062 * 0.125
    last = ones[-1].advantage
    assert last.high - last.value == pytest.approx(12.7062 * 0.125, rel=1e-5)


def test_span_by_hand(hand_made):
    # best on the shortest: bahdanau, quality 0.875, threshold 0.4375. plain falls from 0.5 at 8 to 0.375 at 12:
    # (0.5 - 0.4375) / 0.125 = half-way, at 10. bahdanau: 0.5 at 16, never below
    spans = {one.arm: one for one in hand_made.spans}
    assert spans["plain"].span.length.value == pytest.approx(10)
    assert str(spans["bahdanau"].span.length) == "> 16"
    assert spans["plain"].best == "bahdanau"


def test_trends_by_hand(hand_made):
    trends = {(one.arm, one.side): one for one in hand_made.trends}
    # advantage in range 0.125, 0.375, 0.375 at 4, 8, 12: slope (0.375 - 0.125) / 8 a token, times 10
    assert trends["bahdanau", IN_RANGE].growth.value == pytest.approx(0.3125)
    # quality of plain from 0.75 to 0.375: half is lost
    assert trends["plain", IN_RANGE].relative_drop.value == pytest.approx(0.5)
    # log error of plain 0.25, 0.5, 0.625: slope ln(0.625 / 0.25) / 8 a token
    assert trends["plain", IN_RANGE].factor.value == pytest.approx(np.exp(10 * np.log(2.5) / 8))
    assert ("plain", EXTRAPOLATION) not in trends  # one bin has no slope


def test_the_baseline_comes_first_and_can_be_chosen(hand_made):
    assert [arm.label for arm in hand_made.arms] == ["plain", "bahdanau"]
    other = build_study(hand_made.collection, baseline="bahdanau", edges=EDGES)
    assert [arm.label for arm in other.arms] == ["bahdanau", "plain"]
    assert other.differences[0].advantage.value == pytest.approx(-0.125)


def test_an_unknown_baseline_names_the_nearest(hand_made):
    with pytest.raises(InputError, match="--baseline bahdanua: no such arm among these runs; did you mean 'bahdanau'"):
        build_study(hand_made.collection, baseline="bahdanua")


@pytest.mark.parametrize("keep", [0, 1, -0.5, 1.5])
def test_keep_must_be_a_share(hand_made, keep):
    with pytest.raises(InputError, match="--keep"):
        build_study(hand_made.collection, keep=keep)


@pytest.mark.parametrize(("whole", "lacking"), [("plain", "bahdanau"), ("bahdanau", "plain")])
def test_a_missing_seed_is_named_and_pairs_use_the_common_ones(tmp_path, whole, lacking):
    for arm, seeds in ((whole, (0, 1, 2)), (lacking, (0, 2))):
        for seed in seeds:
            fake_run(tmp_path, arm, seed, EXAMPLES, edits(1, 2, 3 + seed, 4), training_lengths=(1, 12))
    study = build_study(collect([tmp_path]), edges=EDGES)
    assert any(f"{lacking} has no run with seed 1" in note for note in study.notes)
    assert study.differences[0].seeds == (0, 2)
    # seeds 0 and 2 agree between the arms, seed 1 does not enter
    assert study.differences[2].advantage.value == pytest.approx(0)


def test_no_common_seed_gives_no_difference(tmp_path):
    fake_run(tmp_path, "plain", 0, EXAMPLES, edits(1, 2, 3, 4), training_lengths=(1, 12))
    fake_run(tmp_path, "bahdanau", 1, EXAMPLES, edits(0, 1, 1, 2), training_lengths=(1, 12))
    study = build_study(collect([tmp_path]), edges=EDGES)
    assert study.differences == []
    assert len(study.spans) == 2
    assert any("no seed in common" in note for note in study.notes)


def test_one_arm_works_and_says_so(tmp_path):
    fake_study(tmp_path, arms=("plain",))
    study = build_study(collect([tmp_path]))
    assert study.differences == []
    assert any("one arm only" in note for note in study.notes)


def test_one_seed_says_what_its_interval_covers(tmp_path):
    fake_study(tmp_path, seeds=(0,))
    study = build_study(collect([tmp_path]))
    assert any("plain has one seed: its intervals cover the draw of test examples only" in note for note in study.notes)


def test_variants_are_compared_at_equal_settings(tmp_path):
    for arm in ("plain", "bahdanau"):
        for size in (64, 128, 512):
            fake_run(tmp_path, arm, 0, EXAMPLES, edits(1, 2, 3, 4), config={"model.hidden_size": size})
    study = build_study(collect([tmp_path]))
    assert study.compared == {
        f"bahdanau model.hidden_size={size}": f"plain model.hidden_size={size}" for size in (64, 128, 512)
    }
    assert study.arms[0].label == "plain model.hidden_size=64"
    assert not any("Besides the decoder" in note for note in study.notes)


def test_variants_of_the_baseline_alone_are_compared_to_the_first(tmp_path):
    for size in (64, 128, 512):
        fake_run(tmp_path, "plain", 0, EXAMPLES, edits(1, 2, 3, 4), config={"model.hidden_size": size})
    assert build_study(collect([tmp_path])).compared == {
        f"plain model.hidden_size={size}": "plain model.hidden_size=64" for size in (128, 512)
    }


def test_an_unfair_comparison_is_named(tmp_path):
    fake_run(tmp_path, "plain", 0, EXAMPLES, edits(1, 2, 3, 4))
    fake_run(tmp_path, "bahdanau", 0, EXAMPLES, edits(1, 2, 3, 4), config={"optimizer.lr": 0.01})
    assert "Besides the decoder, the arms differ in optimizer.lr." in build_study(collect([tmp_path])).notes


def test_each_arm_is_in_range_up_to_its_own_training_lengths(tmp_path):
    for longest in (8, 12):
        config = {"data.max_length": longest}
        fake_run(
            tmp_path, "plain", 0, EXAMPLES, edits(1, 2, 3, 4),
            config=config, training_lengths=(1, longest), data_fingerprint=str(longest),
        )  # fmt: skip
    study = build_study(collect([tmp_path]), edges=EDGES)
    sides = {(one.arm, one.region.label): one.region.side for one in study.curve if not one.region.total}
    assert sides["plain data.max_length=8", "9–12"] == EXTRAPOLATION
    assert sides["plain data.max_length=12", "9–12"] == IN_RANGE
    assert any("longest source seen in training differs" in note for note in study.notes)

    rows = tables.by_length(study, ERROR_RATE).rows
    headings, heading = {}, ""
    for row in rows:
        heading = row.cells[0] if row.kind == "heading" else heading
        headings[row.cells[0]] = heading
    assert headings["5–8"] == "in range of every arm"
    assert headings["9–12"] == "longer than any seen by arms trained up to 8 source tokens"
    assert headings["13–16"] == "longer than any arm has seen"
    totals = {row.cells[0]: row.cells[2:] for row in rows if row.kind == "total"}
    assert set(totals) == {
        "all in range, 1–8", "all extrapolation, 9–16", "all in range, 1–12", "all extrapolation, 13–16"
    }  # fmt: skip
    for name, cells in totals.items():  # each total is of one arm here
        assert [cell != "–" for cell in cells] == [name.endswith(("1–8", " 9–16")), name.endswith(("1–12", "13–16"))]


def test_no_quality_on_the_shortest_gives_no_spans(tmp_path):
    fake_run(tmp_path, "plain", 0, EXAMPLES, edits(4, 8, 12, 16), training_lengths=(1, 12))
    assert build_study(collect([tmp_path]), edges=EDGES).spans == []
