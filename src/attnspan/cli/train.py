"""``attnspan-train``: the Hydra entry point. Nothing imports it."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from attnspan.cli.console import unbreakable
from attnspan.cli.help import GROUPS, print_help
from attnspan.config.compose import conf_directory, explain, plain_config
from attnspan.config.threads import thread_environment
from attnspan.errors import InputError, NotFiniteError, UnderWayError, is_out_of_memory, reason_of
from attnspan.training.distributed import rank


def main() -> None:
    """Run the command line."""
    # Of a run's processes one speaks for all; and it works on where nobody listens any more.
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        unbreakable(sys.stdout) as out,
        unbreakable(sys.stderr) as err,
        redirect_stdout(out if rank() == 0 else nowhere),
        redirect_stderr(err),
    ):
        _main()


def _main() -> None:
    if {"--help", "-h"} & set(sys.argv[1:]):
        print_help(Console(), [conf_directory(), *_own_directories(sys.argv[1:])])
        return
    sys.argv[1:] = _options_first(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets Hydra raise, so that what is wrong becomes one line here
    # hydra-submitit-launcher, where it is installed, has a launcher of the same name, which ours takes the place of.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/submitit_slurm' is validated")
    try:
        _refuse_empty_groups(sys.argv[1:])
        _hydra_main()
    except (InputError, HydraException, OmegaConfBaseException, OSError) as error:
        if os.environ.get("ATTNSPAN_TRACEBACK"):  # for developers
            raise
        sys.exit(_refuse(error))
    except KeyboardInterrupt:
        print("attnspan-train: interrupted; the same command goes on with what is not finished", file=sys.stderr)
        sys.exit(130)


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="train")
def _hydra_main(composed: DictConfig) -> None:
    """Carry out one run. Sweeps come here too, once a job, each in its own process."""
    job = HydraConfig.get()
    command = shlex.join(["attnspan-train", *_own_configs(job), *job.overrides.task, *_mode(job)])
    of_a_sweep = job.mode == RunMode.MULTIRUN  # under a launcher that is not ours
    # What is wrong with a run is told here: Hydra would print a line of its own first.
    try:
        config = plain_config(composed, job.runtime.choices)
        if of_a_sweep:
            _run_apart(config, job)
        elif config["dry_run"]:
            _show_plan(config, job)
        else:
            _run_one(config, command)
    except InputError as error:
        code = _refuse(error)
        if not of_a_sweep:  # a launcher would take the other jobs down with this one
            sys.exit(code)


def _run_apart(config: dict[str, Any], job: Any) -> None:
    """Carry out one job in a process of its own: whatever becomes of it, the launcher goes on to the next."""
    from attnspan.sweeps.plan import job_for
    from attnspan.sweeps.processes import list_path, run_among

    run = job_for(config, job.overrides.task, next(iter(_own_configs(job)[1:]), None))
    directories = [Path(line) for line in list_path(config).read_text(encoding="utf-8").splitlines()]
    run_among(run, directories, threads=config["threads"], fail_fast=config["fail_fast"])
    print(f"{run.label}: {run.outcome}{f' ({run.reason})' if run.reason else ''}", flush=True)


def _show_plan(config: dict[str, Any], job: Any) -> None:
    """List one run as a sweep of one."""
    from attnspan.cli.console import open_console
    from attnspan.sweeps.plan import make_plan, print_plan

    console = open_console(wide=True)
    plan = make_plan([config], [job.overrides.task], config_directory=None, n_jobs=None, console=console)
    print_plan(console, plan)


def _run_one(config: dict[str, Any], command: str) -> None:
    os.environ |= thread_environment(config["threads"])  # before the libraries are loaded that read it
    from attnspan.config.identity import claim, run_directory
    from attnspan.config.instantiate import build_corpus
    from attnspan.data.pipeline.prepare import prepare
    from attnspan.files import read_json
    from attnspan.runs.completeness import is_finished
    from attnspan.runs.layout import SUMMARY

    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    directory = run_directory(config, data_fingerprint=prepared.fingerprint)
    label = f"{config['arm']} seed {config['seed']}"
    summary: dict[str, Any] | None
    claim(directory, config, data_fingerprint=prepared.fingerprint)
    if is_finished(directory) and not config["rerun"]:
        summary = read_json(directory / SUMMARY)
        print(f"{label}: finished before, skipped (rerun=true computes it again)")
    else:
        for line in prepared.warnings():
            print(line)
        # Torch takes seconds to start: what is wrong with the data, or finished before, was told without it.
        from attnspan.sweeps.progress import ProgressDisplay
        from attnspan.training.run import execute

        with ProgressDisplay(console=Console()) as display:
            try:
                summary = execute(
                    config,
                    data=prepared,
                    directory=directory,
                    command=command,
                    report=lambda status: display.show(label, status),
                    log=lambda line: display.say(f"{label}: {line}"),
                )
            except NotFiniteError as error:
                raise InputError(str(error)) from error
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise InputError(f"{label}: {reason_of(error)} ({directory})") from error
        if summary is None:
            return
    test = summary["test"]
    print(f"{label}: error rate {test['error_rate']:.4f}, exact match {test['exact_match']:.4f} on test (free-running)")
    print(f"results: {directory}")


def _own_configs(job: Any) -> list[str]:
    """The option that added a directory of configs, if one did."""
    own = [source.path for source in job.runtime.config_sources if source.provider == "command-line"]
    return ["--config-dir", *own] if own else []


def _mode(job: Any) -> list[str]:
    return [override for override in job.overrides.hydra if override.startswith("hydra.mode=")]


def _options_first(arguments: list[str]) -> list[str]:
    """Put options before overrides: Hydra's parser wants them so, and people do not."""
    options: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word in ("--config-dir", "-cd", "--config-name", "-cn", "--cfg", "-c", "--package", "-p"):
            options += [word, *([value] if (value := next(rest, None)) is not None else [])]
        else:
            (options if word.startswith("-") else overrides).append(word)
    return options + overrides


def _refuse_empty_groups(arguments: list[str]) -> None:
    """Refuse ``decoder=null`` and its like, over which Hydra stumbles."""
    for word in arguments:
        group, _, choice = word.partition("=")
        if choice == "null" and group == "sweep":
            raise InputError("sweep=null: leave it out, and there is no sweep")
        if choice == "null" and group in GROUPS:
            raise InputError(f"{group}=null: a run needs one of its group's choices; --help lists them")


def _own_directories(arguments: list[str]) -> list[Path]:
    """Directories that the command line adds to the search path."""
    found = []
    for at, word in enumerate(arguments):
        for name in ("--config-dir", "-cd"):
            if word == name and at + 1 < len(arguments):
                found.append(Path(arguments[at + 1]))
            elif word.startswith(f"{name}="):
                found.append(Path(word.partition("=")[2]))
    return found


def _refuse(error: Exception) -> int:
    """Print one line and return the exit code."""
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        words = explain(error)
    elif isinstance(error, OSError) and error.filename:
        words = f"{error.filename}: {error.strerror}"
    else:
        words = str(error)
    print(f"attnspan-train: {words}", file=sys.stderr)
    return UnderWayError.EXIT_CODE if isinstance(error, UnderWayError) else 2


if __name__ == "__main__":
    main()
