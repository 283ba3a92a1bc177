"""The attention of a model on a few examples, the same ones for every arm."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from datasets import Dataset

from attnspan.data.arrow import PIXELS, without_pixels
from attnspan.data.given import GIVEN, given_tokens
from attnspan.data.images.columns import images_of
from attnspan.data.pipeline.prepare import token_counts
from attnspan.data.tokenizer import BOS
from attnspan.errors import InputError, NotFiniteError
from attnspan.evaluation.loaded_run import LoadedRun, UnknownTokensWarning
from attnspan.evaluation.sources import pad_sources
from attnspan.runs.attention_maps import AttentionMap


def decode_shown_examples(run: LoadedRun, test: Dataset, *, longest_trained: int) -> dict[str, AttentionMap]:
    """Decode the :func:`shown_examples` of the test split one by one.

    Returns:
        Example id -> map; nothing for an arm without attention, for an empty hypothesis, and where the model gives no
        finite scores.
    """
    lengths = token_counts(test, "source").tolist()
    rows = shown_examples(test["id"][:], lengths, longest_trained=longest_trained)
    sources = images_of(test, rows) if PIXELS in test.column_names else test[rows]["source"]
    given = None
    if GIVEN in test.column_names:
        given = [given_tokens(test[row]["target"], test[row][GIVEN]) for row in rows]
    with warnings.catch_warnings(action="ignore", category=UnknownTokensWarning):  # the run has told the share in test
        try:
            hypotheses = run.decode(sources, given=given, batch_size=1)
        except InputError as error:
            if isinstance(error.__cause__, NotFiniteError):  # an exploded model may overflow here, and not in
                return {}  # the test, whose sums have another order; its summary says what it is
            raise
    return {
        name: AttentionMap(
            source=one.source_tokens, output=one.tokens, weights=one.weights.numpy(), picture=one.picture
        )
        for name, one in zip(without_pixels(test)[rows]["id"], hypotheses, strict=True)
        if one.weights is not None and one.tokens
    }


@torch.no_grad()
def maps_of_references(run: LoadedRun, split: Dataset) -> dict[str, AttentionMap]:
    """The attention on the shortest and the longest example of a split, in reading their references.

    Returns:
        Example id -> map, the shorter first; nothing for an arm without attention, and for empty references.
    """
    lengths = token_counts(split, "source").tolist()
    rows = shown_examples(split["id"][:], lengths, longest_trained=max(lengths))
    model, maps, reader = run.model, dict[str, AttentionMap](), run.source_tokenizer
    device = model.readout.weight.device
    sources = images_of(split, rows) if PIXELS in split.column_names else split[rows]["source"]
    of_split = without_pixels(split)[rows]
    for source, name, reference in zip(sources, of_split["id"], of_split["target_ids"], strict=True):
        encoded = run.encode(source, name)
        tokens, sizes = pad_sources([encoded])
        target = torch.tensor([[BOS, *reference]], device=device)
        weights = model.unroll(target, model.encode(tokens.to(device), sizes))[1].weights
        if weights is None or not reference:
            continue
        picture = encoded.picture(model.encoder.region_size) if encoded.is_image else None
        maps[name] = AttentionMap(
            source=encoded.position_names(reader, picture),
            output=run.target_tokenizer.tokens(reference),
            weights=weights[0, :-1].to("cpu", torch.float32).numpy(),
            picture=picture,
        )
    return maps


def shown_examples(names: Sequence[str], lengths: Sequence[int], *, longest_trained: int) -> list[int]:
    """Rows of the test split whose attention is kept, chosen by a rule and not by their looks.

    They are the shortest source, the longest that is no longer than training's longest, and the longest of all, in this
    order and each once; of sources of one length, the one whose id comes first. Lengths are in source tokens.
    """
    rows = sorted(range(len(names)), key=lambda row: (lengths[row], names[row]))
    in_range = [row for row in rows if lengths[row] <= longest_trained]
    chosen = [rows[0]]
    for candidates in (in_range, rows):
        if candidates:
            longest = lengths[candidates[-1]]
            chosen.append(next(row for row in candidates if lengths[row] == longest))
    return list(dict.fromkeys(chosen))
