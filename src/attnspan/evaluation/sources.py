"""What a run is given to decode: read as its training data was, texts as token ids and images as pixels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from attnspan.data.extended_vocabulary import ExtendedVocabulary
from attnspan.data.images.columns import pad_images
from attnspan.data.images.reader import ImageReader, Pixels
from attnspan.data.source_reader import SourceReader
from attnspan.data.tokenizer import PAD, UNK, Tokenizer
from attnspan.errors import InputError
from attnspan.models.encoders.base import SizesTensor, SourceTensor
from attnspan.models.source_size import patches
from attnspan.runs.attention_maps import Picture


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedSource:
    """One source as a model takes it."""

    content: list[int] | Pixels
    """Token ids, or pixels."""
    length: int
    """Tokens, or patches."""
    unknown: list[str]
    """Tokens, as the source spells them, that the vocabulary lacks."""
    in_target: list[int] | None = None
    """For an arm that copies, the ids of the tokens in the extended vocabulary."""
    oov_words: list[str] = field(default_factory=list)
    """What its ids from V on stand for."""

    @property
    def is_image(self) -> bool:
        """Whether it is no text."""
        return not isinstance(self.content, list)

    def picture(self, region_size: tuple[int, int] | None) -> Picture:
        """The image, seen in regions of this size in pixels."""
        assert isinstance(self.content, np.ndarray)
        assert region_size is not None
        return Picture(pixels=self.content, region_size=region_size)

    def position_names(self, reader: SourceReader, picture: Picture | None) -> list[str]:
        """A name for each source position: the tokens, or row and column of the regions, from 1."""
        if picture is None:
            assert isinstance(reader, Tokenizer)
            assert isinstance(self.content, list)
            return reader.tokens(self.content)
        rows, columns = picture.grid
        return [f"{row},{column}" for row in range(1, rows + 1) for column in range(1, columns + 1)]


def encode_source(
    reader: SourceReader, source: Any, where: str, extended: ExtendedVocabulary | None = None
) -> EncodedSource:
    """Read one source.

    Args:
        reader: of the run.
        source: a text, or an image: a path, the bytes of a file, an image of Pillow, or an array of uint8, [height,
            width] or [height, width, C].
        where: it was found, for error messages.
        extended: the vocabulary of an arm that copies; None for other arms.

    Raises:
        InputError: a text has no token, or an image cannot be read.
    """
    if isinstance(reader, ImageReader):
        if not isinstance(source, str | os.PathLike | bytes | Image.Image | np.ndarray):
            raise InputError(
                f"{where}: {type(source).__name__} is no image: give a path, an array or an image of Pillow"
            )
        pixels, _ = reader.read(source, f"{source}" if isinstance(source, str | os.PathLike) else where)
        return EncodedSource(content=pixels, length=int(patches(np.array(pixels.shape[1:]))), unknown=[])
    is_text = isinstance(source, str) and not any("\ud800" <= character <= "\udfff" for character in source)
    ids = reader.encode(source) if is_text else []
    if not ids:
        raise InputError(f"{where}: {source!r} has no token")
    in_target, oov_words = (None, []) if extended is None else extended.extend_source(ids, source)
    return EncodedSource(
        content=ids,
        length=len(ids),
        unknown=reader.unknown_tokens(source) if UNK in ids else [],
        in_target=in_target,
        oov_words=oov_words,
    )


def pad_sources(sources: Sequence[EncodedSource]) -> tuple[SourceTensor, SizesTensor]:
    """The sources of a batch, padded, and their sizes."""
    images = [source.content for source in sources if isinstance(source.content, np.ndarray)]
    if images:
        return torch.from_numpy(pad_images(images)), torch.tensor([image.shape[1:] for image in images])
    tokens, lengths = padded(source.content for source in sources if isinstance(source.content, list))
    in_target = [source.in_target for source in sources if source.in_target is not None]
    return (torch.stack([tokens, padded(in_target)[0]], dim=1) if in_target else tokens), lengths


def padded(sequences: Iterable[Sequence[int]]) -> tuple[Int[Tensor, "B S"], Int[Tensor, " B"]]:
    """Token ids with ``PAD`` to the longest, and their numbers."""
    rows = [torch.tensor(ids) for ids in sequences]
    return pad_sequence(rows, batch_first=True, padding_value=PAD), torch.tensor([len(row) for row in rows])


def encode_given(tokenizer: Tokenizer, given: Mapping[int, str], where: str) -> dict[int, int]:
    """Position to id of target tokens that are given to the decoder; one that the vocabulary lacks is ``UNK``.

    Raises:
        InputError: a position is no number from 0, or a text is not one token.
    """
    encoded = {}
    for position, token in given.items():
        if isinstance(position, bool) or not isinstance(position, int) or position < 0:
            raise InputError(f"{where}: {position!r} is no position of a given token: they count from 0")
        ids = tokenizer.encode(token) if isinstance(token, str) else []
        if len(ids) != 1:
            raise InputError(f"{where}: {token!r}, given at position {position}, is not one token")
        encoded[position] = ids[0]
    return encoded


def pad_given(given: Sequence[Mapping[int, int]]) -> Int[Tensor, "B T"]:
    """The given tokens of a batch, ``PAD`` in all other places."""
    longest = max((1 + max(tokens, default=-1) for tokens in given), default=0)
    return torch.tensor([[tokens.get(place, PAD) for place in range(longest)] for tokens in given], dtype=torch.long)


def batches_of_rows(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Every row once, in batches of similar length."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
