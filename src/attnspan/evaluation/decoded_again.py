"""Test examples that a finished run decodes once more, for the tokens and weights that its records do not keep.

Records keep texts, and runs keep the attention of three examples. A decoding is deterministic, so the best checkpoint
gives the rest again, whenever somebody wants to look. What it gives is checked against the records: an example whose
text is another one is left out, because its weights would explain an output that the study does not have.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnspan.data.given import given_tokens
from attnspan.data.tokenizer import Tokenizer
from attnspan.errors import InputError
from attnspan.runs.attention_maps import Picture
from attnspan.runs.finished_run import Run
from attnspan.runs.layout import BEST, TOKENIZERS

if TYPE_CHECKING:  # torch takes seconds to load, and a report without checkpoints does not need it
    from attnspan.evaluation.loaded_run import Hypothesis, LoadedRun


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedExample:
    """One test example in tokens, as a run reads and decodes it."""

    source: Sequence[str]
    """S."""
    reference: Sequence[str]
    output: Sequence[str]
    """The T tokens of the free-running hypothesis, without <eos>."""
    weights: NDArray[np.floating] | None = None
    """[T, S], the mean over heads; None where the arm has no attention, or where nothing was decoded again."""
    heads: NDArray[np.floating] | None = None
    """[heads, T, S]; None where there is one."""
    picture: Picture | None = None
    """The source, if it is an image; its regions are the S source positions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedRun:
    """Examples of a run in tokens."""

    run: Run
    examples: Mapping[str, DecodedExample]
    """By example id."""
    different: int = 0
    """Examples whose text is not that of the records any more. They are left out of ``examples``."""
    problem: str = ""
    """Why nothing was decoded again; empty where it was."""


def decode_again(run: Run, example_ids: Collection[str], *, trusted: Sequence[str] = ()) -> DecodedRun:
    """Decode the test examples ``example_ids`` as the test of ``run`` did.

    Args:
        run: a run or an evaluation.
        example_ids: of its records.
        trusted: packages whose classes the config may name, besides attnspan.

    Raises:
        InputError: the run has no checkpoint or tokenizers, or they cannot be loaded.
    """
    directory = run.trained_in
    if not (directory / BEST).is_file():
        raise InputError(f"{directory / BEST}: no such file")
    target = _tokenizer(run, "target")
    records = _records(run, example_ids)
    loaded = _load(run, trusted)  # after what fails at once: torch takes seconds to load
    from attnspan.evaluation.loaded_run import UnknownTokensWarning

    reader = loaded.source_tokenizer
    sources = records["source"].tolist()
    if not isinstance(reader, Tokenizer):
        from attnspan.evaluation.prepared_test import kept_images

        sources = kept_images(run, records["example_id"].tolist(), trusted)
    with warnings.catch_warnings(action="ignore", category=UnknownTokensWarning):  # the run has told the share
        hypotheses = loaded.decode(sources, given=given_in(records))
    heads = _heads(loaded, sources, hypotheses)
    examples = {}
    for row, hypothesis, of_heads in zip(records.itertuples(), hypotheses, heads, strict=True):
        if hypothesis.text == row.hypothesis and hypothesis.truncated == row.truncated:
            examples[str(row.example_id)] = DecodedExample(
                source=_spelled(reader, str(row.source)) if isinstance(reader, Tokenizer) else hypothesis.source_tokens,
                reference=_spelled(target, str(row.reference)),
                output=hypothesis.tokens,
                weights=None if hypothesis.weights is None else hypothesis.weights.numpy(),
                heads=of_heads,
                picture=hypothesis.picture,
            )
    return DecodedRun(run=run, examples=examples, different=len(records) - len(examples))


def given_in(records: pd.DataFrame) -> list[dict[int, str]] | None:
    """The target tokens that each of ``records`` was given, by position; None if there are none."""
    if records["given"].isna().all():
        return None
    return [given_tokens(*row) for row in zip(records["reference"], records["given"], strict=True)]


def tokenise_records(run: Run, example_ids: Collection[str], *, problem: str) -> DecodedRun:
    """The test examples ``example_ids`` in tokens, without decoding anything: the hypotheses are those of the records.

    The run's tokenizers cut the texts. Where they are gone too, each character is a token.

    Args:
        run: a run or an evaluation.
        example_ids: of its records.
        problem: why nothing was decoded.
    """
    source: Tokenizer | None = None
    target: Tokenizer | None = None
    with suppress(InputError):
        target = _tokenizer(run, "target")
        source = _tokenizer(run, "source")
    examples = {
        str(row.example_id): DecodedExample(
            source=_spelled(source, str(row.source)),
            reference=_spelled(target, str(row.reference)),
            output=_spelled(target, str(row.hypothesis)),
        )
        for row in _records(run, example_ids).itertuples()
    }
    return DecodedRun(run=run, examples=examples, problem=problem)


def _load(run: Run, trusted: Sequence[str]) -> LoadedRun:
    """The run with the strategy of its test, which is not that of the run where it is an evaluation."""
    from attnspan.config.instantiate import build_decoding, refuse_foreign_targets
    from attnspan.evaluation.loaded_run import load_run

    loaded = load_run(run.trained_in, trusted=trusted)
    if run.evaluation is None:
        return loaded
    refuse_foreign_targets(run.config["decoding"], ("attnspan", *trusted))
    return replace(loaded, decoding=build_decoding(run.config, limit=loaded.decoding.limit))


def _records(run: Run, example_ids: Collection[str]) -> pd.DataFrame:
    return run.records[run.records["example_id"].isin(example_ids)]


def _tokenizer(run: Run, side: str) -> Tokenizer:
    return Tokenizer.load(run.trained_in / TOKENIZERS / f"{side}.json")


def _heads(
    loaded: LoadedRun, sources: Sequence[Any], hypotheses: Sequence[Hypothesis]
) -> list[NDArray[np.floating] | None]:
    """The weights of the heads of each hypothesis; None for all if the arm has one head or none."""
    from attnspan.evaluation.loaded_run import weights_of_heads

    found: list[NDArray[np.floating] | None] = []
    for source, hypothesis in zip(sources, hypotheses, strict=True):
        weights = weights_of_heads(loaded, source, hypothesis) if hypothesis.tokens else None
        if weights is None and hypothesis.tokens:
            return [None] * len(hypotheses)
        found.append(None if weights is None else weights.numpy())
    return found


def _spelled(tokenizer: Tokenizer | None, text: str) -> list[str]:
    """The tokens of a text, of which one that the vocabulary lacks is as the text spells it; else its characters."""
    return list(text) if tokenizer is None else tokenizer.cut(text)
