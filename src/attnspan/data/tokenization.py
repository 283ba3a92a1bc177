"""Text to token ids and back, over Hugging Face `tokenizers`.

Ids 0 to 3 are the special tokens of every vocabulary. ``encode`` adds none of them: the decoder's input and output get
theirs at batching, and a source has no ``<eos>``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from attnspan.errors import InputError, nearest
from attnspan.rundir import write_text

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")

# No kind makes a token with a space inside or behind it, so a text that spells out "<pad>" stays text.
_STORED = tuple(f"{name} " for name in SPECIALS)
_AT_WHITE_SPACE = pre_tokenizers.WhitespaceSplit()

SYMBOLS = "symbols"
KINDS = ("bpe", "characters", SYMBOLS)


def count_symbols(text: str) -> int:
    """The tokens that :data:`SYMBOLS` cut ``text`` into."""
    return len(_AT_WHITE_SPACE.pre_tokenize_str(text))


class Tokenizer:
    """The vocabulary of one side, and how text is cut into it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        vocabulary = sorted(backend.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])
        self._stored = [*SPECIALS, *(token for token, _ in vocabulary[len(SPECIALS) :])]

    @classmethod
    def train(cls, kind: str, texts: Iterable[str], vocabulary_size: int | None = None) -> Tokenizer:
        """Make the vocabulary of ``texts``.

        Characters and symbols get every one that occurs, the most frequent first and then in the order of their code
        points. ``bpe`` gets all 256 bytes and as many merges as ``vocabulary_size`` leaves room for.

        Args:
            kind: ``characters``, ``symbols`` or ``bpe``.
            texts: the training split, and nothing else.
            vocabulary_size: needed by ``bpe`` only, special tokens included.

        Raises:
            InputError: an unknown kind, or a vocabulary too small for the bytes.
        """
        if kind not in _TRAIN:
            raise InputError(f"'{kind}' is no kind of tokens; {nearest(kind, KINDS)}")
        return cls(_TRAIN[kind](texts, vocabulary_size))

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


def _train_characters(texts: Iterable[str], vocabulary_size: int | None) -> Backend:
    backend = _word_level(character for text in texts for character in text)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return backend


def _train_symbols(texts: Iterable[str], vocabulary_size: int | None) -> Backend:
    backend = _word_level(symbol for text in texts for symbol in text.split())
    backend.pre_tokenizer = _AT_WHITE_SPACE
    return backend


def _word_level(tokens: Iterator[str]) -> Backend:
    counts = Counter(tokens)
    known = sorted(counts, key=lambda token: (-counts[token], token))
    vocabulary = {token: token_id for token_id, token in enumerate((*_STORED, *known))}
    return Backend(models.WordLevel(vocabulary, unk_token=_STORED[UNK]))


def _train_bpe(texts: Iterable[str], vocabulary_size: int | None) -> Backend:
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


_TRAIN: dict[str, Callable[[Iterable[str], int | None], Backend]] = {
    "characters": _train_characters,
    SYMBOLS: _train_symbols,
    "bpe": _train_bpe,
}
