"""Text to token ids and back, over Hugging Face `tokenizers`.

Ids 0 to 3 are the special tokens of every vocabulary. ``encode`` adds none of them: the decoder's input and output get
theirs at batching, and a source has no ``<eos>``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from attnspan.errors import InputError, nearest
from attnspan.files import write_text

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")

# No kind makes a token with a space inside or behind it, so a text that spells out "<pad>" stays text.
_STORED = tuple(f"{name} " for name in SPECIALS)
_AT_WHITE_SPACE = pre_tokenizers.WhitespaceSplit()

SYMBOLS = "symbols"
WORDS = "words"
KINDS = ("bpe", "characters", SYMBOLS, WORDS)
SIZED = ("bpe", WORDS)
"""Kinds whose vocabulary has a size."""

# Numbers with their points and commas, words with apostrophes and hyphens inside, and each other sign by itself: joined
# by spaces they are cut by sacrebleu's 13a into what it cuts the text into, but for abbreviations and the like.
_WORD = r"\p{N}+(?:[.,]\p{N}+)+|[\p{L}\p{M}\p{N}_]+(?:['’-][\p{L}\p{M}\p{N}_]+)*|[^\s\p{L}\p{M}\p{N}_]"
_WORDS_AND_SIGNS = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)

NORMALIZATIONS = {"nfc": normalizers.NFC, "nfkc": normalizers.NFKC}
"""Unicode's normal forms: ``nfc`` writes one letter one way, ``nfkc`` also turns ligatures, wide forms and the like."""


def count_symbols(text: str) -> int:
    """The tokens that :data:`SYMBOLS` cut ``text`` into."""
    return len(_AT_WHITE_SPACE.pre_tokenize_str(text))


class Normalizer:
    """How text is changed before it is cut into tokens; what it has made of a text it leaves as it is."""

    def __init__(self, *, normalization: str | None, lowercase: bool) -> None:
        """Compose the steps.

        Args:
            normalization: a key of :data:`NORMALIZATIONS`, or None.
            lowercase: afterwards, write everything in lower case.
        """
        steps = [NORMALIZATIONS[normalization]()] if normalization else []
        steps += [normalizers.Lowercase()] if lowercase else []
        self.backend = normalizers.Sequence(steps) if steps else None

    def __call__(self, text: str) -> str:
        """The changed text."""
        return text if self.backend is None else str(self.backend.normalize_str(text))


class Tokenizer:
    """The vocabulary of one side, and how text is cut into it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        vocabulary = sorted(backend.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])
        self._stored = [*SPECIALS, *(token for token, _ in vocabulary[len(SPECIALS) :])]

    @classmethod
    def train(
        cls,
        kind: str,
        texts: Iterable[str],
        vocabulary_size: int | None = None,
        *,
        minimum_count: int = 1,
        normalizer: Normalizer | None = None,
    ) -> Tokenizer:
        """Make the vocabulary of ``texts``.

        Characters and symbols get every one that occurs, the most frequent first and then in the order of their code
        points. Words get, in the same order, those that occur ``minimum_count`` times, as many as ``vocabulary_size``
        leaves room for. ``bpe`` gets all 256 bytes and as many merges as ``vocabulary_size`` leaves room for.

        Args:
            kind: ``characters``, ``symbols``, ``words`` or ``bpe``.
            texts: the training split, and nothing else; what ``normalizer`` makes of it.
            vocabulary_size: special tokens included; needed by ``bpe``, a limit for ``words``.
            minimum_count: how often a word must occur.
            normalizer: what is done to every text before it is encoded.

        Raises:
            InputError: an unknown kind, a vocabulary too small for the bytes, or one without a word.
        """
        if kind not in _TRAIN:
            raise InputError(f"'{kind}' is no kind of tokens; {nearest(kind, KINDS)}")
        backend = _TRAIN[kind](texts, vocabulary_size, minimum_count)
        if normalizer is not None and normalizer.backend is not None:
            backend.normalizer = normalizer.backend
        return cls(backend)

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, without special tokens; what the vocabulary lacks becomes ``UNK``."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """:meth:`encode` for many texts at once, on all cores."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def unknown(self, text: str) -> list[str]:
        """The pieces of ``text`` that the vocabulary lacks, in order."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        return [text[slice(*at)] for token, at in zip(encoding.ids, encoding.offsets, strict=True) if token == UNK]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``: exact for characters and bpe, with single spaces between symbols.

        ``PAD``, ``BOS`` and ``EOS`` are skipped wherever they stand; ``UNK`` reads ``<unk>``.
        """
        tokens = [self._stored[i] for i in ids if i not in (PAD, BOS, EOS)]
        decoder = self._backend.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(tokens)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Each id as a word to show: special tokens by name, a piece of a character as its stored bytes."""
        return [self._show(i) for i in ids]

    def __len__(self) -> int:
        """Entries in the vocabulary, special ones included."""
        return len(self._stored)

    def save(self, path: Path) -> None:
        """Write the tokenizer as the JSON of Hugging Face `tokenizers`."""
        write_text(path, self._backend.to_str(pretty=True) + "\n")

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: there is no such file, or it is none of ours.
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

    def _show(self, token_id: int) -> str:
        stored = self._stored[token_id]
        if self._backend.decoder is None or token_id < len(SPECIALS):
            return stored
        text = str(self._backend.decoder.decode([stored]))
        return stored if "\ufffd" in text else text


def _train_characters(texts: Iterable[str], vocabulary_size: int | None, minimum_count: int) -> Backend:
    backend = _word_level(character for text in texts for character in text)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return backend


def _train_symbols(texts: Iterable[str], vocabulary_size: int | None, minimum_count: int) -> Backend:
    backend = _word_level(symbol for text in texts for symbol in text.split())
    backend.pre_tokenizer = _AT_WHITE_SPACE
    return backend


def _train_words(texts: Iterable[str], vocabulary_size: int | None, minimum_count: int) -> Backend:
    words = (word for text in texts for word, _ in _WORDS_AND_SIGNS.pre_tokenize_str(text))
    backend = _word_level(words, vocabulary_size, minimum_count)
    if backend.get_vocab_size() == len(SPECIALS):
        keys = f"data.minimum_count={minimum_count}, data.vocabulary_size={vocabulary_size}"
        raise InputError(f"{keys}: leave no word in the vocabulary")
    backend.pre_tokenizer = _WORDS_AND_SIGNS
    return backend


def _word_level(tokens: Iterator[str], vocabulary_size: int | None = None, minimum_count: int = 1) -> Backend:
    counts = Counter(tokens)
    known = sorted((token for token in counts if counts[token] >= minimum_count), key=lambda t: (-counts[t], t))
    if vocabulary_size is not None:
        known = known[: max(vocabulary_size - len(SPECIALS), 0)]
    vocabulary = {token: token_id for token_id, token in enumerate((*_STORED, *known))}
    return Backend(models.WordLevel(vocabulary, unk_token=_STORED[UNK]))


def _train_bpe(texts: Iterable[str], vocabulary_size: int | None, minimum_count: int) -> Backend:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(SPECIALS) + len(alphabet)
    if vocabulary_size is None or vocabulary_size < smallest:
        raise InputError(
            f"data.vocabulary_size: bpe needs at least {smallest} (256 bytes and {len(SPECIALS)} special tokens), "
            f"not {vocabulary_size}"
        )
    learner = Backend(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary_size - len(SPECIALS),
            initial_alphabet=sorted(alphabet),
            special_tokens=[],
            show_progress=False,
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    # The trainer would look for special tokens in the text. Put in afterwards, they are ids and nothing else.
    vocabulary = {token: token_id for token_id, token in enumerate(_STORED)}
    vocabulary |= {token: token_id + len(SPECIALS) for token, token_id in learned["vocab"].items()}
    backend = Backend(models.BPE(vocabulary, [tuple(pair) for pair in learned["merges"]]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


_TRAIN: dict[str, Callable[[Iterable[str], int | None, int], Backend]] = {
    "characters": _train_characters,
    SYMBOLS: _train_symbols,
    WORDS: _train_words,
    "bpe": _train_bpe,
}
