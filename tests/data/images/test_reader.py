"""What is read of an image, what is converted, and what is refused in one line."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attnspan.data.images.reader import ImageReader, conversions_remark
from attnspan.data.source_reader import load_source_reader
from attnspan.errors import BadRowError, InputError, SettingError

GREY, COLOURS = ImageReader(channels=1), ImageReader(channels=3)
PHOTO = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_pixels_are_what_was_saved() -> None:
    photo = Image.fromarray(PHOTO)
    for given in (encoded(photo), photo, PHOTO):
        pixels, conversions = COLOURS.read(given, "a")
        np.testing.assert_array_equal(pixels, PHOTO.transpose(2, 0, 1))
        assert conversions == []
    grey = PHOTO[..., 0]
    for given in (encoded(Image.fromarray(grey)), grey, grey[..., None]):
        np.testing.assert_array_equal(GREY.read(given, "a")[0], grey[None])
    pixels, _ = GREY.read(encoded(photo), "a")
    np.testing.assert_allclose(pixels[0], PHOTO @ [0.299, 0.587, 0.114], atol=1)  # ITU-R 601-2


def test_conversions_are_said() -> None:
    red = Image.new("RGB", (4, 3), "red")
    half = Image.new("RGBA", (4, 3), (255, 0, 0, 127))
    deep = Image.fromarray(np.full((3, 4), 257 * 200, dtype=np.uint16))
    pixels, said = COLOURS.read(encoded(red.convert("CMYK"), "JPEG"), "a")
    assert said == ["converted from CMYK to RGB"]
    assert pixels[0].min() > 200
    pixels, said = COLOURS.read(encoded(half), "a")
    assert said == ["with transparency laid over white"]
    np.testing.assert_allclose(pixels[:, 0, 0], [255, 128, 128], atol=1)
    pixels, said = GREY.read(encoded(deep), "a")
    assert said == ["converted from 16 bits to 8"]
    assert (pixels == 200).all()
    pixels, said = COLOURS.read(
        encoded(red, "GIF", save_all=True, append_images=[Image.new("RGB", (4, 3), "blue")]), "a"
    )
    assert said == ["only the first of several frames"]
    assert pixels[0].min() > 200


def test_an_image_is_turned_as_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    pixels, said = COLOURS.read(encoded(Image.fromarray(PHOTO), exif=exif), "a")
    assert said == ["turned as EXIF says"]
    np.testing.assert_array_equal(pixels, np.rot90(PHOTO, -1).transpose(2, 0, 1))


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(PHOTO)))
    pixels, said = COLOURS.read(tmp_path / "a.jpg", "a.jpg")
    np.testing.assert_array_equal(pixels, PHOTO.transpose(2, 0, 1))
    assert conversions_remark("train", {said[0]: ["a.jpg"]}) == [
        "train: 1 image called .jpg read as PNG, which their content is: a.jpg"
    ]


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it has 100,000 x 100,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"GIF89a but nothing of the kind", "is no image that Pillow can read"),
        (b"<svg/>", "is no image that Pillow can read"),
        (encoded(Image.fromarray(PHOTO))[:-30], "is damaged or cut off"),
        (encoded(Image.fromarray(PHOTO.repeat(40, 0).repeat(40, 1)), "JPEG")[:-2000], "is damaged or cut off"),
        (bomb(), "is too large"),
        (encoded(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF"), "32-bit values of an unknown range"),
        (np.zeros((2, 2)), r"an array must be uint8 of \[height, width\].*, not float64 of \[2, 2\]"),
        (np.zeros((3, 2, 2), dtype=np.uint8).transpose(0, 1, 2)[:0], "an array must be uint8"),
    ],
)
def test_what_is_no_whole_image_is_refused(content: Any, words: str) -> None:
    with pytest.raises(BadRowError, match=f"^photos/girl.png: .*{words}") as error:
        COLOURS.read(content, "photos/girl.png")
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadRowError, match=r"^none\.png: No such file"):
        COLOURS.read(tmp_path / "none.png", "none.png")


def test_larger_images_are_shrunk_in_proportion() -> None:
    reader = ImageReader(channels=3, longest_side=20)
    assert reader.read(np.zeros((40, 100, 3), dtype=np.uint8), "a")[0].shape == (3, 8, 20)
    assert reader.read(np.zeros((5, 20), dtype=np.uint8), "a")[0].shape == (3, 5, 20)


def test_the_settings_are_kept(tmp_path: Path) -> None:
    reader = ImageReader(channels=3, longest_side=20)
    reader.save(tmp_path / "source.json")
    assert load_source_reader(tmp_path / "source.json") == reader
    (tmp_path / "source.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"source\.json: not "):
        load_source_reader(tmp_path / "source.json")


def test_impossible_settings() -> None:
    with pytest.raises(SettingError, match=r"channels: must be 1 \(grey\) or 3 \(colours\), not 2"):
        ImageReader(channels=2)
