"""Text to token ids and back, over Hugging Face `tokenizers`.

Ids 0 to 3 are the special tokens of every vocabulary. ``encode`` adds none of them: batches add ``<bos>`` and ``<eos>``
to the targets, and sources have no ``<eos>``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from attnspan.data.white_space import symbols
from attnspan.errors import InputError, nearest
from attnspan.files import write_text

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")

# No tokenization produces a token that contains a space, so a text that spells out "<pad>" stays text.
_STORED = tuple(f"{name} " for name in SPECIALS)
_AT_WHITE_SPACE = pre_tokenizers.WhitespaceSplit()

SYMBOLS = "symbols"
WORDS = "words"
TOKENIZATIONS = ("bpe", "characters", SYMBOLS, WORDS)
RELEASE_DEPENDENT = ("bpe", WORDS)
"""Tokenizations that may differ between releases of `tokenizers`: other merges, or other word boundaries."""

# Numbers with points and commas, words with inner apostrophes and hyphens, and single other characters. When they are
# joined by spaces, sacrebleu's 13a splits them as it splits the text itself, except for abbreviations and the like.
_WORD = r"\p{N}+(?:[.,]\p{N}+)+|[\p{L}\p{M}\p{N}_]+(?:['’-][\p{L}\p{M}\p{N}_]+)*|[^\s\p{L}\p{M}\p{N}_]"
_WORD_SPLIT = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)

NORMALIZATIONS = {"nfc": normalizers.NFC, "nfkc": normalizers.NFKC}
"""Unicode normal forms: ``nfc`` composes accents, ``nfkc`` also replaces ligatures, full-width forms and the like."""


def count_symbols(text: str) -> int:
    """Number of tokens of ``text`` under the tokenization :data:`SYMBOLS`."""
    return len(symbols(text))


class Normalizer:
    """Normalises text to a form in :data:`NORMALIZATIONS`, or none, and perhaps to lower case; idempotent.

    The form comes again after lower case, because a small letter may compose with an accent where the capital does not.
    """

    def __init__(self, *, normalization: str | None, lowercase: bool) -> None:
        form = [NORMALIZATIONS[normalization]()] if normalization else []
        steps = [*form, normalizers.Lowercase(), *form] if lowercase else form
        self.backend = normalizers.Sequence(steps) if steps else None

    def __call__(self, text: str) -> str:
        """The normalised text."""
        return text if self.backend is None else str(self.backend.normalize_str(text))


class Tokenizer:
    """The vocabulary and the tokenization of one side."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        vocabulary = sorted(backend.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])
        self.stored = [*SPECIALS, *(token for token, _ in vocabulary[len(SPECIALS) :])]
        """Each id as the vocabulary has it; of ``bpe``, bytes as printable characters."""

    @classmethod
    def train(
        cls,
        tokenization: str,
        texts: Iterable[str],
        vocabulary_size: int | None = None,
        *,
        minimum_count: int = 1,
        normalizer: Normalizer | None = None,
    ) -> Tokenizer:
        """Train a tokenizer on the normalised texts of the training split.

        ``characters`` and ``symbols`` contain every token that occurs, by descending frequency and then by code points.
        ``words`` contains, in the same order, those that occur at least ``minimum_count`` times, up to
        ``vocabulary_size`` entries. ``bpe`` contains all 256 bytes and merges up to ``vocabulary_size`` entries.

        Args:
            tokenization: one of :data:`TOKENIZATIONS`.
            texts: not those of validation and test.
            vocabulary_size: maximum number of entries, including special tokens; required by ``bpe``.
            minimum_count: minimum count of a word.
            normalizer: applied to every text before it is encoded.

        Raises:
            InputError: an unknown tokenization, a vocabulary too small for all bytes, or one without any word.
        """
        if tokenization == "bpe":
            backend = _train_bpe(texts, vocabulary_size)
        elif tokenization == "characters":
            backend = _word_level(chain.from_iterable(texts), pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"))
            backend.decoder = decoders.Fuse()
        elif tokenization == SYMBOLS:
            backend = _word_level((symbol for text in texts for symbol in symbols(text)), _AT_WHITE_SPACE)
        elif tokenization == WORDS:
            words = (word for text in texts for word, _ in _WORD_SPLIT.pre_tokenize_str(text))
            backend = _word_level(words, _WORD_SPLIT, vocabulary_size, minimum_count)
            if backend.get_vocab_size() == len(SPECIALS):
                keys = f"data.minimum_count={minimum_count}, data.vocabulary_size={vocabulary_size}"
                raise InputError(f"{keys}: no word is left in the vocabulary")
        else:
            raise InputError(f"unknown tokenization '{tokenization}'; {nearest(tokenization, TOKENIZATIONS)}")
        if normalizer is not None and normalizer.backend is not None:
            backend.normalizer = normalizer.backend
        return cls(backend)

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, without special tokens; tokens that are not in the vocabulary become ``UNK``."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """:meth:`encode` for many texts at once, on all cores."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def unknown_tokens(self, text: str) -> list[str]:
        """The tokens of ``text`` that are not in the vocabulary, in order."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        return [text[slice(*at)] for token, at in zip(encoding.ids, encoding.offsets, strict=True) if token == UNK]

    def cut(self, text: str) -> list[str]:
        """The tokens of ``text``, of which one that the vocabulary lacks is as the text spells it."""
        ids = self.encode(text)
        unknown = iter(self.unknown_tokens(text) if UNK in ids else ())
        return [next(unknown) if id == UNK else token for id, token in zip(ids, self.tokens(ids), strict=True)]

    def spelled(self, text: str) -> list[str]:
        """The tokens of ``text`` as :attr:`stored`, and an unknown one as the normalised text spells it."""
        if (normalizer := self._backend.normalizer) is not None:
            text = str(normalizer.normalize_str(text))
        encoding = self._backend.encode(text, add_special_tokens=False)
        pairs = zip(encoding.ids, encoding.offsets, strict=True)
        return [text[slice(*at)] if token_id == UNK else self.stored[token_id] for token_id, at in pairs]

    def id_of(self, token: str) -> int | None:
        """The id of a token as in :attr:`stored`, special tokens left out; None if the vocabulary lacks it."""
        found: int | None = self._backend.token_to_id(token)
        return None if found is None or found < len(SPECIALS) else found

    @property
    def is_bytes(self) -> bool:
        """Whether :attr:`stored` are bytes and no characters, as of ``bpe``."""
        return isinstance(self._backend.decoder, decoders.ByteLevel)

    def decode(self, ids: Iterable[int], oov_words: Sequence[str] = ()) -> str:
        """The text of ``ids``: exact for characters and bpe, joined by single spaces for symbols and words.

        ``PAD``, ``BOS`` and ``EOS`` are skipped; ``UNK`` becomes ``<unk>``. Ids from V on are the ``oov_words``
        (:mod:`attnspan.data.extended_vocabulary`).
        """
        tokens = [self._in_store(i, oov_words) for i in ids if i not in (PAD, BOS, EOS)]
        decoder = self._backend.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(tokens)

    def tokens(self, ids: Iterable[int], oov_words: Sequence[str] = ()) -> list[str]:
        """Each id as a token for display: special tokens by name, an incomplete UTF-8 character as its stored bytes.

        Ids from V on are the ``oov_words``.
        """
        decoder = self._backend.decoder

        def show(token_id: int) -> str:
            stored = self._in_store(token_id, oov_words)
            text = stored if decoder is None or token_id < len(SPECIALS) else str(decoder.decode([stored]))
            return stored if "\ufffd" in text else text

        return [show(token_id) for token_id in ids]

    def _in_store(self, token_id: int, oov_words: Sequence[str]) -> str:
        return self.stored[token_id] if token_id < len(self.stored) else oov_words[token_id - len(self.stored)]

    def __len__(self) -> int:
        """Number of entries in the vocabulary, including special tokens."""
        return len(self.stored)

    @property
    def vocabulary_size(self) -> int:
        """Number of entries, as of any reader of sources; one of images has None."""
        return len(self)

    def save(self, path: Path) -> None:
        """Write the tokenizer in the JSON format of Hugging Face `tokenizers`."""
        write_text(path, self._backend.to_str(pretty=True) + "\n")

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a tokenizer that :meth:`save` wrote.

        Raises:
            InputError: the file is missing or was not written by :meth:`save`.
        """
        try:
            backend = Backend.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file") from error
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"{path}: not readable as a tokenizer ({str(error).splitlines()[0]})") from error
        if [backend.id_to_token(i) for i in range(len(_STORED))] != list(_STORED):
            raise InputError(f"{path}: not a tokenizer of attnspan (ids 0 to 3 are not the special tokens)")
        return cls(backend)


def _word_level(
    tokens: Iterable[str], pre_tokenizer: Any, vocabulary_size: int | None = None, minimum_count: int = 1
) -> Backend:
    counts = Counter(tokens)
    known = sorted((token for token in counts if counts[token] >= minimum_count), key=lambda t: (-counts[t], t))
    if vocabulary_size is not None:
        known = known[: max(vocabulary_size - len(SPECIALS), 0)]
    vocabulary = {token: token_id for token_id, token in enumerate((*_STORED, *known))}
    backend = Backend(models.WordLevel(vocabulary, unk_token=_STORED[UNK]))
    backend.pre_tokenizer = pre_tokenizer
    return backend


def _train_bpe(texts: Iterable[str], vocabulary_size: int | None) -> Backend:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(SPECIALS) + len(alphabet)
    if vocabulary_size is None or vocabulary_size < smallest:
        needed = f"bpe needs at least {smallest} (256 bytes and {len(SPECIALS)} special tokens)"
        raise InputError(f"data.vocabulary_size: {needed}, not {vocabulary_size}")
    learner = Backend(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    size = vocabulary_size - len(SPECIALS)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(alphabet), show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    # The trainer would match special tokens in the text, so they are added to the vocabulary afterwards.
    vocabulary = {token: token_id for token_id, token in enumerate(_STORED)}
    vocabulary |= {token: token_id + len(SPECIALS) for token, token_id in learned["vocab"].items()}
    backend = Backend(models.BPE(vocabulary, [tuple(pair) for pair in learned["merges"]]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend
