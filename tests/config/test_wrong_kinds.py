"""Every key of every file of conf/, with a value of each wrong kind: one line names the key, and none is accepted.

What is of the right kind is the kind of the value in the file, and what ``ALSO`` lists.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from attnspan.config.compose import plain_config
from attnspan.config.config_files import conf_directory
from attnspan.config.instantiate import build, build_corpus, build_decoding, check_optimizer
from attnspan.config.memory import check_size
from attnspan.config.schema import check_settings
from attnspan.errors import InputError
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.training.trainer import check_trainer
from tests.conftest import Compose
from tests.models import timm_stand_in

NUMBER, WORD, NULL, LIST, MAPPING, SWITCH = "a number", "a word", "null", "a list", "a mapping", "true"
WRONG = {NUMBER: 7.5, WORD: "x", NULL: None, LIST: ["x"], MAPPING: {"x": 1}, SWITCH: True}

ALSO = {
    "study": {WORD},
    "guidance": {NULL},
    "scheduled_sampling": {NULL},
    "data_name": {WORD, NULL},
    "plateau.patience": {NULL},
    "decoding.limit.ratio": {NUMBER},
    "decoding.limit.margin": {NUMBER},
    "trainer.gradient_clip_val": {NULL},
    "trainer.precision": {NULL},
    "logger.wandb.entity": {NULL, WORD},
    "decoder.deep_output": {NULL},
    "decoder.pointer": {NULL},
    "decoder.normaliser.reference_length": {NUMBER},
    "guidance.attention_sum": {NUMBER},
    "encoder.normaliser.reference_length": {NUMBER},
    **{key: {WORD, NULL} for key in ("name", "folder", "revision", "language", "alignment", "normalization")},
    "columns": {NULL, LIST},
    "longest_side": {NULL},
    "length": {NULL},
    **{f"{part}.{side}": {NULL} for part in ("train", "evaluation") for side in ("source", "target")},
}
"""Key, or the end of a key of the data, to the kinds that it may be of besides that of its value."""

GIVEN = {  # what a user must give
    "train": "{}", "validation": "{}", "test": "{}", "root": "{}", "path": "{}", "source": "src", "target": "tgt",
}  # fmt: skip

CHOICES = {
    str(folder.relative_to(conf_directory())): sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in sorted(conf_directory().rglob("*/"))
    if not {"hydra", "sweep"} & {*folder.parts} and list(folder.glob("*.yaml"))
}
"""Group to its files."""
NEEDED = {
    "decoding/length_penalty": ["decoding=beam"],
    "decoder/score": ["decoder=location_convolution"],
    "decoder/pointer": ["decoder=bahdanau_pointer"],
    "decoder/positions": ["decoder=transformer", "encoder=transformer"],
    "encoder/positions": ["decoder=transformer", "encoder=transformer"],
    "encoder/normaliser": ["decoder=transformer", "encoder=transformer"],
}
"""What else a run has where a part of a group fits into certain wholes only."""
OF_CHOICE = {"image_backbone": ["encoder.name=tiny_net", "encoder.stage=1", f"encoder.weights={__file__}"]}
"""What else a choice needs, with the stand-in for timm."""
CHOICES["encoder/normaliser"].remove("hard")  # a Transformer refuses it
REST = "the rest"
CHOICES[REST] = [""]
"""The keys that are in no group."""


def kind_of(value: Any) -> str:
    kinds = {type(None): NULL, bool: SWITCH, int: NUMBER, float: NUMBER, str: WORD, list: LIST, dict: MAPPING}
    return kinds[type(value)]


def composed_of(group: str, choice: str, folder: Path) -> DictConfig:
    """A config with its hydra node, in which every value is given; another group than data has the smallest data."""
    overrides = [*NEEDED.get(group, []), *([f"{group}={choice}"] if group != REST else [])]
    overrides += OF_CHOICE.get(choice, [])
    data = "digits" if choice.startswith("image") else "reverse"
    overrides += [f"data={data}"] if group != "data" else []
    composed = compose("train", overrides=overrides, return_hydra_config=True)
    for key in composed.data:
        if OmegaConf.is_missing(composed.data, key):
            OmegaConf.update(composed, f"data.{key}", GIVEN[key].format(folder))
    if "language" in composed.data:
        (folder / "fin").mkdir()
        for split in ("train", "validation", "test"):
            (folder / "fin" / f"{split}.tsv").touch()
        composed.data.language = "fin"
    return composed


def keys_of(node: dict[str, Any], above: str = "", part: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted key, value and the class that takes it; of a corpus, the one that declares it."""
    part = node.get("_target_", part)
    for key, value in node.items():
        if key not in ("_target_", "_partial_"):
            lines = get_class(part).__mro__ if above == "data." else ()
            owners = [one.__name__ for one in lines if key in vars(one).get("__annotations__", ())]
            yield f"{above}{key}", value, owners[-1] if owners else part
        if isinstance(value, dict):
            yield from keys_of(value, f"{above}{key}.", part)


def check(key: str, config: dict[str, Any]) -> None:
    """What a run makes of the section of ``key`` before it trains."""
    section = key.partition(".")[0]
    if section in ("model", "rnn", "encoder", "decoder"):
        check_size(config, source_vocabulary_size=8, target_vocabulary_size=8)
    elif section == "data":
        build_corpus(config).check()
    elif section == "decoding":
        build_decoding(config, limit=LengthLimit(ratio=1.0, margin=1))
    elif section in ("optimizer", "schedule"):
        check_optimizer(config, [torch.nn.Parameter(torch.zeros(1))])
    elif section == "guidance":
        build(config, section)(train=Dataset.from_dict({"source_ids": [[4]], "alignment": ["0-0"]}))
    elif section == "scheduled_sampling":
        build(config, section)
    elif section == "trainer":
        check_trainer(config)


def wrong_kinds(key: str, value: Any) -> list[str]:
    """Those of ``WRONG`` that neither the value nor ``ALSO`` allows."""
    names = [key, key.partition(".limits.")[2], key.rpartition(".")[2]] if key.startswith("data.") else [key]
    right = {kind_of(value), *(kind for name in names for kind in ALSO.get(name, ()))}
    return [kind for kind in WRONG if kind not in right]


def with_value(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with another value of a dotted key."""
    first, _, rest = key.partition(".")
    return config | {first: with_value(config[first], rest, value) if rest else value}


def complaints(
    composed: DictConfig, resolved: dict[str, Any], key: str, value: Any, *, is_composed: bool
) -> Iterator[str]:
    """What is wrong with the answers to a key of a wrong kind; ``is_composed``: set before others are resolved."""
    for kind in wrong_kinds(key, value):
        try:
            if is_composed:
                OmegaConf.update(composed, key, WRONG[kind], merge=False)
                config = plain_config(composed, composed.hydra)
            else:
                check_settings(config := with_value(resolved, key, WRONG[kind]))
            check(key, config)
        except InputError as error:
            if not str(error).startswith((f"{key}:", f"{key} is null")) or "\n" in str(error):
                yield f"{key}, {kind}: {error}"
        else:
            yield f"{key}, {kind}: is accepted"
    if is_composed:
        OmegaConf.update(composed, key, value, merge=False)


@pytest.mark.parametrize("group", CHOICES)
@pytest.mark.usefixtures("cache")
def test_every_key_refuses_every_wrong_kind_in_a_line(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", timm_stand_in)
    GlobalHydra.instance().clear()
    seen: set[tuple[str, str, str]] = set()
    corpora = set[tuple[str, str]]()
    found = []
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        for choice in CHOICES[group]:
            composed = composed_of(group, choice, tmp_path)
            plain: Any = OmegaConf.to_container(composed, resolve=False)
            if (group, plain["data"]["_target_"]) in corpora:
                continue  # a file that only names another dataset, with the same keys
            corpora |= {("data", plain["data"]["_target_"])}
            resolved = plain_config(composed, composed.hydra)
            for key, value, part in keys_of({name: node for name, node in plain.items() if name != "hydra"}):
                is_of_group = f"{key}.".startswith(f"{group.replace('/', '.')}.")
                of_no_group = group == REST and key.partition(".")[0] not in CHOICES
                if (is_of_group or of_no_group) and (key, part, kind_of(value)) not in seen:
                    seen.add((key, part, kind_of(value)))
                    # Composing takes longest, and matters only where another key is made of this one.
                    is_composed = "." not in key or f"${{{key}" in str(plain)
                    said = complaints(composed, resolved, key, value, is_composed=is_composed)
                    found += [f"{choice}: {line}" for line in said]
    assert found == []
    assert seen


def test_the_lines_say_what_is_right(composed: Compose) -> None:
    """A line for each kind of annotation."""
    for key, value, line in (
        ("optimizer.eps", "x", "optimizer.eps: must be a number, not 'x'"),
        ("optimizer.betas", 0.9, "optimizer.betas: must be a list, [a number, a number], not 0.9"),
        ("schedule.warmup_steps", True, "schedule.warmup_steps: must be a whole number, not true"),
        ("decoder.score", "additive", "decoder.score: must be a part, a mapping with _target_, not 'additive'"),
        ("trainer.precision", ["x"], "trainer.precision: must be null or "),
        (
            "trainer.gradient_clip_val",
            True,
            "trainer.gradient_clip_val: must be null or a number of at least 0, not True",
        ),
        ("data.limits.train", None, "data.limits.train: must be a mapping, {source, target}, not null"),
    ):
        config = with_value(composed("data=reverse"), key, value)
        with pytest.raises(InputError) as refused:
            _ = check_settings(config), check(key, config)  # type: ignore[func-returns-value]
        assert str(refused.value).startswith(line)
