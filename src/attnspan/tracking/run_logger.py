"""Each run is one W&B run, which mirrors it: no result is ever read back from W&B.

==========================  ==================================================================================
keys                        content
==========================  ==================================================================================
``train/``                  loss, learning rate and gradient norm, against ``update``
``validation/``             the columns of ``metrics.csv`` for each validation, against ``update``
``validation_loss/``        the loss in each bin, as in ``source_1-10``; ``validation_accuracy/`` and
                            ``validation_error_rate/``: the accuracy, and the error rate of free-running decoding
``validation_attention/``   1 and 2: where attention goes in the shortest and the longest validation example, while it
                            reads the reference, as images against ``update``
``machine/``                tokens per second and peak memory, against ``update``
``test_by_source_length/``  every test metric, against ``test_by_source_length/length``, one row per bin; so for
                            ``target_length``, ``source_length_multiple`` ..., if the results are given by these
``quality_by_length``       the same as one plot; ``test/by_length``: as a table
``test/examples``           some test examples with attention maps; ``test/attention_1`` ...: the maps alone
==========================  ==================================================================================

The summary has the scores on the whole test set, the span, the cost, and the reason if the run failed.
"""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.config.identity import CHANGES_NOTHING, flatten
from attnspan.config.schema import DISABLED
from attnspan.data.corpora.base import LENGTHS
from attnspan.errors import reason_of
from attnspan.runs.attention_maps import AttentionMap
from attnspan.runs.layout import run_of
from attnspan.tracking.session import TEST_BY, UPDATE, VARIANT, earlier_rows, forget_logged, session

_CURVES = ("train", "validation", "validation_loss", "validation_accuracy", "validation_error_rate", "machine")
OVER_TRAINING = "validation_attention"
"""The section of attention over training; W&B draws one image of a key at a time, with a slider over the steps."""
_ROWS = 8
"""Steps for the rows of one update. W&B keeps one row for each step, so that no row can be there twice."""
EVALUATION = "evaluation"
"""The job type of an evaluation."""
_LONGEST_TAG = 64
"""Characters, by W&B's rule."""


class WandbMirror(Logger):
    """A Lightning logger that logs to a W&B run.

    Args:
        run: the W&B run, which replaces those of earlier processes.
        earlier: the rows that earlier processes have logged.
        examples: the number of test examples to show, at most.
        log: takes lines for people.
    """

    def __init__(
        self, run: Any, *, earlier: Sequence[Mapping[str, Any]], examples: int, log: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._run = run
        self._earlier = earlier
        self._step = -1
        self._examples = examples
        self._report = log
        for name in _CURVES:
            run.define_metric(f"{name}/*", step_metric=UPDATE)
        run.define_metric(f"{OVER_TRAINING}/*", step_metric=UPDATE)
        for name in LENGTHS:
            section = f"{TEST_BY}{LengthAxis(name).key}"
            run.define_metric(f"{section}/*", step_metric=f"{section}/length")

    @property
    def name(self) -> str:
        """The project."""
        return str(self._run.project)

    @property
    def version(self) -> str:
        """The id of the run."""
        return str(self._run.id)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the config was logged when the run started."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log what Lightning logs; its ``step`` is the number of updates before this one."""
        assert step is not None
        if keys := metrics.keys() - {"epoch"}:
            self._log(metrics, step + 1, _place(min(keys)))

    def log_attention(self, update: int, maps: Mapping[str, AttentionMap]) -> None:
        """Log the maps of examples as they are after ``update``; an error in it does not fail the run."""
        if not self._examples:
            return
        try:
            from attnspan.tracking.run_results import captioned  # it loads matplotlib and W&B

            images = {
                f"{OVER_TRAINING}/{number}": captioned(one, title=[name], caption=f"{name}, after {update} updates")
                for number, (name, one) in enumerate(maps.items(), start=1)
            }
            self._log(images, update, _place(OVER_TRAINING))
        except Exception as error:
            self._report(f"W&B: attention after update {update} could not be logged ({reason_of(error)})")

    def catch_up(self, curves: str, update: int) -> None:
        """Log again what was logged before the run was killed, up to the ``update`` after which it resumes.

        The server drops what it has. ``curves`` is the ``metrics.csv`` of the checkpoint: it has what W&B lost when the
        process was killed, except ``machine/``.
        """
        rows: dict[tuple[int, int], dict[str, Any]] = {}
        of_csv = (
            {UPDATE: int(line.pop("step")) + 1} | {key: float(value) for key, value in line.items() if value}
            for line in csv.DictReader(io.StringIO(curves))
        )
        for row in (*self._earlier, *of_csv):
            for key, value in row.items():
                if key.partition("/")[0] in _CURVES and row[UPDATE] <= update:
                    rows.setdefault((row[UPDATE], _place(key)), {}).setdefault(key, value)
        for (at, place), row in sorted(rows.items()):
            self._log(row, at, place)

    def log_results(self, directory: Path) -> None:
        """Log the results of the test of the run in ``directory``; an error in it does not fail the run."""
        try:
            from attnspan.tracking.run_results import results_of  # it loads matplotlib and W&B

            rows, media, summary = results_of(directory, examples=self._examples)
            for place, row in enumerate((*rows, media), start=_ROWS):
                self._log(row, summary["updates"], place)
            self._run.summary.update(summary)
        except Exception as error:
            self._report(f"W&B: the results could not be logged ({reason_of(error)}); on the disk they are complete")

    def _log(self, row: Mapping[str, Any], update: int, place: int) -> None:
        """Log a row at once, under a step of its own, which is the same whenever it is logged again."""
        self._step = max(_ROWS * update + place, self._step + 1)  # W&B drops rows whose step is not a new one
        self._run.log({UPDATE: update, **row}, step=self._step, commit=True)


def _place(key: str) -> int:
    """The place of a row among those of one update; they are logged in this order."""
    return {"machine": 0, "train": 1, OVER_TRAINING: 2}.get(key.partition("/")[0], 3)


@contextmanager
def wandb_run(
    config: dict[str, Any], directory: Path, *, command: str, log: Callable[[str], None]
) -> Iterator[WandbMirror | None]:
    """The run's mirror on W&B, or None where W&B is disabled; the W&B run ends with the exit code of the block.

    ``config`` is resolved, ``command`` reproduces the run, and ``log`` takes lines for people.
    """
    # The agent of a W&B sweep has chosen the id of its run already, and waits for that run.
    run_id = os.environ.get("WANDB_RUN_ID", directory.name) if os.environ.get("WANDB_SWEEP_ID") else directory.name
    arm, data, seed = config["arm"], config["data_name"], config["seed"]
    with _mirror(
        config,
        directory,
        log=log,
        run_id=run_id,
        job_type=arm,
        name=f"{arm} {data} seed {seed}",
        tags=(arm, data),
        notes=command,
        config={"run_id": directory.name, VARIANT: _variant(arm, command), **flatten(config)},
    ) as mirror:
        yield mirror


@contextmanager
def wandb_evaluation(
    config: dict[str, Any], directory: Path, *, command: str, log: Callable[[str], None]
) -> Iterator[WandbMirror | None]:
    """As :func:`wandb_run`, for an evaluation: a W&B run of its own, of job type ``evaluation``, in its run's group.

    Its config has no ``data_name`` at the top, by which dashboards find the runs of a study.
    """
    run, arm, seed, asked = run_of(directory).name, config["arm"], config["seed"], config["evaluation"]
    flat = {key: value for key, value in flatten(config).items() if key != "data_name"}
    with _mirror(
        config,
        directory,
        log=log,
        run_id=f"{run}-{directory.name.rpartition('-')[2]}",
        job_type=EVALUATION,
        name=f"{arm} {asked['data_name']} seed {seed}, {directory.name}",
        tags=(EVALUATION, arm, asked["data_name"]),
        notes=command,
        config={"run_id": run, VARIANT: f"{arm} {asked['name']}", **flat},
    ) as mirror:
        yield mirror


@contextmanager
def _mirror(
    resolved: dict[str, Any],
    directory: Path,
    *,
    log: Callable[[str], None],
    run_id: str,
    tags: Iterable[str],
    **of_run: Any,
) -> Iterator[WandbMirror | None]:
    """The mirror of a W&B run, or None where W&B is disabled in ``resolved``, the config; ``of_run`` goes to W&B."""
    settings = resolved["logger"]["wandb"]
    if settings["mode"] == DISABLED:
        yield None
        return
    replaces = resolved["rerun"]
    if replaces:  # the old curves would stand beside the new result
        forget_logged(directory, run_id)
    earlier = earlier_rows(directory, run_id)
    with session(
        directory,
        mode=settings["mode"],
        run_id=run_id,
        log=log,
        replaces=replaces,
        project=settings["project"],
        entity=settings["entity"],
        group=resolved["study"],
        tags=[tag[:_LONGEST_TAG] for tag in dict.fromkeys(tags)],
        **of_run,
    ) as run:
        if earlier:
            run.summary["failure"] = None  # from an earlier attempt
        yield WandbMirror(run, earlier=earlier, examples=settings["examples"], log=log)


def _variant(arm: str, command: str) -> str:
    """The arm and the overrides of ``command``, as in ``bahdanau rnn=lstm``; the same for all seeds of a variant."""
    irrelevant = ("hydra", *(key for key in CHANGES_NOTHING if key != "data"))
    relevant = [
        override
        for override in shlex.split(command)
        if "=" in override
        and (key := override.partition("=")[0].lstrip("+")) not in ("decoder", "data", "seed")
        and not any(key == other or key.startswith((f"{other}.", f"{other}/")) for other in irrelevant)
    ]
    return " ".join([arm, *relevant])
