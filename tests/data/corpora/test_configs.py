from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from attnspan.data.corpora.base import Corpus
from attnspan.errors import InputError

CONFIGS = sorted((Path(__file__).parents[3] / "conf/data").glob("*.yaml"))
GIVEN = {
    "files": {"train": "a.csv", "validation": "b.csv", "test": "c.csv", "source": "s", "target": "t"},
    "image_files": {"train": "a", "validation": "b", "test": "c", "target": "t"},
    "parallel": {"train": "a", "validation": "b", "test": "c", "source": "de", "target": "en"},
    "hub": {"path": "./nowhere", "source": "s", "target": "t"},
    "hub_images": {"path": "./nowhere", "target": "t"},
    "fashion_mnist": {"path": "./nowhere"},
    "sigmorphon2020": {"root": "./nowhere", "language": "fre"},
}


def load(path: Path) -> DictConfig:
    """The ``data`` node of a file, on top of its defaults; a file that sets ``data_name`` is for the whole config."""
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    for name in config.pop("defaults", []):
        config = OmegaConf.unsafe_merge(load(path.with_name(f"{name}.yaml")), config)
    return config.data if "data_name" in config else config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_names_all_keys_of_its_corpus_and_no_other(path: Path) -> None:
    config = load(path)
    known = {field.name: field for field in fields(get_class(config["_target_"]))}
    assert set(map(str, config)) - {"_target_"} <= set(known)
    unset = set(known) - set(map(str, config))
    # relevant only for bpe or words, for gold links, and for natural text
    texts = {"lowercase", "normalization", "joint_vocabulary", "minimum_count", "concat", "on_bad_row"}
    assert unset <= {"vocabulary_size", "alignment", "training_alignment"} | (
        texts if path.stem == "sigmorphon2020" else set()
    )
    assert all(known[name].default is not MISSING for name in unset)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_makes_a_corpus(path: Path) -> None:
    corpus = instantiate(OmegaConf.merge(load(path), GIVEN.get(path.stem, {})), _convert_="all")
    assert isinstance(corpus, Corpus)
    if path.stem in GIVEN:
        with pytest.raises(InputError, match=r"^data\.\w+: "):
            corpus.check()
    else:
        corpus.check()
        corpus.identity()


PUBLISHED = [path for path in CONFIGS if load(path)["_target_"].endswith(".Hub") and path.stem != "hub"]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_dataset_is_pinned_and_names_its_licence(path: Path) -> None:
    """With a commit hash, the data cannot change, and prepared data needs no network."""
    config = load(path)
    assert re.fullmatch(r"[0-9a-f]{40}", config.revision)
    assert config.source != config.target
    header = path.read_text().split("\ndefaults:")[0]
    assert "\n# Licence: " in header
    assert config.path in header
    assert "data.path=DIRECTORY" in header.replace("\n# ", " ")


def test_there_are_published_datasets() -> None:
    assert {path.stem for path in PUBLISHED} >= {"multi30k", "wmt14", "iwslt2017", "opus_books", "opus100"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_begins_with_what_it_is(path: Path) -> None:
    first, second, *_ = path.read_text().splitlines()
    first = second if first == "# @package _global_" else first
    assert first.startswith("# ")
    assert first.endswith(".")
