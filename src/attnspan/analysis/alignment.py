"""How attention agrees with gold alignments."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from attnspan.data.alignment import GoldAlignment, Link

Floats = NDArray[np.float64]
_Count = TypeVar("_Count", int, Floats)


def entropy(weights: Floats) -> Floats:
    """-sum_i p_i log p_i in nats, for each output position; 0 where all attention lies on one source position.

    p is the weights [T, S] divided by their sum, so it is a distribution even where they sum to less than 1 (Luong's
    local-p), or to more (sigmoid). It is nan where all weights are 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        p = weights / weights.sum(axis=1, keepdims=True)
        surprise = np.where(p == 0, 0.0, -np.log(p))
    return (p * surprise).sum(axis=1) + 0.0  # no -0.0


def support(weights: Floats) -> Floats:
    """[T]: to how many source positions the weights [T, S] give any weight."""
    return (weights > 0).sum(axis=1).astype(np.float64)


def gold_attention(weights: Floats, gold: GoldAlignment) -> Floats:
    """[T]: the mass of ``weights`` [T, S] on the gold source positions of each target token; nan where it has none.

    Gold source positions of a token are those with a sure link to it. Weights that sum to more than 1 (sigmoid) are
    divided by their sum first; what is missing where they sum to less is no mass on gold positions.
    """
    needed = np.zeros(weights.shape, dtype=bool)
    for i, j in gold.sure:
        needed[j, i] = True
    mass = np.where(needed, weights, 0.0).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
    return np.where(needed.any(axis=1), mass, np.nan)


def links(weights: Floats) -> frozenset[Link]:
    """A: one link for each target token, to the source position of its largest weight (Luong et al. 2015, section 5.4).

    Of equal weights the first counts. A target token whose weights [T, S] are all 0 has no link.
    """
    return frozenset((int(weights[j].argmax()), j) for j in range(len(weights)) if weights[j].any())


def alignment_errors(
    *, links: _Count, gold_links: _Count, links_in_sure: _Count, links_in_possible: _Count
) -> tuple[_Count, _Count]:
    """Numerator and denominator of the alignment error rate (Och and Ney 2003, section 5).

    AER = 1 - (|A n S| + |A n P|) / (|A| + |S|), from |A|, |S|, |A n S| and |A n P|. Over a corpus the counts are summed
    first, as for any rate.
    """
    out_of = links + gold_links
    return out_of - links_in_sure - links_in_possible, out_of


def attention_columns(
    weights: Floats | None, gold: GoldAlignment | None, *, of_regions: bool = False, given: Collection[int] = ()
) -> dict[str, Any]:
    """The known columns of :class:`attnspan.runs.records.Record` that describe teacher-forced attention on one example.

    ``weights`` is [T, S] for the T target tokens (without ``<eos>``) and S source tokens, without padding; None for an
    arm without attention. ``of_regions`` says that source positions are regions of an image. There a token belongs to
    many, and the alignment error rate, which asks one link of a token to find them all, is left out. Target tokens at
    the positions ``given`` are not measured.
    """
    if weights is None:
        return {}
    columns: dict[str, Any] = {
        "attention_entropy": _or_none(entropy(weights), given),
        "attention_support": _or_none(support(weights), given),
    }
    if gold is not None:
        made, sure, possible = (
            {link for link in found if link[1] not in given} for found in (links(weights), gold.sure, gold.possible)
        )
        columns |= {
            "gold_attention": _or_none(gold_attention(weights, gold), given),
            "links": len(made),
            "gold_links": None if of_regions else len(sure),
            "links_in_sure": len(made & sure),
            "links_in_possible": len(made & possible),
        }
    return columns


def _or_none(values: Floats, given: Collection[int]) -> list[float | None]:
    return [None if np.isnan(value) or t in given else float(value) for t, value in enumerate(values)]
