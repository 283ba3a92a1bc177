"""One run from its config, for ``attnspan-train`` and for the jobs of a sweep."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from rich.console import Console

from attnspan.cli.console import unbreakable
from attnspan.config.hydra_errors import COMPOSITION_ERRORS, explain, is_hydras
from attnspan.config.threads import thread_environment
from attnspan.errors import AlreadyRunningError, InputError, NotFiniteError, is_out_of_memory, reason_of
from attnspan.training.deferred_imports import defer_imports
from attnspan.training.distributed import forget_launchers, rank


def run_command(body: Callable[[], None], *, name: str = "attnspan-train") -> None:
    """Run the command ``name``. Input errors become one line on standard error, and an exit code.

    Only rank 0 prints, and what it prints is lost if nobody reads it any more (``| head``).
    """
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        unbreakable(sys.stdout) as out,
        unbreakable(sys.stderr) as err,
        redirect_stdout(out if rank() == 0 else nowhere),
        redirect_stderr(err),
    ):
        try:
            forget_launchers()
            defer_imports()
            body()
        except (InputError, *COMPOSITION_ERRORS, OSError) as error:
            if os.environ.get("ATTNSPAN_TRACEBACK"):  # for developers
                raise
            sys.exit(print_error(error, name=name))
        except ImportError as error:
            if os.environ.get("ATTNSPAN_TRACEBACK") or not (hidden := hidden_package(error)):
                raise
            print(f"{name}: {hidden}", file=sys.stderr)
            sys.exit(2)
        except (ValueError, TypeError) as error:
            if os.environ.get("ATTNSPAN_TRACEBACK") or not is_hydras(error):
                raise
            sys.exit(print_error(error, name=name))
        except KeyboardInterrupt:
            print(f"{name}: interrupted; the same command resumes what is not finished", file=sys.stderr)
            sys.exit(130)


def hidden_package(error: ImportError) -> str | None:
    """One line if a file of the user's own was imported in place of an installed package or a module of Python's."""
    top = (error.name or "").partition(".")[0]
    path = getattr(sys.modules.get(top), "__file__", None) or error.path
    known = top in sys.stdlib_module_names or top in packages_distributions()
    if not known or path is None or {"site-packages", "dist-packages"} & set(Path(path).parts):
        return None
    if Path(path).is_relative_to(sys.base_prefix):
        return None
    return f"{path}: is imported in place of the package {top}; rename it, or take its directory out of PYTHONPATH"


def print_error(error: Exception, *, name: str = "attnspan-train") -> int:
    """Print one line, and return the exit code."""
    if isinstance(error, COMPOSITION_ERRORS):
        message = explain(error)
    elif isinstance(error, OSError) and error.filename:
        message = f"{error.filename}: {error.strerror}"
    else:
        message = str(error)
    print(f"{name}: {message}", file=sys.stderr)
    return AlreadyRunningError.EXIT_CODE if isinstance(error, AlreadyRunningError) else 2


def run(config: dict[str, Any], command: str, *, data_fingerprint: str | None = None) -> Path:
    """Train and test one run, or skip it if it is finished, and print its scores.

    Args:
        config: resolved.
        command: reproduces the run.
        data_fingerprint: of the data that the run must be trained on; None for the data as it is now.

    Returns:
        The directory of the run.

    Raises:
        InputError: the run cannot be carried out.
    """
    os.environ |= thread_environment(config["threads"])  # before the libraries that read it are loaded
    from attnspan.config.identity import claim, run_directory
    from attnspan.config.instantiate import build_corpus
    from attnspan.data.pipeline.prepare import prepare, prepare_as
    from attnspan.files import read_json
    from attnspan.runs.completeness import is_finished
    from attnspan.runs.layout import SUMMARY
    from attnspan.runs.summary import describe_end, describe_scores

    cache_dir, change = Path(config["cache_dir"]), ""
    if data_fingerprint is None:
        prepared = prepare(build_corpus(config), cache_dir=cache_dir)
    else:
        prepared, change = prepare_as(data_fingerprint, lambda: build_corpus(config), cache_dir=cache_dir)
    if change:
        print(f"since this sweep was launched: {change}; the run uses what was prepared then, {prepared.directory}")
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
        summary = _train(config, prepared, directory, command, label)
        if summary is None:  # in a process that follows another one
            return directory
    print(f"{label}: {describe_scores(summary['test'])} on test")
    print(f"results: {directory}")
    if remark := describe_end(summary):
        print(f"{label}: {remark}")
    return directory


def _train(config: dict[str, Any], prepared: Any, directory: Path, command: str, label: str) -> dict[str, Any] | None:
    # Torch takes seconds to load. Errors in the data, and finished runs, are reported without it.
    from attnspan.sweeps.progress import ProgressDisplay
    from attnspan.training.run import execute

    with ProgressDisplay(console=Console()) as display:
        try:
            return execute(
                config,
                data=prepared,
                directory=directory,
                command=command,
                report=lambda status: display.update(label, status),
                log=lambda line: display.log(f"{label}: {line}"),
            )
        except NotFiniteError as error:
            raise InputError(str(error)) from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(f"{label}: {reason_of(error)} ({directory})") from error
