"""A second decoding of the test with the lengths of the references given, and training without <eos>."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.prepare import prepare
from attnspan.data.tokenizer import BOS, EOS, PAD
from attnspan.evaluation.loaded_run import LoadedRun, load_run
from attnspan.files import read_json
from attnspan.runs.layout import RECORDS, SUMMARY
from attnspan.runs.records import read_records
from attnspan.runs.summary import describe_scores
from attnspan.training.run import execute
from tests.conftest import TINY, Compose

RUNS = {
    "with <eos>": ("oracle_length=true",),
    "without <eos>": ("oracle_length=true", "eos_in_training=false", "validation_hypotheses=0"),
}


@pytest.fixture(scope="module", params=RUNS)
def run(composed: Compose, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny run."""
    runs = tmp_path_factory.mktemp("runs")
    config = composed(*TINY, "decoder=bahdanau", f"runs_dir={runs}", *RUNS[request.param])
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    directory = run_directory(config, data_fingerprint=prepared.fingerprint)
    execute(config, data=prepared, directory=directory, command="test", report=lambda status: None)
    return directory


def next_log_probs(loaded: LoadedRun, source: list[int], prefix: list[int]) -> list[float]:
    with torch.no_grad():
        read = torch.tensor([[BOS, *prefix]])
        logits, _ = loaded.model(torch.tensor([source]), torch.tensor([len(source)]), read)
    return torch.log_softmax(logits[0, -1].double(), dim=-1).tolist()


def edits(one: list[str], other: list[str]) -> int:
    """Levenshtein distance, by its recurrence."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        above, row = row, [i]
        for j, b in enumerate(other, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


def examples(run: Path) -> pd.DataFrame:
    records = read_records(run / RECORDS)
    return records.iloc[:: len(records) // 12]


def test_the_best_word_at_every_step_until_the_length_of_the_reference(run: Path) -> None:
    loaded = load_run(run)
    for _, record in examples(run).iterrows():
        source = loaded.source_tokenizer.encode(record["source"])
        words: list[int] = []
        for _ in range(record["target_length"]):
            log_probs = next_log_probs(loaded, source, words)
            words.append(max((v for v in range(len(log_probs)) if v not in (PAD, BOS, EOS)), key=log_probs.__getitem__))
        tokens, reference = loaded.target_tokenizer.tokens(words), record["reference"].split()
        assert record["oracle_hypothesis"].split() == tokens
        assert record["oracle_edits"] == edits(tokens, reference)
        assert record["oracle_exact_match"] == (tokens == reference)


def test_free_running_decoding_stays_what_it_is(run: Path) -> None:
    some = examples(run)
    found = load_run(run).decode(some["source"].tolist())
    assert some["hypothesis"].tolist() == [one.text for one in found]
    assert some["truncated"].tolist() == [one.truncated for one in found]
    lengths = some["hypothesis"].str.split().str.len()
    assert (lengths != some["target_length"]).any()  # or the length given would change nothing


def test_without_eos_the_reference_alone_is_scored(run: Path) -> None:
    """The negative log-likelihood, term by term."""
    loaded, summary = load_run(run), read_json(run / SUMMARY)
    with_eos = loaded.config["eos_in_training"]
    records = read_records(run / RECORDS)
    assert (records["target_tokens"] == records["target_length"] + with_eos).all()
    for _, record in examples(run).iloc[::3].iterrows():
        source, target = (
            tokenizer.encode(record[side])
            for side, tokenizer in (("source", loaded.source_tokenizer), ("reference", loaded.target_tokenizer))
        )
        scored = [*target, EOS] if with_eos else target
        tables = [next_log_probs(loaded, source, scored[:t]) for t in range(len(scored))]
        nll = -math.fsum(table[token] for table, token in zip(tables, scored, strict=True))
        correct = sum(max(table) == table[token] for table, token in zip(tables, scored, strict=True))
        assert record["nll"] == pytest.approx(nll, rel=1e-5)
        assert record["tokens_correct"] == correct
    given = {"error_rate": records["oracle_edits"].sum() / records["target_length"].sum()}
    given["exact_match"] = records["oracle_exact_match"].mean()
    assert {name: summary["test"][f"oracle_{name}"] for name in given} == pytest.approx(given)
    assert describe_scores(summary["test"]).endswith(
        f"; {given['error_rate']:.4f}, {given['exact_match']:.4f} with the reference's length given"
    )
    assert summary["test"]["teacher_forced_nll"] == pytest.approx(records["nll"].sum() / records["target_tokens"].sum())
