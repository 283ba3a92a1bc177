import pytest
from matplotlib.text import Text

from attnspan.analysis.collection import collect
from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.analysis.lengths.training_range import TrainingRange
from attnspan.analysis.lengths.words import counted
from attnspan.analysis.study import build_study
from attnspan.errors import InputError
from attnspan.reporting import plots
from attnspan.reporting.formatting import unbroken
from attnspan.reporting.pictures.form import PAGE, Form, form_for_files
from tests.fake_runs import example, fake_run


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("is > 45 tokens for plain (35 to > 45).", "is >~45 tokens for plain (35~to~>~45)."),
        ("of −0.036 to 0.021 (3 seeds)", "of −0.036~to~0.021 (3 seeds)"),
        ("sources of 51–60 tokens", "sources of 51–60 tokens"),
        ("said to be up to 60", "said to be up to 60"),
    ],
)
def test_a_range_of_numbers_stays_on_one_line(sentence, shown):
    assert unbroken(sentence) == shown.replace("~", "\u00a0")


def test_one_has_no_plural():
    source = LengthAxis("source")
    assert [source.in_words(text) for text in ("1", "11", "1–2")] == [
        "1 source token", "11 source tokens", "1–2 source tokens",
    ]  # fmt: skip
    assert source.examples("1") == "sources of 1 token"
    assert LengthAxis("target-multiple", 9).in_words("1–1.5×") == "1–1.5 × the longest target in training"
    assert str(TrainingRange(1, None)) == "1 source token"
    assert str(TrainingRange(9, 1)) == "9 source and 1 target token"
    assert (counted(1, "example"), counted(3840, "example")) == ("1 example", "3,840 examples")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for arm in ("plain", "bahdanau"):
        fake_run(root, arm, 0, [example(n, 4 + 4 * (n >= 30)) for n in range(60)], [1] * 60, training_lengths=(1, 4))
    return build_study(collect([root]), edges=[0, 4, 8])


def sizes(figure) -> dict[str, float]:
    """Of the letters, by text."""
    return {" ".join(text.get_text().split()): text.get_fontsize() for text in figure.findobj(Text) if text.get_text()}


def test_a_label_longer_than_its_axis_is_broken_into_lines(study):
    by_nll = build_study(study.collection, edges=[0, 4, 8], metric="nll")
    axes = plots.advantage(by_nll, Form(3.3, 2.8, 9.0)).figure.axes[0]
    said = axes.get_ylabel()
    assert said.split() == ["advantage", "in", "teacher-forced", "negative", "log-likelihood"]
    assert "\n" in said
    assert axes.yaxis.label.get_window_extent().height <= 1.3 * axes.get_window_extent().height


@pytest.mark.parametrize("draw", [plots.degradation, plots.advantage])
def test_letters_are_as_large_as_asked_for_and_the_plot_too(study, draw):
    usual, large = (draw(study, form).figure for form in (PAGE, Form(6.0, 4.4 * 1.5, 12.0)))
    assert sizes(large) == pytest.approx({text: size * 12 / 9 for text, size in sizes(usual).items()})
    width, height = usual.get_size_inches()
    assert large.get_size_inches().tolist() == pytest.approx([6.0, height * 1.5])
    assert width == PAGE.width


def test_a_plot_too_small_for_its_letters_is_refused(study):
    with pytest.raises(InputError, match=r"a plot of 1.0 x 1.0 inches is too small for its legend and its labels"):
        plots.degradation(study, Form(1.0, 1.0, 20.0))


@pytest.mark.parametrize(
    ("size", "font", "message"),
    [
        ("3", None, "--figure-size 3: must be width x height in inches"),
        ("3.3x99", None, "each from 1 to 40, as in 3.3x2.8"),
        (None, 1.0, "--font-size 1: must be points from 3 to 40"),
    ],
)
def test_sizes_that_are_none_are_refused(size, font, message):
    assert form_for_files(None, None) == PAGE
    assert form_for_files("3.3x2.8", 8.0) == Form(3.3, 2.8, 8.0)
    with pytest.raises(InputError, match=message):
        form_for_files(size, font)
