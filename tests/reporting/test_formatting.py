import pytest

from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.analysis.lengths.training_range import TrainingRange
from attnspan.analysis.lengths.words import counted
from attnspan.reporting.formatting import unbroken


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
