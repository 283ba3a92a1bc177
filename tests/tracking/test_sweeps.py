"""W&B's agent, with the command of our sweeps, starts the run that it means: its own code makes the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb import wandb_agent

from attnspan.config.compose import compose_config
from attnspan.config.config_files import conf_directory

SWEEPS = sorted((conf_directory() / "sweep" / "wandb").glob("*.yaml"))


def first_values(parameters: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What an agent may be told to try: fixed values, the first of several, the least of a range."""
    return {
        key: said["value"] if "value" in said else said["values"][0] if "values" in said else said["min"]
        for key, said in parameters.items()
    }


def command_line(
    sweep: dict[str, Any], values: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[str]:
    """What the agent would start."""
    started: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **kwargs: Any) -> None:
            started.append(command)

    monkeypatch.setattr(wandb_agent, "AgentProcess", Process)
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # it sets them
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    agent = wandb_agent.Agent(api=None, queue=None, sweep_id="abc")
    agent._sweep_command = list(sweep["command"])
    arguments = {key: {"value": value} for key, value in values.items()}
    agent._command_run({"run_id": "run1", "program": sweep["program"], "args": arguments})
    return started[0]


def composed(command: list[str]) -> dict[str, Any]:
    """The config of the run that a command line starts; a real agent is in tests/services/test_wandb.py."""
    assert command[:2] == ["/usr/bin/env", "attnspan-train"]
    return compose_config(*command[2:])


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_starts_the_run_that_it_says(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
    values = first_values(sweep["parameters"])
    command = command_line(sweep, values, monkeypatch, tmp_path)
    config = composed(command)
    assert config["logger"]["wandb"]["mode"] == "online"
    assert config["rerun"] is True
    for key, value in values.items():
        if key not in ("decoder", "data", "sweep", "hydra.mode"):  # groups, and what Hydra keeps
            part: Any = config
            for name in key.split("."):
                part = part[name]
            assert part == value, key
    assert "Bahdanau" in config["decoder"]["_target_"] or values["decoder"] == "plain"


def test_lists_strings_with_spaces_and_nothing_survive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sweep = yaml.safe_load(SWEEPS[0].read_text(encoding="utf-8"))
    values = {
        "study": "a name with spaces",
        "data": "files",
        "data.train": "my data/train set.tsv",
        "data.source": "'a, b: c = d'",
        "data.target": "phones",
        "optimizer.betas": [0.5, 0.75],
        "data.validation": "x.tsv",
        "data.test": "x.tsv",
        "optimizer.lr": 1.5e-05,
        "model.tied_target_embeddings": False,
        "trainer.gradient_clip_val": "null",
        "seed": 7,
    }
    config = composed(command_line(sweep, values, monkeypatch, tmp_path))
    assert config["study"] == "a name with spaces"
    assert config["data"]["train"] == "my data/train set.tsv"
    assert config["data"]["source"] == "a, b: c = d"
    assert config["optimizer"]["betas"] == [0.5, 0.75]
    assert config["optimizer"]["lr"] == 1.5e-05
    assert config["model"]["tied_target_embeddings"] is False
    assert config["trainer"]["gradient_clip_val"] is None
    assert config["seed"] == 7


def test_what_a_sweep_minimises_is_logged() -> None:
    for path in SWEEPS:
        assert yaml.safe_load(path.read_text(encoding="utf-8"))["metric"]["name"] == "validation/loss"
