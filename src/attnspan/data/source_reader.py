"""What reads the sources of a run: a tokenizer, or a reader of images. ``source.json`` says which, and how."""

from __future__ import annotations

from pathlib import Path

from attnspan.data.images.reader import ImageReader
from attnspan.data.tokenizer import Tokenizer
from attnspan.errors import InputError
from attnspan.files import read_json

SourceReader = Tokenizer | ImageReader


def load_source_reader(path: Path) -> SourceReader:
    """Read what :meth:`Tokenizer.save` or :meth:`ImageReader.save` wrote.

    Raises:
        InputError: the file is missing, or neither of them wrote it.
    """
    try:
        images = ImageReader.from_json(read_json(path))
    except (InputError, TypeError, ValueError):
        images = None
    return Tokenizer.load(path) if images is None else images
