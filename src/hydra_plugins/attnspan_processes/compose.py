"""What our sweeper and our launcher share: all jobs of a sweep composed and checked before the first one starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hydra.types import HydraContext
from omegaconf import DictConfig

if TYPE_CHECKING:  # Hydra imports every plugin at every start, so what is heavy waits until it is needed
    from rich.console import Console

    from attnspan.sweeps.plan import Plan


def compose(context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Compose and check every job.

    Raises:
        InputError: one line with all that is wrong with any of them.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from attnspan.config.compose import explain, plain_config
    from attnspan.errors import InputError

    configs, complaints = [], []
    for overrides in job_overrides:
        try:
            composed = context.config_loader.load_sweep_config(config, list(overrides))
            configs.append(plain_config(composed, composed.hydra.runtime.choices))
        except InputError as error:
            complaints.append(str(error))
        except (HydraException, OmegaConfBaseException) as error:
            complaints.append(explain(error))
    if complaints:
        raise InputError("; ".join(dict.fromkeys(complaints)))
    return configs


def carry_out(
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    *,
    n_jobs: int | None,
    run: Callable[[Plan, Console], None],
) -> None:
    """Check the sweep, put its jobs on the list, let ``run`` run them, and print how they ended.

    With ``dry_run`` the jobs are listed, and that is all.

    Args:
        context: Hydra's.
        config: of the sweep.
        job_overrides: what the command line sets for each job.
        n_jobs: jobs side by side; None for as many as there are cores for.
        run: fills in how each job ended, as far as it knows.

    Raises:
        InputError: a job cannot be run as it is; none was started.
        SystemExit: a job did not finish.
    """
    from attnspan.cli.console import open_console
    from attnspan.sweeps.plan import make_plan, print_plan
    from attnspan.sweeps.processes import enqueue, keeping_queued, print_outcomes, settle, write_list

    console = open_console(wide=True)
    plan = make_plan(
        compose(context, config, job_overrides),
        job_overrides,
        config_directory=own_directory(config),
        n_jobs=n_jobs,
        console=console,
    )
    if plan.settings["dry_run"]:
        print_plan(console, plan)
        return
    write_list(plan.listed, plan.jobs)
    enqueue(plan.jobs, rerun=plan.settings["rerun"])
    try:
        with keeping_queued(plan.jobs):
            run(plan, console)
    finally:
        settle(plan.jobs)
        print_outcomes(console, plan.jobs)
    for runs, name in plan.reports:
        console.print(f"report: attnspan-report {runs} --out reports/{name}", highlight=False, soft_wrap=True)
    if not plan.is_done:
        raise SystemExit(1)


def own_directory(config: DictConfig) -> str | None:
    """The directory that ``--config-dir`` named."""
    for source in config.hydra.runtime.config_sources:
        if source.provider == "command-line":
            return str(source.path)
    return None
