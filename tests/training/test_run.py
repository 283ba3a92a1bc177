"""Whole runs, small ones: what lies on disk, what the numbers mean, and that they come out the same every time."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock

from attnspan import load_run
from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.batches import Batch
from attnspan.data.pipeline.prepare import prepare
from attnspan.data.tokenizer import EOS
from attnspan.errors import InputError, SettingError
from attnspan.files import read_json
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.memory import Memory
from attnspan.models.seq2seq import Seq2Seq
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import BEST, LOCK
from attnspan.runs.records import SCHEMA, edit_distance, read_records
from attnspan.runs.status import FAILED, read_status
from attnspan.runs.summary import Summary
from attnspan.training.callbacks.cost import Cost
from attnspan.training.run import execute
from tests.conftest import TINY, Compose
from tests.kills import assert_same

STUDY = ("plain", "bahdanau", "luong_general")
"""The arms that are run whole: one of each wiring. The suites in tests/models take all."""


def run(composed: Compose, runs: Path, *overrides: str) -> Path:
    """Carry out a tiny run in this process."""
    config = composed(*TINY, f"runs_dir={runs}", *overrides)
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    directory = run_directory(config, data_fingerprint=prepared.fingerprint)
    execute(config, data=prepared, directory=directory, command="test", report=lambda status: None)
    return directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(composed: Compose, runs: Path) -> dict[str, Path]:
    """A finished run of every arm of the study."""
    return {arm: run(composed, runs, f"decoder={arm}") for arm in STUDY}


@pytest.mark.parametrize("arm", STUDY)
def test_what_lies_on_disk(finished: dict[str, Path], runs: Path, arm: str) -> None:
    directory = finished[arm]
    assert directory.parent == runs / "reverse" / arm
    assert is_finished(directory)
    summary = read_json(directory / "summary.json")
    assert summary["finished"] is True
    assert summary["updates"] == 20
    assert summary["best_update"] in (10, 20)
    assert summary["training_lengths"] == summary["training_target_lengths"] == [2, 6]
    assert summary["training_target_ratio"] == 1.0
    assert summary["length_limit"] == {"ratio": 1.0, "margin": 6}
    assert summary["examples"] == {"train": 300, "validation": 40, "test": 48}
    assert summary["run_id"] == directory.name
    for key in ("parameters", "wall_seconds", "tokens_per_second", "peak_memory_mb", "versions", "dropped"):
        assert summary[key], key
    assert summary["decoder_state"]["fixed"] == 16
    assert summary["unknown"]["test"] == {"source": 0.0, "target": 0.0}
    assert summary["skipped"] == {}
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    assert config["arm"] == arm
    curves = pd.read_csv(directory / "metrics.csv")
    assert {"step", "train/loss", "validation/loss"} <= set(curves.columns)
    assert json.loads((directory / "status.json").read_text(encoding="utf-8"))["state"] == "finished"
    assert not list(directory.rglob(".*.parquet*"))


@pytest.mark.parametrize("arm", STUDY)
def test_records_are_the_test_split_once(finished: dict[str, Path], arm: str) -> None:
    records = read_records(finished[arm] / "records.parquet")
    assert list(records.columns) == SCHEMA.names
    assert records["example_id"].tolist() == [f"test-{row:05d}" for row in range(48)]
    assert (records["target_tokens"] == records["target_length"] + 1).all()
    assert (records["tokens_correct"] <= records["target_tokens"]).all()


@pytest.mark.parametrize("arm", STUDY)
def test_quality_is_of_free_running_decoding(finished: dict[str, Path], arm: str) -> None:
    """The records' hypotheses are what a loaded run decodes with nothing but the sources; their scores follow."""
    records = read_records(finished[arm] / "records.parquet")
    hypotheses = load_run(finished[arm]).decode(records["source"].tolist(), batch_size=7)
    for (_, record), hypothesis in zip(records.iterrows(), hypotheses, strict=True):
        assert record["hypothesis"] == hypothesis.text
        assert record["edits"] == edit_distance(hypothesis.tokens, record["reference"].split())
        assert record["truncated"] == hypothesis.truncated
        assert record["empty"] == (not hypothesis.tokens)
        assert record["exact_match"] == (record["edits"] == 0 and not hypothesis.truncated)
        if hypothesis.weights is not None:
            assert hypothesis.weights.shape == (len(hypothesis.tokens), record["source_length"])
            assert torch.allclose(hypothesis.weights.sum(dim=1), torch.ones(len(hypothesis.tokens)))


def test_teacher_forced_numbers_are_the_loss_of_the_reference(finished: dict[str, Path]) -> None:
    """nll and tokens_correct, computed again one example at a time."""
    directory = finished["bahdanau"]
    loaded = load_run(directory)
    for _, record in read_records(directory / "records.parquet").head(6).iterrows():
        source = loaded.source_tokenizer.encode(record["source"])
        target = loaded.target_tokenizer.encode(record["reference"])
        with torch.no_grad():
            logits, _ = loaded.model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([[1, *target]]))
        expected = torch.tensor([*target, 2])
        nll = -torch.log_softmax(logits[0], dim=-1)[torch.arange(len(expected)), expected].sum()
        assert record["nll"] == pytest.approx(float(nll), rel=1e-5)
        assert record["tokens_correct"] == int((logits[0].argmax(dim=-1) == expected).sum())


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return torch.load(directory / BEST, weights_only=True)["state_dict"]


@pytest.mark.parametrize("overrides", [(), ("model.dropout=0.3", "label_smoothing=0.1"), ("loader.workers=2",)])
def test_again_is_the_same_bit_for_bit(
    composed: Compose, finished: dict[str, Path], tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    """Whatever ran before in this process; and loader workers are no matter."""
    once = finished["bahdanau"]
    if overrides and "workers" not in overrides[0]:
        once = run(composed, tmp_path / "once", "decoder=bahdanau", *overrides)
    torch.rand(17)  # the global generator stands elsewhere
    again = run(composed, tmp_path / "again", "decoder=bahdanau", *overrides)
    assert once.name == again.name
    assert_same(once, again)


def test_seeds_are_replicates(composed: Compose, finished: dict[str, Path], tmp_path: Path) -> None:
    other = run(composed, tmp_path, "decoder=plain", "seed=2")
    name = "model.readout.weight"
    assert not torch.equal(weights(finished["plain"])[name], weights(other)[name])


def test_test_data_chooses_nothing(composed: Compose, finished: dict[str, Path], tmp_path: Path) -> None:
    """Another test split: the same weights at every validation, the same checkpoint chosen."""
    other = run(composed, tmp_path, "decoder=plain", "data.test_size=24", "data.test_lengths=[2,4]")
    a, b = weights(finished["plain"]), weights(other)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert len(read_records(other / "records.parquet")) == 24


def test_the_best_checkpoint_is_tested(composed: Compose, tmp_path: Path) -> None:
    """With a rate that grows until it wrecks the model, the tested weights are those with the least validation loss."""
    growing = ("schedule.decay_share=0.5", "schedule.final_ratio=1000")
    directory = run(
        composed,
        tmp_path,
        "decoder=plain",
        "trainer.max_steps=40",
        "schedule.warmup_steps=1",
        *growing,
    )
    summary, curves = read_json(directory / "summary.json"), pd.read_csv(directory / "metrics.csv")
    losses = curves.dropna(subset=["validation/loss"])
    best = losses.loc[losses["validation/loss"].idxmin()]
    assert summary["best_update"] == best["step"] + 1
    assert summary["best_validation_loss"] == pytest.approx(best["validation/loss"])
    assert summary["best_update"] < 40


def test_training_ends_after_the_decay_that_follows_a_plateau(composed: Compose, tmp_path: Path) -> None:
    """At a rate of 0 nothing is gained after the first validation, and the decay takes half of all updates."""
    still = ("trainer.max_steps=200", "optimizer.lr=0", "plateau.patience=2", "schedule.decay_share=0.5")
    directory = run(composed, tmp_path, "decoder=plain", *still)
    summary = read_json(directory / "summary.json")
    assert (summary["ended_by"], summary["plateau_update"]) == ("plateau", 10)
    assert (summary["decay_update"], summary["updates"]) == (30, 60)  # validations at 10, 20, 30
    assert summary["last_doubling_gain"] == 0
    assert summary["training_examples"] > summary["examples"]["train"]
    decoded = pd.read_csv(directory / "metrics.csv").filter(regex="^step$|^validation_error_rate/").dropna()
    assert decoded["step"].tolist() == [9, 19, 39, 59]  # validations 1, 2, 4, and the last


def test_a_run_that_hits_the_cap_decays_before_it(composed: Compose, tmp_path: Path) -> None:
    directory = run(composed, tmp_path, "decoder=plain", "trainer.max_steps=50", "schedule.decay_share=0.4")
    summary = read_json(directory / "summary.json")
    assert (summary["ended_by"], summary["plateau_update"], summary["updates"]) == ("max_steps", None, 50)
    assert summary["decay_update"] == 30  # 30 / 50 at the full rate
    assert 0 < summary["last_doubling_gain"] < 1


def test_arms_see_the_same_batches(composed: Compose, cache: Path) -> None:
    from attnspan.data.pipeline.datamodule import DataModule

    orders = []
    for arm in ("plain", "bahdanau"):
        config = composed(*TINY, f"decoder={arm}")
        prepared = prepare(build_corpus(config), cache_dir=cache)
        module = DataModule(prepared=prepared, seed=1, batch_tokens=256, evaluation_batch_tokens=256, workers=0)
        orders.append([batch.index.tolist() for batch in module.train_dataloader()])
    assert orders[0] == orders[1]


def test_divergence_is_told(composed: Compose, tmp_path: Path) -> None:
    from attnspan.errors import NotFiniteError

    with pytest.raises(NotFiniteError, match=r"update \d+; a smaller optimizer\.lr"):
        run(composed, tmp_path, "decoder=plain", "optimizer.lr=1e38", "trainer.gradient_clip_val=null")
    (status,) = tmp_path.rglob("status.json")
    assert json.loads(status.read_text(encoding="utf-8"))["state"] == "failed"
    assert not is_finished(status.parent)


def test_numbers_too_small_to_matter_are_zero() -> None:
    """In every thread, and in the backward pass too: with them, a step over 200 tokens takes several times as long."""
    code = (
        "import torch; from attnspan.training.machine import set_up_machine\n"
        "set_up_machine({'threads': 2, 'matmul_precision': 'highest', 'seed': 1})\n"
        "small = torch.full((1000, 1000), 1e-37, requires_grad=True)\n"
        "assert small.count_nonzero() == 10**6\n"
        "assert (small * 1e-3).count_nonzero() == 0\n"
        "((small @ small).sum() * 1e-6).backward()\n"
        "assert small.grad.count_nonzero() == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Late(Future[str | None]):
    """Is known to whoever waits for it, and to nobody else."""

    def done(self) -> bool:
        return False


def test_matrix_products_have_the_precision_that_was_asked_for(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training and in the test; and the next run of the process has its own."""
    found: list[str] = []
    encode = Seq2Seq.encode

    def watched(self: Seq2Seq, source: torch.Tensor, lengths: torch.Tensor) -> Memory:
        found.append(torch.get_float32_matmul_precision())
        return encode(self, source, lengths)

    monkeypatch.setattr(Seq2Seq, "encode", watched)
    for precision in ("medium", "highest"):
        run(composed, tmp_path, "decoder=plain", f"matmul_precision={precision}", "trainer.max_steps=2")
        assert {*found} == {precision}
        found.clear()


@pytest.mark.parametrize(("damage", "updates"), [(Future[str | None](), 1), (Late(), 9)])
def test_damaged_data_ends_the_run(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Future[str | None], updates: int
) -> None:
    """At the next update where it is known, else before the first validation: nothing is left that rests on it."""
    config = composed(*TINY, "decoder=plain", f"cache_dir={tmp_path}/cache")
    prepared = replace(prepare(build_corpus(config), cache_dir=Path(config["cache_dir"])), damage=damage)
    count = Cost.on_train_batch_end
    batches: list[Batch] = []

    def counted(self: Cost, trainer: Any, module: Any, outputs: Any, batch: Batch, number: int) -> None:
        count(self, trainer, module, outputs, batch, number)
        batches.append(batch)
        if len(batches) == 1:
            damage.set_result("train.arrow is gone")

    monkeypatch.setattr(Cost, "on_train_batch_end", counted)
    directory = tmp_path / "run"
    with pytest.raises(InputError, match=r"train\.arrow is gone; run the same command again to prepare the data anew"):
        execute(config, data=prepared, directory=directory, command="test", report=lambda status: None)
    assert len(batches) == updates
    assert not list(directory.rglob("*.ckpt"))
    status = read_status(directory)
    assert status is not None
    assert status.state == FAILED


def test_a_run_under_way_is_left_alone(composed: Compose, finished: dict[str, Path]) -> None:
    """Somebody else is at work in the directory: not a file of it changes. Then nobody is, and the run runs."""
    directory = finished["luong_general"]
    before = (directory / "summary.json").read_bytes()
    with FileLock(directory / LOCK), pytest.raises(InputError, match=f"being computed in process {os.getpid()}"):
        run(composed, directory.parents[2], "decoder=luong_general", "rerun=true")
    assert (directory / "summary.json").read_bytes() == before
    run(composed, directory.parents[2], "decoder=luong_general", "rerun=true")


def test_references_out_of_reach_are_counted(composed: Compose, tmp_path: Path) -> None:
    """What is longer than the limit is counted, and no hypothesis is."""
    limit = ("decoding.limit.ratio=0", "decoding.limit.margin=6")  # validation has up to 6
    directory = run(composed, tmp_path, "decoder=plain", "data.test_lengths=[2,9]", *limit)
    summary, records = read_json(directory / "summary.json"), read_records(directory / "records.parquet")
    assert summary["references_over_limit"] == int((records["target_length"] > 6).sum()) > 0
    assert (records["hypothesis"].str.split().str.len() <= 6).all()


def test_references_of_validation_out_of_reach_are_an_error(composed: Compose, tmp_path: Path) -> None:
    limit = ("decoding.limit.ratio=0.5", "decoding.limit.margin=1")
    with pytest.raises(InputError, match=r"^validation: .*decoding\.limit\.margin=3 reaches them all$"):
        run(composed, tmp_path, "decoder=plain", *limit)
    assert not list(tmp_path.iterdir())


def test_checkpoints_hold_plain_things(finished: dict[str, Path]) -> None:
    for directory in finished.values():
        for path in (directory / "checkpoints").iterdir():
            torch.load(path, weights_only=True)


class TestLoadRun:
    def test_one_text_is_not_a_list(self, finished: dict[str, Path]) -> None:
        with pytest.raises(InputError, match="list of sources"):
            load_run(finished["plain"]).decode("a b c")

    @pytest.mark.parametrize("bad", ["", None, 7])
    def test_a_source_without_a_token(self, finished: dict[str, Path], bad: Any) -> None:
        with pytest.raises(InputError, match="source 1"):
            load_run(finished["plain"]).decode(["a b", bad])

    def test_a_beam_finds_what_is_likelier(self, finished: dict[str, Path]) -> None:
        run, sources = load_run(finished["bahdanau"]), ["1 2 3 4", "5 0", "3 3 3"]
        greedy, beam = run.decode(sources), run.decode(sources, beam_size=5)
        for one, other in zip(greedy, beam, strict=True):
            assert one.truncated or other.log_prob >= one.log_prob - 1e-5
            assert other.weights is not None
            assert other.weights.shape == (len(other.tokens), len(other.source_tokens))
        assert [h.text for h in run.decode(sources, beam_size=1)] == [h.text for h in greedy]

    def test_a_hypothesis_has_the_limit_that_training_showed(self, finished: dict[str, Path]) -> None:
        """Targets as long as their sources, up to 6 tokens."""
        run = load_run(finished["plain"])
        assert run.decoding.limit == LengthLimit(ratio=1.0, margin=6)
        with torch.no_grad():
            run.model.readout.bias[EOS] = -1e6
        assert [len(found.tokens) for found in run.decode(["1", "1 2 3 4 5 0 1 2 3"])] == [7, 15]

    @pytest.mark.parametrize("arm", STUDY)
    def test_an_empty_hypothesis_has_the_weights_of_its_arm(self, finished: dict[str, Path], arm: str) -> None:
        """Alone, and beside a longer one."""
        run = load_run(finished[arm])
        with torch.no_grad():
            run.model.readout.bias[EOS] = 1e6
        for found in (*run.decode(["1 2"]), *run.decode(["1 2", "1 2 3"])):
            assert found.tokens == []
            assert arm == "plain" or tuple(found.weights.shape) == (0, len(found.source_tokens))  # type: ignore[union-attr]
            assert arm != "plain" or found.weights is None

    def test_a_list_of_hypotheses(self, finished: dict[str, Path]) -> None:
        run, sources = load_run(finished["bahdanau"]), ["1 2 3 4", "5"]
        lists = run.decode(sources, beam_size=4, n_best=3)
        for source, found in zip(sources, lists, strict=True):
            assert [len({one.text for one in found}), len(found)] == [3, 3]
            assert run.decode([source], beam_size=4)[0].text == found[0].text
            for one in found:
                assert one.weights is not None
                assert one.weights.shape == (len(one.tokens), len(one.source_tokens))
        with pytest.raises(SettingError, match="n_best"):
            run.decode(sources, n_best=2)

    @pytest.mark.parametrize("beam_size", [None, 5])
    def test_weights_that_are_not_finite(self, finished: dict[str, Path], beam_size: int | None) -> None:
        run = load_run(finished["luong_general"])
        for parameter in run.model.parameters():
            parameter.data.fill_(torch.nan)
        with pytest.raises(InputError, match=r"^the model gives no finite scores"):
            run.decode(["1 2"], beam_size=beam_size)

    def test_no_sources_no_hypotheses(self, finished: dict[str, Path]) -> None:
        assert load_run(finished["plain"]).decode([]) == []

    def test_plain_has_no_weights(self, finished: dict[str, Path]) -> None:
        assert load_run(finished["plain"]).decode(["1 2"])[0].weights is None

    def test_not_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="not a run directory"):
            load_run(tmp_path)

    @pytest.mark.parametrize(("part", "key"), [("decoding", "limit"), ("rnn", "cell")])
    @pytest.mark.parametrize(
        "target", ["os.system", "attnspan.runs.layout.os.system", "subprocess.run", "attnspan.files.write_text"]
    )
    def test_a_config_cannot_run_code(
        self, finished: dict[str, Path], tmp_path: Path, target: str, part: str, key: str
    ) -> None:
        config = yaml.safe_load((finished["plain"] / "config.yaml").read_text(encoding="utf-8"))
        config[part][key] = {"_target_": target, "command": f"touch {tmp_path}/run"}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        with pytest.raises(InputError, match=target.replace(".", r"\.")):
            load_run(tmp_path)
        assert not (tmp_path / "run").exists()

    def test_a_checkpoint_cannot_run_code(self, finished: dict[str, Path], tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(finished["plain"], copy)
        (copy / BEST).write_bytes(pickle.dumps(_Bomb(str(tmp_path / "exploded"))))
        with pytest.raises(InputError, match=r"best\.ckpt: not a whole checkpoint"):
            load_run(copy)
        assert not (tmp_path / "exploded").exists()
        (copy / BEST).write_bytes((finished["plain"] / BEST).read_bytes()[:1000])
        with pytest.raises(InputError, match=r"best\.ckpt: not a whole checkpoint"):
            load_run(copy)

    def test_weights_of_another_model(self, finished: dict[str, Path], tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(finished["plain"], copy)
        (copy / BEST).write_bytes((finished["bahdanau"] / BEST).read_bytes())
        with pytest.raises(
            InputError, match=r"best\.ckpt: does not fit the model that config\.yaml describes"
        ) as raised:
            load_run(copy)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("name", ["tokenizers/source.json", "tokenizers/target.json"])
    def test_a_tokenizer_of_another_run(self, finished: dict[str, Path], tmp_path: Path, name: str) -> None:
        """The same words with two ids exchanged: it fits, and every answer would be wrong."""
        copy = tmp_path / "copy"
        shutil.copytree(finished["plain"], copy)
        text = (copy / name).read_text(encoding="utf-8")
        swapped = text.replace('"4"', '"x"').replace('"5"', '"4"').replace('"x"', '"5"')
        assert swapped != text
        (copy / name).write_text(swapped, encoding="utf-8")
        with pytest.raises(InputError, match=rf"{name} was changed after it was written"):
            load_run(copy)

    def test_weights_of_the_same_shape(self, finished: dict[str, Path], tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(finished["plain"], copy)
        content = torch.load(copy / BEST, weights_only=True)
        content["state_dict"]["model.readout.bias"] += 1
        torch.save(content, copy / BEST)
        with pytest.raises(InputError, match=r"best\.ckpt (was changed|has \d+ bytes)"):
            load_run(copy)

    def test_another_decoding(self, finished: dict[str, Path], tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(finished["plain"], copy)
        config = yaml.safe_load((copy / "config.yaml").read_text(encoding="utf-8"))
        config["decoding"]["limit"]["margin"] = 1
        (copy / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        with pytest.raises(InputError, match=r"config\.yaml (was changed|has \d+ bytes)"):
            load_run(copy)
        (copy / "summary.json").unlink()  # of an unfinished run nothing says what its files were
        load_run(copy)


class _Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


def test_a_summary_has_the_keys_that_it_says(finished: dict[str, Path]) -> None:
    for directory in finished.values():
        keys = set(read_json(directory / "summary.json"))
        assert keys == set(Summary.__annotations__) | {"best_validation_loss"}


def test_a_run_in_bfloat16_ends(composed: Compose, tmp_path: Path) -> None:
    """Its attention maps are written at the end, and numpy knows nothing of bfloat16."""
    few = ("trainer.precision=bf16-true", "trainer.max_steps=4", "trainer.val_check_interval=2")
    directory = run(composed, tmp_path, "decoder=bahdanau", *few)
    assert is_finished(directory)
    (hypothesis,) = load_run(directory).decode(["1 2"])
    assert hypothesis.weights is not None
    assert hypothesis.weights.dtype == torch.float32
