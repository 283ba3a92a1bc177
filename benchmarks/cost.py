"""What attention costs by length: training and greedy decoding in target tokens a second, and memory.

    python benchmarks/cost.py [--arms ARM ...] [--lengths S ...] [--rounds N] [--seconds X] > benchmarks/cost.txt

Sources and targets are random and of one length S, in batches of the default size; all else is the default config, one
thread. Every measurement is a process of its own, so that its peak of memory is its own: what stands here is by how
much that lies above the same process after its imports. In each round all arms and lengths take turns, and a ratio
compares two arms within a round; medians over the rounds. Decoding never says <eos>: it puts out S tokens for every
source. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ARMS = ["plain", "bahdanau", "luong_general"]
LENGTHS = [10, 25, 50, 100]
SYMBOLS = 30
"""Vocabulary size on both sides, with the four special tokens."""


def measure(arm: str, length: int, seconds: float) -> dict[str, float]:
    """Tokens a second and MB of one arm at one length, in this process."""
    import torch
    from hydra import compose, initialize_config_dir
    from torch.nn import functional as F

    from attnspan.assemble import assemble_model
    from attnspan.build import build
    from attnspan.data.tokenization import BOS, EOS, PAD
    from attnspan.models.search import Greedy, LengthLimit, Specials
    from attnspan.settings import conf_directory, plain_config

    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        found = compose("train", overrides=[f"decoder={arm}", "logger=none"], return_hydra_config=True)
    config = plain_config(found, found.hydra.runtime.choices)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    forget_peak()
    before = peak_mb()

    model = assemble_model(config, source_vocabulary_size=SYMBOLS, target_vocabulary_size=SYMBOLS)
    optimizer = build(config, "optimizer")(model.parameters())
    B = config["loader"]["batch_tokens"] // (length + 1)
    source = torch.randint(4, SYMBOLS, (B, length))
    target = torch.randint(4, SYMBOLS, (B, length))
    edge = torch.full((B, 1), BOS)
    given, expected = torch.cat([edge, target], dim=1), torch.cat([target, torch.full_like(edge, EOS)], dim=1)
    lengths = torch.full((B,), length)

    def train() -> int:
        logits, _ = model(source, lengths, given)
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), expected.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config["trainer"]["gradient_clip_val"])
        optimizer.step()
        return expected.numel()

    trained = rate(train, seconds)
    model.eval()
    with torch.no_grad():
        model.readout.bias[EOS] = -1e9
    search = Greedy(limit=LengthLimit(ratio=1.0, margin=0))

    def decode() -> int:
        return int(search(model, source, lengths, specials=Specials(pad=PAD, bos=BOS, eos=EOS)).lengths.sum())

    decoded = rate(decode, seconds)
    return {"training": trained, "decoding": decoded, "memory": peak_mb() - before}


def rate(work: Callable[[], int], seconds: float) -> float:
    """Tokens a second of ``work``, which says how many it has done: once to warm up, then for at least ``seconds``."""
    work()
    began, tokens = time.perf_counter(), 0
    while (now := time.perf_counter()) < began + seconds:
        tokens += work()
        now = time.perf_counter()
    return tokens / (now - began)


def peak_mb() -> float:
    """Most memory that this process held since :func:`forget_peak` (Linux; getrusage begins with the parent's)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def forget_peak() -> None:
    """What the imports needed for a moment is not the model's."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def in_process(arm: str, length: int, seconds: float) -> dict[str, float]:
    """:func:`measure` in a process of its own."""
    command = [sys.executable, __file__, "--measure", arm, str(length), str(seconds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", nargs="+", default=ARMS, help="the first is what the others are compared to")
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of training, and of decoding, a measurement")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        arm, length, seconds = options.measure
        print(json.dumps(measure(arm, int(length), float(seconds))))
        return

    cells = [(length, arm) for length in options.lengths for arm in options.arms]
    found: dict[tuple[int, str], list[dict[str, float]]] = {cell: [] for cell in cells}
    for number in range(options.rounds):
        for length, arm in cells if number % 2 == 0 else reversed(cells):
            found[length, arm].append(in_process(arm, length, options.seconds))

    from importlib.metadata import version

    from attnspan.run import _processor

    print(f"{datetime.now(UTC):%Y-%m-%d}, {_processor()}, {platform.platform()}, python {platform.python_version()},")
    print(f"torch {version('torch')}, one thread; medians of {options.rounds} rounds; x: over {options.arms[0]}")
    print()
    head = f"{'training':>17} {'decoding':>17} {'peak':>14}"
    unit = f"{'tokens/s':>10} {'x':>6} {'tokens/s':>10} {'x':>6} {'MB':>7} {'x':>6}"
    wide = max(map(len, options.arms))
    print(f"{'':6} {'':{wide}} {head}")
    print(f"{'source':>6} {'arm':{wide}} {unit}")
    for length, arm in cells:
        row = f"{length:6} {arm:{wide}}"
        for what, width in (("training", 10), ("decoding", 10), ("memory", 7)):
            values = [one[what] for one in found[length, arm]]
            base = [one[what] for one in found[length, options.arms[0]]]
            ratio = statistics.median(mine / its for mine, its in zip(values, base, strict=True))
            row += f" {statistics.median(values):{width},.0f} {ratio:6.2f}"
        print(row)


if __name__ == "__main__":
    main()
