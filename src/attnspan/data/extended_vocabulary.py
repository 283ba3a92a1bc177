"""The extended vocabulary of an arm that copies: the target's, and the words of one source that it lacks.

See et al. 2017, section 2.2. Ids up to V - 1 are those of the target vocabulary. The k-th distinct token of a source
that the target vocabulary lacks has the id V + k, k from 0, in this example only. Tokens are compared as strings, so
the two vocabularies may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int64

from attnspan.data.source_reader import SourceReader
from attnspan.data.tokenizer import PAD, SPECIALS, UNK, Tokenizer
from attnspan.errors import InputError

if TYPE_CHECKING:  # torch takes seconds to load
    from attnspan.models.seq2seq import Seq2Seq

_BEYOND = -1
"""In place of the id of a token that the target vocabulary lacks."""


class ExtendedVocabulary:
    """Finds the ids of sources and targets.

    Args:
        source: the tokenizer of the sources.
        target: of the targets.

    Raises:
        InputError: one side is cut into bytes and the other is not.
    """

    def __init__(self, *, source: SourceReader, target: Tokenizer) -> None:
        assert isinstance(source, Tokenizer), "the model refuses to copy from images"
        if source.is_bytes != target.is_bytes:
            raise InputError("decoder.pointer: copies tokens, and here data cuts one side only into bytes (bpe)")
        self._source, self._target = source, target
        self._table = np.array([_BEYOND if (found := target.id_of(name)) is None else found for name in source.stored])
        self._table[: len(SPECIALS)] = _BEYOND  # their names may be words of the target
        self._table[PAD] = PAD

    def look_up(self, source_ids: Int64[np.ndarray, "B S"]) -> tuple[Int64[np.ndarray, "B S"], Bool[np.ndarray, "B S"]]:
        """The target's ids of the same tokens, and where there are none: there :meth:`extend_source` is needed."""
        found = self._table[source_ids]
        return found, found == _BEYOND

    def extend_source(self, source_ids: Sequence[int], text: str) -> tuple[list[int], list[str]]:
        """The ids of the tokens of a source, and the words that V, V + 1, ... stand for."""
        spelled = self._source.spelled(text) if UNK in source_ids else [self._source.stored[i] for i in source_ids]
        oov_words: dict[str, int] = {}
        ids = []
        for word in spelled:
            found = self._target.id_of(word)
            ids.append(oov_words.setdefault(word, len(self._target) + len(oov_words)) if found is None else found)
        return ids, list(oov_words)

    def extend_target(self, target_ids: Sequence[int], text: str, oov_words: Sequence[str]) -> list[int]:
        """The ids of a target; an unknown token that is not among the source's words either stays ``UNK``."""
        if UNK not in target_ids or not oov_words:
            return list(target_ids)
        ids = {word: len(self._target) + k for k, word in enumerate(oov_words)}
        spelled = self._target.spelled(text)
        return [ids.get(word, UNK) if i == UNK else i for i, word in zip(target_ids, spelled, strict=True)]


def extended_vocabulary(model: Seq2Seq, *, source: SourceReader, target: Tokenizer) -> ExtendedVocabulary | None:
    """The extended vocabulary of a model that copies; None for others."""
    return ExtendedVocabulary(source=source, target=target) if model.decoder.copies else None
