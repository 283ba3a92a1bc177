"""A whole run that copies: it writes names that neither its training nor its vocabulary had, wherever they are read."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.prepare import prepare
from attnspan.evaluation.gradient_norms import AlignedExample, gradient_norms
from attnspan.evaluation.loaded_run import LoadedRun, UnknownTokensWarning, load_run, weights_of_heads
from attnspan.runs.attention_maps import read_attention_maps
from attnspan.runs.layout import RECORDS
from attnspan.runs.records import read_records
from attnspan.training.run import execute
from tests.conftest import TINY, Compose
from tests.training.test_evaluate import evaluated

NAMES = [word for word in TINY if "reverse" not in word and "symbols" not in word and "lengths" not in word] + [
    "data=names",
    "data.words=3",
    "data.vocabulary_size=7",
    "data.train_lengths=[1,2]",
    "data.test_lengths=[1,3]",
    "trainer.max_steps=80",
    "schedule.warmup_steps=1",
    "optimizer.lr=0.02",
    "decoder=luong_pointer",
    "decoder.heads=2",
    "label_smoothing=0.05",
    "oracle_length=true",
]


@pytest.fixture(scope="module")
def run(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = composed(*NAMES, f"runs_dir={tmp_path_factory.mktemp('runs')}")
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    directory = run_directory(config, data_fingerprint=prepared.fingerprint)
    execute(config, data=prepared, directory=directory, command="test", report=lambda status: None)
    return directory


@pytest.fixture
def loaded(run: Path) -> LoadedRun:
    return load_run(run)


def test_names_that_training_never_had_are_in_the_records(run: Path) -> None:
    records = read_records(run / RECORDS)
    copied = [any(word[0].isupper() for word in text.split()) for text in records["hypothesis"]]
    assert sum(copied) > 0.9 * len(records)
    exact = records[records["exact_match"]]
    assert len(exact) > 0.5 * len(records)
    assert (exact["hypothesis"] == exact["reference"]).all()
    assert not records["hypothesis"].str.contains("<unk>").any()
    assert records[records["oracle_exact_match"]]["oracle_hypothesis"].str.contains("[A-Z]").all()


def test_an_evaluation_copies_as_the_test_did(run: Path) -> None:
    again = evaluated(run)
    assert (again / RECORDS).read_bytes() == (run / RECORDS).read_bytes()


def test_a_loaded_run_copies(loaded: LoadedRun) -> None:
    with pytest.warns(UnknownTokensWarning, match="Zyzzyva"):
        one, two = loaded.decode(["Zyzzyva u1", "u0 Qux"])
    assert "Zyzzyva" in one.tokens
    assert "Qux" in two.tokens
    assert one.text == " ".join(one.tokens)
    assert one.unknown_tokens == ["Zyzzyva"]
    assert max(one.ids) >= len(loaded.target_tokenizer)
    with warnings.catch_warnings(action="ignore", category=UnknownTokensWarning):
        (best, *_) = loaded.decode(["Zyzzyva u1"], beam_size=3, n_best=3)[0]
    assert "Zyzzyva" in best.tokens
    heads = weights_of_heads(loaded, "Zyzzyva u1", one)
    assert heads is not None
    assert heads.mean(dim=0).allclose(one.weights, atol=1e-6)


def test_maps_are_labelled_with_what_was_copied(run: Path) -> None:
    maps = read_attention_maps(run)
    assert any(token[0].isupper() for one in maps.values() for token in one.output)


def test_gradient_flow_is_that_of_the_copied_word(loaded: LoadedRun) -> None:
    """The loss of a name is that of its id beyond the vocabulary, so it has a gradient in the name's embedding."""
    source = loaded.encode("u0 Qux", "here")
    assert isinstance(source.content, list)
    vocabulary = loaded.extended_vocabulary
    assert vocabulary is not None
    target = vocabulary.extend_target(loaded.target_tokenizer.encode("v0 Qux"), "v0 Qux", source.oov_words)
    example = AlignedExample(source=source.content, target=target, links=[(1, 1)], in_target=source.in_target)
    (norms,) = gradient_norms(loaded.model, [example], outputs=2)
    assert norms[1, 1] > 0
