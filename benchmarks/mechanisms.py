"""What each arm and mechanism costs in training, over its relative with a softmax over all positions.

    python benchmarks/mechanisms.py [--lengths S ...] [--vocabulary V] [--rounds N] [--only WORD ...]
                                    [--limit X] > benchmarks/mechanisms.txt

The relative has the same wiring: plain, luong_general, bahdanau or transformer. Every arm of conf/decoder is measured
but the presets, which have sizes of their own, and with the relatives each normaliser, kind of positions and cell, four
heads, and Bahdanau's wiring step by step, for its kernel has the softmax only. A step is forward, backward and Adam on
64 random pairs with S = T tokens, E = 128, H = A = 256, float32. A few models and their relative take turns, one step
each, in one process; a ratio compares two steps of the same turn. Printed are the median over rounds, the lowest and
the highest ratio. Do not use the machine for anything else meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from bench import BATCH, EMBEDDING, HIDDEN, learner

from attnspan.config.compose import compose_config
from attnspan.config.instantiate import assemble_model
from attnspan.training.machine import processor_name

CONF = Path(__file__).parents[1] / "conf"
RELATIVES = {"plain": "plain", "luong": "luong_general", "hard": "luong_general", "bahdanau": "bahdanau"}
"""By the module of the decoder."""
PRESETS = ("bahdanau_2015", "luong_2015")
TOGETHER = 4
"""Models that take turns with their relative."""


def variants() -> dict[str, list[str]]:
    """What is measured, by relative: overrides, the first of which is the arm."""
    found: dict[str, list[str]] = {"plain": [], "luong_general": [], "bahdanau": [], "transformer": []}
    for arm in names("decoder"):
        if arm not in (*PRESETS, *found):
            found[RELATIVES[compose_config(f"decoder={arm}")["decoder"]["_target_"].split(".")[-2]]].append(arm)
    for relative in ("luong_general", "bahdanau", "transformer"):
        without = ("softmax", "hard") if relative == "transformer" else ("softmax",)  # hard has one head, it has four
        normalisers = [name for name in names("decoder/normaliser") if name not in without]
        found[relative] += [f"{relative} decoder/normaliser={name}" for name in normalisers]
    found["bahdanau"] += ["bahdanau decoder.fused=false", "bahdanau decoder.heads=4"]
    found["luong_general"] += [f"luong_general rnn={cell}" for cell in names("rnn") if cell != "gru"]
    kinds = [kind for kind in names("decoder/positions") if kind != "sinusoidal"]
    found["transformer"] += [f"transformer decoder/positions={kind} encoder/positions={kind}" for kind in kinds]
    return found


def names(group: str) -> list[str]:
    """The files of a group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def step(what: str, length: int, vocabulary: int) -> Callable[[], float]:
    """A training step of a model; what it returns is its seconds."""
    arm, *more = what.split()
    config = compose_config(
        f"decoder={arm}", *more, "logger=none", f"model.hidden_size={HIDDEN}", f"model.embedding_size={EMBEDDING}"
    )
    widen(config["decoder"])
    torch.manual_seed(1)
    model = assemble_model(config, source_vocabulary_size=vocabulary, target_vocabulary_size=vocabulary)
    source, lengths = model.random_sources([length] * BATCH)
    target = torch.randint(4, vocabulary, (BATCH, length))
    learn = learner(model)

    def taken() -> float:
        began = time.perf_counter()
        learn(source, lengths, target, target)
        return time.perf_counter() - began

    taken()
    return taken


def widen(node: Any) -> None:
    """Set A wherever a part of the decoder has it."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if key == "attention_size":
            node[key] = HIDDEN
        widen(value)


def rows(
    relative: str, wanted: Sequence[str], length: int, vocabulary: int, rounds: int
) -> Iterator[tuple[str, float, list[float]]]:
    """Name, median seconds and ratios of the relative and of each that is wanted."""
    of_relative: list[float] = []
    for begin in range(0, len(wanted), TOGETHER):
        some = wanted[begin : begin + TOGETHER]
        steps = {what: step(what, length, vocabulary) for what in (relative, *some)}
        turns = [{what: run() for what, run in steps.items()} for _ in range(rounds)]
        of_relative += [turn[relative] for turn in turns]
        for what in some:
            yield what, statistics.median(turn[what] for turn in turns), [turn[what] / turn[relative] for turn in turns]
    yield relative, statistics.median(of_relative), []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=[50, 100])
    parser.add_argument("--vocabulary", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="names that hold one of these")
    parser.add_argument("--limit", type=float, default=1.6, help="ratios above it are marked")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    began = time.perf_counter()
    print(f"python {' '.join(sys.argv)}")
    print(f"{datetime.now(UTC):%Y-%m-%d}, {processor_name()}, {platform.platform()},")
    print(f"python {platform.python_version()}, torch {version('torch')}, {options.threads} threads, ", end="")
    print(f"{options.rounds} rounds; B {BATCH}, V {options.vocabulary}, E {EMBEDDING}, H = A {HIDDEN}")
    over = measured = 0
    for relative, every in variants().items():
        wanted = [what for what in every if any(word in what for word in options.only)]
        for length in options.lengths if wanted else ():
            print(f"\nS = T = {length:<62} {'ms':>7}  time over {relative}", flush=True)
            for what, seconds, ratios in rows(relative, wanted, length, options.vocabulary, options.rounds):
                row = f"{what:70} {1000 * seconds:7.1f}"
                if ratios:
                    middle, measured = statistics.median(ratios), measured + 1
                    mark = f"  over {options.limit:g}" if middle > options.limit else ""
                    over += bool(mark)
                    row += f"  {middle:.2f} ({min(ratios):.2f}–{max(ratios):.2f}){mark}"
                print(row, flush=True)
    print(f"\n{over} of {measured} ratios are over {options.limit:g}; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
