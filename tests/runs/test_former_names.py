"""Configs of runs that were made when all modules lay flat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_method

from attnspan.config.instantiate import build
from attnspan.data.corpora.synthetic.recall_two_hop import RecallTwoHop
from attnspan.runs.finished_run import read_run
from attnspan.runs.former_names import with_todays_names
from attnspan.runs.layout import CONFIG, read_config
from tests.conftest import Compose
from tests.fake_runs import example, fake_run

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
    for key in ("encoder", "decoder", "rnn", "decoding"):
        later = {"attnspan.models.attention.normalisers.Softmax"}  # the default of the class
        assert targets(config[key]) == [target for target in targets(today[key]) if target not in later], key
    assert config["encoder"]["final_state"] == "both"
    assert config["data"]["source"] == "final"  # a value is no name
    assert build(config, "decoding").limit.margin == 10


def test_an_exponent_has_become_a_length_penalty() -> None:
    former = {"search": {"_target_": "attnspan.models.search.Beam", "beam_size": 4, "length_normalisation": 0.5}}
    decoding = with_todays_names(former)["decoding"]
    assert decoding["beam_size"] == 4
    limit = {"_target_": "attnspan.models.decoding.length_limit.LengthLimit", "ratio": 2.0, "margin": 10}
    penalty = build({"decoding": decoding | {"limit": limit}}, "decoding").length_penalty
    assert float(penalty(torch.tensor(16))) == 4.0


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


PATHS = [
    "attnspan.data.copy.Copy",
    "attnspan.data.files.Files",
    "attnspan.data.hub.Hub",
    "attnspan.data.parallel.Parallel",
    "attnspan.data.pronunciation.Pronunciation",
    "attnspan.data.reverse.Reverse",
    "attnspan.data.corpora.copy.Copy",
    "attnspan.data.corpora.reverse.Reverse",
    "attnspan.data.sigmorphon2020.Sigmorphon2020",
    "attnspan.models.bahdanau.BahdanauDecoder",
    "attnspan.models.bahdanau.Maxout",
    "attnspan.models.bridge.CopyBridge",
    "attnspan.models.encoder.BidirectionalEncoder",
    "attnspan.models.encoder.UnidirectionalEncoder",
    "attnspan.models.fused_recurrence.FusedRecurrence",
    "attnspan.models.luong.LuongDecoder",
    "attnspan.models.plain.PlainDecoder",
    "attnspan.models.plain.PlainEveryStepDecoder",
    "attnspan.models.plain.PlainWideDecoder",
    "attnspan.models.scores.AdditiveScore",
    "attnspan.models.scores.CoverageScore",
    "attnspan.models.scores.DotScore",
    "attnspan.models.scores.GeneralScore",
    "attnspan.models.scores.LocationScore",
    "attnspan.models.scores.ScaledDotScore",
    "attnspan.models.search.Beam",
    "attnspan.models.search.Greedy",
    "attnspan.models.search.LengthLimit",
    "attnspan.models.transformer.TransformerDecoder",
    "attnspan.models.transformer.TransformerEncoder",
    "attnspan.models.windows.LocalMonotonicWindow",
    "attnspan.models.windows.LocalPredictiveWindow",
]
"""All that configs named in results version 5 and that a finished run still needs; its schedule is not one of them."""


@pytest.mark.parametrize("path", PATHS)
def test_every_former_path_leads_somewhere(path: str) -> None:
    config = with_todays_names({"part": {"_target_": path}})
    assert get_method(config["part"]["_target_"]).__name__ == path.rpartition(".")[2]


@pytest.mark.parametrize("path", ["attnspan.data.recall.Recall", "attnspan.data.corpora.recall.Recall"])
def test_the_task_that_was_called_recall_has_two_hops(path: str) -> None:
    data, today = {"_target_": path}, {"_target_": f"{RecallTwoHop.__module__}.{RecallTwoHop.__name__}"}
    asked = {"data": data, "data_name": "recall-validation"}
    config = with_todays_names({"data": data, "data_name": "recall", "evaluation": asked})
    assert config == {
        "data": today,
        "data_name": "recall_two_hop",
        "evaluation": {"data": today, "data_name": "recall_two_hop-validation"},
    }
    assert with_todays_names({"data": data, "data_name": "mine"})["data_name"] == "mine"


def test_reports_have_the_name_of_today(tmp_path: Path) -> None:
    former = {"data": {"_target_": "attnspan.data.corpora.recall.Recall"}, "data_name": "recall"}
    run = read_run(fake_run(tmp_path, "plain", 1, [example(0, 5)], [0], data="recall", config=former))
    assert run.summary["data"] == run.config["data_name"] == "recall_two_hop"
    assert set(run.records["data"]) == {"recall_two_hop"}


def test_todays_recall_is_not_renamed(composed: Compose) -> None:
    config = composed("data=recall")
    assert with_todays_names(config) == config
    assert config["data_name"] == "recall"
