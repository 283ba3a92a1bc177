import numpy as np
import pytest

from attnspan.analysis.collection import collect_each
from attnspan.analysis.ranking import estimate, interquartile_mean, probability_of_improvement, rank
from attnspan.analysis.study import build_study
from attnspan.reporting import ranking_page
from tests.fake_runs import example, fake_run


def arrays(*scores):
    return [np.array(one, dtype=np.float64) for one in scores]


def test_the_interquartile_mean_by_hand():
    # sorted 0 1 2 3 4 5 6 7: the lowest and highest two go, (2 + 3 + 4 + 5) / 4
    assert interquartile_mean(arrays([7, 0, 3, 4], [5, 2, 6, 1])) == 3.5
    # 9 scores: 2.25 go on each side, so of the third and of the seventh three quarters stay
    by_hand = (0.75 * 0 + 1 + 2 + 3 + 0.75 * 9) / 4.5
    assert interquartile_mean(arrays([0, 0, 0], [1, 2, 3], [9, 9, 9])) == pytest.approx(by_hand)
    assert interquartile_mean(arrays([1], [5])) == 3


def test_fewer_runs_of_the_same_scores_have_the_same_interquartile_mean():
    few = interquartile_mean(arrays([0.2, 0.2], [0.9, 0.9], [1.0, 1.0]))
    assert few == pytest.approx(interquartile_mean(arrays([0.2] * 3, [0.9] * 3, [1.0] * 3)))


def test_the_interval_stands_around_the_value_where_data_sets_are_unevenly_hard():
    scores = [arrays([0.2, 0.22, 0.21], [0.88, 0.9, 0.92], [0.98, 0.99, 1.0])]
    one = estimate(lambda drawn: interquartile_mean(drawn[0]), scores)
    assert one.low < one.value - 0.005
    assert one.high > one.value + 0.005


def test_the_probability_of_improvement_by_hand():
    # first data set: of 3 x 2 pairs 3 > 1, 3 > 2, 2 > 1 win, 2 = 2 and 1 = 1 are half a win, 1 < 2: 4 of 6
    # second: all 2 x 3 pairs lose
    scores, others = arrays([1, 2, 3], [0, 0]), arrays([1, 2], [4, 5, 6])
    assert probability_of_improvement(scores, others) == pytest.approx((4 / 6 + 0) / 2)
    assert probability_of_improvement(others, scores) == pytest.approx((2 / 6 + 1) / 2)


def test_drawing_within_data_sets_leaves_what_differs_between_them_alone():
    # the two data sets are far apart, but within each no score varies: neither does anything drawn
    one = estimate(lambda drawn: interquartile_mean(drawn[0]), [arrays([0.1, 0.1, 0.1], [0.9, 0.9, 0.9])])
    assert one.value == 0.5
    assert np.isnan([one.low, one.high]).all()


def test_the_interval_is_as_wide_as_an_unbiased_variance_and_t_make_it():
    # of a plain mean, whose variance is known
    scores = arrays([0.4, 0.6, 0.5], [0.7, 0.8, 0.9])
    found = []
    mean = lambda drawn: np.mean([one.mean(axis=-1) for one in drawn[0]], axis=0)  # noqa: E731
    one = estimate(lambda drawn: found.append(mean(drawn)) or found[-1], [scores], draws=20_000)
    assert found[1].std() == pytest.approx(np.sqrt((0.01 / 3 + 0.01 / 3) / 4), rel=0.02)
    low, high = np.quantile(found[1], [0.025, 0.975])  # of t with 2 + 2 degrees of freedom, 2.776 for 1.960
    assert [0.65 - one.low, one.high - 0.65] == pytest.approx([1.4165 * (0.65 - low), 1.4165 * (high - 0.65)], rel=1e-3)


def test_one_run_on_a_data_set_has_no_interval():
    one = estimate(lambda drawn: interquartile_mean(drawn[0]), [arrays([0.4, 0.6], [0.5])])
    assert one.value == 0.5
    assert np.isnan(one.low)
    assert one.seeds == 1


EXAMPLES = [example(n, 4 if n < 30 else 8) for n in range(60)]


def test_runs_of_two_data_sets_are_ranked_on_both_sides(tmp_path):
    # errors of 4 and of 8 reference tokens, trained to 4; on 'other' nothing is longer than training's longest
    edits = {("plain", 0): (2, 8), ("plain", 1): (1, 6), ("bahdanau", 0): (0, 4), ("bahdanau", 1): (1, 9)}
    for (arm, seed), (short, long) in edits.items():
        for data, longest in (("one", 4), ("two", 4), ("other", 8)):
            wrong = [short] * 30 + [long] * 30
            fake_run(tmp_path, arm, seed, EXAMPLES, wrong, data=data, training_lengths=(1, longest))
    fake_run(tmp_path, "luong_dot", 0, EXAMPLES, [0] * 60, data="one", training_lengths=(1, 4))
    collections, excluded = collect_each([tmp_path])
    assert excluded == ()
    inside, beyond = rank([build_study(collection) for collection in collections])
    assert inside.data == ("one", "other", "two")
    assert beyond.data == ("one", "two")
    assert [one.arm for one in inside.standings] == ["bahdanau", "plain"]  # luong_dot is on one data set only
    scores = {one.arm: [list(of_data) for of_data in one.scores] for one in beyond.standings}
    assert scores == {"plain": [[0, 0.25]] * 2, "bahdanau": [[0.5, 0]] * 2}  # 9 errors of 8 are no quality, not less
    iqm = {one.arm: one.iqm.value for one in beyond.standings}
    assert iqm == {"plain": 0.125, "bahdanau": 0.25}  # of 0 0 0.25 0.25 and of 0 0 0.5 0.5, without the outermost
    # 0.5 beats both, 0 ties with 0 and loses to 0.25
    better = {pair: one.value for pair, one in beyond.improvements.items()}
    assert better == {("bahdanau", "plain"): 2.5 / 4, ("plain", "bahdanau"): 1.5 / 4}


def test_the_ranking_says_who_had_not_learned_all_it_can(tmp_path):
    """plain was still improving on one of two data sets; bahdanau ended at chance on the other."""
    exploded = {
        "uniform_loss": 2.0,
        "first_training_loss": 2.0,
        "final_training_loss": 9.0,
        "final_validation_loss": 9.0,
    }
    for data in ("one", "two"):
        for arm, wrong in (("plain", 4), ("bahdanau", 1)):
            ended = "max_steps" if (arm, data) == ("plain", "one") else "plateau"
            more = exploded if (arm, data) == ("bahdanau", "two") else {}
            examples = [example(n, 10) for n in range(40)]
            for seed in (1, 2):
                fake_run(tmp_path, arm, seed, examples, [wrong] * 40, data=data, ended_by=ended, **more)
    studies = [build_study(collection) for collection in collect_each([tmp_path])[0]]
    rankings = rank(studies)
    standings, improvements = ranking_page.ranking_tables(studies, rankings)[0]
    assert [row.cells[0] for row in standings.rows] == ["bahdanau ‡", "plain †"]
    assert improvements.columns == ("arm", "bahdanau ‡", "plain †")
    assert [row.cells[0] for row in improvements.rows] == ["bahdanau ‡", "plain †"]
    (finding,) = ranking_page.ranking_findings(studies, rankings)
    assert finding.endswith(
        " But training failed for bahdanau on two: the loss ended no lower than chance. But the cap on updates ended "
        "training while there was still improvement: plain on one."
    )
    assert any(tip.text.startswith("plain †, in range") for tip in ranking_page.ranking_plot(studies, rankings).tips)
