"""When a run or an evaluation counts as finished: its summary says so, and its files are still what they were."""

from __future__ import annotations

from pathlib import Path

from attnspan.checksums import find_damage
from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.runs.layout import ATTENTION, BEST, FILES, SUMMARY, WEIGHTS, is_evaluation, needed_files, run_of


def is_finished(directory: Path, *, hashes: bool = True) -> bool:
    """Whether the run in ``directory`` is finished; see :func:`why_unfinished`."""
    return (directory / SUMMARY).is_file() and why_unfinished(directory, hashes=hashes) is None


def why_unfinished(directory: Path, *, weights: bool = True, hashes: bool = True) -> str | None:
    """Say in words why the run or evaluation in ``directory`` does not count as finished; None if it does.

    Besides the files of :func:`attnspan.runs.layout.needed_files`, the summary and, where the arm has any, the
    attention count. An evaluation counts only while its run has the weights that it decoded with.

    Args:
        directory: of the run or evaluation.
        weights: whether the weights count, too.
        hashes: read the files through; without, only their sizes are compared.

    Raises:
        InputError: a file cannot be read now. If the run counted as unfinished, it would be computed again.
    """
    needed = needed_files(directory, weights=weights)
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
    if is_evaluation(directory) and weights_of(run_of(directory)) not in (None, summary.get(WEIGHTS)):
        return "its run was computed again since, and has other weights"
    kept = [*needed, *([ATTENTION] if ATTENTION in manifest else [])]
    return find_damage(directory, {name: manifest[name] for name in kept}, hashes=hashes)


def weights_of(run: Path) -> str | None:
    """The sha256 of a finished run's weights, as its summary has it; None if it has no whole summary."""
    try:
        return str(read_json(run / SUMMARY)[FILES][BEST]["sha256"])
    except (InputError, KeyError, TypeError):
        return None
