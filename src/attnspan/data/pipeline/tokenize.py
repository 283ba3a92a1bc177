"""Tokenises a split, in batches of a thousand rows, with one process per core.

Each process tokenises every n-th batch of the split's Arrow file and writes the result to a file of its own, so neither
the order nor the content of the result depends on the number of processes. The processes are commands,
``python -m attnspan.data.pipeline.tokenize JSON``. Unlike the workers of a process pool, they do
not import the main program, and they end when it is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice, zip_longest
from pathlib import Path

import pyarrow as pa

from attnspan.data.arrow import lengths_of_side
from attnspan.data.background import in_thread
from attnspan.data.corpora.base import SIDES
from attnspan.data.tokenizer import Tokenizer
from attnspan.errors import InputError
from attnspan.runs.child_process import child_environment

ROWS_PER_PROCESS = 50_000
"""Rows for which another process pays off."""


@dataclass(frozen=True, kw_only=True)
class TokenizeTask:
    """The rows of a split, and how to tokenise them."""

    rows: str
    """Path of an Arrow file with ``id``, ``source`` and ``target``, and perhaps the columns of images."""
    tokenizers: Mapping[str, str]
    """Side to the path of its tokenizer; no source where sources are images."""
    limits: Mapping[str, int | None]
    """Side to its maximum number of tokens, or patches of images; None for no limit."""
    too_long_is_bad: bool
    """Whether a row over the limits is bad; otherwise it is dropped and counted."""


@dataclass(kw_only=True)
class TokenizedBatch:
    """Rows with the columns ``source_ids`` and ``target_ids``, and what happened to the other rows of the batch."""

    rows: pa.RecordBatch
    dropped: int = 0
    """Number of rows dropped because they are too long."""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """(example id, problem) of each unusable row."""


def tokenize(task: TokenizeTask, scratch: Path, *, processes: int | None = None) -> Iterator[TokenizedBatch]:
    """Tokenise the batches of a split, in order.

    Args:
        task: the split.
        scratch: a directory for the files of the processes.
        processes: number of processes; None for one per core, if there are enough rows.

    Raises:
        InputError: a process failed, for example because disk or memory is full.
    """
    with _open_batches(Path(task.rows)) as batches:
        sizes = [batch.num_rows for batch in batches]
    if processes is None:
        processes = min(_available_cores(), sum(sizes) // ROWS_PER_PROCESS)
    processes = max(1, min(processes, len(sizes)))
    if processes == 1:
        yield from _tokenize_share(task, 0, 1)
        return
    outputs = [scratch / f"{Path(task.rows).name}.{number}" for number in range(processes)]
    with ExitStack() as stack:
        running = [stack.enter_context(_start(task, number, processes, out)) for number, out in enumerate(outputs)]
        for process in running:
            stack.callback(process.terminate)
        for number, process in enumerate(running, start=1):
            _, stderr = process.communicate()
            if process.returncode:
                reason = (stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
                raise InputError(f"{scratch}: tokenization process {number} of {processes} failed ({reason})")
    with ExitStack() as stack:
        shares = [stack.enter_context(_open_batches(out)).iter_batches_with_custom_metadata() for out in outputs]
        for turn in zip_longest(*shares):
            for rows, metadata in filter(None, turn):
                report = json.loads(metadata["report"])
                bad = [(example_id, problem) for example_id, problem in report["bad"]]
                yield TokenizedBatch(rows=rows, dropped=report["dropped"], bad=bad)
    for out in outputs:
        out.unlink()


def _tokenize_share(task: TokenizeTask, number: int, processes: int) -> Iterator[TokenizedBatch]:
    """The batches of process ``number`` (from 0)."""
    tokenizers = {side: Tokenizer.load(Path(path)) for side, path in task.tokenizers.items()}
    with _open_batches(Path(task.rows)) as batches:
        for batch in islice(batches, number, None, processes):
            yield _tokenize_batch(batch, tokenizers, task)


def _tokenize_batch(batch: pa.RecordBatch, tokenizers: Mapping[str, Tokenizer], task: TokenizeTask) -> TokenizedBatch:
    ids = {side: tokenizer.encode_batch(batch[side].to_pylist()) for side, tokenizer in tokenizers.items()}
    for side, lists in ids.items():
        batch = batch.append_column(f"{side}_ids", pa.array(lists, pa.list_(pa.int32())))
    result = TokenizedBatch(rows=batch)
    kept = []
    counts = {side: lengths_of_side(batch, side).tolist() for side in SIDES}
    for row, example_id in enumerate(batch["id"].to_pylist()):
        lengths = {side: counts[side][row] for side in SIDES}
        empty = [side for side in SIDES if lengths[side] == 0]
        too_long = [side for side in SIDES if (limit := task.limits[side]) is not None and lengths[side] > limit]
        if empty:
            result.bad.append((example_id, f"the {empty[0]} has no tokens"))
        elif too_long and task.too_long_is_bad:
            side = too_long[0]
            key = f"data.limits.evaluation.{side}"
            unit = "tokens" if side in tokenizers else "patches"
            problem = f"the {side} has {lengths[side]} {unit}, more than {key}={task.limits[side]}"
            result.bad.append((example_id, problem))
        elif too_long:
            result.dropped += 1
        kept.append(not empty and not too_long)
    if not all(kept):
        result.rows = batch.filter(pa.array(kept))
    return result


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _open_batches(path: Path) -> Iterator[pa.RecordBatchReader]:
    """The record batches of an Arrow file, mapped into memory."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        yield reader


def _start(task: TokenizeTask, number: int, processes: int, out: Path) -> subprocess.Popen[str]:
    request = {"task": asdict(task), "number": number, "processes": processes, "out": str(out), "parent": os.getpid()}
    return subprocess.Popen(
        [sys.executable, "-m", "attnspan.data.pipeline.tokenize", json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(RAYON_NUM_THREADS="1"),  # one process per core
        start_new_session=True,  # Ctrl-C goes to the main program only, which terminates this process
    )


def main() -> None:
    """Run one of the processes."""
    request = json.loads(sys.argv[1])
    in_thread(lambda: _exit_with(request["parent"]))
    writer = None
    with ExitStack() as stack:
        for batch in _tokenize_share(TokenizeTask(**request["task"]), request["number"], request["processes"]):
            if writer is None:
                file = stack.enter_context(pa.OSFile(request["out"], "wb"))
                writer = stack.enter_context(pa.ipc.new_stream(file, batch.rows.schema))
            report = json.dumps({"dropped": batch.dropped, "bad": batch.bad})
            writer.write_batch(batch.rows, custom_metadata={"report": report})


def _exit_with(parent: int) -> None:
    """End this process when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    main()
