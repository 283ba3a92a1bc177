"""Runs on images: the same whole, killed and resumed; records, maps and decoding know where the digits are."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from attnspan import load_run
from attnspan.cli import inspect
from attnspan.config.evaluation import EVALUATION, evaluation_config, evaluation_id
from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.images.columns import images_of
from attnspan.data.pipeline.prepare import PreparedData, prepare
from attnspan.errors import InputError
from attnspan.evaluation.prepared_test import evaluated_examples, kept_images
from attnspan.files import read_json
from attnspan.runs.attention_maps import read_attention_maps
from attnspan.runs.finished_run import read_run
from attnspan.runs.layout import RECORDS
from attnspan.runs.records import read_records
from attnspan.training.callbacks.checkpoints import Checkpoints
from attnspan.training.evaluate import evaluate
from attnspan.training.run import execute
from tests.conftest import TINY, Compose, parsed
from tests.kills import assert_same

DIGITS = (
    "data=digits",
    "encoder=image_rows",
    "encoder.filters=[4,8]",
    "encoder.strides=[[2,2],[2,2]]",
    "decoder=bahdanau",
    "data.train_lengths=[1,3]",
    "data.test_lengths=[1,5]",
    *(word for word in TINY if not word.startswith("data") or "size=" in word),
    "data.train_size=90",
    "trainer.max_steps=12",
    "trainer.val_check_interval=4",
    "model.dropout=0.2",
)


class KilledError(Exception):
    pass


def run(composed: Compose, runs: Path, *overrides: str, killed: bool = False) -> tuple[Path, PreparedData]:
    """Carry out a tiny run in this process, again and again until it is not killed any more."""
    config = composed(*DIGITS, f"runs_dir={runs}", *overrides)
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    directory = run_directory(config, data_fingerprint=prepared.fingerprint)
    for attempt in range(20):
        try:
            execute(config, data=prepared, directory=directory, command="test", report=lambda status: None)
        except KilledError:
            torch.rand(3)
        else:
            assert killed == (attempt > 0)
            break
    return directory, prepared


@pytest.fixture(scope="module")
def finished(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreparedData]:
    return run(composed, tmp_path_factory.mktemp("runs"))


def test_killed_after_every_checkpoint_it_is_the_same(
    composed: Compose, finished: tuple[Path, PreparedData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints._save

    def save_and_die(self: Checkpoints, trainer: L.Trainer) -> None:
        save(self, trainer)
        raise KilledError

    monkeypatch.setattr(Checkpoints, "_save", save_and_die)
    assert_same(finished[0], run(composed, tmp_path, "checkpoint_interval=0", killed=True)[0])


def test_records_say_where_attention_lay(finished: tuple[Path, PreparedData]) -> None:
    directory, _ = finished
    records = read_records(directory / RECORDS)
    assert (records["target_length"] == records["reference"].str.split().map(len)).all()
    assert records["source"].iloc[0] == "12 x 12 pixels"
    for record in records.itertuples():
        assert record.links == record.target_length == len(record.gold_attention)
        assert 0 <= record.links_in_sure <= record.links
        assert all(0 < mass <= 1 + 1e-6 for mass in record.gold_attention)
        assert max(record.attention_entropy) <= np.log(9 * record.target_length) + 1e-6
    assert records["gold_links"].isna().all()
    assert read_json(directory / "summary.json")["training_lengths"] == [4, 10]


def test_decoding_an_image_gives_what_the_test_gave(finished: tuple[Path, PreparedData], tmp_path: Path) -> None:
    """From an array, an image of Pillow, a path: alone and in a batch."""
    directory, prepared = finished
    loaded = load_run(directory)
    records = read_records(directory / RECORDS).set_index("example_id")
    rows = [0, 4, 7, 13]
    arrays = images_of(prepared.test, rows)
    hypotheses = loaded.decode(arrays)
    for row, array, found in zip(rows, arrays, hypotheses, strict=True):
        assert found.text == records["hypothesis"][prepared.test["id"][row]]
        path = tmp_path / f"{row}.png"
        Image.fromarray(array[..., 0]).save(path)
        for again in loaded.decode([str(path)]) + loaded.decode([Image.open(path)]):
            assert again.text == found.text
            assert again.log_prob == pytest.approx(found.log_prob, abs=1e-4)
        assert found.picture is not None
        assert found.picture.grid == (3, array.shape[1] // 4)
        assert found.source_tokens[:2] == ["1,1", "1,2"]
        assert found.weights is not None
        assert found.weights.shape == (len(found.tokens), len(found.source_tokens))
    with pytest.raises(InputError, match=r"none\.png: No such file"):
        loaded.decode([tmp_path / "none.png"])
    with pytest.raises(InputError, match="source 0: int is no image"):
        loaded.decode([3])


def test_an_evaluation_finds_its_images_again(finished: tuple[Path, PreparedData]) -> None:
    """They are not those of the run's own test, which have the same ids."""
    config = evaluation_config(
        finished[0], parsed("data.test_lengths=[2,2]", "data.test_size=3"), split="test", length=None
    )
    config[EVALUATION]["name"] = "pairs"
    split = evaluated_examples(config, run=finished[0]).prepare()
    directory = finished[0] / "evaluations" / f"pairs-{evaluation_id(config, data_fingerprint=split.fingerprint)}"
    evaluate(config, split=split, directory=directory, command="pairs", report=lambda status: None)
    evaluation = read_run(directory)
    images = kept_images(evaluation, evaluation.records["example_id"].tolist(), ())
    hypotheses = load_run(finished[0]).decode(images)
    assert [one.text for one in hypotheses] == evaluation.records["hypothesis"].tolist()


def test_maps_keep_the_image(finished: tuple[Path, PreparedData]) -> None:
    directory, prepared = finished
    maps = read_attention_maps(directory)
    if maps is None:  # nothing was decoded but empty hypotheses
        pytest.skip("no map")
    for name, one in maps.items():
        (row,) = [row for row, known in enumerate(prepared.test["id"]) if known == name]
        assert one.picture is not None
        assert (one.picture.pixels == images_of(prepared.test, [row])[0].transpose(2, 0, 1)).all()
        assert one.picture.region_size == (4, 4)


def test_inspecting_draws_the_image(
    finished: tuple[Path, PreparedData], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An example of the test split, and the same image from a file."""
    directory, prepared = finished
    records = read_records(directory / RECORDS)
    (array,) = images_of(prepared.test, [len(records) - 1])
    Image.fromarray(array[..., 0]).save(tmp_path / "strip.png")
    for words in (["--examples", "1"], [str(tmp_path / "strip.png")]):
        assert inspect.main([str(directory), *words, "--out", str(tmp_path / "plots")]) == 0
    printed = capsys.readouterr().out
    assert "source     12 x 12 pixels" in printed
    assert f"source     {tmp_path / 'strip.png'}" in printed
    drawn = [*(tmp_path / "plots").glob("*.png")]
    assert len(drawn) == printed.count("regions of 4 x 4 pixels in 3 rows and ")
    assert inspect.main([str(directory), str(tmp_path / "none.png"), "--out", str(tmp_path / "plots")]) == 2
    assert "none.png: No such file" in capsys.readouterr().err
