"""The error curve with its intervals as an interactive W&B chart: a Vega-Lite preset, filled from a study's table.

W&B's own line plots know no interval but the deviation over runs; the table ``<data>/curve`` of a study has the true
ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAME = "attnspan-curve"
"""Of the preset, which belongs to an entity: ``<entity>/attnspan-curve``."""
TITLE = "Error rate by length, with intervals"
FIELDS = {"length": "mean_length", "rate": "error_rate", "low": "error_rate_low", "high": "error_rate_high"}
FIELDS |= {"arm": "arm", "total": "total"}
"""Field of the preset to column of the table."""


def specification(colours: Mapping[str, str]) -> dict[str, Any]:
    """The Vega-Lite chart: a line an arm, a band for its interval, a value on hovering; arms are shown by a click.

    ``colours`` maps arms to theirs; where there are none Vega's own are taken.
    """
    scale = {"domain": list(colours), "range": list(colours.values())} if colours else {}
    arm = {"field": "${field:arm}", "type": "nominal", "title": "arm", **({"scale": scale} if scale else {})}
    length = {"field": "${field:length}", "type": "quantitative", "title": "${string:unit}"}

    def measured(name: str, **more: Any) -> dict[str, Any]:
        return {"field": f"${{field:{name}}}", "type": "quantitative", **more}

    chosen = {"condition": {"param": "shown", "value": 1}, "value": 0.08}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"name": "wandb"},
        "width": "container",
        "height": "container",
        "transform": [{"filter": "!datum['${field:total}']"}],
        "params": [{"name": "shown", "select": {"type": "point", "fields": ["${field:arm}"]}, "bind": "legend"}],
        "encoding": {"x": length, "color": arm},
        "layer": [
            {
                "mark": {"type": "area", "opacity": 0.2},
                "encoding": {
                    "y": measured("low", title="error rate"),
                    "y2": {"field": "${field:high}"},
                    "opacity": {"condition": {"param": "shown", "value": 0.2}, "value": 0.02},
                },
            },
            {
                "mark": {"type": "line", "point": True},
                "encoding": {
                    "y": measured("rate", title="error rate"),
                    "opacity": chosen,
                    "tooltip": [arm, length, *(measured(name, format=".3f") for name in ("rate", "low", "high"))],
                },
            },
        ],
    }


def save(api: Any, *, entity: str, colours: Mapping[str, str]) -> None:
    """Make the preset of an entity on W&B, or leave the one that it has."""
    import wandb

    try:
        api.create_custom_chart(
            entity=entity, name=NAME, display_name=TITLE, spec_type="vega2", access="private",
            spec=specification(colours),
        )  # fmt: skip
    except wandb.Error as error:
        if "exist" not in str(error).lower():
            raise
