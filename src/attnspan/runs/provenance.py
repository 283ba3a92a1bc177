"""Which code a run was computed by."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_SOURCES = (_ROOT / "attnspan", _ROOT / "hydra_plugins" / "attnspan_sweeps")


def code_state() -> dict[str, str | None]:
    """The state of the code on disk.

    ``git_commit``: the commit, with ``+`` appended if tracked files differ from it; None if the code does not come from
    a git checkout. ``code``: the first 12 hexadecimal digits of a SHA-256 hash of all source files; None if one cannot
    be read.
    """
    return {"git_commit": _git_commit(), "code": _source_hash()}


def _source_hash() -> str | None:
    digest = hashlib.sha256()
    paths = {path.relative_to(_ROOT).as_posix(): path for folder in _SOURCES for path in folder.rglob("*.py")}
    try:
        for name in sorted(paths):
            digest.update(f"{name}\0".encode() + paths[name].read_bytes() + b"\0")
    except OSError:  # no run fails because its code cannot be described
        return None
    return digest.hexdigest()[:12]


def _git_commit() -> str | None:
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:  # installed inside an unrelated checkout
        return None
    commit = _git("rev-parse", "HEAD")
    return f"{commit}+" if commit and _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
