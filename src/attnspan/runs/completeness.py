"""When a run counts as finished: its summary says so, and its files are still what they were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attnspan.checksums import find_damage
from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.runs.layout import ATTENTION, FILES, NEEDED, SUMMARY


def is_finished(directory: Path, *, hashes: bool = True) -> bool:
    """Whether the run in ``directory`` is finished; see :func:`why_unfinished`."""
    return (directory / SUMMARY).is_file() and why_unfinished(directory, hashes=hashes) is None


def why_unfinished(directory: Path, *, needed: Sequence[str] = NEEDED, hashes: bool = True) -> str | None:
    """Say in words why the run in ``directory`` does not count as finished; None if it does.

    Args:
        directory: of the run.
        needed: the files that count, besides the summary and, where the arm has any, the attention.
        hashes: read the files through; without, only their sizes are compared.

    Raises:
        InputError: a file cannot be read now. If the run counted as unfinished, it would be computed again.
    """
    if missing := [name for name in (*needed, SUMMARY) if not (directory / name).is_file()]:
        return f"{', '.join(missing)} missing"
    try:
        summary = read_json(directory / SUMMARY)
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return f"{SUMMARY} is damaged"
    if summary.get("finished") is not True:
        return f"its {SUMMARY} says so"
    manifest = summary.get(FILES)
    if not isinstance(manifest, dict) or (unknown := [name for name in needed if name not in manifest]):
        return f"its {SUMMARY} does not say what {unknown[0] if isinstance(manifest, dict) else 'each file'} was"
    kept = [*needed, *([ATTENTION] if ATTENTION in manifest else [])]
    return find_damage(directory, {name: manifest[name] for name in kept}, hashes=hashes)
