"""A word such as no, off or 'false' is never taken for true, whoever's class has the switch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import lightning
import pytest
import torch

from attnspan.config.instantiate import build, check_optimizer
from attnspan.config.switches import refuse_words_for_switches
from attnspan.errors import InputError, SettingError
from attnspan.training.trainer import check_trainer
from tests.conftest import Compose


class Own:
    def __init__(self, *, on: bool = False, mode: bool | Literal["some"] | int = True, **others: Any) -> None:
        raise NotImplementedError


class Inherited(Own):
    def __init__(self, size: int, **others: Any) -> None:
        raise NotImplementedError


def function(nesterov: bool | None, words: str, anything: Any = None) -> None:
    raise NotImplementedError


REFUSED = [
    (torch.optim.Adam, {"amsgrad": "no"}, "amsgrad: must be true or false, not 'no'"),
    (torch.optim.Adam, {"foreach": "off"}, "foreach: must be true or false, not 'off'"),
    (torch.nn.GRU, {"bias": "false"}, "bias: must be true or false, not 'false'"),  # of a base class
    (lightning.Trainer, {"deterministic": "no"}, "deterministic: must be true or false, or 'warn', not 'no'"),
    (lightning.Trainer, {"detect_anomaly": "n"}, "detect_anomaly: must be true or false, not 'n'"),
    (Own, {"on": 0}, "on: must be true or false, not 0"),
    (Own, {"mode": "all"}, "mode: must be true or false, or 'some', not 'all'"),
    (Inherited, {"on": []}, "on: must be true or false, not []"),
    (functools.partial(Own, on=True), {"on": None}, "on: must be true or false, not None"),
    (function, {"nesterov": "yes"}, "nesterov: must be true or false, not 'yes'"),
]


@pytest.mark.parametrize(("target", "arguments", "words"), REFUSED)
def test_a_word_is_no_switch(target: Callable[..., Any], arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError) as error:
        refuse_words_for_switches(target, arguments)
    assert str(error.value) == words


def test_what_the_annotation_allows_is_passed_on() -> None:
    refuse_words_for_switches(torch.optim.Adam, {"foreach": None, "amsgrad": True, "lr": "no"})
    refuse_words_for_switches(lightning.Trainer, {"deterministic": "warn", "logger": False, "fast_dev_run": 2})
    refuse_words_for_switches(Inherited, {"size": "no", "others": "no", "unknown": "no", "mode": 3})
    refuse_words_for_switches(function, {"nesterov": None, "words": "no", "anything": "no"})


def test_the_key_is_named(composed: Compose) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    with pytest.raises(InputError, match=r"^optimizer\.amsgrad: must be true or false, not 'no'$"):
        check_optimizer(composed("+optimizer.amsgrad=no"), parameters)
    with pytest.raises(InputError, match=r"^trainer\.detect_anomaly: must be true or false, not 'off'$"):
        check_trainer(composed("+trainer.detect_anomaly=off"))
    with pytest.raises(InputError, match=r"^trainer\.deterministic: must be true, false or warn, not 'no'$"):
        composed("trainer.deterministic=no")
    with pytest.raises(InputError, match=r"^rnn\.cell\.bias: must be true or false, not 'no'$"):
        build(composed("+rnn.cell.bias=no"), "rnn")(input_size=2, hidden_size=2)
