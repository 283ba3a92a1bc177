"""Settings of each arm, chosen by a study."""

from __future__ import annotations

import re

import pytest

from attnspan.errors import InputError
from tests.conftest import Compose

SETTINGS = "arm_settings={plain:{optimizer.lr:0.5,model.dropout:0.3},bahdanau:{optimizer.lr:0.25}}"


def test_an_arm_gets_its_own(composed: Compose) -> None:
    plain, bahdanau, other = (composed(SETTINGS, f"decoder={arm}") for arm in ("plain", "bahdanau", "luong_dot"))
    assert (plain["optimizer"]["lr"], plain["model"]["dropout"]) == (0.5, 0.3)
    assert (bahdanau["optimizer"]["lr"], bahdanau["model"]["dropout"]) == (0.25, 0.0)
    assert other["optimizer"]["lr"] == composed("decoder=luong_dot")["optimizer"]["lr"]


def test_the_run_knows_only_what_it_got(composed: Compose) -> None:
    """So its id is that of the same settings given by hand."""
    assert composed(SETTINGS, "decoder=bahdanau") == composed("decoder=bahdanau", "optimizer.lr=0.25")


@pytest.mark.parametrize("override", ["optimizer.lr=0.1", "++optimizer.lr=0.1"])
def test_an_override_is_stronger(composed: Compose, override: str) -> None:
    config = composed(SETTINGS, "decoder=plain", override)
    assert (config["optimizer"]["lr"], config["model"]["dropout"]) == (0.1, 0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{plane:{optimizer.lr:1}}", "arm_settings.plane: there is no such arm; did you mean 'plain'"),
        ("{bahdanau:{optimizer.lrr:1}}", "arm_settings.bahdanau: there is no key optimizer.lrr; did you mean 'lr'"),
        (
            "{bahdanau:{optimiser.lr:1}}",
            "arm_settings.bahdanau: there is no key optimiser.lr; did you mean 'optimizer'",
        ),
        ("{plain:0.1}", "arm_settings: must map each arm to its keys and values"),
        ("3", "arm_settings: must map each arm to its keys and values"),
    ],
)
def test_a_typo_is_an_error_in_every_arm(composed: Compose, settings: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        composed(f"arm_settings={settings}", "decoder=plain")


def test_a_value_is_checked(composed: Compose) -> None:
    with pytest.raises(InputError, match=r"optimizer\.lr: must be a number of at least 0, not 'fast'"):
        composed("arm_settings={plain:{optimizer.lr:fast}}", "decoder=plain")
