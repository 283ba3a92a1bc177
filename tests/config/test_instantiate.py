"""A part checks its own arguments; what is refused is one line that begins with the full key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from attnspan.config.instantiate import build
from attnspan.errors import InputError
from attnspan.models.attention.scores import GeneralScore
from tests.conftest import Compose
from tests.models.arms import small

COUNT = "must be a whole number of at least 1, not"
OWN = ("luong_general", "decoder.score._target_=tests.config.test_instantiate.OwnScore")


class OwnScore(GeneralScore):
    """A user's score, whose arguments have names that other parts use for something else."""

    def __init__(self, *, query_size: int, memory_size: int, kernel_size: list[int], **others: Any) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size)
        if len(kernel_size) != 2:
            raise ValueError(f"two kernels, not {kernel_size}\nand a second line")
        self.others = others

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return super().forward(query, keys)


def test_a_users_part_may_call_its_arguments_what_it_likes(composed: Compose) -> None:
    others = ("source=left", "reverse=often", "layers=0.5", "heads=null", "max_length={a: 1}", "fused=[1, 2]")
    overrides = [f"+decoder.score.{word}" for word in ("kernel_size=[3,5]", *others)]
    model = small(composed, *OWN, *overrides)
    assert model.decoder.attention.score.others == {
        "source": "left",
        "reverse": "often",
        "layers": 0.5,
        "heads": None,
        "max_length": {"a": 1},
        "fused": [1, 2],
    }


REFUSED = [
    (("bahdanau", "decoder.score.attention_size=x"), f"decoder.score.attention_size: {COUNT} 'x'"),
    (("coverage", "decoder.score.attention_size=0"), f"decoder.score.attention_size: {COUNT} 0"),
    (("luong_location", "decoder.score.max_length=true"), f"decoder.score.max_length: {COUNT} True"),
    (("luong_local_m", "decoder.window.half_width=[1]"), f"decoder.window.half_width: {COUNT} [1]"),
    (("luong_local_p", "decoder.window.half_width=null"), f"decoder.window.half_width: {COUNT} None"),
    (("bahdanau_2015", "decoder.deep_output.features=0"), f"decoder.deep_output.features: {COUNT} 0"),
    (("bahdanau", "decoder.fused=1"), "decoder.fused: must be true or false, not 1"),
    (("luong_dot", "decoder.fused=maybe"), "decoder.fused: must be true or false, not 'maybe'"),
    (
        ("plain_wide", "decoder.as_large_as.score.attention_size=0"),
        f"decoder.as_large_as.score.attention_size: {COUNT} 0",
    ),
    (("plain", "encoder.hidden_size=x"), f"encoder.hidden_size: {COUNT} 'x'"),
    (("plain", "encoder.dropout=1.5"), "encoder.dropout: must be a number of at least 0 and less than 1, not 1.5"),
    (("plain", "encoder=unidirectional", "encoder.layers=0"), f"encoder.layers: {COUNT} 0"),
    (("plain", "encoder=unidirectional", "encoder.reverse=x"), "encoder.reverse: must be true or false, not 'x'"),
    (("plain", "rnn.layers=x"), f"rnn.layers: {COUNT} 'x'"),
    (("transformer", "rnn.layers=x"), f"rnn.layers: {COUNT} 'x'"),
    (("plain", "rnn.dropout=-1"), "rnn.dropout: must be a number of at least 0 and less than 1, not -1"),
    (("transformer", "encoder.feedforward_size=x"), f"encoder.feedforward_size: {COUNT} 'x'"),
    (("transformer", "decoder.dropout=x"), "decoder.dropout: must be a number of at least 0 and less than 1, not 'x'"),
    (
        ("bahdanau", "+decoder.score.attention_sizes=3"),
        "decoder.score.attention_sizes: there is no such argument; did you mean 'attention_size'? "
        "known: attention_size, memory_size, query_size",
    ),
    ((*OWN, "+decoder.score.kernel_size=[3]"), "decoder.score: two kernels, not [3]"),
    (
        (*OWN, "+decoder.score.kernel_size=3"),
        "decoder.score.kernel_size: must be a list, each of it a whole number, not 3",
    ),
]


@pytest.mark.parametrize(("wiring", "message"), REFUSED, ids=lambda part: " ".join(part) if len(part) < 9 else "")
def test_a_part_of_the_model_refuses(composed: Compose, wiring: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as refused:
        small(composed, *wiring)
    assert str(refused.value) == message


def test_a_missing_argument_is_named(composed: Compose) -> None:
    with pytest.raises(InputError, match=r"^decoder\.score: missing a required .*argument: 'attention_size'$"):
        small(composed, "bahdanau", "~decoder.score.attention_size")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("decoding.limit.ratio=abc",), "decoding.limit.ratio: must be a number of at least 0, not 'abc'"),
        (("decoding.limit.margin=1.5",), "decoding.limit.margin: must be a whole number of at least 0, not 1.5"),
        (
            ("decoding.limit.ratio=0", "decoding.limit.margin=0"),
            "decoding.limit: ratio 0 and margin 0 leave no room for a single token",
        ),
        (("decoding=beam", "decoding.beam_size=0"), f"decoding.beam_size: {COUNT} 0"),
        (
            ("decoding=beam", "decoding/length_penalty=normalisation", "decoding.length_penalty.exponent=-0.5"),
            "decoding.length_penalty.exponent: must be a number of at least 0, not -0.5",
        ),
        (
            ("decoding=beam", "decoding/length_penalty=gnmt", "decoding.length_penalty.alpha=a"),
            "decoding.length_penalty.alpha: must be a number of at least 0, not 'a'",
        ),
        (
            ("decoding=beam", "decoding.length_penalty=null"),
            "decoding.length_penalty: must be a length penalty, not None",
        ),
        (("decoding.min_length=1.5",), "decoding.min_length: must be a whole number of at least 0, not 1.5"),
        (("decoding.no_repeat_ngram=0",), f"decoding.no_repeat_ngram: {COUNT} 0"),
        (("decoding.limit=null",), "decoding.limit: must be a length limit, not None"),
        (
            ("decoding=sample", "decoding.temperature=0"),
            "decoding.temperature: must be more than 0; decoding=greedy takes the likeliest token",
        ),
        (("decoding=sample", "decoding.seed=null"), "decoding.seed: must be a whole number, not None"),
        (
            ("decoding=beam", "+decoding.beam=3"),
            "decoding.beam: there is no such argument; did you mean 'beam_size'? "
            "known: beam_size, coverage_penalty, length_penalty, limit, min_length, no_repeat_ngram",
        ),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_a_decoding_strategy_refuses(composed: Compose, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as refused:
        build(composed(*overrides), "decoding")
    assert str(refused.value) == message


def test_positional_arguments_and_lists_of_parts() -> None:
    """Hydra's other keys mean what they mean to Hydra."""
    times = {"_target_": "datetime.timedelta", "_args_": [1], "hours": 2}
    (built, late), raw = (build({"x": node}, "x") for node in ([times, times | {"_partial_": True}], {"y": times}))
    assert (built.days, built.seconds) == (1, 7200)
    assert late(hours=3).seconds == 3 * 3600
    assert raw == {"y": built}
    kept = build({"x": {"_target_": "builtins.dict", "_recursive_": False, "y": times}}, "x")
    assert kept == {"y": times}


def test_a_module_that_cannot_be_imported_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that uses what was elsewhere in an earlier version."""
    (tmp_path / "of_mine.py").write_text("import attnspan\n\nclass Mine(attnspan.models.gone.Score): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as refused:
        build({"score": {"_target_": "of_mine.Mine"}}, "score")
    where = f"{tmp_path / 'of_mine.py'} line 3: AttributeError: module 'attnspan"
    assert str(refused.value).startswith(f"score._target_: of_mine.Mine cannot be imported ({where}")
    assert "\n" not in str(refused.value)
