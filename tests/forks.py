"""Processes of our modules, forked from the one that starts them: what that has loaded they need not load again."""

from __future__ import annotations

import atexit
import logging
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

MODULES = ("attnspan.cli.job", "attnspan.cli.evaluation_job", "attnspan.sweeps.preflight", "tests.stub_run")
"""What ``python -m`` starts from a command; each finds all that it needs in its arguments, its files and its input."""


class ForkingPopen(subprocess.Popen[Any]):
    """``subprocess.Popen`` that forks for ``python -m`` one of :data:`MODULES`."""

    def _execute_child(self, args: Any, executable: Any, *rest: Any) -> None:
        words = [args] if isinstance(args, (str, bytes, os.PathLike)) else [*args]
        _, _, _, cwd, environment, _, _, _, *pipes, _, _, _, _, _, new_session, _ = rest
        stdin, _, _, stdout, _, stderr = pipes
        in_training = "LOCAL_RANK" in (environment or {})  # the first process of a run starts its others
        if words[:2] != [sys.executable, "-m"] or words[2] not in MODULES or in_training:
            super()._execute_child(args, executable, *rest)  # type: ignore[misc]
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            if new_session:
                os.setsid()
            os.chdir(cwd or ".")
            _become(words[2:], environment or os.environ, (stdin, stdout, stderr))
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def install() -> None:
    """From now on this process forks."""
    subprocess.Popen = ForkingPopen  # type: ignore[misc]


def _become(words: list[str], environment: Mapping[str, str], files: tuple[int, int, int]) -> NoReturn:
    """Be what ``python -m`` makes of these words; nothing of the process that was forked is left open or at work."""
    code = 1
    try:
        _begin_anew({**environment}, files)
        sys.argv = [*words]
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _begin_anew(environment: dict[str, str], files: tuple[int, int, int]) -> None:
    atexit._clear()
    logging.getLogger().handlers.clear()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for number, file in enumerate(files):
        if file != -1:
            os.dup2(file, number)
    os.closerange(3, 1024)  # locks, and the ends of pipes
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - these stay open
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
