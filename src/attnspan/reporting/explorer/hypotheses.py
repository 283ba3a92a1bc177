"""The explorer of one source without a reference: what several arms write for it, and where they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attnspan.evaluation.decoded_again import DecodedExample
from attnspan.reporting.explorer.document import render
from attnspan.reporting.explorer.packing import edit_path, packed, quantised
from attnspan.reporting.plots import styles


@dataclass(frozen=True)
class ArmOutput:
    """What an arm wrote."""

    arm: str
    seed: int
    decoded: DecodedExample


def explorer_of(outputs: Sequence[ArmOutput], *, title: str, form: str = "") -> str:
    """The HTML file. The slider runs over the output of the first arm, to which those of the others are aligned.

    Args:
        outputs: of one source, which all arms read as the same tokens.
        title: of the page.
        form: HTML to stand above, where a server takes the next source.
    """
    labels = [one.arm for one in outputs]
    colours = styles(labels)
    reference = list(outputs[0].decoded.output)
    arms = [
        {"label": one.arm, "shown": one.arm, "colour": colours[one.arm].colour, "seeds": [one.seed], "seed": one.seed}
        | {"without": "It has no attention"}
        for one in outputs
    ]
    example = {"id": "1", "source": list(outputs[0].decoded.source), "reference": reference}
    content: dict[str, object] = {
        "data": "hypothesis", "arms": arms, "metrics": [], "axes": [], "kinds": [], "notes": [], "chosen": "",
        "examples": [example | {"outputs": [_entry(one.decoded, reference) for one in outputs]}],
        "separators": {"source": " ", "reference": " "}, "training": {"losses": [], "errors": [], "side": ""},
        "withoutReference": True,
    }  # fmt: skip
    weights = b"".join(
        quantised(one.decoded.weights).tobytes()
        for one in outputs
        if one.decoded.weights is not None and one.decoded.output
    )
    return render(content, [packed(weights) if weights else ""], title=title, form=form)


def _entry(decoded: DecodedExample, reference: list[str]) -> dict[str, Any]:
    tokens = list(decoded.output)
    entry: dict[str, Any] = {"edits": 0, "edits_by_seed": [0], "exact": True, "tokens": tokens}
    entry["path"] = edit_path(tokens, reference)
    return entry | ({"maps": 1} if decoded.weights is not None and tokens else {})
