"""The runs of a study as data frames, plots and an explorer."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from attnspan.analysis.collection import collect
from attnspan.analysis.metrics import ERROR_RATE
from attnspan.analysis.own_metric import own_metrics, with_own_metrics
from attnspan.analysis.study import Study, build_study
from attnspan.config.config_files import ATTNSPANS, ConfigFiles
from attnspan.evaluation.decoded_study import decode_study
from attnspan.notebook.frame import Frame
from attnspan.reporting import plots, tables
from attnspan.reporting.csv_files import CURVE, DIFFERENCES, SPANS, csv_files
from attnspan.reporting.explorer.document import explorer
from attnspan.reporting.findings import findings
from attnspan.reporting.page import title_of


@dataclass(frozen=True, eq=False, repr=False)
class LoadedStudy:
    """Finished runs of several arms on one test set, compared as a report compares them."""

    study: Study

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per run: arm, seed, run id, directory, parameters, updates and the scores on test."""
        return pd.DataFrame(
            {"arm": arm.variant, "seed": run.seed, "run_id": run.run_id, "directory": str(run.directory)}
            | {key: run.summary.get(key) for key in ("parameters", "updates", "best_validation_loss", "train_seconds")}
            | {"error_rate": run.records["edits"].sum() / run.records["scored_length"].sum()}
            | {"exact_match": run.records["exact_match"].mean()}
            for arm in self.study.arms
            for run in arm.runs
        )

    @cached_property
    def records(self) -> pd.DataFrame:
        """One row per test example of every run; ``arm`` has its settings, too, where it has variants."""
        frames = [run.records.assign(arm=arm.variant) for arm in self.study.arms for run in arm.runs]
        return pd.concat(frames, ignore_index=True)

    @cached_property
    def _frames(self) -> dict[str, pd.DataFrame]:
        return csv_files(self.study)

    @property
    def curve(self) -> pd.DataFrame:
        """``curve.csv`` of a report: the metrics of each arm with their intervals, by length."""
        return self._frames[CURVE]

    @property
    def differences(self) -> pd.DataFrame:
        """``differences.csv``: the advantage of each arm over its baseline, by length."""
        return self._frames[DIFFERENCES]

    @property
    def spans(self) -> pd.DataFrame:
        """``spans.csv``: up to which length each arm keeps its quality."""
        return self._frames[SPANS]

    @property
    def finding(self) -> str:
        """The main finding in one sentence."""
        return findings(self.study)[0]

    def plot_curve(self) -> Figure:
        """The metric against length, with intervals, as in a report."""
        return plots.degradation(self.study).figure

    def explore(self, examples: int = 5, *, trusted: Sequence[str] = ()) -> Frame:
        """The explorer of a report, inside a notebook or as a file.

        Args:
            examples: of each bin; a notebook that keeps many becomes large.
            trusted: packages whose classes the runs' configs may name, besides attnspan.
        """
        return Frame(
            explorer(self.study, decode_study(self.study, examples, trusted=trusted), title=title_of(self.study))
        )

    def _repr_html_(self) -> str:
        table = tables.by_length(self.study, self.study.metric)
        frame = pd.DataFrame([row.cells for row in table.rows if row.kind != "heading"], columns=list(table.columns))
        return f"<p><strong>{html.escape(self.finding)}</strong></p>{frame.to_html(index=False, border=0)}"

    def __repr__(self) -> str:
        return f"Study of {', '.join(arm.label for arm in self.study.arms)} on {self.study.data}: {self.finding}"


def load_study(
    paths: str | Path | Iterable[str | Path],
    *,
    baseline: str | None = None,
    length: str | None = None,
    metric: str = ERROR_RATE.name,
    config_dir: str | Path | None = None,
) -> LoadedStudy:
    """Compare finished runs of one data set.

    Args:
        paths: run directories, or directories above some.
        baseline: the arm to which the others are compared; by default ``plain``.
        length: by which results are given, ``source``, ``target``, ``source-multiple`` or ``target-multiple``; by
            default as the data set is configured.
        metric: by which the arms are compared and plotted, as in ``exact_match`` or ``bleu``.
        config_dir: a folder of your own config files, with labels of arms and data sets, and metrics.

    Raises:
        InputError: a path has no run, the runs are of several data sets or cannot be compared, or there is no such
            arm, length or metric.
    """
    every = [paths] if isinstance(paths, str | Path) else list(paths)
    files = ATTNSPANS if config_dir is None else ConfigFiles((Path(config_dir),))
    own = own_metrics(files)
    collection = with_own_metrics(collect([Path(path) for path in every], files), own)
    return LoadedStudy(build_study(collection, baseline=baseline, length=length, metric=metric, own=own))
