"""Memory against the size of a corpus: to prepare it, and to get from its cache to the first batch.

    python benchmarks/scale.py [--pairs N ...] > benchmarks/scale.txt

The corpus has pairs of about 20 words, drawn from 30,000 by a law like Zipf's, in two plain text files per split; BPE
with 8,000 entries is shared by both sides. Each number comes from a process of its own: the most anonymous memory that
the process and its children held at a time, minus that of its imports. From 100,000 pairs on, two processes tokenise
the texts on two cores, and their imports are counted. Memory-mapped files are not counted, because the system takes
their pages back when it needs them; for the training split the table gives the share that was in memory at the first
batch, and the seconds until then. The cache is also read through once to verify it; training does not wait for a large
one. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

PAIRS = [10_000, 100_000, 1_000_000]
WORDS = 30_000
MB = 2**20


def write_corpus(directory: Path, pairs: int) -> None:
    """Write two files per split; validation and test have 1,000 pairs."""
    draw = np.random.default_rng(1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(draw.choice(letters, draw.integers(2, 12))) for _ in range(WORDS)]
    for split, size in (("train", pairs), ("validation", 1000), ("test", 1000)):
        for side in ("one", "two"):
            with (directory / f"{split}.{side}").open("w", encoding="utf-8") as file:
                for _ in range(size):
                    ranks = draw.zipf(1.2, draw.integers(8, 33)) % WORDS
                    file.write(" ".join(words[rank] for rank in ranks) + "\n")


def measure(directory: Path) -> dict[str, float]:
    """Memory that this process needs to prepare the corpus or, if it is prepared, to load the first batch."""
    from attnspan.data.corpora.parallel import Parallel
    from attnspan.data.pipeline.batches import EncodedSplit, TrainingLoader, plan_batches
    from attnspan.data.pipeline.prepare import prepare

    corpus = Parallel(
        **{split: str(directory / split) for split in ("train", "validation", "test")},
        source="one",
        target="two",
        source_tokens="bpe",
        target_tokens="bpe",
        joint_vocabulary=True,
        limits={part: {"source": 1000, "target": 1000} for part in ("train", "evaluation")},
    )
    if not (directory / "cache").exists():
        with most_anonymous() as making:
            prepare(corpus, cache_dir=directory / "cache")
        return {"making": making[0] / MB}
    began = time.perf_counter()
    with most_anonymous() as batch:
        prepared = prepare(corpus, cache_dir=directory / "cache")
        split = EncodedSplit(prepared.train)
        batches = plan_batches(split, 2048, "loader.batch_tokens")
        next(iter(TrainingLoader(split=split, batches=batches, seed=1, workers=0, pin_memory=False)))
    seconds = time.perf_counter() - began
    cache = Path(prepared.train.cache_files[0]["filename"])
    size = cache.stat().st_size
    return {"seconds": seconds, "batch": batch[0] / MB, "cached": size / MB, "touched": resident(cache) / size}


@contextmanager
def most_anonymous() -> Iterator[list[float]]:
    """A list whose first number becomes the peak anonymous memory, in bytes, minus that at the start."""
    start, most, done = anonymous(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], anonymous() - start)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield most
    finally:
        done.set()
        watching.join()


def anonymous() -> int:
    """Anonymous memory of this process and its children, in bytes."""
    children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    return sum(held("RssAnon", name) for name in ("self", *children))


def held(what: str, process: str = "self") -> int:
    """The value of a line of /proc/.../status, in bytes; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{what}:")), 0)


def resident(file: Path) -> int:
    """Bytes of a mapped file that are in memory."""
    size, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, *rest = line.split()
        if not key.endswith(":"):  # first line of a mapping
            ours = line.endswith(str(file))
        elif ours and key == "Rss:":
            size += 1024 * int(rest[0])
    return size


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", type=int, default=PAIRS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    print(
        "training pairs   cache of training   to prepare   to first batch          after"
        "   share of the cache in memory then"
    )
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory() as directory:
            write_corpus(Path(directory), pairs)
            command = [sys.executable, __file__, "--measure", directory]
            found: dict[str, float] = {}
            for _ in ("prepare", "first batch"):
                found |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            needs = f"{found['making']:7,.0f} MB   {found['batch']:11,.0f} MB   {found['seconds']:8.1f} s"
            print(f"{pairs:14,}   {found['cached']:14,.0f} MB   {needs}   {found['touched']:34.0%}", flush=True)


if __name__ == "__main__":
    main()
