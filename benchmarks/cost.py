"""What attention costs by length and recurrent cell: speed of training and decoding, memory, updates needed.

    python benchmarks/cost.py [--arms ARM ...] [--rnn CELL ...] [--lengths S ...] [--rounds N] [--seconds X]
                              [--loss NATS] [--updates N] > benchmarks/cost.txt

The task is to reverse random sequences of one length S, in batches of the default size; everything else is the default
config, with one thread. First each arm learns, with one seed. No batch is used twice, so the loss of a batch before its
update is a validation loss. Counted are the updates until the mean of ten losses is at most ``--loss`` (guessing gives
ln 26 = 3.26), up to ``--updates``; the learning rate warms up as by default and then stays constant. Two arms learn at
a time. Then speeds are measured one at a time; do not use the machine for anything else meanwhile.

Each measurement has its own process, so that its peak memory is its own; memory is counted from that of the same
process after its imports. In each round all arms and lengths take turns. A ratio compares two cases of one round, and
medians over the rounds are printed. Decoding never produces <eos>, so it produces S tokens for every source. The time
to learn is the number of updates times the median time of one.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from meter import forget_peak, peak_mb, rate
from torch import Tensor
from torch.nn import functional as F

from attnspan.config.compose import compose_config
from attnspan.config.instantiate import assemble_model, build
from attnspan.data.tokenizer import BOS, EOS
from attnspan.models.decoding.greedy import Greedy
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.training.lightning_module import SPECIALS
from attnspan.training.machine import processor_name

ARMS = ["plain", "bahdanau", "luong_general"]
CELLS = ["gru", "lstm"]
LENGTHS = [10, 25, 50, 100]
SYMBOLS = 30
"""Vocabulary size on both sides, with the four special tokens."""


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    length: int
    rnn: str
    arm: str

    def config(self) -> dict[str, Any]:
        """The default config with this arm and cell."""
        return compose_config(f"decoder={self.arm}", f"rnn={self.rnn}", "logger=none")


class Trainee:
    """A model with its optimizer, on the task.

    Args:
        case: arm, cell and length.
        seed: of weights and sequences.
    """

    def __init__(self, case: Case, seed: int) -> None:
        torch.manual_seed(seed)
        config = case.config()
        self.model = assemble_model(config, source_vocabulary_size=SYMBOLS, target_vocabulary_size=SYMBOLS)
        self.optimizer = build(config, "optimizer")(self.model.parameters())
        self.warmup_steps = int(config["schedule"]["warmup_steps"])
        self._full_rate = float(self.optimizer.param_groups[0]["lr"])
        self._largest_norm = config["trainer"]["gradient_clip_val"]
        self._size = (config["loader"]["batch_tokens"] // (case.length + 1), case.length)
        self.lengths = torch.full(self._size[:1], case.length)

    @property
    def tokens(self) -> int:
        """Target tokens of a batch, <eos> included."""
        return self._size[0] * (self._size[1] + 1)

    def draw(self) -> Tensor:
        """Sources [B, S]."""
        return torch.randint(4, SYMBOLS, self._size)

    def update(self, source: Tensor, share: float = 1.0) -> Tensor:
        """One update with a share of the full learning rate. Returns the loss before it."""
        target, edge = source.flip(1), torch.full((len(source), 1), BOS)
        logits, _ = self.model(source, self.lengths, torch.cat([edge, target], dim=1))
        expected = torch.cat([target, torch.full_like(edge, EOS)], dim=1)
        loss = F.cross_entropy(logits.flatten(0, 1), expected.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._largest_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = share * self._full_rate
        self.optimizer.step()
        return loss.detach()


def learn(case: Case, seed: int, loss: float, most: int) -> int | None:
    """Updates until the mean of ten losses is at most ``loss``; None if ``most`` updates are not enough."""
    trainee = Trainee(case, seed)
    last: deque[float] = deque(maxlen=10)
    for update in range(1, most + 1):
        last.append(float(trainee.update(trainee.draw(), min(1.0, update / trainee.warmup_steps))))
        if len(last) == last.maxlen and statistics.mean(last) <= loss:
            return update
    return None


def measure(case: Case, seconds: float) -> dict[str, float]:
    """Tokens per second, seconds per update and MB of one arm at one length, in this process."""
    forget_peak()
    before = peak_mb()
    trainee = Trainee(case, 1)
    source = trainee.draw()

    def train() -> int:
        trainee.update(source)
        return trainee.tokens

    trained = rate(train, seconds)
    trainee.model.eval()
    with torch.no_grad():
        trainee.model.readout.bias[EOS] = -1e9
    decoding = Greedy(limit=LengthLimit(ratio=1.0, margin=0))

    def decode() -> int:
        return int(decoding(trainee.model, source, trainee.lengths, specials=SPECIALS).lengths.sum())

    decoded = rate(decode, seconds)
    return {
        "training": trained,
        "decoding": decoded,
        "memory": peak_mb() - before,
        "update": trainee.tokens / trained,
    }


def in_process(*arguments: object) -> Any:
    """Run this file with ``--one`` in another process; what it prints."""
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def one(what: str, length: str, rnn: str, arm: str, *more: str) -> None:
    """Print one measurement as JSON."""
    torch.set_flush_denormal(True)  # as every run does
    torch.set_num_threads(1)
    case = Case(int(length), rnn, arm)
    if what == "learn":
        seed, loss, most = more
        print(json.dumps(learn(case, int(seed), float(loss), int(most))))
    else:
        print(json.dumps(measure(case, float(more[0]))))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=ARMS, help="the others are compared to the first")
    parser.add_argument("--rnn", nargs="+", default=CELLS, help="the others are compared to the first")
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of training and of decoding, for each measurement")
    parser.add_argument("--loss", type=float, default=1.0, help="nats per token, down to which the time is measured")
    parser.add_argument("--updates", type=int, default=400, help="most updates to get there")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(*options.one)
        return

    cases = [Case(length, rnn, arm) for length in options.lengths for rnn in options.rnn for arm in options.arms]
    with ThreadPoolExecutor(2) as pool:
        tasks = {
            case: pool.submit(in_process, "learn", case.length, case.rnn, case.arm, 1, options.loss, options.updates)
            for case in cases
        }
        learned = {case: task.result() for case, task in tasks.items()}
    found: dict[Case, list[dict[str, float]]] = {case: [] for case in cases}
    for number in range(options.rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            found[case].append(in_process("measure", case.length, case.rnn, case.arm, options.seconds))

    from importlib.metadata import version

    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {processor_name()}, {platform.platform()}, python {platform.python_version()},"
    )
    print(f"torch {version('torch')}, one thread; medians of {options.rounds} rounds; x: over {options.arms[0]} with")
    print(f"{options.rnn[0]}; loss {options.loss:g}: updates and seconds until a loss of {options.loss:g} nats a token")
    print()
    wide, narrow = max(map(len, options.arms)), max(map(len, options.rnn))
    print(f"{'':6} {'':{narrow}} {'':{wide}} {'training':>15} {'decoding':>15} {'peak':>11}   to loss {options.loss:g}")
    print(
        f"{'source':>6} {'':{narrow}} {'arm':{wide}} {'tokens/s':>9} {'x':>5} {'tokens/s':>9} {'x':>5}"
        f" {'MB':>5} {'x':>5} {'updates':>8} {'s':>6}"
    )
    for case in cases:
        row = f"{case.length:6} {case.rnn:{narrow}} {case.arm:{wide}}"
        for what, width in (("training", 9), ("decoding", 9), ("memory", 5)):
            values = [one[what] for one in found[case]]
            base = [one[what] for one in found[Case(case.length, options.rnn[0], options.arms[0])]]
            ratio = statistics.median(mine / its for mine, its in zip(values, base, strict=True))
            row += f" {statistics.median(values):{width},.0f} {ratio:5.2f}"
        print(row + to_loss(learned[case], statistics.median(one["update"] for one in found[case]), options.updates))


def to_loss(updates: int | None, seconds: float, most: int) -> str:
    """The updates and their time; a lower bound if the loss was not reached."""
    if updates is None:
        return f" {f'> {most:,}':>8} {f'> {most * seconds:.0f}':>6}"
    return f" {updates:8,} {updates * seconds:6.0f}"


if __name__ == "__main__":
    main()
