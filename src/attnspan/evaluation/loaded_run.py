"""A run that has a best checkpoint, loaded for decoding."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnspan.checksums import find_damage
from attnspan.config.instantiate import assemble_model, build_decoding, refuse_foreign_targets
from attnspan.data.extended_vocabulary import ExtendedVocabulary, extended_vocabulary
from attnspan.data.source_reader import SourceReader, load_source_reader
from attnspan.data.tokenizer import BOS, EOS, PAD, Tokenizer
from attnspan.errors import InputError, NotFiniteError
from attnspan.evaluation.sources import (
    EncodedSource,
    batches_of_rows,
    encode_given,
    encode_source,
    pad_given,
    pad_sources,
)
from attnspan.files import read_json
from attnspan.models.decoding.beam import Beam
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.decoding.length_penalty import NoLengthPenalty
from attnspan.models.decoding.strategy import DecodingStrategy, Hypotheses, Specials
from attnspan.models.seq2seq import Seq2Seq
from attnspan.runs.attention_maps import Picture
from attnspan.runs.checkpoint_file import GIVES_TOKENS, read_checkpoint
from attnspan.runs.layout import (
    BEST,
    CONFIG,
    FILES,
    LOADED,
    OWN_CODE,
    SUMMARY,
    TOKENIZERS,
    read_config,
    refuse_evaluation,
)
from attnspan.runs.own_code import changed_code

SPECIALS = Specials(pad=PAD, bos=BOS, eos=EOS)


class UnknownTokensWarning(UserWarning):
    """A source has tokens that the vocabulary lacks."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Hypothesis:
    """What a run decodes from one source."""

    text: str
    tokens: list[str]
    """T, without <eos>."""
    ids: list[int]
    """Of the tokens; from the vocabulary's size on, of words that an arm copies from the source."""
    log_prob: float
    """log p(hypothesis | source) in nats, <eos> counted unless truncated."""
    truncated: bool
    """Whether it reached the length limit without <eos>."""
    source_tokens: list[str]
    """S; of an image row and column of each region, as in ``1,3``."""
    unknown_tokens: list[str]
    """Tokens of the source, as it spells them, that the vocabulary lacks; ``<unk>`` stands for them."""
    weights: Float[Tensor, "T S"] | None
    """Attention weights on the CPU, the mean over heads, [0, S] of an empty hypothesis; None where there are none."""
    picture: Picture | None = None
    """The source, if it is an image, with the size of its regions."""

    def __repr__(self) -> str:
        """One line: the text and log p; of the weights, the sizes."""
        cut = ", truncated" if self.truncated else ""
        weights = "no weights" if self.weights is None else "weights [{}, {}]".format(*self.weights.shape)
        return f"Hypothesis({self.text!r}, log_prob={self.log_prob:.3f}{cut}, {weights})"


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedRun:
    """A finished run."""

    config: dict[str, Any]
    model: Seq2Seq
    """In evaluation mode."""
    decoding: DecodingStrategy
    """What the run was tested with."""
    source_tokenizer: SourceReader
    """Of texts, or what reads images."""
    target_tokenizer: Tokenizer
    gives_tokens: bool = False
    """The data of the run gives some target tokens to the decoder."""

    @cached_property
    def extended_vocabulary(self) -> ExtendedVocabulary | None:
        """The target's and the words of a source, where the arm copies."""
        return extended_vocabulary(self.model, source=self.source_tokenizer, target=self.target_tokenizer)

    def encode(self, source: Any, where: str) -> EncodedSource:
        """Read one source; see :func:`~attnspan.evaluation.sources.encode_source`."""
        return encode_source(self.source_tokenizer, source, where, self.extended_vocabulary)

    @overload
    def decode(
        self,
        sources: Sequence[Any],
        *,
        given: Sequence[Mapping[int, str]] | None = None,
        beam_size: int | None = None,
        n_best: None = None,
        batch_size: int = 64,
    ) -> list[Hypothesis]: ...
    @overload
    def decode(
        self,
        sources: Sequence[Any],
        *,
        given: Sequence[Mapping[int, str]] | None = None,
        beam_size: int | None = None,
        n_best: int,
        batch_size: int = 64,
    ) -> list[list[Hypothesis]]: ...
    def decode(
        self,
        sources: Sequence[Any],
        *,
        given: Sequence[Mapping[int, str]] | None = None,
        beam_size: int | None = None,
        n_best: int | None = None,
        batch_size: int = 64,
    ) -> list[Hypothesis] | list[list[Hypothesis]]:
        """Decode texts, or the images of a run on images, free-running.

        Sources with tokens that the vocabulary lacks are decoded with a :class:`UnknownTokensWarning`.

        Args:
            sources: any number of texts of any length, or of images: paths, the bytes of files, images of Pillow, or
                arrays of uint8, [height, width] or [height, width, C].
            given: for each source the tokens that its hypothesis has at positions from 0, as in ``{0: "k9"}``. A run
                whose data gives tokens to the decoder needs them.
            beam_size: use a beam of this size without length normalisation; None for the strategy that the run was
                tested with.
            n_best: hypotheses of each source; None for one.
            batch_size: sources in a batch; the hypotheses do not depend on it.

        Returns:
            A hypothesis for each source; with ``n_best`` a list of them, the best first. It is shorter where there are
            not so many.

        Raises:
            InputError: a source is not a text or has no token, or is an image that cannot be read, with its position;
                given tokens are missing, or are not one token each; the model gives no finite scores.
            SettingError: ``beam_size`` or ``n_best`` is less than 1, or the strategy does not find so many hypotheses.
        """
        decoding = self.decoding
        if beam_size is not None:
            decoding = Beam(limit=decoding.limit, beam_size=beam_size, length_penalty=NoLengthPenalty())
        if isinstance(sources, str):
            raise InputError("decode takes a list of sources, and this is one text: decode([text])")
        encoded = [self.encode(source, f"source {number}") for number, source in enumerate(sources)]
        fed = self._given(given, len(sources))
        _warn_of({row: one.unknown for row, one in enumerate(encoded) if one.unknown}, len(sources))
        found: dict[int, list[Hypothesis]] = {}
        for rows in batches_of_rows([one.length for one in encoded], batch_size):
            hypotheses = self._decode(
                decoding,
                [encoded[row] for row in rows],
                None if fed is None else pad_given([fed[row] for row in rows]),
                1 if n_best is None else n_best,
            )
            found |= dict(zip(rows, hypotheses, strict=True))
        lists = [found[row] for row in range(len(encoded))]
        return lists if n_best is not None else [hypotheses[0] for hypotheses in lists]

    def _given(self, given: Sequence[Mapping[int, str]] | None, sources: int) -> list[dict[int, int]] | None:
        """The given tokens of each source as ids."""
        if given is None:
            if self.gives_tokens and sources:
                raise InputError(
                    f"the data of this run, {self.config.get('data_name')}, gives target tokens to the decoder, and a "
                    "source alone does not say which: decode(sources, given=...) takes them, and attnspan-evaluate and "
                    "attnspan-inspect --examples have them from the data"
                )
            return None
        if len(given) != sources:
            raise InputError(f"given: there are {sources} sources, and given tokens for {len(given)}")
        return [encode_given(self.target_tokenizer, one, f"given {row}") for row, one in enumerate(given)]

    def _decode(
        self,
        decoding: DecodingStrategy,
        sources: list[EncodedSource],
        given: Int[Tensor, "B T"] | None,
        n_best: int,
    ) -> list[list[Hypothesis]]:
        source, lengths = pad_sources(sources)
        device = next(self.model.parameters()).device
        try:
            batch = decoding(
                self.model,
                source.to(device),
                lengths,
                specials=SPECIALS,
                with_weights=True,
                n_best=n_best,
                given_tokens=given,
            )
        except NotFiniteError as error:
            raise InputError(str(error)) from error
        is_found = (batch.log_prob > -torch.inf).view(-1, n_best).tolist()
        return [
            [self._hypothesis(batch, row * n_best + k, one) for k in range(n_best) if is_found[row][k]]
            for row, one in enumerate(sources)
        ]

    def _hypothesis(self, batch: Hypotheses, row: int, source: EncodedSource) -> Hypothesis:
        length = int(batch.lengths[row])
        picture = source.picture(self.model.encoder.region_size) if source.is_image else None
        names = source.position_names(self.source_tokenizer, picture)
        ids = batch.tokens[row, :length].tolist()
        return Hypothesis(
            text=self.target_tokenizer.decode(ids, source.oov_words),
            tokens=self.target_tokenizer.tokens(ids, source.oov_words),
            ids=ids,
            log_prob=float(batch.log_prob[row]),
            truncated=bool(batch.truncated[row]),
            source_tokens=names,
            unknown_tokens=source.unknown,
            weights=None if batch.weights is None else _on_cpu(batch.weights[row, :length, : len(names)]),
            picture=picture,
        )


@torch.no_grad()
def weights_of_heads(run: LoadedRun, source: Any, hypothesis: Hypothesis) -> Float[Tensor, "heads T S"] | None:
    """The weights of each head, on the CPU, in making ``hypothesis``, which ``run`` decoded from ``source``.

    They are computed again, from the hypothesis as the known target. None where the arm has no attention, or one head.
    """
    model, device = run.model, next(run.model.parameters()).device
    encoded, lengths = pad_sources([run.encode(source, "source")])
    memory = model.encode(encoded.to(device), lengths)
    target = torch.tensor([[BOS, *hypothesis.ids]], device=device)
    weights = model.unroll(target, memory)[1].head_weights
    return None if weights is None else weights[0, :, :-1].to("cpu", torch.float32)


def _warn_of(unknown: Mapping[int, Sequence[str]], sources: int) -> None:
    """Warn once of all sources with unknown tokens; name those of the first."""
    if unknown:
        row, tokens = next(iter(unknown.items()))
        shown = " ".join(map(repr, dict.fromkeys(tokens)))
        count = f"source {row} has" if len(unknown) == 1 else f"{len(unknown)} of {sources} sources have"
        first = "" if len(unknown) == 1 else f"; of source {row}"
        words = f"{count} tokens that are not in the source vocabulary{first}: {shown}"
        warnings.warn(words, UnknownTokensWarning, stacklevel=3)


def _on_cpu(weights: Float[Tensor, "T S"]) -> Float[Tensor, "T S"]:
    """The weights on the CPU, at least float32: numpy and files know nothing of bfloat16."""
    return weights.to("cpu", torch.promote_types(weights.dtype, torch.float32))


def load_run(directory: str | Path, *, trusted: Sequence[str] = ()) -> LoadedRun:
    """Load the best checkpoint of a run.

    Nothing in the directory can run code: weights load as tensors only, and the config may build only classes of
    attnspan and of the packages in ``trusted``, such as that of your own arm.

    Raises:
        InputError: the directory has no run, its checkpoint is damaged or does not fit its config, a file is not the
            one that its summary describes, the config names a class that is not trusted, or a trusted class is no
            longer what the run was computed with.
    """
    directory = Path(directory)
    refuse_evaluation(directory)
    config = read_config(directory)
    parts = [config[key] for key in ("rnn", "encoder", "decoder", "decoding") if key in config]
    if len(parts) < 4 or "model" not in config:
        raise InputError(f"{directory}: its config does not have all of rnn, encoder, decoder, decoding and model")
    refuse_foreign_targets(parts, ("attnspan", *trusted))
    _refuse_other_code(directory, parts, config.get(OWN_CODE))
    source = load_source_reader(directory / TOKENIZERS / "source.json")
    target = Tokenizer.load(directory / TOKENIZERS / "target.json")
    model = assemble_model(config, source_vocabulary_size=source.vocabulary_size, target_vocabulary_size=len(target))
    best = read_checkpoint(directory / BEST)
    state = best["state_dict"]
    weights = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"{directory / BEST}: does not fit the model that {CONFIG} describes; another version of attnspan wrote it"
        ) from error
    limit = best.get("length_limit", {"ratio": None, "margin": None})  # runs of version 5 have it in the config
    decoding = build_decoding(config, limit=LengthLimit(**limit))
    _refuse_other_files(directory)
    return LoadedRun(
        config=config,
        model=model.eval(),
        decoding=decoding,
        source_tokenizer=source,
        target_tokenizer=target,
        gives_tokens=best.get(GIVES_TOKENS, False),
    )


def _refuse_other_code(directory: Path, parts: list[Any], expected: Mapping[str, str] | None) -> None:
    changed = ", ".join(changed_code(parts, expected or {}))
    if changed and expected is None:
        warnings.warn(f"{directory}: the run does not say with which {changed} it was computed", stacklevel=3)
    elif changed:
        raise InputError(
            f"{directory}: {changed} changed since the run was computed, and its weights belong to the old code; start "
            f"Python with PYTHONPATH={shlex.quote(str(directory / OWN_CODE))}, where the run keeps its copy"
        )


def _refuse_other_files(directory: Path) -> None:
    """Check what a finished run's summary says of the files that are loaded.

    Weights decode with any tokenizer of the right size, and nobody sees it. Of an unfinished run nothing says what its
    files were.
    """
    if not (directory / SUMMARY).is_file():
        return
    manifest = read_json(directory / SUMMARY).get(FILES)
    known = {name: manifest[name] for name in LOADED if name in manifest} if isinstance(manifest, dict) else {}
    if damage := find_damage(directory, known):
        raise InputError(f"{directory}: {damage}; the results are of another file, and rerun=true computes them again")
