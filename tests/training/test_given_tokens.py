"""Data that gives some target tokens to the decoder, from training to the records, and to who decodes them again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.batches import EncodedSplit
from attnspan.data.pipeline.prepare import PreparedData, prepare
from attnspan.data.tokenizer import BOS, EOS, PAD
from attnspan.errors import InputError
from attnspan.evaluation.decoded_again import decode_again
from attnspan.evaluation.loaded_run import load_run
from attnspan.files import read_json
from attnspan.runs.finished_run import read_run
from attnspan.runs.layout import RECORDS, SUMMARY
from attnspan.runs.records import edit_distance, read_records
from attnspan.training.run import execute
from tests.conftest import TINY, Compose
from tests.training.test_evaluate import evaluated

QUERIES = 2
DATA = (
    *TINY,
    "data=mqar_given_keys",
    "data.pairs=3",
    f"data.queries={QUERIES}",
    "data.train_lengths=[6,8]",
    "data.test_lengths=[6,12]",
)


@pytest.fixture(scope="module")
def prepared(composed: Compose) -> PreparedData:
    config = composed(*DATA)
    return prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))


@pytest.fixture(scope="module")
def run(composed: Compose, prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny run, whose test is decoded with the reference's length as well."""
    runs = tmp_path_factory.mktemp("runs")
    config = composed(*DATA, "decoder=luong_general", "oracle_length=true", f"runs_dir={runs}")
    directory = run_directory(config, data_fingerprint=prepared.fingerprint)
    execute(config, data=prepared, directory=directory, command="test", report=lambda status: None)
    return directory


@pytest.fixture(scope="module")
def records(run: Path) -> pd.DataFrame:
    return read_records(run / RECORDS)


def test_a_batch_counts_the_tokens_that_are_not_given(prepared: PreparedData) -> None:
    for ranks in (1, 2):
        batch = EncodedSplit(prepared.train, rank=ranks - 1, ranks=ranks)[range(4)]
        assert batch.given is not None
        assert batch.given_tokens is not None
        assert batch.target_tokens == int((batch.labels != PAD).sum()) == 4 // ranks * (QUERIES + 1)
        assert batch.whole_tokens == 4 * (QUERIES + 1)
        assert batch.given.tolist() == [[True, False] * QUERIES + [False]] * (4 // ranks)
        both = torch.where(batch.given, batch.given_tokens, batch.labels)
        assert both.tolist() == batch.target_output.tolist()


def test_records_measure_the_values_only(run: Path, records: pd.DataFrame) -> None:
    loaded = load_run(run)
    assert (records["target_length"] == 2 * QUERIES).all()
    assert (records["scored_length"] == QUERIES).all()
    assert (records["target_tokens"] == QUERIES + 1).all()
    for record in records.iloc[::8].itertuples():
        assert list(record.given) == [0, 2]
        reference = record.reference.split()
        source, target = loaded.source_tokenizer.encode(record.source), loaded.target_tokenizer.encode(record.reference)
        for text, edits in ((record.hypothesis, record.edits), (record.oracle_hypothesis, record.oracle_edits)):
            words = text.split()
            assert words[: 2 * QUERIES : 2] == reference[: len(words) : 2]  # the keys, as far as it goes
            written = [word for t, word in enumerate(words) if t not in (0, 2)]
            assert edits == edit_distance(written, reference[1::2])
        assert record.exact_match == (record.hypothesis == record.reference and not record.truncated)
        assert record.hypothesis_length == len(record.hypothesis.split())
        with torch.no_grad():
            read = torch.tensor([[BOS, *target]])
            table = torch.log_softmax(loaded.model(torch.tensor([source]), torch.tensor([len(source)]), read)[0][0], -1)
        assert record.nll == pytest.approx(-float(table[1, target[1]] + table[3, target[3]] + table[4, EOS]), abs=1e-4)
        for column in (record.attention_entropy, record.attention_support, record.gold_attention):
            assert [value != value for value in column] == [True, False] * QUERIES
        assert (record.links, record.gold_links) == (QUERIES, QUERIES)
    test = read_json(run / SUMMARY)["test"]
    assert test["error_rate"] == pytest.approx(records["edits"].sum() / (QUERIES * len(records)))


def test_who_decodes_again_gives_the_tokens_too(run: Path, records: pd.DataFrame) -> None:
    found = decode_again(read_run(run), records["example_id"].tolist()[::8])
    assert found.different == 0
    assert all(one.output[0] == one.reference[0] for one in found.examples.values())


def test_a_beam_is_given_them(run: Path, records: pd.DataFrame) -> None:
    key = records["reference"][0].split()[0]
    best, *_ = load_run(run).decode([records["source"][0]], given=[{0: key}], beam_size=3, n_best=3)[0]
    assert best.tokens[0] == key


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "the data of this run, mqar_given_keys, gives target tokens to the decoder, and a source alone"),
        ([], "given: there are 1 sources, and given tokens for 0"),
        ([{0: "k1 k2"}], "given 0: 'k1 k2', given at position 0, is not one token"),
        ([{-1: "k1"}], "given 0: -1 is no position of a given token: they count from 0"),
    ],
)
def test_given_tokens_that_are_missing_or_wrong(run: Path, given: list[dict[int, str]] | None, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_run(run).decode(["k1 v2 k3 v4 k0 v0"], given=given)
    assert str(error.value).startswith(message)


def test_evaluations_give_them(run: Path, records: pd.DataFrame) -> None:
    again = read_records(evaluated(run) / RECORDS)
    pd.testing.assert_frame_equal(again, records)
    beam = read_records(evaluated(run, "decoding=beam", "decoding.beam_size=2") / RECORDS)
    assert (beam["hypothesis"].str.split().str[0] == records["reference"].str.split().str[0]).all()


def test_a_run_that_is_given_tokens_is_not_evaluated_without(run: Path) -> None:
    message = "data=reverse: gives no target tokens to the decoder, as the data does on which the run was trained, mqar"
    with pytest.raises(InputError, match=f"^{message}"):
        evaluated(run, "data=reverse", "data.symbols=6", "data.test_lengths=[2,5]", "data.test_size=8")
