"""``attnspan-train``: the Hydra entry point. No module imports it."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from attnspan.cli.console import print_version
from attnspan.cli.help import GROUPS, OPTIONAL, print_help
from attnspan.cli.single_run import print_error, run, run_command
from attnspan.config.compose import plain_config
from attnspan.config.config_files import conf_directory
from attnspan.config.hydra_errors import COMPOSITION_ERRORS
from attnspan.config.overrides import options_first
from attnspan.errors import InputError


def main() -> None:
    """Run the command."""
    run_command(_main)


def _main() -> None:
    if {"--help", "-h"} & set(sys.argv[1:]):
        print_help(Console(), [conf_directory(), *_config_directories(sys.argv[1:])])
        return
    if "--version" in sys.argv[1:]:
        print_version("attnspan-train")
        return
    sys.argv[1:] = options_first(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # has Hydra raise its errors, which become one line
    # hydra-submitit-launcher, if installed, has a launcher of the same name; ours replaces it.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/submitit_slurm' is validated")
    _refuse_empty_groups(sys.argv[1:])
    _hydra_main()


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="train")
def _hydra_main(composed: DictConfig) -> None:
    """Carry out one run. Sweeps do not come here: their jobs start with ``attnspan.cli.job``."""
    job = HydraConfig.get()
    command = shlex.join(["attnspan-train", *_config_dir_option(job), *_words(job.overrides.task), *_mode(job)])
    # Errors are printed here, because Hydra would print a line of its own first.
    try:
        _refuse_sweep_of_no_mode(job)
        config = plain_config(composed, job)
        if job.mode == RunMode.MULTIRUN:
            raise InputError("hydra/launcher: use hydra/launcher=processes or hydra/launcher=submitit_slurm")
        if config["dry_run"]:
            _print_plan(config, job)
        else:
            run(config, command)
    except (InputError, *COMPOSITION_ERRORS) as error:
        sys.exit(print_error(error))


def _refuse_sweep_of_no_mode(job: Any) -> None:
    """A sweep's file that does not say that it is one would make one run of the defaults."""
    sweep, params = job.runtime.choices.sweep, job.sweeper.get("params")
    is_asked_for = any(word.startswith("hydra.mode=") for word in sys.argv[1:])  # Hydra adds the mode to its overrides
    if sweep and params and job.mode != RunMode.MULTIRUN and not is_asked_for:
        raise InputError(
            f"sweep={sweep}: its hydra.sweeper.params has {', '.join(params)}, and its hydra.mode is not MULTIRUN; add "
            "mode: MULTIRUN under hydra, or give hydra.mode=RUN for a single run"
        )


def _print_plan(config: dict[str, Any], job: Any) -> None:
    """List one run like a sweep of one."""
    from attnspan.cli.console import open_console
    from attnspan.sweeps.plan import make_plan, print_plan

    console = open_console(wide=True)
    plan = make_plan([config], [_words(job.overrides.task)], config_directory=None, n_jobs=None, console=console)
    print_plan(console, plan)


def _config_dir_option(job: Any) -> list[str]:
    """``--config-dir`` with its value, if it was given."""
    added = [source.path for source in job.runtime.config_sources if source.provider == "command-line"]
    return ["--config-dir", *added] if added else []


def _mode(job: Any) -> list[str]:
    return [override for override in _words(job.overrides.hydra) if override.startswith("hydra.mode=")]


def _words(overrides: Any) -> list[str]:
    """Overrides as they were given; what is interpolated in one is no part of the config."""
    return [str(word) for word in OmegaConf.to_container(overrides, resolve=False) or ()]


def _refuse_empty_groups(arguments: list[str]) -> None:
    """Refuse ``decoder=null`` and the like, for which Hydra has no clear message."""
    for word in arguments:
        group, _, choice = word.partition("=")
        if choice == "null" and group == "sweep":
            raise InputError("sweep=null: leave it out for a single run")
        if choice == "null" and group in GROUPS and group not in OPTIONAL:
            raise InputError(f"{group}=null: a run needs one of the group's choices; --help lists them")


def _config_directories(arguments: list[str]) -> list[Path]:
    """Directories that the command line adds to the search path."""
    found = []
    for at, word in enumerate(arguments):
        for name in ("--config-dir", "-cd"):
            if word == name and at + 1 < len(arguments):
                found.append(Path(arguments[at + 1]))
            elif word.startswith(f"{name}="):
                found.append(Path(word.partition("=")[2]))
    return found


if __name__ == "__main__":
    main()
