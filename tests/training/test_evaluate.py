"""Evaluations of finished runs: the numbers of the run's own test, and what differs where other things are asked."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

from attnspan.analysis.collection import collect
from attnspan.cli import gradient_flow, inspect, predict
from attnspan.config.evaluation import EVALUATION, default_name, evaluation_config, evaluation_id
from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.batches import Batch
from attnspan.data.pipeline.length_range import LengthRange
from attnspan.data.pipeline.prepare import prepare
from attnspan.errors import InputError
from attnspan.evaluation.loaded_run import load_run
from attnspan.evaluation.prepared_test import evaluated_examples, kept_gold_links
from attnspan.files import read_json, write_json
from attnspan.runs.completeness import is_finished, why_unfinished
from attnspan.runs.finished_run import read_run
from attnspan.runs.layout import BEST, FILES, SUMMARY
from attnspan.runs.records import edit_distance, read_records
from attnspan.runs.status import INTERRUPTED, current_status
from attnspan.sweeps.evaluations import check
from attnspan.training.callbacks.decoded_checkpoints import DecodedCheckpoints
from attnspan.training.evaluate import evaluate
from attnspan.training.run import execute
from tests.conftest import TINY, Compose, parsed
from tests.fake_runs import sign

SMALL_BATCHES = "loader.evaluation_batch_tokens=36"
"""Several batches a test."""


@pytest.fixture(scope="module")
def run(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    config = composed(*TINY, f"runs_dir={tmp_path_factory.mktemp('runs')}", "decoder=bahdanau", SMALL_BATCHES)
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    directory = run_directory(config, data_fingerprint=prepared.fingerprint)
    execute(config, data=prepared, directory=directory, command="test", report=lambda status: None)
    return directory


def config_of(run: Path, *overrides: str, split: str = "test", length: str | None = None) -> dict[str, Any]:
    GlobalHydra.instance().clear()
    config = evaluation_config(run, parsed(*overrides), split=split, length=length)
    config[EVALUATION]["name"] = "asked"
    return config


def evaluated(
    run: Path, *overrides: str, split: str = "test", length: str | None = None, log: list[str] | None = None
) -> Path:
    """Carry out an evaluation in this process."""
    config = config_of(run, *overrides, split=split, length=length)
    check(config, ())
    examples = evaluated_examples(config, run=run).prepare()
    directory = run / "evaluations" / f"asked-{evaluation_id(config, data_fingerprint=examples.fingerprint)}"
    lines: list[str] = [] if log is None else log
    report: Any = lambda status: None  # noqa: E731
    evaluate(config, split=examples, directory=directory, command="asked", report=report, log=lines.append)
    return directory


def test_asked_for_the_same_it_equals_the_test_of_the_run_bit_for_bit(run: Path) -> None:
    again = evaluated(run)
    for name in ("records.parquet", "attention.parquet"):
        assert (again / name).read_bytes() == (run / name).read_bytes(), name
    of_run, of_evaluation = read_json(run / SUMMARY), read_json(again / SUMMARY)
    for key in (
        "test",
        "test_fingerprint",
        "training_lengths",
        "parameters",
        "updates",
        "overlap",
        "references_over_limit",
    ):
        assert of_evaluation[key] == of_run[key], key
    assert is_finished(again)
    assert is_finished(run)


def test_interrupted_and_repeated_it_is_the_same_bit_for_bit(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was decoded is not decoded again."""
    decoded: list[list[int]] = []
    save = DecodedCheckpoints.on_test_batch_start

    def watched(self: DecodedCheckpoints, trainer: Any, module: Any, batch: Batch, *more: Any) -> None:
        if len(decoded) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        save(self, trainer, module, batch, *more)
        decoded.append(batch.index.tolist())

    monkeypatch.setattr(DecodedCheckpoints, "on_test_batch_start", watched)
    overrides = ("decoding=beam", "decoding.beam_size=2", "checkpoint_interval=0")
    with pytest.raises(SystemExit):
        evaluated(run, *overrides)
    first = {row for rows in decoded for row in rows}
    (directory,) = (path.parent.parent for path in run.glob("evaluations/*/checkpoints/tested-*"))
    assert current_status(directory).state == INTERRUPTED
    decoded[:] = [[]] * 4
    assert evaluated(run, *overrides) == directory
    second = {row for rows in decoded for row in rows}
    assert not first & second
    assert first | second == {*range(48)}
    assert not list(directory.glob("checkpoints/tested-*"))
    resumed = (directory / "records.parquet").read_bytes()
    shutil.rmtree(directory)
    assert (evaluated(run, *overrides) / "records.parquet").read_bytes() == resumed


def test_another_file_is_decoded_with_the_tokenizers_of_the_run(run: Path, tmp_path: Path) -> None:
    """Its training data is not needed; symbols that the run does not know are counted and said."""
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1 2 3,3 2 1\n4 x x y,y x x 4\n", encoding="utf-8")
    said: list[str] = []
    directory = evaluated(
        run, "data=files", f"data.test={path}", "data.source=a", "data.target=b", "data_name=other", log=said
    )
    records, summary = read_records(directory / "records.parquet"), read_json(directory / SUMMARY)
    assert records["source"].tolist() == ["1 2 3", "4 x x y"]
    assert {*records["data"]} == {summary["data"]} == {"other"}
    assert summary["unknown"]["test"] == {"source": 3 / 7, "target": 3 / 7}
    assert said == [
        f"test: 42.86% of the {side} tokens are not in the run's vocabulary: 'x' (2), 'y' (1)"
        for side in ("source", "target")
    ]
    for record in records.itertuples():
        (hypothesis,) = load_run(run).decode([str(record.source)])
        assert record.hypothesis == hypothesis.text
        reference = [None if token in "xy" else token for token in str(record.reference).split()]
        assert record.edits == edit_distance(hypothesis.tokens, reference)


def test_gold_links_are_those_of_the_evaluated_examples(run: Path) -> None:
    """Which have the ids of the run's own test, and are others."""
    directory = evaluated(run, "data.test_lengths=[3,3]", "data.test_size=4")
    records = read_records(directory / "records.parquet")
    links = kept_gold_links(read_run(directory), records["example_id"].tolist(), ())
    assert links == {name: [(0, 2), (1, 1), (2, 0)] for name in records["example_id"]}


def test_a_range_of_lengths_has_the_records_of_the_whole(run: Path) -> None:
    whole = read_records(run / "records.parquet")
    directory = evaluated(run, length="7-8")
    part = whole[whole["source_length"].between(7, 8)].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_records(directory / "records.parquet"), part, rtol=1e-5, check_exact=False)
    assert read_json(directory / SUMMARY)["training_lengths"] == [2, 6]


def test_a_range_is_of_either_side_and_in_tokens_or_multiples_of_training(run: Path) -> None:
    """Ranges that meet have no length in common, and the same tokens are one evaluation."""
    trained = {"source": 6, "target": 22}

    def ends(text: str) -> tuple[str, int | None, int | None]:
        found = LengthRange.parse(text, trained)
        return (found.side, found.shortest, found.longest)

    assert ends("61-120") == ends("source:61-120") == ("source", 61, 120)
    assert [ends(f"target:{text}") for text in ("-1x", "1x-1.5x", "1.5x-2x", "2x-")] == [
        ("target", None, 22), ("target", 23, 33), ("target", 34, 44), ("target", 45, None),
    ]  # fmt: skip
    assert [ends(text) for text in ("1x", "1.25x", "1.25x-", "0.5x-9")] == [
        ("source", 6, 6), ("source", 7, 7), ("source", 8, None), ("source", 4, 9),
    ]  # fmt: skip
    with pytest.raises(InputError, match="the longest target that the run was trained on is not known; give numbers"):
        LengthRange.parse("target:1x-", {"source": 6, "target": None})
    beyond, tokens = evaluated(run, length="1x-"), evaluated(run, length="7-")
    assert beyond == tokens
    assert read_records(beyond / "records.parquet")["source_length"].between(7, 9).all()


def test_the_length_of_the_target_is_that_of_the_reference(run: Path, tmp_path: Path) -> None:
    lines = ["s1 s2\ts1 s2 s3 s4", "s1 s2 s3 s4\ts1 s2", "s1\ts1 s2 s3"]
    (tmp_path / "test.tsv").write_text("\n".join(["source\ttarget", *lines]) + "\n")
    files = ("data=files", f"data.test={tmp_path / 'test.tsv'}", "data.source=source", "data.target=target")
    directory = evaluated(run, *files, "data_name=mine", length="target:3-")
    assert read_records(directory / "records.parquet")["target_length"].tolist() == [4, 3]


def test_a_run_that_has_keys_which_there_are_no_more_can_be_evaluated(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "reverse" / "bahdanau" / run.name
    shutil.copytree(run, copy)
    config = yaml.safe_load((copy / "config.yaml").read_text(encoding="utf-8"))
    (copy / "config.yaml").write_text(yaml.safe_dump(config | {"patience": None}), encoding="utf-8")
    assert config_of(copy, "decoding=beam")["patience"] is None


def older(run: Path, directory: Path, *without: str) -> Path:
    """A copy of a run as if it had been made before there were some keys."""
    shutil.copytree(run, directory, ignore=shutil.ignore_patterns("evaluations"))
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    for key in without:
        first, _, second = key.partition(".")
        del (config[first] if second else config)[second or first]
    (directory / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    sign(directory)
    return directory


def test_keys_that_came_later_make_no_variant_of_a_run_and_its_evaluations(run: Path, tmp_path: Path) -> None:
    """The own test of an old run joins an evaluation on other data; one with another decoding is a variant by that."""
    later = ("oracle_length", "plateau", "decoding.min_length", "decoding.no_repeat_ngram", "loader.workers")
    old = older(run, tmp_path / "reverse" / "bahdanau" / run.name, *later)
    longer = evaluated(old, "data.test_lengths=[10,12]", "data_name=reverse")
    (joined,) = collect([old, longer]).runs
    assert [part.examples for part in joined.parts] == [48, 48]
    assert joined.label == "bahdanau"
    asked = evaluated(old, "decoding.min_length=3")
    labels = [one.label for one in collect([old, asked]).runs]
    assert sorted(labels) == ["bahdanau decoding.min_length=3", "bahdanau decoding.min_length=unset"]
    before = config_of(old)
    for key in ("min_length", "no_repeat_ngram"):
        del before["decoding"][key]
    ids = [evaluation_id(config, data_fingerprint="f") for config in (config_of(old), before)]
    assert ids[0] == ids[1]  # a default that came later is no request


@pytest.mark.parametrize("command", [inspect, gradient_flow, predict])
def test_what_needs_weights_names_the_run_of_an_evaluation(
    run: Path, command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = evaluated(run)
    options = ["--out", str(tmp_path / "out")] if command is gradient_flow else []
    assert command.main([str(directory), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f": {directory}: is an evaluation, and has no weights; give its run, {run}")
    with pytest.raises(InputError, match="is an evaluation, and has no weights; give its run"):
        load_run(directory)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_another_split(run: Path, split: str, composed: Compose) -> None:
    config = composed(*TINY)
    expected = getattr(prepare(build_corpus(config), cache_dir=Path(config["cache_dir"])), split)
    records = read_records(evaluated(run, split=split) / "records.parquet")
    assert records["source"].tolist() == expected["source"][:]
    assert {*records["data"]} == {f"reverse-{split}"}


REFUSED = {
    ("model.hidden_size=32",): r"model\.hidden_size: the run is trained, and an evaluation cannot change that",
    ("decoder=plain",): r"decoder: the run is trained",
    ("optimizer.lr=1",): r"optimizer\.lr: the run is trained",
    ("seed=3",): r"seed: the run is trained",
    ("trainer.max_steps=3",): r"trainer\.max_steps: the run is trained",
    ("data.source_tokens=characters",): r"data\.source_tokens: the run's tokenizers are trained",
    ("decodng=beam",): r"decodng: there is no such key; did you mean 'decoding'",
    ("threads=1000",): r"threads=1000 is more than this machine's",
    ("data=files", "data.source=a", "data.target=b"): r"data\.test has no value",
    ("data_name=a/b",): r"data_name: must be a name of letters",
    ("decoding=beam", "decoding.beam_size=0"): r"decoding\.beam_size: must be a whole number of at least 1",
    ("decoding/length_penalty=gnmt",): r"decoding\.length_penalty: there is no such argument",
    ("data.test_lengths=[9,2]",): r"data\.test_lengths: the shortest length, 9, exceeds the longest, 2",
}


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_what_is_refused_is_refused_in_one_line(run: Path, overrides: tuple[str, ...]) -> None:
    before = sorted(run.rglob("*"))
    with pytest.raises(InputError, match=REFUSED[overrides]) as refused:
        evaluated(run, *overrides)
    assert "\n" not in str(refused.value)
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ("5-3", "length=5-3: has no length"),
        ("x", "length=x: is not a range of lengths"),
        ("2xx", "length=2xx: is not a range of lengths"),
        ("1.5-2", "length=1.5-2: is not a range of lengths"),
        ("taget:3-5", "length=taget:3-5: there is no side 'taget'; did you mean 'target'?"),
        ("2x-1x", "length=2x-1x: has no length"),
        ("1x-1.1x", "length=1x-1.1x: has no length"),  # of 6 tokens
        ("target:3x-", "length: no target of test is so long; its targets have 2 to 9 tokens"),
        ("-", "length=-: is not a range"),
        ("0", "length=0: has no length"),
        ("20-", "length: no source of test is so long; its sources have 2 to 9 tokens"),
    ],
)
def test_a_range_without_examples(run: Path, length: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluated(run, length=length)


def test_the_id_is_of_what_is_asked_and_of_the_weights(run: Path) -> None:
    def name(*overrides: str, weights: str = "", fingerprint: str = "f", **asked: Any) -> str:
        config = config_of(run, *overrides, **asked)
        config[EVALUATION]["weights"] = weights or config[EVALUATION]["weights"]
        return evaluation_id(config, data_fingerprint=fingerprint)

    same = [name(), name("threads=2"), name("logger=wandb"), name("data_name=x"), name("cache_dir=/x")]
    assert len({*same}) == 1
    others = [
        name("decoding=beam"),
        name("oracle_length=true"),
        name("decoding=beam", "decoding.beam_size=2"),
        name("decoding/length_penalty=gnmt", "decoding=beam"),
        name("decoding=beam", "decoding/length_penalty=gnmt", "decoding.length_penalty.alpha=0.5"),
        name("loader.evaluation_batch_tokens=99"),
        name(weights="0"),
        name(fingerprint="g"),
    ]
    assert len({same[0], *others}) == 9


def test_a_run_that_was_computed_again_has_no_evaluations_of_its_old_weights(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "reverse" / "bahdanau" / run.name
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "evaluations", ignore_errors=True)
    directory = evaluated(copy, "data_name=again")
    assert collect([directory]).runs[0].evaluation == "asked"
    summary = read_json(copy / SUMMARY)
    summary[FILES][BEST]["sha256"] = "0" * 64
    write_json(copy / SUMMARY, summary)
    assert why_unfinished(directory) == "its run was computed again since, and has other weights"
    with pytest.raises(InputError, match="its run was computed again since, and has other weights"):
        collect([directory])
    config = config_of(copy, "data_name=again")
    examples = evaluated_examples(config, run=copy).prepare()
    with pytest.raises(InputError, match="has other weights than when the evaluation was launched"):
        evaluate(config, split=examples, directory=directory, command="", report=lambda status: None)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "test"),
        (["decoding=beam", "decoding.beam_size=5"], "beam-beam_size-5"),
        (["decoding=beam", "decoding/length_penalty=gnmt"], "beam-gnmt"),
        (["oracle_length=true"], "oracle_length-true"),
        (["split=validation", "length=61-120"], "validation-61-120"),
        (["data=files", "data.test=some/where/news.tsv", "threads=2"], "files-news"),
        (["data.test_lengths=[61,120]"], "test_lengths-61-120"),
        (["name=../up"], "up"),
        (["decoding.beam_size=1,5", "hydra.launcher.n_jobs=2", "dry_run=true"], "beam_size-1-5"),
    ],
)
def test_an_evaluation_is_named_for_what_is_asked(overrides: list[str], name: str) -> None:
    assert default_name(overrides) == name
