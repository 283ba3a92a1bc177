"""One run here is one run on W&B, which mirrors it: nothing that counts is ever read back.

==========================  ==================================================================================
keys                        what they are
==========================  ==================================================================================
``train/``                  loss, learning rate and norm of the gradient, against ``update``
``validation/``             what ``metrics.csv`` has of each validation, against ``update``
``validation_loss/``        the same for each bin of source length; ``validation_accuracy/``, too
``machine/``                tokens a second and peak memory, against ``update``
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

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from attnspan.config.identity import CHANGES_NOTHING, flatten
from attnspan.config.schema import DISABLED
from attnspan.errors import reason_of
from attnspan.tracking.session import UPDATE, VARIANT, logged_until, session

_CURVES = ("train", "validation", "validation_loss", "validation_accuracy", "machine")
_LONGEST_TAG = 64
"""Characters, by W&B's rule."""


class Mirror(Logger):
    """Lightning's way to W&B.

    Args:
        run: on W&B.
        logged: the last update of which each key was logged before.
        examples: the most to show.
        say: takes lines for people.
    """

    def __init__(
        self,
        run: Any,
        *,
        logged: Mapping[str, int],
        examples: int,
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._run = run
        self._logged = logged
        self._examples = examples
        self._say = say
        for name in _CURVES:
            run.define_metric(f"{name}/*", step_metric=UPDATE)
        run.define_metric("test_by_length/*", step_metric="test_by_length/source_length")

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
        self._log(metrics, step + 1)

    def catch_up(self, curves: str) -> None:
        """Log what is not logged yet of the ``curves`` in a checkpoint, the content of ``metrics.csv``.

        The run was killed, and W&B with it before it had all on the disk; what it cost is not in there and stays lost.
        """
        for row in csv.DictReader(io.StringIO(curves)):
            self._log(
                {key: float(value) for key, value in row.items() if value and key != "step"}, int(row["step"]) + 1
            )

    def log_results(self, directory: Path) -> None:
        """Log what the test has shown; what goes wrong in it is told.

        Args:
            directory: of the run, which is finished.
        """
        try:
            from attnspan.tracking.run_results import results_of  # which draws, and loads W&B

            results = results_of(directory, examples=self._examples)
            for row in results.rows:
                self._log(row, results.updates)
            self._log(results.media, results.updates)
            self._run.summary.update(results.summary)
        except Exception as error:
            self._say(f"W&B: the results could not be mirrored ({reason_of(error)}); here they are whole")

    def _log(self, row: Mapping[str, Any], update: int) -> None:
        new = {key: value for key, value in row.items() if update > self._logged.get(key, 0)}
        if new.keys() - {"epoch"}:
            self._run.log({UPDATE: update, **new})


@contextmanager
def wandb_run(
    config: dict[str, Any],
    directory: Path,
    *,
    command: str,
    say: Callable[[str], None],
) -> Iterator[Mirror | None]:
    """The run's mirror, none where it is disabled; W&B is told at the end with which code the run ends.

    Args:
        config: resolved.
        directory: of the run; W&B's files go to ``wandb/`` in it.
        command: what reproduces the run.
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
        if logged:
            run.summary["failure"] = None  # of an attempt before this one
        yield Mirror(run, logged=logged, examples=settings["examples"], say=say)


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
