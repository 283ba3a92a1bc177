"""Folders and tables of images: what is read, what is remarked, and one line for what cannot be."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.image_files import ImageFiles
from attnspan.data.images.columns import ImageColumn
from attnspan.data.pipeline.prepare import PreparedData, fingerprint_of
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH

Ready = Callable[[Corpus], PreparedData]
CAPTIONS = ["a girl with a ball", "Two dogs", "a boat"]
SIZES = [(6, 9), (12, 4), (30, 20)]


def photo(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*SIZES[number], 3), dtype=np.uint8)


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo(number)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images and their captions, in the layout of imagefolder."""
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    names = ["0.png", "1.png", "more/2.png"]
    for number, name in enumerate(names):
        (place / name).write_bytes(png(number))
    rows = [f"{name},{caption}" for name, caption in zip(names, CAPTIONS, strict=True)]
    (place / "metadata.csv").write_text("\n".join(["file_name,text", *rows, ""]), encoding="utf-8")
    return place


def corpus(*places: Path, **changes: Any) -> ImageFiles:
    train, validation, test = places if len(places) == 3 else places * 3
    return ImageFiles(
        **{
            "train": str(train),
            "validation": str(validation),
            "test": str(test),
            "image": "file_name",
            "target": "text",
            "channels": 3,
            "longest_side": None,
            "target_tokens": "words",
            "limits": ANY_LENGTH,
        }
        | changes
    )


def check_images(prepared: PreparedData) -> None:
    column = ImageColumn(prepared.test)
    for number in range(3):
        assert (column.image(number) == photo(number).transpose(2, 0, 1)).all()
    assert prepared.test["target"][:] == CAPTIONS


def test_a_folder_with_metadata(folder: Path, ready: Ready) -> None:
    prepared = ready(corpus(folder))
    check_images(prepared)
    assert prepared.test["source"][2] == "more/2.png (30 x 20 pixels)"
    assert prepared.overlap == 3
    small = ready(corpus(folder, longest_side=10, lowercase=True))
    assert ImageColumn(small.test).sizes.tolist() == [[6, 9], [10, 3], [10, 7]]
    assert small.test["target"][1] == "two dogs"


def test_a_table_of_json_lines_and_a_table_of_bytes(folder: Path, ready: Ready, tmp_path: Path) -> None:
    names = ["0.png", "1.png", "more/2.png"]
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in zip(names, CAPTIONS, strict=True)]
    (folder / "list.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    check_images(ready(corpus(folder / "list.jsonl")))
    images = [{"bytes": png(number), "path": None} for number in range(3)]
    pq.write_table(pa.table({"image": images, "text": CAPTIONS}), tmp_path / "a.parquet")
    check_images(ready(corpus(tmp_path / "a.parquet", image="image")))


def test_the_fingerprint_knows_the_pixels_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    before = fingerprint_of(corpus(folder))
    moved = folder.rename(tmp_path / "elsewhere")
    assert fingerprint_of(corpus(moved)) == before
    (moved / "1.png").write_bytes(png(0))
    assert fingerprint_of(corpus(moved)) != before


def test_a_bad_image_is_one_line_or_is_skipped(folder: Path, ready: Ready) -> None:
    (folder / "1.png").write_bytes(png(1)[:-40])
    words = r"metadata\.csv row 2 .*: 1\.png: is damaged or cut off"
    with pytest.raises(InputError, match=words):
        ready(corpus(folder))
    prepared = ready(corpus(folder, on_bad_row="skip"))
    assert prepared.skipped == {"train": 1, "validation": 1, "test": 1}
    assert prepared.test["id"][:] == ["test-00000", "test-00002"]
    (folder / "1.png").unlink()
    with pytest.raises(InputError, match=r"1\.png: No such file"):
        ready(corpus(folder))


def test_what_was_converted_is_said(folder: Path, ready: Ready) -> None:
    Image.fromarray(photo(0)).convert("CMYK").save(folder / "0.png", "JPEG")
    assert ready(corpus(folder)).remarks[:2] == [
        "train: 1 image called .png read as JPEG, which their content is: 0.png",
        "train: 1 image converted from CMYK to RGB: 0.png",
    ]


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"^data\.test: .*empty: the folder has none of metadata\.csv"):
        corpus(folder, folder, tmp_path / "empty").check()
    with pytest.raises(InputError, match=r"there is no column 'caption'; .*file_name, text"):
        fingerprint_of(corpus(folder, target="caption"))
    with pytest.raises(InputError, match=r"^data\.longest_side: must be a whole number"):
        corpus(folder, longest_side=0).check()
