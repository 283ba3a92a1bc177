"""Images with texts in the hub's layouts: an imagefolder, parquet with bytes, a saved dataset; bad ones."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.files import Files
from attnspan.data.corpora.hub import Hub, HubImages
from attnspan.data.images.columns import ImageColumn
from attnspan.data.pipeline.prepare import PreparedData, fingerprint_of
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH

Ready = Callable[[Corpus], PreparedData]
SPLITS = ("train", "validation", "test")
CAPTIONS = ["a girl with a ball", "two dogs", "a boat"]
NAMES = ["0.png", "1.png", "more/2.png"]


def photo(split: str, number: int) -> np.ndarray:
    draw = np.random.default_rng([SPLITS.index(split), number])
    return draw.integers(0, 256, (5 + number, 9 - number, 3), dtype=np.uint8)


def png(split: str, number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo(split, number)).save(file, "PNG")
    return file.getvalue()


def imagefolder() -> dict[str, bytes]:
    """The files of a dataset, by path: images and a metadata table in each split's folder."""
    files = {}
    for split in SPLITS:
        files |= {f"{split}/{name}": png(split, number) for number, name in enumerate(NAMES)}
        rows = zip(NAMES, CAPTIONS, strict=True)
        lines = [json.dumps({"file_name": name, "text": text}) + "\n" for name, text in rows]
        files[f"{split}/metadata.jsonl"] = "".join(lines).encode()
    return files


def dataset(split: str) -> datasets.Dataset:
    images = [{"bytes": png(split, number), "path": None} for number in range(3)]
    made = datasets.Dataset.from_dict({"image": images, "text": CAPTIONS})
    return made.cast_column("image", datasets.Image())


def write(root: Path, layout: str) -> Path:
    if layout == "saved":
        datasets.DatasetDict({split: dataset(split) for split in SPLITS}).save_to_disk(root)
    for split in SPLITS if layout == "parquet" else ():
        (root / "data").mkdir(parents=True, exist_ok=True)
        dataset(split).to_parquet(root / f"data/{split}-00000-of-00001.parquet")
    for name, content in imagefolder().items() if layout == "imagefolder" else ():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "photos", "imagefolder")


def images(place: Path | str, **changes: Any) -> HubImages:
    given = {"image": "image", "target": "text", "channels": 3, "longest_side": None, "target_tokens": "words"}
    return HubImages(**{"path": str(place), **given, "limits": ANY_LENGTH, **changes})


def check(prepared: PreparedData) -> None:
    """Every split has its own images, with their texts."""
    for split in SPLITS:
        data = getattr(prepared, split)
        assert data["target"][:] == CAPTIONS
        for number in range(3):
            assert (ImageColumn(data).image(number) == photo(split, number).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("layout", ["imagefolder", "parquet", "saved"])
def test_every_layout_has_the_images_and_their_texts(tmp_path: Path, ready: Ready, layout: str) -> None:
    prepared = ready(images(write(tmp_path / "photos", layout)))
    check(prepared)
    assert prepared.remarks == []
    names = {"imagefolder": "more/2.png (7 x 7 pixels)"}
    assert prepared.test["source"][2] == names.get(layout, "column 'image' (7 x 7 pixels)")


def test_the_column_may_be_called_as_in_the_table_and_splits_may_be_parts(folder: Path, ready: Ready) -> None:
    prepared = ready(images(folder, image="file_name", test="train[1:]"))
    assert prepared.test["target"][:] == CAPTIONS[1:]
    assert (ImageColumn(prepared.test).image(0) == photo("train", 1).transpose(2, 0, 1)).all()


def test_the_fingerprint_knows_the_pixels_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    before = fingerprint_of(images(folder))
    moved = folder.rename(tmp_path / "elsewhere")
    assert fingerprint_of(images(moved)) == before
    (moved / "test/1.png").write_bytes(png("train", 1))
    assert fingerprint_of(images(moved)) != before


def test_a_bad_image_is_one_line_or_is_skipped(folder: Path, ready: Ready) -> None:
    (folder / "test/1.png").write_bytes(png("test", 1)[:-40])
    with pytest.raises(InputError, match=r"^.*photos/test/metadata\.jsonl line 2: 1\.png: is damaged or cut off"):
        ready(images(folder))
    prepared = ready(images(folder, on_bad_row="skip"))
    assert prepared.skipped == {"test": 1}
    (folder / "test/1.png").unlink()
    with pytest.raises(InputError, match=r"metadata\.jsonl line 2: 1\.png: No such file"):
        ready(images(folder))


def test_classes_as_folders_are_no_texts(folder: Path, ready: Ready) -> None:
    (folder / "test/metadata.jsonl").unlink()
    with pytest.raises(InputError) as error:
        ready(images(folder))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"data.test: {folder}: split 'test' has no table that says which text an image")


def test_a_table_of_two_splits_is_refused(folder: Path, ready: Ready) -> None:
    """Its rows would be in both."""
    lines = [f"{split}/{name},{text}" for split in SPLITS for name, text in zip(NAMES, CAPTIONS, strict=True)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,text", *lines, ""]), encoding="utf-8")
    files = "".join(f"  - split: {split}\n    path: [metadata.csv, '{split}/*.png']\n" for split in SPLITS)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    with pytest.raises(
        InputError, match=r"splits 'train' and 'validation' have one table, metadata\.csv, which says not"
    ):
        ready(images(folder))
    prepared = ready(images(folder, validation="train[:4]", test="train[4:]"))  # one split of the dataset
    assert prepared.train.num_rows == 9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "photo"}, r"there is no column 'photo'; .*file_name, text"),
        ({"target": "caption"}, r"there is no column 'caption'; .*file_name, text"),
        ({"test": "tset"}, r"^data\.test: .*: there is no split 'tset'; did you mean 'test'"),
        ({"path": "./none/at/all"}, r"^data\.path: \./none/at/all: no such directory"),
        ({"longest_side": 0}, r"^data\.longest_side: must be a whole number"),
        ({"on_bad_row": "skipp"}, r"^data\.on_bad_row: unknown value 'skipp'"),
    ],
)
def test_wrong_keys_are_named(folder: Path, ready: Ready, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        ready(images(folder, **changes))
    assert "\n" not in str(error.value)


TEXTS: dict[str, Any] = {"target": "text", "source_tokens": "words", "target_tokens": "words", "limits": ANY_LENGTH}
READ = "data=image_files reads images of yours, and data=hub_images those of a dataset in the hub's layout"


def test_corpora_of_texts_lead_to_those_of_images(tmp_path: Path, folder: Path, ready: Ready) -> None:
    """A column of images, a column of names of images, and a folder of them."""
    bytes_of_images = write(tmp_path / "parquet", "parquet")
    table = next(bytes_of_images.rglob("train*.parquet"))
    for corpus in (
        Hub(path=str(bytes_of_images), source="image", **TEXTS),
        Files(train=str(table), validation=str(table), test=str(table), source="image", **TEXTS),
    ):
        with pytest.raises(InputError, match=f"column 'image' holds an image instead of text; {READ}$"):
            ready(corpus)
    names = "column 'file_name' holds nothing but names of image files"
    with pytest.raises(InputError, match=f"photos split 'train': {names}; {READ}$"):
        ready(Hub(path=str(folder), source="file_name", **TEXTS))
    table = shutil.copy(folder / "train/metadata.jsonl", tmp_path / "a.jsonl")
    with pytest.raises(InputError, match=f"a.jsonl: {names}; {READ}$"):
        ready(Files(train=str(table), validation=str(table), test=str(table), source="file_name", **TEXTS))
    with pytest.raises(InputError, match=rf"^data\.train: {folder}/train: is a folder of images; {READ}$"):
        Files(train=f"{folder}/train", validation="a", test="a", source="file_name", **TEXTS).check()
