"""An argument of any class is of the kind that its annotation says; a word such as no is never taken for true."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import lightning
import pytest
import torch

from attnspan.config.argument_kinds import check_argument_kinds
from attnspan.config.instantiate import build, check_optimizer
from attnspan.errors import InputError, SettingError
from attnspan.training.trainer import check_trainer
from tests.conftest import Compose


class Own:
    def __init__(self, *, on: bool = False, mode: bool | Literal["some"] | int = True, **others: Any) -> None:
        raise NotImplementedError


class Inherited(Own):
    def __init__(self, size: int, **others: Any) -> None:
        raise NotImplementedError


def function(
    nesterov: bool | None,
    words: str,
    part: Callable[..., Own],
    tensor: torch.Tensor,
    path: Path,  # a class of which we do not know what it takes
    options: dict[str, int],
    implicit: int = None,  # type: ignore[assignment]  # noqa: RUF013
    anything: Any = None,
) -> None:
    raise NotImplementedError


REFUSED = [
    (torch.optim.Adam, {"amsgrad": "no"}, "amsgrad: must be true or false, not 'no'"),
    (torch.optim.Adam, {"foreach": "off"}, "foreach: must be null or true or false, not 'off'"),
    (torch.optim.Adam, {"eps": True}, "eps: must be a number, not true"),
    (torch.optim.Adam, {"betas": [0.9]}, "betas: must be a list, [a number, a number], not [0.9]"),
    (torch.nn.GRU, {"bias": "false"}, "bias: must be true or false, not 'false'"),  # of a base class
    (lightning.Trainer, {"deterministic": "no"}, "deterministic: must be null or true or false or 'warn', not 'no'"),
    (lightning.Trainer, {"detect_anomaly": "n"}, "detect_anomaly: must be true or false, not 'n'"),
    (Own, {"on": 0}, "on: must be true or false, not 0"),
    (Own, {"mode": "all"}, "mode: must be true or false or 'some' or a whole number, not 'all'"),
    (Inherited, {"on": []}, "on: must be true or false, not []"),
    (Inherited, {"size": 2.0}, "size: must be a whole number, not 2.0"),
    (functools.partial(Own, on=True), {"on": None}, "on: must be true or false, not null"),
    (function, {"nesterov": "yes"}, "nesterov: must be null or true or false, not 'yes'"),
    (function, {"words": 3}, "words: must be a name, not 3"),
    (function, {"part": {"a": 1}}, "part: must be a part, a mapping with _target_, not {'a': 1}"),
    (function, {"tensor": [1.0]}, "tensor: must be a part, a mapping with _target_, not [1.0]"),
    (function, {"path": None, "options": "x"}, "options: must be a mapping, not 'x'"),
]


@pytest.mark.parametrize(("target", "arguments", "words"), REFUSED)
def test_a_wrong_kind_is_refused(target: Callable[..., Any], arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError) as error:
        check_argument_kinds(target, arguments)
    assert str(error.value) == words


def test_what_the_annotation_allows_is_passed_on() -> None:
    check_argument_kinds(torch.optim.Adam, {"foreach": None, "amsgrad": True, "lr": 1, "betas": [0.9, 1]})
    check_argument_kinds(lightning.Trainer, {"deterministic": "warn", "logger": False, "fast_dev_run": 2})
    check_argument_kinds(Inherited, {"size": 3, "others": "no", "unknown": "no", "mode": 3})
    check_argument_kinds(function, {"nesterov": None, "words": "no", "anything": "no", "path": "a/b"})
    check_argument_kinds(function, {"part": Own, "tensor": torch.zeros(1), "options": {"x": 1}, "implicit": None})


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
