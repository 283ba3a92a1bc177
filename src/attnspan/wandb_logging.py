"""One run here is one run on W&B, which mirrors it: nothing that counts is ever read back.

==========================  ==================================================================================
keys                        what they are
==========================  ==================================================================================
``train/``                  loss, learning rate and norm of the gradient, against ``update``
``validation/``             what ``metrics.csv`` has of each validation, against ``update``
``validation_by_length/``   the same for each bin of source length
``cost/``                   tokens a second and peak memory, against ``update``
``test_by_length/``         every metric of the test, against ``test_by_length/source_length``, a row a bin
``quality_by_length``       the same as one plot; ``test/by_length``: as a table
``test/examples``           some test examples, with maps of attention; ``test/attention_1`` ...: maps alone
==========================  ==================================================================================

The summary has the scores of the whole test, the span, what the run cost, and why it failed if it did.
"""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from attnspan.errors import reason_of
from attnspan.identity import CHANGES_NOTHING, flatten
from attnspan.wandb_session import DISABLED, UPDATE, VARIANT, logged_until, session

_BY_LENGTH = "test_by_length"
_CURVES = ("train", "validation", "validation_by_length", "cost")
_LONGEST_TAG = 64
"""Characters, by W&B's rule."""
_QUALITY = ("error_rate", "exact_match", "token_accuracy")
"""What the plot against length shows."""
_FACTS = (
    "parameters",
    "updates",
    "best_update",
    "best_validation_loss",
    "wall_seconds",
    "train_seconds",
    "validation_seconds",
    "test_seconds",
    "tokens_per_second",
    "decode_tokens_per_second",
    "peak_memory_mb",
    "device",
    "git_commit",
)
"""Of the run's summary, for W&B's."""


class Mirror(Logger):
    """Lightning's way to W&B.

    Args:
        run: on W&B.
        gauges: asked for more to log whenever the training loss is.
        logged: the last update of which each key was logged before.
        examples: the most to show.
        say: takes lines for people.
    """

    def __init__(
        self,
        run: Any,
        *,
        gauges: Callable[[], Mapping[str, float]],
        logged: Mapping[str, int],
        examples: int,
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._run = run
        self._gauges = gauges
        self._logged = logged
        self._examples = examples
        self._say = say
        for name in _CURVES:
            run.define_metric(f"{name}/*", step_metric=UPDATE)
        run.define_metric(f"{_BY_LENGTH}/*", step_metric=f"{_BY_LENGTH}/source_length")

    @property
    def name(self) -> str:
        """Of the project."""
        return str(self._run.project)

    @property
    def version(self) -> str:
        """Of the run, its id."""
        return str(self._run.id)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the config was given when the run began."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log what Lightning logs; its ``step`` is the number of updates before this one."""
        assert step is not None
        more = self._gauges() if "train/loss" in metrics else {}
        self._log({**metrics, **more}, step + 1)

    def catch_up(self, curves: str) -> None:
        """Log what is not logged yet of the ``curves`` in a checkpoint, the content of ``metrics.csv``.

        The run was killed, and W&B with it before it had all on the disk; what it cost is not in there and stays lost.
        """
        for row in csv.DictReader(io.StringIO(curves)):
            self._log(
                {key: float(value) for key, value in row.items() if value and key != "step"}, int(row["step"]) + 1
            )

    def log_results(self, directory: Path, config: dict[str, Any], summary: Mapping[str, Any]) -> None:
        """Log what the test has shown. What goes wrong in it is told, and harms no result.

        Args:
            directory: of the run, with its records.
            config: resolved.
            summary: all of it, though it may not be written yet.
        """
        try:
            self._log_results(directory, config, summary)
        except Exception as error:
            self._say(f"W&B: the results could not be mirrored ({reason_of(error)}); here they are whole")

    def _log(self, row: Mapping[str, Any], update: int) -> None:
        new = {key: value for key, value in row.items() if update > self._logged.get(key, 0)}
        if new.keys() - {"epoch"}:
            self._run.log({UPDATE: update, **new})

    def _log_results(self, directory: Path, config: dict[str, Any], summary: Mapping[str, Any]) -> None:
        import wandb

        from attnspan.collect import Collection, Run
        from attnspan.records import read_records
        from attnspan.rundir import RECORDS
        from attnspan.study import build_study

        records = read_records(directory / RECORDS).sort_values(["source_length", "example_id"], ignore_index=True)
        run = Run(directory, dict(summary), config, records, label=str(summary["arm"]))
        study = build_study(Collection((run,), ()))
        points = [point for point in study.curve if not point.region.total]
        attention = {point.region: point for point in study.attention}
        rows = [
            {
                "source_length": point.region.mean_length,
                **{name: one.value for name, one in point.metrics.items()},
                **({name: one.value for name, one in attention[point.region].metrics.items()} if attention else {}),
            }
            for point in points
        ]
        update = summary["updates"]
        for row in rows:
            self._log({f"{_BY_LENGTH}/{name}": value for name, value in row.items()}, update)
        table = wandb.Table(
            columns=["source tokens", "side", "examples", *rows[0]],
            data=[
                [point.region.label, point.region.side, point.region.examples, *row.values()]
                for point, row in zip(points, rows, strict=True)
            ],
        )
        plot = wandb.plot.line_series(
            xs=[row["source_length"] for row in rows],
            ys=[[row[name] for row in rows] for name in _QUALITY],
            keys=list(_QUALITY),
            title="Quality by source length",
            xname="source tokens",
        )
        media = {"test/by_length": table, "quality_by_length": plot}
        if self._examples:
            media |= self._shown(run)
        self._log(media, update)
        self._run.summary.update({f"test/{name}": value for name, value in summary["test"].items()})
        self._run.summary.update({name: summary[name] for name in _FACTS})
        for one in study.spans:
            self._run.summary.update(
                {
                    "span/tokens": one.span.length.tokens,
                    "span/low": one.span.low.tokens,
                    "span/high": one.span.high.tokens,
                    "span/in_words": f"{one.span.length} tokens ({one.span.low} to {one.span.high})",
                }
            )

    def _shown(self, run: Any) -> dict[str, Any]:
        """The examples of which attention was kept, then others evenly over the lengths; the shortest first."""
        import wandb
        from PIL import Image

        from attnspan.attended import read_attended
        from attnspan.heatmap_plot import draw, small_png

        maps = read_attended(run.directory) or {}
        ids = run.records["example_id"]
        spread = ids.iloc[np.linspace(0, len(ids) - 1, min(self._examples, len(ids)), dtype=int)]
        chosen = list(dict.fromkeys([*maps, *spread]))[: self._examples]
        columns = ["example_id", "source_length", "edits", "source", "reference", "hypothesis"]
        table, maps_alone = wandb.Table(columns=[*columns, "attention"]), dict[str, Any]()
        for record in run.records[ids.isin(chosen)].to_dict("records"):
            name, image = record["example_id"], None
            if name in maps:
                png, *_ = small_png(draw(maps[name], title=[f"{run.label}, seed {run.seed}", name]))
                picture = Image.open(io.BytesIO(png))
                image = wandb.Image(picture)
                caption = f"{name}, {record['source_length']} source tokens"
                maps_alone[f"test/attention_{len(maps_alone) + 1}"] = wandb.Image(picture, caption=caption)
            table.add_data(*(record[column] for column in columns), image)
        return {"test/examples": table, **maps_alone}  # W&B wants all pictures of one key to have one size


@contextmanager
def wandb_run(
    config: dict[str, Any],
    directory: Path,
    *,
    command: str,
    gauges: Callable[[], Mapping[str, float]],
    say: Callable[[str], None],
) -> Iterator[Mirror | None]:
    """The run's mirror, none where it is disabled; W&B is told at the end with which code the run ends.

    Args:
        config: resolved.
        directory: of the run; W&B's files go to ``wandb/`` in it.
        command: what reproduces the run.
        gauges: asked for more to log whenever the training loss is.
        say: takes lines for people.
    """
    settings = config["logger"]["wandb"]
    if settings["mode"] == DISABLED:
        yield None
        return
    # The agent of a W&B sweep has named its run already, and waits for it under that name.
    run_id = os.environ.get("WANDB_RUN_ID", directory.name) if os.environ.get("WANDB_SWEEP_ID") else directory.name
    logged = logged_until(directory, run_id)
    arm, data, seed = config["arm"], config["data_name"], config["seed"]
    with session(
        directory,
        mode=settings["mode"],
        run_id=run_id,
        say=say,
        project=settings["project"],
        entity=settings["entity"],
        group=config["study"],
        job_type=arm,
        name=f"{arm} {data} seed {seed}",
        tags=[tag[:_LONGEST_TAG] for tag in dict.fromkeys((arm, data))],
        notes=command,
        config={"run_id": directory.name, VARIANT: _variant(arm, command), **flatten(config)},
    ) as run:
        yield Mirror(run, gauges=gauges, logged=logged, examples=settings["examples"], say=say)


def _variant(arm: str, command: str) -> str:
    """The arm and what else ``command`` sets, as in ``bahdanau rnn=lstm``: runs that differ in seed only have one."""
    nothing = ("hydra", *(key for key in CHANGES_NOTHING if key != "data"))
    words = [word for word in shlex.split(command) if "=" in word]
    told = [
        word
        for word in words
        if (key := word.partition("=")[0].lstrip("+")) not in ("decoder", "data", "seed")
        and not any(key == free or key.startswith((f"{free}.", f"{free}/")) for free in nothing)
    ]
    return " ".join([arm, *told])
