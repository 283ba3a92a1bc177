"""Settings for an arm or a task, chosen by a study."""

from __future__ import annotations

import re

import pytest

from attnspan.errors import InputError
from tests.conftest import Compose

SETTINGS = (
    r"settings_for={decoder\=plain:{optimizer.lr:0.5,model.dropout:0.3},decoder\=bahdanau:{optimizer.lr:0.25},"
    r"decoder\=plain data\=copy:{optimizer.lr:0.75}}"
)


def test_a_run_gets_what_is_for_its_choices(composed: Compose) -> None:
    plain, bahdanau, other = (composed(SETTINGS, f"decoder={arm}") for arm in ("plain", "bahdanau", "luong_dot"))
    assert (plain["optimizer"]["lr"], plain["model"]["dropout"]) == (0.5, 0.3)
    assert (bahdanau["optimizer"]["lr"], bahdanau["model"]["dropout"]) == (0.25, 0.0)
    assert other["optimizer"]["lr"] == composed("decoder=luong_dot")["optimizer"]["lr"]


def test_all_of_a_condition_must_hold_and_a_later_one_is_stronger(composed: Compose) -> None:
    assert composed(SETTINGS, "decoder=plain", "data=copy")["optimizer"]["lr"] == 0.75
    assert composed(SETTINGS, "decoder=bahdanau", "data=copy")["optimizer"]["lr"] == 0.25


def test_a_choice_of_the_group_is_no_override_of_its_keys(composed: Compose) -> None:
    settings = r"settings_for={data\=copy:{data.symbols:7}}"
    assert composed(settings, "data=copy")["data"]["symbols"] == 7
    assert composed(settings, "data=copy", "data.symbols=9")["data"]["symbols"] == 9


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
        (r"{decoder\=plane:{optimizer.lr:1}}", "there is no decoder=plane; did you mean 'plain'"),
        (r"{decodre\=plain:{optimizer.lr:1}}", "there is no group decodre; did you mean 'decoder'"),
        ("{plain:{optimizer.lr:1}}", "settings_for: 'plain' is not a choice of a group"),
        (r"{decoder\=bahdanau:{optimizer.lrr:1}}", "there is no key optimizer.lrr; did you mean 'lr'"),
        (r"{decoder\=plain:{optimiser.lr:1}}", "there is no key optimiser.lr; did you mean 'optimizer'"),
        (r"{decoder\=plain:0.1}", "settings_for: must map choices to keys and values"),
        ("3", "settings_for: must map choices to keys and values"),
    ],
)
def test_a_typo_is_an_error_in_every_run(composed: Compose, settings: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        composed(f"settings_for={settings}", "decoder=plain")


def test_a_value_is_checked(composed: Compose) -> None:
    with pytest.raises(InputError, match=r"optimizer\.lr: must be a number of at least 0, not 'fast'"):
        composed(r"settings_for={decoder\=plain:{optimizer.lr:fast}}", "decoder=plain")
