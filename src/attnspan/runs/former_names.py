"""Names that keys and classes had formerly, so that a typed one is recognised and an old run can be read.

Runs of results version 5 were made when all modules lay flat in ``attnspan``. Only reading knows about them: what is
written has today's names.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from attnspan.errors import nearest
from attnspan.runs.stable_name import rename_classes

FORMER_KEYS = {
    "search": "decoding",
    "choose_by": "selection_metric",
    "checkpoint_every": "checkpoint_interval",
    "at_a_time": "n_jobs",
    "final": "final_state",
    "length_normalisation": "length_penalty",
}
"""Former name of a key or group -> its name."""


def nearest_key(key: str, known: Iterable[str]) -> str:
    """As :func:`nearest`; what a key was called formerly leads to its name of today, however it is spelled."""
    known = list(known)
    near = difflib.get_close_matches(key, [*FORMER_KEYS, *known], n=1, cutoff=0.8)
    today = FORMER_KEYS.get(near[0]) if near else None
    return f"it is called '{today}' now" if today in known else nearest(key, known)


_OF_CORPORA = ("data", "data.corpora")
"""Packages in which a corpus may have been formerly."""

_PACKAGES = {
    "models.attention": "attention scores windows",
    "models.decoders": "bahdanau luong plain",
    "models.recurrence": "recurrence",
    "data.corpora": "files hub parallel pronunciation sigmorphon2020",
}
"""Package of ``attnspan`` -> its modules that were formerly one level above it."""

_MODULES = {
    f"{package.partition('.')[0]}.{name}": f"{package}.{name}"
    for package, names in _PACKAGES.items()
    for name in names.split()
} | {
    "models.encoder": "models.encoders.recurrent",
    "models.fused_recurrence": "models.recurrence.fused",
    **{f"{where}.{name}": f"data.corpora.synthetic.{name}" for where in _OF_CORPORA for name in ("copy", "reverse")},
}
"""Former module of ``attnspan`` -> the one where its classes are."""

_RECALL_TWO_HOP = "attnspan.data.corpora.synthetic.recall_two_hop.RecallTwoHop"
_CLASSES = {
    "attnspan.models.search.Beam": "attnspan.models.decoding.beam.Beam",
    "attnspan.models.search.Greedy": "attnspan.models.decoding.greedy.Greedy",
    "attnspan.models.search.LengthLimit": "attnspan.models.decoding.length_limit.LengthLimit",
    "attnspan.models.decoding.strategy.LengthLimit": "attnspan.models.decoding.length_limit.LengthLimit",
    "attnspan.models.transformer.TransformerDecoder": "attnspan.models.decoders.transformer.TransformerDecoder",
    "attnspan.models.transformer.TransformerEncoder": "attnspan.models.encoders.transformer.TransformerEncoder",
    **{f"attnspan.{where}.recall.Recall": _RECALL_TWO_HOP for where in _OF_CORPORA},
}
"""Former path of a class -> where it is."""


def with_todays_names(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a run, whenever it was made, with the keys and class paths of today."""
    renamed = {FORMER_KEYS.get(key, key) if key in _AT_THE_TOP else key: value for key, value in config.items()}
    if isinstance(encoder := renamed.get("encoder"), dict):
        renamed["encoder"] = {FORMER_KEYS.get(key, key): value for key, value in encoder.items()}
    decoding = renamed.get("decoding")
    if isinstance(decoding, dict) and "length_normalisation" in decoding:  # was an exponent
        penalty = {"_target_": _LENGTH_NORMALISATION, "exponent": decoding["length_normalisation"]}
        others = {key: value for key, value in decoding.items() if key != "length_normalisation"}
        renamed["decoding"] = others | {"length_penalty": penalty}
    renamed |= {key: _with_todays_data_name(value) for key, value in renamed.items() if isinstance(value, dict)}
    return {key: rename_classes(value, _todays_class) for key, value in _with_todays_data_name(renamed).items()}


def todays_data_name(name: str, data: Any) -> str:
    """The name of a data set from the one that it was given and its config: what was recall is recall_two_hop."""
    is_two_hop = isinstance(data, dict) and _todays_class(str(data.get("_target_"))) == _RECALL_TWO_HOP
    is_former = is_two_hop and name in ("recall", "recall-train", "recall-validation")
    return name.replace("recall", "recall_two_hop") if is_former else name


def _with_todays_data_name(node: dict[str, Any]) -> dict[str, Any]:
    """The config of a run, or what was asked of an evaluation."""
    name = node.get("data_name")
    return node if name is None else node | {"data_name": todays_data_name(name, node.get("data"))}


_LENGTH_NORMALISATION = "attnspan.models.decoding.length_penalty.LengthNormalisation"
_AT_THE_TOP = ("search", "choose_by", "checkpoint_every")


def _todays_class(path: str) -> str:
    if path in _CLASSES:
        return _CLASSES[path]
    module, _, name = path.removeprefix("attnspan.").rpartition(".")
    return f"attnspan.{_MODULES[module]}.{name}" if path.startswith("attnspan.") and module in _MODULES else path
