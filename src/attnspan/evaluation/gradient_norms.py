"""How much of the gradient of an output token's loss reaches the source token that it is aligned with.

For output t (from 1) and source position j (from 1) of one example this is the norm

    || d loss_t / d e_j ||_2        loss_t = -log p(y_t | y_<t, x), teacher-forced; e_j the embedded source token j

and the distance is the least number of recurrent steps between the two in a plain encoder-decoder, whose decoder knows
of the source only the encoder's final state:

    d(j, t) = t + min(S - j, j - 1)     a bidirectional encoder: forwards from j to S, or backwards from j to 1
    d(j, t) = t + S - j                 an encoder that reads forwards only
    d(j, t) = t + j - 1                 one that reads backwards only, or has the backward direction's final state

The distance of a pair is the same for every arm. Whether attention offers a shorter path is the question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from attnspan.analysis.gradient_flow import INITIAL, TRAINED
from attnspan.config.instantiate import assemble_model
from attnspan.data.alignment import Link
from attnspan.data.tokenizer import BOS, EOS, PAD, Tokenizer
from attnspan.errors import InputError
from attnspan.evaluation.loaded_run import LoadedRun, load_run
from attnspan.evaluation.sources import batches_of_rows, padded
from attnspan.models.encoders.base import Encoder
from attnspan.models.encoders.recurrent import BidirectionalEncoder, UnidirectionalEncoder
from attnspan.models.seq2seq import Seq2Seq
from attnspan.runs.finished_run import Run

MAX_OUTPUTS = 12
"""The largest number of outputs measured in an example."""


@dataclass(frozen=True, kw_only=True)
class AlignedExample:
    """One example and the source positions that its outputs are aligned with."""

    source: Sequence[int]
    """S token ids."""
    target: Sequence[int]
    """T token ids, without <eos>; of the extended vocabulary for an arm that copies."""
    links: Sequence[Link]
    """(source position, target position), both from 0."""
    in_target: Sequence[int] | None = None
    """For an arm that copies, the ids of the source tokens in the extended vocabulary."""


def steps_between(encoder: Encoder, link: Link, source_length: int) -> int:
    """d(j, t) of the module's docstring for a link, whose positions count from 0."""
    j, t = link
    forwards, backwards = source_length - 1 - j, j
    if isinstance(encoder, UnidirectionalEncoder):
        encoder_steps = backwards if encoder.reverse else forwards
    elif isinstance(encoder, BidirectionalEncoder) and encoder.final_state == "backward":
        encoder_steps = backwards
    else:
        encoder_steps = min(forwards, backwards)
    return t + 1 + encoder_steps


def initial_model(run: LoadedRun) -> Seq2Seq:
    """The run's model as it was before training: the same weights, drawn again from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.config["seed"])
        return assemble_model(
            run.config,
            source_vocabulary_size=run.source_tokenizer.vocabulary_size,
            target_vocabulary_size=len(run.target_tokenizer),
        ).eval()


def gradient_norms(
    model: Seq2Seq, examples: Sequence[AlignedExample], *, outputs: int, batch_size: int = 16
) -> list[dict[Link, float]]:
    """|| d loss_t / d e_j || for those links of each example whose outputs are measured.

    The model is converted to float64: the square of a norm below 1e-19 is 0 in float32.

    At most ``outputs`` outputs of an example are measured, spread evenly over the longest target of its batch. Which
    ones depends on ``batch_size``, their norms do not. The model is in evaluation mode.
    """
    model.double()
    norms: dict[int, dict[Link, float]] = {}
    for rows in batches_of_rows([len(example.target) for example in examples], batch_size):
        norms.update(zip(rows, _batch_norms(model, [examples[row] for row in rows], outputs), strict=True))
    return [norms[row] for row in range(len(examples))]


def _batch_norms(model: Seq2Seq, examples: Sequence[AlignedExample], outputs: int) -> list[dict[Link, float]]:
    """One backward pass for each output t, for all examples at once: a loss depends on its own example only."""
    embedded, loss = _losses(model, examples)
    found: list[dict[Link, float]] = [{} for _ in examples]
    longest = max(len(example.target) for example in examples)
    for t in np.unique(np.linspace(0, longest - 1, min(outputs, longest)).round().astype(int)).tolist():
        (gradient,) = torch.autograd.grad(loss[:, t].sum(), embedded, retain_graph=True)  # [B, S, E]
        norms = gradient.norm(dim=-1).tolist()
        for row, example in enumerate(examples):
            found[row] |= {link: norms[row][link[0]] for link in example.links if link[1] == t}
    return found


def _losses(model: Seq2Seq, examples: Sequence[AlignedExample]) -> tuple[Float[Tensor, "B S E"], Float[Tensor, "B T"]]:
    """The embedded sources and, computed from them, loss_t, 0 in padding."""
    source, lengths = padded(example.source for example in examples)
    target, _ = padded([BOS, *example.target, EOS] for example in examples)
    # The graph begins at the embedded tokens, so that each position has a gradient of its own.
    embedded = model.source_embedding(source).detach().requires_grad_()
    in_target = [example.in_target for example in examples if example.in_target is not None]
    if in_target:
        source = torch.stack([source, padded(in_target)[0]], dim=1)
    hook = model.source_embedding.register_forward_hook(lambda *_: embedded)
    try:
        logits, _ = model(source, lengths, target[:, :-1])
    finally:
        hook.remove()
    expected = target[:, 1:]
    loss = F.cross_entropy(logits.flatten(0, 1), expected.flatten(), ignore_index=PAD, reduction="none")
    return embedded, loss.view_as(expected)


def proportional_links(source_length: int, target_length: int) -> list[Link]:
    """In place of an alignment: each target position with the source position at the same fraction of the length."""
    return [((2 * t + 1) * source_length // (2 * target_length), t) for t in range(target_length)]


def measure_norms(
    run: Run, chosen: pd.DataFrame, gold: dict[str, list[Link]] | None, trusted: Sequence[str]
) -> pd.DataFrame:
    """Measure a run: one row for each state of training and link, with columns ``state``, ``steps`` and ``norm``."""
    loaded = load_run(run.directory, trusted=trusted)
    examples = list(_aligned(loaded, chosen, gold))
    rows = []
    for state, model in ((INITIAL, initial_model(loaded)), (TRAINED, loaded.model)):
        for example, norms in zip(examples, gradient_norms(model, examples, outputs=MAX_OUTPUTS), strict=True):
            for link, norm in norms.items():
                rows.append((state, steps_between(model.encoder, link, len(example.source)), norm))
    return pd.DataFrame(rows, columns=["state", "steps", "norm"])


def _aligned(loaded: LoadedRun, chosen: pd.DataFrame, gold: dict[str, list[Link]] | None) -> Iterator[AlignedExample]:
    if not isinstance(loaded.source_tokenizer, Tokenizer):
        raise InputError("gradient flow is measured between tokens, and the sources of this run are images")
    for row in chosen.itertuples():
        source = loaded.encode(str(row.source), str(row.example_id))
        target = loaded.target_tokenizer.encode(str(row.reference))
        if loaded.extended_vocabulary is not None:
            target = loaded.extended_vocabulary.extend_target(target, str(row.reference), source.oov_words)
        links = gold[str(row.example_id)] if gold else proportional_links(source.length, len(target))
        assert isinstance(source.content, list)
        yield AlignedExample(source=source.content, target=target, links=links, in_target=source.in_target)
