"""Configs of runs that were made when all modules lay flat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from attnspan.config.instantiate import build
from attnspan.runs.former_names import with_todays_names
from attnspan.runs.layout import CONFIG, read_config
from tests.conftest import Compose

FORMER: dict[str, Any] = {
    "arm": "bahdanau",
    "choose_by": "loss",
    "checkpoint_every": 60,
    "encoder": {"_target_": "attnspan.models.encoder.BidirectionalEncoder", "_partial_": True, "final": "both"},
    "decoder": {
        "_target_": "attnspan.models.bahdanau.BahdanauDecoder",
        "score": {"_target_": "attnspan.models.scores.AdditiveScore", "attention_size": 64},
    },
    "rnn": {"_target_": "attnspan.models.fused_recurrence.FusedRecurrence", "cell": {"_target_": "torch.nn.GRU"}},
    "search": {
        "_target_": "attnspan.models.search.Greedy",
        "limit": {"_target_": "attnspan.models.search.LengthLimit", "ratio": 2.0, "margin": 10},
    },
    "schedule": {"_target_": "attnspan.schedule.warmup_decay", "_partial_": True, "final": 0.02},
    "data": {"_target_": "attnspan.data.reverse.Reverse", "source": "final"},
}


def targets(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["_target_"]] if "_target_" in node else []
        return own + [target for child in node.values() for target in targets(child)]
    return []


def test_keys_and_classes_get_their_names_of_today(composed: Compose) -> None:
    config = with_todays_names(FORMER)
    today = composed()
    assert {*config} - {"data"} <= {*today}
    for key in ("encoder", "decoder", "rnn", "decoding", "schedule"):
        assert targets(config[key]) == targets(today[key]), key
    assert config["encoder"]["final_state"] == "both"
    assert config["schedule"]["final_ratio"] == 0.02
    assert config["data"]["source"] == "final"  # a value is no name
    assert build(config, "decoding").limit.margin == 10


def test_todays_config_is_left_as_it_is(composed: Compose) -> None:
    for choice in ("plain", "luong_local_p", "bahdanau_2015", "transformer"):
        config = composed(f"decoder={choice}")
        assert with_todays_names(config) == config


def test_a_class_of_somebody_else_is_left_as_it_is() -> None:
    config = {"decoder": {"_target_": "my_models.scores.Mine"}}
    assert with_todays_names(config) == config


def test_reading_translates(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(yaml.safe_dump(FORMER), encoding="utf-8")
    assert read_config(tmp_path) == with_todays_names(FORMER)
