"""Images in idx files: each once, in rows where their places are known, and one line for a bad file."""

from __future__ import annotations

import gzip
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnspan.data.arrow import read_rows
from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.idx_images import IdxImages
from attnspan.data.images.columns import ImageColumn
from attnspan.data.images.regions import parse_regions
from attnspan.data.pipeline.prepare import PreparedData, fingerprint_of
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH

Ready = Callable[[Corpus], PreparedData]
CLASSES = ["shirt", "bag", "boot"]
DRAW = np.random.default_rng(0)
IMAGES = {
    "train": DRAW.integers(0, 256, (24, 4, 5), dtype=np.uint8),
    "t10k": DRAW.integers(0, 256, (9, 4, 5), np.uint8),
}
LABELS = {name: DRAW.integers(0, 3, len(images), dtype=np.uint8) for name, images in IMAGES.items()}


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in IMAGES:
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx(IMAGES[name]))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(LABELS[name]))
    return tmp_path


def corpus(directory: Path, **changes: Any) -> IdxImages:
    return IdxImages(
        **{
            "path": str(directory),
            "classes": CLASSES,
            "channels": 1,
            "target_tokens": "symbols",
            "train_lengths": [1, 1],
            "test_lengths": [1, 1],
            "train_size": 22,
            "validation_size": 2,
            "test_size": 9,
            "data_seed": 1,
            "limits": ANY_LENGTH,
        }
        | changes
    )


def counted(prepared: PreparedData, *splits: str) -> Counter[tuple[bytes, str]]:
    return Counter(
        (ImageColumn(data).image(row).tobytes(), example["target"])
        for split in splits
        for data in [getattr(prepared, split)]
        for row, example in enumerate(read_rows(data))
    )


def in_the_files(name: str) -> Counter[tuple[bytes, str]]:
    pairs = zip(IMAGES[name], LABELS[name], strict=True)
    return Counter((image.tobytes(), CLASSES[label]) for image, label in pairs)


def test_one_at_a_time_every_image_is_used_once(directory: Path, ready: Ready) -> None:
    """Training and validation share the one file, test has the other."""
    prepared = ready(corpus(directory))
    assert counted(prepared, "train", "validation") == in_the_files("train")
    assert counted(prepared, "test") == in_the_files("t10k")
    assert ready(corpus(directory, data_seed=2)).validation["digest"][:] != prepared.validation["digest"][:]


def test_rows_say_where_each_image_stands(directory: Path) -> None:
    known = {image.tobytes(): CLASSES[label] for image, label in zip(IMAGES["t10k"], LABELS["t10k"], strict=True)}
    used = Counter[bytes]()
    for number, example in enumerate(corpus(directory, test_lengths=[1, 4], test_size=8).rows("test")):
        words, n = example["target"].split(), 1 + number % 4
        pixels = example["pixels"].reshape(example["height"], example["width"])
        assert pixels.shape == (4, 5 * n)
        boxes = parse_regions(example["alignment"], location="a", height=4, width=5 * n, target_length=n)
        assert [token for _, token in boxes] == list(range(n))
        for box, token in boxes:
            part = pixels[box.top : box.bottom, box.left : box.right].tobytes()
            assert known[part] == words[token]
            used[part] += 1
    assert set(used.values()) <= {2, 3}  # 20 places for 9 images
    assert len(used) == 9


def test_compressed_files_are_the_same_data(directory: Path, tmp_path: Path) -> None:
    before = fingerprint_of(corpus(directory))
    for path in directory.glob("*ubyte"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert fingerprint_of(corpus(directory)) == before
    (directory / "t10k-labels-idx1-ubyte").write_bytes(idx((LABELS["t10k"] + 1) % 3))
    assert fingerprint_of(corpus(directory)) != before


OF_IMAGES, OF_LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
WHOLE = idx(IMAGES["train"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (OF_IMAGES, b"", "not an idx file of uint8 with 3 dimensions: it is empty instead of 00 00 08 03"),
        (OF_IMAGES, b"\x89PNG\r\n", "it begins with the bytes 89 50 4e 47 instead of 00 00 08 03"),
        (OF_IMAGES, idx(LABELS["train"]), "it begins with the bytes 00 00 08 01 instead of 00 00 08 03"),
        (OF_IMAGES, WHOLE[:9], "is cut off in its header"),
        (OF_IMAGES, WHOLE[:-1], "its header says 24 x 4 x 5 values, and there are only 479"),
        (OF_IMAGES, WHOLE + b"\0", "its header says 24 x 4 x 5 values, and there are more"),
        (OF_IMAGES, bytes([0, 0, 8, 3]) + b"\xff" * 12, "values, which cannot be"),
        (OF_IMAGES, idx(IMAGES["train"][:0]), "its header says 0 x 4 x 5 values, which cannot be"),
        (OF_IMAGES, None, f"there is neither {OF_IMAGES} nor {OF_IMAGES}.gz"),
        (f"{OF_IMAGES}.gz", gzip.compress(WHOLE)[:-30], "not a complete gzip file"),
        (f"{OF_IMAGES}.gz", WHOLE, "not a complete gzip file"),
        (OF_LABELS, idx(LABELS["t10k"][:5]), "t10k-images-idx3-ubyte has 9 images, and t10k-labels-idx1-ubyte 5 class"),
        (
            OF_LABELS,
            idx(np.full(9, 3, dtype=np.uint8)),
            "image 1 of t10k is of class 3 (from 0), and there are words f",
        ),
    ],
)
def test_a_bad_file_is_one_line(directory: Path, name: str, content: bytes | None, words: str) -> None:
    if name.endswith(".gz") or content is None:
        (directory / name.removesuffix(".gz")).unlink()
    if content is not None:
        (directory / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        corpus(directory).check()
    assert words in str(error.value)
    assert str(directory) in str(error.value)
    assert str(error.value).startswith("data.")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"path": "none/such"}, r"^data\.path: none/such: no such directory"),
        ({"classes": []}, r"^data\.classes: is empty"),
        ({"classes": ["ankle boot", "bag", "shirt"]}, r"^data\.classes: must be words without white space, not 'ankle"),
        ({"channels": 3}, r"^data\.channels: must be 1, because the images are grey"),
        ({"train_lengths": [0, 1]}, r"^data\.train_lengths: must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_is_refused(directory: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        corpus(directory, **changes).check()
