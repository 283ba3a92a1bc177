"""A study as one W&B run of job type ``study``, beside the runs that it compares."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import wandb

from attnspan.study import Study
from attnspan.wandb_logging import mirrored
from attnspan.wandb_results import mirror_study


def mirror_report(studies: Sequence[Study], out: Path, *, mode: str, command: str) -> None:
    """Show W&B a report: the plots that compare arms, the tables, and the page as an artifact.

    Project and entity are those of the runs. Reported again, the same runs are the same study, which W&B goes on with.

    Args:
        studies: one a data set.
        out: directory of the report, which is written. W&B's own files go to ``wandb/`` beside it.
        mode: ``offline`` or ``online``.
        command: that made the report.
    """
    runs = [run for study in studies for run in study.collection.runs]
    names = sorted({str(run.summary["study"]) for run in runs if run.summary.get("study")})
    logger = (runs[0].config.get("logger") or {}).get("wandb") or {}
    settings = {"project": logger.get("project") or "attnspan", "entity": logger.get("entity"), "mode": mode}
    facts = {
        "id": "study-" + hashlib.sha256(" ".join(sorted(run.run_id for run in runs)).encode()).hexdigest()[:12],
        "name": f"study {' '.join(names) or out.name}",
        "group": names[0] if len(names) == 1 else None,
        "job_type": "study",
        "tags": ["study", *(study.data for study in studies)],
        "notes": command,
        "config": {"runs": sorted(run.run_id for run in runs), "arms": list(studies[0].legend)},
    }
    with mirrored(settings, out.parent, say=lambda line: print(line, file=sys.stderr), **facts) as run:
        if len(studies) == 1:
            mirror_study(run, studies[0], out)
        else:
            for study in studies:
                mirror_study(run, study, out / study.data, within=f"{study.data}/")
        page = wandb.Artifact(f"report-{run.id}", type="report", description=command)
        page.add_dir(str(out))
        run.log_artifact(page)
