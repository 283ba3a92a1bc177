"""By which length the results of a run are given: as its data set is configured, or as its data suggests."""

from __future__ import annotations

from typing import Any

from attnspan.analysis.lengths.axis import LengthAxis, side_beyond_training
from attnspan.analysis.lengths.training_range import TrainingRange
from attnspan.data.corpora.base import SIDES
from attnspan.data.pipeline.prepare import PreparedData, token_counts


def length_axis(config: dict[str, Any], data: PreparedData) -> LengthAxis:
    """The axis that a report on the run has by default."""
    trained = training_range(data)
    tested = (token_counts(data.test, side) for side in SIDES)
    axis = LengthAxis(config["data"].get("length") or side_beyond_training([trained], *tested))
    return LengthAxis(axis.name, trained.longest(axis.side)) if axis.is_multiple else axis


def training_range(data: PreparedData) -> TrainingRange:
    """The longest source and the longest target in training."""
    return TrainingRange(data.training_lengths[1], data.training_target_lengths[1])
