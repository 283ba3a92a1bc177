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


_PACKAGES = {
    "models.attention": "attention scores windows",
    "models.decoders": "bahdanau luong plain",
    "models.recurrence": "recurrence",
    "data.corpora": "copy files hub parallel pronunciation recall reverse sigmorphon2020",
}
"""Package of ``attnspan`` -> its modules that were formerly one level above it."""

_MODULES = {
    f"{package.partition('.')[0]}.{name}": f"{package}.{name}"
    for package, names in _PACKAGES.items()
    for name in names.split()
} | {"models.encoder": "models.encoders.recurrent", "models.fused_recurrence": "models.recurrence.fused"}
"""Former module of ``attnspan`` -> the one where its classes are."""

_CLASSES = {
    "attnspan.models.search.Beam": "attnspan.models.decoding.beam.Beam",
    "attnspan.models.search.Greedy": "attnspan.models.decoding.greedy.Greedy",
    "attnspan.models.search.LengthLimit": "attnspan.models.decoding.length_limit.LengthLimit",
    "attnspan.models.decoding.strategy.LengthLimit": "attnspan.models.decoding.length_limit.LengthLimit",
    "attnspan.models.transformer.TransformerDecoder": "attnspan.models.decoders.transformer.TransformerDecoder",
    "attnspan.models.transformer.TransformerEncoder": "attnspan.models.encoders.transformer.TransformerEncoder",
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
    return {key: rename_classes(value, _todays_class) for key, value in renamed.items()}


_LENGTH_NORMALISATION = "attnspan.models.decoding.length_penalty.LengthNormalisation"
_AT_THE_TOP = ("search", "choose_by", "checkpoint_every")


def _todays_class(path: str) -> str:
    if path in _CLASSES:
        return _CLASSES[path]
    module, _, name = path.removeprefix("attnspan.").rpartition(".")
    return f"attnspan.{_MODULES[module]}.{name}" if path.startswith("attnspan.") and module in _MODULES else path
