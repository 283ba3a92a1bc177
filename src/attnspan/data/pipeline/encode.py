"""Texts to token ids, a thousand rows at a time, by as many processes as there are cores.

Each process takes its share of the pieces of a split's Arrow file, in turn, and writes what it makes of them to a file
of its own; so neither order nor content of what comes out depends on how many they are. They are commands,
``python -m attnspan.data.pipeline.encode``, which read one line of JSON: unlike the workers of a pool they import
nothing of the
program that started them, and they end when it does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa

from attnspan.data.tokenizer import Tokenizer
from attnspan.errors import InputError

ROWS_A_PROCESS = 50_000
"""Rows for which starting one more process pays."""

_SIDES = ("source", "target")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be made of the rows of a split."""

    rows: str
    """Path of an Arrow file with ``id``, ``source`` and ``target``."""
    tokenizers: Mapping[str, str]
    """Side to the path of its tokenizer."""
    limits: Mapping[str, int | None]
    """Side to the most tokens that it may have; None for any."""
    long_is_bad: bool
    """Whether a longer row is a bad one; otherwise it is left out and counted."""


@dataclass(kw_only=True)
class Encoded:
    """A piece of a split with the columns ``source_ids`` and ``target_ids``, and what became of its other rows."""

    batch: pa.RecordBatch
    long: int = 0
    """Rows left out because they are longer than a limit, where that is allowed."""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """Rows left out because they could not be used: id, and what is wrong."""


def encode(task: Task, work: Path, *, processes: int | None = None) -> Iterator[Encoded]:
    """The pieces of a split, in their order.

    Args:
        task: what to do.
        work: a directory for the processes' files.
        processes: that share the work; None for one a core, as far as there are rows for them.

    Raises:
        InputError: a process did not come to its end, for want of disk or memory.
    """
    with _pieces(Path(task.rows)) as pieces:
        sizes = [piece.num_rows for piece in pieces]
    if processes is None:
        processes = min(_cores(), sum(sizes) // ROWS_A_PROCESS)
    processes = max(1, min(processes, len(sizes)))
    if processes == 1:
        yield from _share(task, 0, 1)
        return
    outs = [work / f"{Path(task.rows).name}.{number}" for number in range(processes)]
    with ExitStack() as stack:
        running = [stack.enter_context(_start(task, number, processes, out)) for number, out in enumerate(outs)]
        for process in running:
            stack.callback(process.terminate)  # whatever happens, none is left
        for number, process in enumerate(running):
            _, said = process.communicate()
            if process.returncode:
                words = (said.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
                which = f"process {number + 1} of {processes} that cuts texts into tokens"
                raise InputError(f"{work}: {which} failed ({words})")
    with ExitStack() as stack:
        parts = [iter(stack.enter_context(_pieces(out))) for out in outs]
        notes = [json.loads(_notes(out).read_text(encoding="utf-8")) for out in outs]
        for turn in range(sum(map(len, notes))):
            note = notes[turn % processes][turn // processes]
            bad = [(name, wrong) for name, wrong in note["bad"]]
            yield Encoded(batch=next(parts[turn % processes]), long=note["long"], bad=bad)
    for out in outs:
        out.unlink()
        _notes(out).unlink()


def _share(task: Task, number: int, processes: int) -> Iterator[Encoded]:
    """What process ``number`` (from 0) makes of its share of the pieces."""
    tokenizers = {side: Tokenizer.load(Path(task.tokenizers[side])) for side in _SIDES}
    with _pieces(Path(task.rows)) as pieces:
        for turn, piece in enumerate(pieces):
            if turn % processes == number:
                yield _encode(piece, tokenizers, task)


def _encode(batch: pa.RecordBatch, tokenizers: Mapping[str, Tokenizer], task: Task) -> Encoded:
    ids = {side: tokenizers[side].encode_batch(batch[side].to_pylist()) for side in _SIDES}
    for side, lists in ids.items():
        batch = batch.append_column(f"{side}_ids", pa.array(lists, pa.list_(pa.int32())))
    found = Encoded(batch=batch)
    kept = []
    for row, name in enumerate(batch["id"].to_pylist()):
        lengths = {side: len(ids[side][row]) for side in _SIDES}
        wrong = [f"the {side} holds no token" for side in _SIDES if not lengths[side]]
        over = [side for side in _SIDES if (most := task.limits[side]) is not None and lengths[side] > most]
        if task.long_is_bad:
            wrong += [
                f"the {side} has {lengths[side]} tokens, more than data.limits.evaluation.{side}={task.limits[side]}"
                for side in over
            ]
        if wrong:
            found.bad.append((name, wrong[0]))
        found.long += bool(over) and not wrong
        kept.append(not over and not wrong)
    if not all(kept):
        found.batch = batch.filter(pa.array(kept))
    return found


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _pieces(path: Path) -> Iterator[pa.RecordBatchReader]:
    """The record batches of an Arrow file, mapped into memory."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        yield reader


def _notes(out: Path) -> Path:
    """What a process says about its pieces, beside them."""
    return out.with_name(f"{out.name}.json")


def _start(task: Task, number: int, processes: int, out: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "attnspan.data.pipeline.encode"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAYON_NUM_THREADS": "1"},  # a process a core
        start_new_session=True,  # Ctrl-C is for the program, which ends this one
    )
    assert process.stdin is not None
    asked = {"task": asdict(task), "number": number, "processes": processes, "out": str(out), "parent": os.getpid()}
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    return process


def main() -> None:
    """One of the processes."""
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with, args=(asked["parent"],), daemon=True).start()
    out, writer, notes = Path(asked["out"]), None, []
    with ExitStack() as stack:
        for found in _share(Task(**asked["task"]), asked["number"], asked["processes"]):
            if writer is None:
                file = stack.enter_context(pa.OSFile(str(out), "wb"))
                writer = stack.enter_context(pa.ipc.new_stream(file, found.batch.schema))
            writer.write_batch(found.batch)
            notes.append({"long": found.long, "bad": found.bad})
    _notes(out).write_text(json.dumps(notes), encoding="utf-8")


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    main()
