"""``attnspan-evaluate``: decode finished runs on other data, lengths or decoding settings, side by side.

The words with ``=`` are overrides in Hydra's syntax upon the run's own config; a key may have several values, separated
by commas. :mod:`attnspan.config.evaluation` says what may change.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attnspan.cli.console import ListParser, add_trusted, open_console
from attnspan.errors import InputError
from attnspan.runs.completeness import why_unfinished
from attnspan.runs.layout import trained_runs

_OWN = ("split", "length", "name", "rerun", "fail_fast", "dry_run")
"""The keys of conf/evaluate.yaml."""


def main() -> None:
    """Run the command."""
    from attnspan.cli.single_run import run_command

    run_command(lambda: _main(sys.argv[1:]), name="attnspan-evaluate")


def _main(arguments: list[str]) -> None:
    options = _parser().parse_args(arguments)
    paths = [Path(word) for word in options.words if not _is_override(word)]
    words = [word for word in options.words if _is_override(word)]
    if not paths:
        raise InputError("no run is given; give run directories, directories above some, or @FILE that lists them")
    runs = list(_finished(paths))
    os.environ["HYDRA_FULL_ERROR"] = "1"
    from attnspan.config.evaluation import default_name
    from attnspan.sweeps.evaluations import plan_evaluations, print_evaluations

    asked, launcher = _compose([word for word in words if _is_own(word)], run=runs[0])
    requests = list(_requests(runs, [word for word in words if not _is_own(word)], asked, options))
    console = open_console(wide=True)
    name = asked["name"] or default_name(words)
    plan = plan_evaluations(requests, name=name, n_jobs=launcher.n_jobs, trusted=options.trusted, console=console)
    if asked["dry_run"]:
        print_evaluations(console, plan)
    else:
        launcher.carry_out(plan, console)


def _parser() -> argparse.ArgumentParser:
    parser = ListParser(
        prog="attnspan-evaluate",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Decode finished runs on other data, lengths or decoding settings. Records, attention maps and a "
        "summary\nof each evaluation go to RUN/evaluations/<name>-<hash>/, and attnspan-report takes them.",
        epilog="""\
  attnspan-evaluate @runs/mine.txt decoding=beam decoding.beam_size=1,5
  attnspan-evaluate runs/reverse data.test_lengths=[101,400]
  attnspan-evaluate runs/files split=validation length=61-120
  attnspan-evaluate RUN data=files data.test=other.tsv data.source=word data.target=phones data_name=other

keys: data, data.*, data_name, decoding, decoding.*, split (test, validation, train), name, logger,
length (source tokens: 61-120, 61-, -60; target:24-48; multiples of the longest in training: 1x-2x, target:1x-),
loader.evaluation_batch_tokens, threads, trainer.accelerator, rerun, fail_fast, dry_run, hydra/launcher,
hydra.launcher.n_jobs. conf/evaluate.yaml explains them.
""",
    )
    add = parser.add_argument
    words = "a run directory, a directory above some, @FILE that lists them, or an override"
    add("words", nargs="+", metavar="RUN|KEY=VALUE", help=words)
    add("--config-dir", metavar="DIR", help="a directory with further choices for data=, decoding= and logger=")
    add_trusted(parser)
    return parser


def _is_override(word: str) -> bool:
    return "=" in word and not Path(word).exists()


def _is_own(word: str) -> bool:
    key = word.lstrip("+~").partition("=")[0]
    return key in _OWN or key.startswith("hydra")


def _finished(paths: Sequence[Path]) -> Iterator[Path]:
    """The finished runs in or below ``paths``; the others are named on standard error.

    Raises:
        InputError: there is none.
    """
    found = False
    for directory in trained_runs(paths):
        if why := why_unfinished(directory):
            print(f"left out: {directory}: is not finished ({why})", file=sys.stderr)
            continue
        found = True
        yield directory
    if not found:
        raise InputError("none of these runs is finished")


def _compose(words: list[str], *, run: Path) -> tuple[dict[str, Any], Any]:
    """The keys of conf/evaluate.yaml, each with all its values, and the launcher."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from attnspan.config.config_files import conf_directory
    from attnspan.errors import SettingError, check_switches
    from attnspan.sweeps.evaluations import runs_directory

    single = [word for word in words if word.partition("=")[0] not in ("split", "length")]
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        composed = compose("evaluate", overrides=single, return_hydra_config=True)
    composed.hydra.sweep.dir = str(runs_directory(run) / ".multirun")
    asked = {key: composed[key] for key in _OWN}
    for key in ("split", "length"):
        values = [word.partition("=")[2] for word in words if word.partition("=")[0] == key]
        asked[key] = values[-1].split(",") if values else [asked[key]]
    try:
        check_switches(**{key: asked[key] for key in ("rerun", "fail_fast", "dry_run")})
    except SettingError as error:
        raise InputError(str(error)) from error
    launcher = instantiate(composed.hydra.launcher)
    launcher.setup(hydra_context=None, task_function=None, config=composed)
    return asked, launcher


def _requests(
    runs: Sequence[Path], words: list[str], asked: dict[str, Any], options: argparse.Namespace
) -> Iterator[Any]:
    """One request for every run and every combination of values."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from attnspan.config.evaluation import EVALUATION, default_name, evaluation_config
    from attnspan.sweeps.evaluations import Request

    parser = OverridesParser.create()
    choices = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [one.input_line or ""]
        for one in parser.parse_overrides(words)
    ]
    choices += [[f"split={one}" for one in asked["split"]], [f"length={one}" for one in asked["length"]]]
    several = {word for some in choices if len(some) > 1 for word in some}
    extra = ["--config-dir", options.config_dir] if options.config_dir else []
    extra += [word for package in options.trusted for word in ("--trusted", package)]
    for run, combination in itertools.product(runs, itertools.product(*choices)):
        *overrides, split, length = combination
        config = evaluation_config(
            run,
            parser.parse_overrides(overrides),
            split=split.partition("=")[2],
            length=None if length == "length=None" else length.partition("=")[2],
            config_directory=options.config_dir,
        )
        given = [word for word in combination if word not in ("split=test", "length=None")]
        varying = [word for word in given if word in several]
        words_of_name = [f"name={asked['name']}", *varying] if asked["name"] else given
        config[EVALUATION]["name"] = default_name(words_of_name)
        config |= {key: asked[key] for key in ("rerun", "fail_fast", "dry_run")}
        yield Request(run=run, config=config, command=shlex.join(["attnspan-evaluate", str(run), *given, *extra]))


if __name__ == "__main__":
    main()
