"""Reads images: files, bytes, arrays or Pillow's images as arrays of whole numbers from 0 to 255, [C, height, width].

What is read is what the image shows, whatever its file is called: by its content, turned as EXIF says, transparency
over white, CMYK as RGB, 16 bits as 8. Such a conversion is reported with the image. What cannot be read whole is
refused.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from attnspan.errors import BadRowError, SettingError, check_counts, first_line
from attnspan.files import write_json

Pixels = NDArray[np.uint8]
"""[C, height, width]"""

MOST_PIXELS = 64_000_000
"""An image with more is refused before it is decoded: a file of a few kilobytes can unpack to gigabytes."""

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_KEY = "images"
"""Of the file that :meth:`ImageReader.save` writes."""


class ImageData(Protocol):
    """Anything that can be an image: a path, the bytes of a file, an image of Pillow, or an array.

    An array is [height, width], or [height, width, C], of uint8.
    """


@dataclass(frozen=True, kw_only=True)
class ImageReader:
    """How the images of a corpus are read, in training and afterwards alike.

    Raises:
        SettingError: a setting cannot be.
    """

    channels: int
    """C: 1 for grey values, 3 for red, green and blue; images are converted."""
    longest_side: int | None = None
    """Pixels; larger images are shrunk to it in proportion. None for images as they are."""

    vocabulary_size = None

    def __post_init__(self) -> None:
        if isinstance(self.channels, bool) or self.channels not in (1, 3):  # True equals 1
            raise SettingError("channels", f"must be 1 (grey) or 3 (colours), not {self.channels!r}")
        if self.longest_side is not None:
            check_counts(longest_side=self.longest_side)

    def read(self, image: Any, where: str) -> tuple[Pixels, list[str]]:
        """The pixels of an image, and what was converted.

        Args:
            image: see :class:`ImageData`.
            where: it was found, for error messages.

        Raises:
            BadRowError: it is no image, or not a whole one, or a too large one; begins with ``where``.
        """
        if isinstance(image, np.ndarray):
            return self._pixels(_from_array(image, where)), []
        if isinstance(image, Image.Image):
            return self._pixels_of(image, where)
        content = image if isinstance(image, bytes) else _content(Path(image), where)
        suffix = "" if isinstance(image, bytes) else Path(image).suffix
        if not content:
            raise BadRowError(f"{where}: is empty (0 bytes)")
        try:
            with warnings.catch_warnings(action="ignore"):
                opened = Image.open(io.BytesIO(content))
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, Image.DecompressionBombError):
                raise BadRowError(f"{where}: {_too_large(first_line(error))}") from error
            raise BadRowError(f"{where}: is no image that Pillow can read") from error
        pixels, conversions = self._pixels_of(opened, where)
        return pixels, [*_wrong_suffix(opened, suffix), *conversions]

    def _pixels_of(self, image: Image.Image, where: str) -> tuple[Pixels, list[str]]:
        if image.width * image.height > MOST_PIXELS:
            raise BadRowError(f"{where}: {_too_large(f'{image.width} x {image.height} pixels')}")
        conversions = ["only the first of several frames"] if getattr(image, "n_frames", 1) > 1 else []
        try:
            with warnings.catch_warnings(action="ignore"):
                image.load()
                turned = ImageOps.exif_transpose(image)
        except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
            raise BadRowError(f"{where}: is damaged or cut off ({first_line(error)})") from error
        if turned.size != image.size or (image.getexif().get(0x0112, 1) not in (0, 1)):
            conversions.append("turned as EXIF says")
        plain, converted = _eight_bits(turned, where)
        return self._pixels(plain), [*conversions, *converted]

    def _pixels(self, image: Image.Image) -> Pixels:
        if self.longest_side is not None and max(image.size) > self.longest_side:
            scale = self.longest_side / max(image.size)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        values = np.asarray(image.convert("L" if self.channels == 1 else "RGB"), dtype=np.uint8)
        return np.ascontiguousarray(values[None] if self.channels == 1 else values.transpose(2, 0, 1))

    def save(self, path: Path) -> None:
        """Write the settings as JSON."""
        write_json(path, {_KEY: asdict(self)})

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ImageReader | None:
        """What :meth:`save` wrote, or None if ``content`` is something else."""
        return cls(**content[_KEY]) if _KEY in content else None


def conversions_remark(split: str, conversions: dict[str, list[str]]) -> list[str]:
    """One line for each kind of conversion: how many images of ``split``, and the first of them."""
    return [
        f"{split}: {len(names)} image{'s' * (len(names) > 1)} {what}: {names[0]}{' and others' * (len(names) > 1)}"
        for what, names in conversions.items()
    ]


def _content(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRowError(f"{where}: {error.strerror or error}") from error


def _from_array(values: NDArray[Any], where: str) -> Image.Image:
    shape = values.shape
    if values.dtype != np.uint8 or not (values.ndim == 2 or (values.ndim == 3 and shape[2] in (1, 3))) or 0 in shape:
        raise BadRowError(
            f"{where}: an array must be uint8 of [height, width], or with 1 or 3 channels [height, width, C], not "
            f"{values.dtype} of {list(shape)}"
        )
    return Image.fromarray(values[..., 0] if values.ndim == 3 and shape[2] == 1 else values)


def _wrong_suffix(image: Image.Image, suffix: str) -> list[str]:
    known = Image.registered_extensions().get(suffix.lower())
    if not suffix or known == image.format or known is None or {known, image.format} <= {"JPEG", "MPO"}:
        return []
    return [f"called {suffix} read as {image.format}, which their content is"]


def _too_large(size: str) -> str:
    return f"is too large ({size}); at most {MOST_PIXELS:,} pixels are read"


def _eight_bits(image: Image.Image, where: str) -> tuple[Image.Image, list[str]]:
    """The image in grey values or RGB, and what was converted for it."""
    mode = image.mode
    if mode in _SIXTEEN_BITS or (mode == "I" and image.format == "PNG"):  # Pillow reads some 16-bit PNGs as 32 bits
        values = np.asarray(image, dtype=np.int64)
        return Image.fromarray(((values + 128) // 257).clip(0, 255).astype(np.uint8)), ["converted from 16 bits to 8"]
    if mode in ("I", "F"):
        raise BadRowError(f"{where}: has 32-bit values of an unknown range (mode {mode}); save it with 8 or 16 bits")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        over = Image.new("RGBA", image.size, "white")
        over.alpha_composite(image.convert("RGBA"))
        return over.convert("RGB"), ["with transparency laid over white"]
    if mode in ("1", "L", "RGB", "P"):
        return image.convert("L" if mode in ("1", "L") else "RGB"), []
    return image.convert("RGB"), [f"converted from {mode} to RGB"]
