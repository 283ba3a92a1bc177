"""Strips of digits: real scans, no scan in two splits, and regions that show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from attnspan.data.arrow import read_rows
from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.digits import Digits, scaled, scans_of
from attnspan.data.images.columns import ImageColumn
from attnspan.data.images.reader import ImageReader
from attnspan.data.images.regions import parse_regions
from attnspan.data.pipeline.batches import EncodedSplit, TrainingLoader, plan_batches
from attnspan.data.pipeline.evaluated_split import SplitRequest
from attnspan.data.pipeline.gold import source_positions
from attnspan.data.pipeline.length_range import LengthRange
from attnspan.data.pipeline.prepare import PreparedData, _count_overlap, prepare, token_counts
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH, reverse

SPLITS = ("train", "validation", "test")


def digits(**changes: Any) -> Digits:
    return Digits(
        **{
            "channels": 1,
            "cell": 12,
            "digit_sides": [8, 8],
            "line": None,
            "target_tokens": "symbols",
            "train_lengths": [1, 5],
            "test_lengths": [1, 9],
            "train_size": 70,
            "validation_size": 20,
            "test_size": 36,
            "data_seed": 1,
            "limits": ANY_LENGTH,
        }
        | changes
    )


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare(digits(), cache_dir=tmp_path_factory.mktemp("cache"))


def test_no_scan_is_in_two_splits_and_none_is_lost() -> None:
    loaded = load_digits()
    everything = sorted(
        (*image.astype(int).ravel(), digit) for image, digit in zip(loaded.images, loaded.target, strict=True)
    )
    found = []
    for split in SPLITS:
        scans, labels = scans_of(split, 1)
        found += [(*image.astype(int).ravel(), digit) for image, digit in zip(scans, labels, strict=True)]
    assert sorted(found) == everything
    assert [len(scans_of(split, 1)[0]) for split in SPLITS] == [1258, 180, 359]


def test_every_region_shows_the_scan_of_its_digit(strips: PreparedData) -> None:
    """At their own size, scans stand there pixel by pixel, scaled to 255; all else is black."""
    for split in SPLITS:
        scans, labels = scans_of(split, 1)
        known = {scan.tobytes(): str(label) for scan, label in zip(scans, labels, strict=True)}
        data = getattr(strips, split)
        column, column_of_boxes = ImageColumn(data), list(digits().rows(split))
        for row, example in enumerate(read_rows(data)):
            pixels = column.image(row)
            words = example["target"].split()
            assert pixels.shape == (1, 12, 12 * len(words))
            text = column_of_boxes[row]["alignment"]
            boxes = parse_regions(text, location="a", height=12, width=pixels.shape[2], target_length=len(words))
            rest = pixels.copy()
            for box, token in boxes:
                part = pixels[0, box.top : box.bottom, box.left : box.right]
                assert known[np.rint(part.astype(int) * 16 / 255).astype(np.uint8).tobytes()] == words[token]
                rest[0, box.top : box.bottom, box.left : box.right] = 0
                assert box.left // 12 == token
            assert not rest.any()


def test_lines_are_read_one_after_the_other() -> None:
    example = next(iter(digits(line=3, test_lengths=[7, 7]).rows("test")))
    assert (example["height"], example["width"]) == (36, 36)
    boxes = parse_regions(example["alignment"], location="a", height=36, width=36, target_length=7)
    assert [(box.top // 12, box.left // 12) for box, _ in boxes] == [(at // 3, at % 3) for at in range(7)]


def test_a_digit_grows_in_proportion() -> None:
    scans, _ = scans_of("train", 1)
    assert (scaled(scans[:3], 8) == np.rint(scans[:3] * 255.0 / 16)).all()
    flat = np.full((1, 8, 8), 16, dtype=np.uint8)
    assert (scaled(flat, 11) == 255).all()
    left = np.zeros((1, 8, 8), dtype=np.uint8)
    left[:, :, :4] = 16
    assert (scaled(left, 16)[0, :, 6:10] == np.rint([255, 0.75 * 255, 0.25 * 255, 0])).all()  # between middles


def test_the_cache_has_what_the_pipeline_needs(strips: PreparedData) -> None:
    assert strips.source_tokenizer == ImageReader(channels=1)
    assert strips.test.column_names == [
        "id", "source", "target", "alignment", "pixels", "height", "width", "digest", "target_ids"
    ]  # fmt: skip
    assert strips.training_lengths == (4, 16)  # 12 x 12 and 12 x 60 pixels in patches of 8 x 8
    assert strips.training_target_lengths == (1, 5)
    assert strips.overlap == 0
    assert strips.unknown_token_rates("test") == {"target": 0.0}
    assert strips.warnings() == []


def test_the_test_set_is_told_by_its_pixels(strips: PreparedData, ready: Callable[[Corpus], PreparedData]) -> None:
    """The same words for other images are another test set; an image is found in training, whatever its name."""
    other = ready(digits(digit_sides=[8, 9]))
    assert other.test["source"][:] == strips.test["source"][:]
    assert other.test_fingerprint != strips.test_fingerprint
    assert _count_overlap(strips.test, strips.test) == 36
    assert _count_overlap(strips.train, other.test) == 0


def test_a_batch_is_its_images_with_zeros_around(strips: PreparedData) -> None:
    split = EncodedSplit(strips.train)
    column, rows = ImageColumn(strips.train), [4, 0, 2]
    batch = split[rows]
    assert batch.source.dtype == torch.uint8
    assert batch.source_lengths.tolist() == [[12, 60], [12, 12], [12, 36]]
    assert tuple(batch.source.shape) == (3, 1, 12, 60)
    for at, row in enumerate(rows):
        image = column.image(row)
        width = image.shape[2]
        assert (batch.source[at, :, :, :width].numpy() == image).all()
        assert not batch.source[at, :, :, width:].any()


def test_every_image_is_in_one_batch_within_the_budget(strips: PreparedData) -> None:
    split = EncodedSplit(strips.train)
    batches = plan_batches(split, 40, "loader.batch_tokens")
    first, second = (batches.shuffled(seed=1, epoch=epoch) for epoch in (0, 1))
    for plan in (first, second, batches.in_order()):
        assert sorted(np.concatenate(plan)) == list(range(70))
        for rows in plan:
            batch = split[rows.tolist()]
            patches = -(-batch.source.shape[2] // 8) * -(-batch.source.shape[3] // 8)
            assert len(rows) * max(patches, batch.target_output.shape[1]) <= 40
    assert sorted(map(len, first)) == sorted(map(len, second))
    assert [rows.tolist() for rows in first] != [rows.tolist() for rows in second]
    assert [rows.tolist() for rows in first] == [rows.tolist() for rows in batches.shuffled(seed=1, epoch=0)]
    with pytest.raises(
        InputError, match=r"^loader.batch_tokens=15 is smaller than the longest example, 16 .* \(train row 5\)"
    ):
        plan_batches(split, 15, "loader.batch_tokens")


def test_a_loader_goes_on_where_it_stopped(strips: PreparedData) -> None:
    split = EncodedSplit(strips.train)

    def loader() -> TrainingLoader:
        plan = plan_batches(split, 100, "a")
        return TrainingLoader(split=split, batches=plan, seed=3, workers=0, pin_memory=False)

    whole, begun, resumed = loader(), loader(), loader()
    expected = [batch.source for _ in range(2) for batch in whole]
    iterator = iter(begun)
    for _ in range(2):
        next(iterator)
    resumed.load_state_dict(begun.state_dict())
    found = [batch.source for _ in range(2) for batch in resumed]
    assert len(found) == len(expected) - 2
    assert all(torch.equal(a, b) for a, b in zip(found, expected[2:], strict=True))


def test_gold_positions_are_those_of_the_grid(strips: PreparedData) -> None:
    """With regions of a whole cell, digit j is in region j; with smaller ones, several regions of its cell."""
    for example in read_rows(strips.test):
        T = len(example["target_ids"])
        positions, gold = source_positions(example, (12, 12))
        assert positions == T
        assert gold is not None
        assert gold.sure == {(at, at) for at in range(T)}
        positions, gold = source_positions(example, (4, 4))
        assert positions == 9 * T
        assert gold is not None
        assert {(position % (3 * T) // 3, token) for position, token in gold.sure} == {(at, at) for at in range(T)}
        assert 4 * T <= len(gold.sure) <= 9 * T


def test_an_evaluation_reads_images_as_its_run_did(strips: PreparedData) -> None:
    asked = SplitRequest(
        corpus=digits(),
        split="test",
        tokenizers=strips.directory,
        lengths=LengthRange.parse("10-"),
        cache_dir=strips.directory.parent,
    )
    assert not asked.is_prepared
    found = asked.prepare()
    assert asked.is_prepared
    counts = token_counts(found.examples, "source")
    assert (counts >= 10).all()
    assert len(counts) == (token_counts(strips.test, "source") >= 10).sum()
    assert found.facts["unknown_symbols"] == {"target": []}
    with pytest.raises(InputError, match="data: the run reads images, and the sources of this data are texts"):
        replace(asked, corpus=reverse(), lengths=None).prepare()


def test_long_images_are_refused_or_dropped(ready: Callable[[Corpus], PreparedData]) -> None:
    limits = {"train": {"source": 12, "target": None}, "evaluation": {"source": None, "target": None}}
    assert ready(digits(limits=limits)).dropped == {"train": 14}  # those of five digits
    limits["evaluation"]["source"] = 12
    with pytest.raises(InputError, match=r"^validation row 5: the source has 16 patches, more than data\.limits\.eval"):
        ready(digits(limits=limits))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"digit_sides": [8, 13]}, r"data\.digit_sides: must be \[smallest, largest\] between 1 and 12, not \[8, 13\]"),
        ({"digit_sides": [9, 8]}, r"data\.digit_sides"),
        ({"cell": 0}, r"data\.cell: must be a whole number of at least 1"),
        ({"line": 0}, r"data\.line"),
        ({"channels": 2}, r"data\.channels: must be 1 \(grey\) or 3"),
        ({"train_lengths": [3, 2]}, r"data\.train_lengths"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^{words}"):
        digits(**changes).check()
