"""How much of the loss of an output token reaches the source token that it needs.

For output t (from 1) and source position j (from 1) of one example this is the norm

    || d loss_t / d e_j ||_2        loss_t = -log p(y_t | y_<t, x), teacher-forced; e_j the embedded source token j

and the distance between the two is the least number of recurrent steps between them in a plain encoder-decoder, whose
decoder knows of the source nothing but the encoder's last word:

    d(j, t) = t + min(S - j, j - 1)     a bidirectional encoder: forwards from j to S, or backwards from j to 1
    d(j, t) = t + S - j                 an encoder that reads forwards only
    d(j, t) = t + j - 1                 one that reads backwards only, or whose last word is the backward direction's

It is the distance of the pair, the same for every arm: attention may take a shorter way, and that is the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attnspan.config.instantiate import assemble_model
from attnspan.data.alignment import Link
from attnspan.data.tokenizer import BOS, EOS, PAD
from attnspan.evaluation.loaded_run import LoadedRun
from attnspan.models.encoders.base import Encoder
from attnspan.models.encoders.recurrent import BidirectionalEncoder, UnidirectionalEncoder
from attnspan.models.seq2seq import Seq2Seq


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """One example and the source positions that its outputs need.

    Attributes:
        source: its S token ids.
        target: its T token ids, without <eos>.
        links: (source position, target position), both from 0.
    """

    source: Sequence[int]
    target: Sequence[int]
    links: Sequence[Link]


def steps_between(encoder: Encoder, link: Link, source_length: int) -> int:
    """d(j, t) of the module's head for a link, whose positions count from 0."""
    j, t = link
    ahead, behind = source_length - 1 - j, j
    if isinstance(encoder, UnidirectionalEncoder):
        ways = [behind if encoder.reverse else ahead]
    elif isinstance(encoder, BidirectionalEncoder) and encoder.final_state == "backward":
        ways = [behind]
    else:
        ways = [ahead, behind]
    return t + 1 + min(ways)


def initial_model(run: LoadedRun) -> Seq2Seq:
    """The run's model as it was before training: the same weights, drawn again from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.config["seed"])
        return assemble_model(
            run.config,
            source_vocabulary_size=len(run.source_tokenizer),
            target_vocabulary_size=len(run.target_tokenizer),
        ).eval()


def gradient_norms(
    model: Seq2Seq, examples: Sequence[Aligned], *, outputs: int, batch_size: int = 16
) -> list[dict[Link, float]]:
    """|| d loss_t / d e_j || over links of each example.

    It is computed in float64, to which the model is moved: the square of a norm below 1e-19 is 0 in float32.

    Args:
        model: in evaluation mode.
        examples: any number.
        outputs: at most so many outputs of an example are looked at, spread evenly over its target.
        batch_size: examples side by side; the norms do not depend on it, but which outputs are looked at does.

    Returns:
        for each example the norms of its links to the outputs looked at.
    """
    model.double()
    order = sorted(range(len(examples)), key=lambda row: len(examples[row].target))  # neighbours of similar length
    found: dict[int, dict[Link, float]] = {}
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        found.update(zip(rows, _batch_norms(model, [examples[row] for row in rows], outputs), strict=True))
    return [found[row] for row in range(len(examples))]


def _batch_norms(model: Seq2Seq, examples: Sequence[Aligned], outputs: int) -> list[dict[Link, float]]:
    """One backward pass an output t, for all examples of the batch at once: no loss knows of another example."""
    embedded, loss = _losses(model, examples)
    found: list[dict[Link, float]] = [{} for _ in examples]
    longest = max(len(example.target) for example in examples)
    for t in np.unique(np.linspace(0, longest - 1, min(outputs, longest)).round().astype(int)).tolist():
        (gradient,) = torch.autograd.grad(loss[:, t].sum(), embedded, retain_graph=True)  # [B, S, E]
        norms = gradient.norm(dim=-1).tolist()
        for row, example in enumerate(examples):
            found[row] |= {link: norms[row][link[0]] for link in example.links if link[1] == t}
    return found


def _losses(model: Seq2Seq, examples: Sequence[Aligned]) -> tuple[Tensor, Tensor]:
    """The embedded sources [B, S, E] and, computed from them, loss_t [B, T+1], 0 in padding."""
    leaves: list[Tensor] = []

    def cut(module: torch.nn.Module, arguments: tuple[Tensor, ...], embedded: Tensor) -> Tensor:
        """Let the graph begin at the embeddings, each position its own."""
        leaves.append(embedded.detach().requires_grad_())
        return leaves[0]

    source = _padded([example.source for example in examples])
    lengths = torch.tensor([len(example.source) for example in examples])
    target = _padded([[BOS, *example.target, EOS] for example in examples])
    hook = model.source_embedding.register_forward_hook(cut)
    try:
        logits, _ = model(source, lengths, target[:, :-1])
    finally:
        hook.remove()
    expected = target[:, 1:]
    loss = F.cross_entropy(logits.flatten(0, 1), expected.flatten(), ignore_index=PAD, reduction="none")
    return leaves[0], loss.view_as(expected)


def _padded(sequences: Sequence[Sequence[int]]) -> Tensor:
    """[B, longest] int64."""
    rows = torch.full((len(sequences), max(map(len, sequences))), PAD)
    for row, ids in enumerate(sequences):
        rows[row, : len(ids)] = torch.tensor(ids)
    return rows
