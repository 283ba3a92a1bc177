"""Commands as processes of their own, forked from one that has loaded everything: none pays seconds for imports.

Signals, exit codes and output are those of the command. Start-up itself is tested by processes that are started anew.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests import forks
from tests.kills import DEFAULT_METHOD, SERVER


class Command:
    """``python -m module arguments`` in ``cwd``, with as much of ``subprocess.Popen`` as the tests use."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        merge: bool = False,
        terminal: Path = Path(os.devnull),
    ) -> None:
        """Start it.

        Args:
            module: what ``python -m`` runs.
            arguments: of its command line.
            cwd: where it runs.
            environment: its variables; by default those of this process.
            merge: standard error goes where standard output goes.
            terminal: what standard input reads; if it is a terminal, standard error goes there too.
        """
        self._scratch = tempfile.TemporaryDirectory(prefix="command-", ignore_cleanup_errors=True)
        scratch = Path(self._scratch.name)
        self._out, self._err = scratch / "out", scratch / ("out" if merge else "err")
        files = (terminal, self._out, self._err if terminal == Path(os.devnull) else terminal)
        given = dict(os.environ if environment is None else environment)
        self._process = SERVER.Process(target=_run, args=(module, arguments, str(cwd), given, files))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float = 240) -> tuple[str, str]:
        """Wait until it has ended, and return what it printed; once."""
        self._process.join(timeout)
        if self.poll() is None:
            self._process.kill()
            raise TimeoutError(f"still running after {timeout} s: {self._read(self._out)}")
        printed = self._read(self._out), self._read(self._err)
        self._scratch.cleanup()
        return printed

    @staticmethod
    def _read(path: Path) -> str:
        return path.read_text(encoding="utf-8") if path.exists() else ""  # killed before it had begun


def complete(
    module: str, *arguments: str, cwd: Path, environment: Mapping[str, str], timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """As ``subprocess.run`` does."""
    command = Command(module, *arguments, cwd=cwd, environment=environment)
    out, err = command.communicate(timeout)
    assert command.returncode is not None
    return subprocess.CompletedProcess([module, *arguments], command.returncode, out, err)


def _run(
    module: str, arguments: tuple[str, ...], cwd: str, environment: dict[str, str], files: tuple[Path, Path, Path]
) -> None:
    os.setsid()
    multiprocessing.set_start_method(DEFAULT_METHOD, force=True)  # the server has set its own
    for number, path in enumerate(files):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(path, flags | os.O_NOCTTY), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - multiprocessing has closed it
    sys.path.insert(0, "")  # as ``python -m`` does
    sys.argv = [module, *arguments]
    forks.install()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
