"""Settings of the run as a whole: what is refused, in one line, and that a part may call its own keys what it likes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from attnspan.config.compose import compose_config
from attnspan.config.schema import Settings, check_settings
from attnspan.errors import InputError
from tests.conftest import Compose


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    *parents, last = key.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    section[last] = value
    return config


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("seed", True, "seed: must be a whole number of at least 0 and less than 2^32, not True"),
        ("seed", -1, "seed: must be a whole number of at least 0 and less than 2^32, not -1"),
        ("threads", 1.0, "threads: must be a whole number of at least 1, not 1.0"),
        ("plateau.patience", 0, "plateau.patience: must be null or a whole number of at least 1, not 0"),
        ("model.dropout", 1.0, "model.dropout: must be a number of at least 0 and less than 1, not 1.0"),
        ("model.hidden_size", "x", "model.hidden_size: must be a whole number of at least 1, not 'x'"),
        ("model.tied_target_embeddings", 1, "model.tied_target_embeddings: must be true or false, not 1"),
        ("rerun", "yes", "rerun: must be true or false, not 'yes'"),
        ("loader.workers", -1, "loader.workers: must be a whole number of at least 0, not -1"),
        ("optimizer.lr", "fast", "optimizer.lr: must be a number of at least 0, not 'fast'"),
        ("runs_dir", "", "runs_dir: must be a path, not ''"),
        ("decoder", None, "decoder: must be one of its group's choices, or a mapping, not None"),
        (
            "selection_metric",
            "los",
            "selection_metric: there is no 'los'; did you mean 'loss'? known: loss, sequence_error_rate",
        ),
        ("loader.worker", 2, "loader.worker: there is no such key; did you mean 'workers'? known: "),
        ("sead", 2, "sead: there is no such key; did you mean 'seed'? known: "),
    ],
)
def test_one_line_names_the_key(composed: Compose, key: str, value: Any, line: str) -> None:
    with pytest.raises(InputError) as refused:
        check_settings(changed(composed(), key, value))
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


def test_training_without_eos_needs_the_length_given(composed: Compose) -> None:
    """All that does not go together is in one line, as it must be set."""
    config = composed() | {"eos_in_training": False, "selection_metric": "sequence_error_rate"}
    with pytest.raises(InputError) as refused:
        check_settings(config)
    assert str(refused.value) == (
        "eos_in_training=false: such a model cannot end a hypothesis, so free-running ones say nothing; set "
        "oracle_length=true validation_hypotheses=0 selection_metric=loss"
    )
    with pytest.raises(InputError, match=r"; set validation_hypotheses=0$"):
        check_settings(config | {"oracle_length": True, "selection_metric": "loss"})
    check_settings(config | {"oracle_length": True, "selection_metric": "loss", "validation_hypotheses": 0})


def test_a_missing_key_is_named(composed: Compose) -> None:
    config = composed()
    del config["loader"]["workers"]
    with pytest.raises(InputError, match=r"^loader\.workers: is missing$"):
        check_settings(config)


def test_every_key_of_a_composed_config_is_known(composed: Compose) -> None:
    assert set(composed("guidance=diagonal", "scheduled_sampling=linear")) == set(Settings.model_fields)


def test_parts_have_keys_of_their_own(composed: Compose) -> None:
    """Names that belong to other parts mean nothing here: each class checks its own arguments."""
    config = composed()
    config["decoder"]["score"] |= {"kernel_size": [3, 5], "source": "a", "reverse": "both", "heads": "many"}
    check_settings(config)


@pytest.mark.parametrize(
    ("former", "today"),
    [
        ("choose_by=loss", "selection_metric"),
        ("search=beam", "decoding"),
        ("checkpoint_every=3", "checkpoint_interval"),
    ],
)
def test_a_former_key_leads_to_its_name_of_today(
    former: str, today: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from attnspan.cli.train import main

    monkeypatch.setattr("sys.argv", ["attnspan-train", former])
    with pytest.raises(SystemExit):
        main()
    (line,) = capfd.readouterr().err.splitlines()
    assert line == f"attnspan-train: {former.partition('=')[0]}: there is no such key; it is called '{today}' now"


def test_composing_checks(cache: Any) -> None:
    with pytest.raises(
        InputError, match=r"^label_smoothing: must be a number of at least 0 and less than 1, not 1\.5$"
    ):
        compose_config("label_smoothing=1.5")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"WANDB_MODE": "", "WANDB_PROJECT": "", "WANDB_ENTITY": ""}, ("offline", "attnspan", None)),
        ({"WANDB_MODE": "dryrun", "WANDB_PROJECT": "mine", "WANDB_ENTITY": "us"}, ("offline", "mine", "us")),
        ({"WANDB_MODE": "run"}, ("online", "attnspan", None)),
    ],
)
def test_variables_of_wandb_mean_what_they_mean_to_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[str, str, str | None]
) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    GlobalHydra.instance().clear()
    wandb = compose_config("logger=wandb")["logger"]["wandb"]
    assert (wandb["mode"], wandb["project"], wandb["entity"]) == expected


def test_an_empty_cache_variable_is_not_set(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNSPAN_CACHE", "")
    GlobalHydra.instance().clear()
    assert compose_config()["cache_dir"].endswith(".cache/attnspan")
