"""Speed: what a step costs in each arm, next to torch's bare kernels and to the decoders of other toolkits.

    make bench          ours alone
    make bench-peers    also JoeyNMT 2.3, installed from the package index into its own environment
    make bench-opennmt  training steps, ours and OpenNMT-py 3.0's, installed likewise
    python benchmarks/bench.py [--what train|greedy|beam ...] [--lengths S ...] [--vocabularies V ...] [--arms ARM ...]
                               [--rounds N] [--seconds X] [--matmul-precision P] [--joeynmt PYTHON] [--opennmt PYTHON]
                               [--json FILE]
    python benchmarks/bench.py --print FILE

A step is forward, backward and Adam on 64 random pairs with S = T tokens, E = 128, H = A = 256, float32. ``torch`` is
the plain arm written with nothing but torch.nn: a bidirectional GRU, a linear bridge, a GRU, a linear readout. Our arms
and this one treat denormal numbers as zero, as every run of attnspan does; other toolkits run as they are installed.
Each training case has its own process, and so has each decoding with all of its lengths; a measurement is the median of
its steps. Cases take turns, in reverse order in every second round; printed are the median over rounds, the lowest and
the highest. Memory is counted from that of the same process after its imports. GFLOP counts torch's matrix products
alone, not the multiplications inside the compiled kernels. Decoding produces T tokens for each of 64 sources. Do not
use the machine for anything else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from meter import forget_peak, median_seconds, peak_mb, product_gflops
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from attnspan.config.compose import compose_config
from attnspan.config.instantiate import assemble_model
from attnspan.data.tokenizer import EOS, PAD
from attnspan.models.decoding.beam import Beam
from attnspan.models.decoding.greedy import Greedy
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.decoding.length_penalty import LengthNormalisation
from attnspan.training.lightning_module import SPECIALS
from attnspan.training.machine import processor_name

BATCH, EMBEDDING, HIDDEN = 64, 128, 256
ARMS = ["torch", "plain", "luong_general", "luong_general_feeding", "bahdanau"]
BASE = "plain"
PEERS = {"joeynmt": ("bahdanau", "luong"), "opennmt": ("mlp", "general")}
"""Other toolkits and the names of their arms. OpenNMT-py is measured in training only."""
COMPARED = {
    "bahdanau": ("joeynmt bahdanau", "opennmt mlp"),
    "luong_general_feeding": ("joeynmt luong", "opennmt general"),
}
"""What an arm is compared to: the first of these that was measured."""


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    what: str
    arm: str
    length: int
    vocabulary: int


Found = dict[Case, list[dict[str, float]]]
"""Measurements of each round."""


class Bare(nn.Module):
    """The plain arm without attnspan."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(vocabulary, EMBEDDING), nn.Embedding(vocabulary, EMBEDDING)
        self.encoder = nn.GRU(EMBEDDING, HIDDEN // 2, bidirectional=True, batch_first=True)
        self.bridge = nn.Linear(HIDDEN, HIDDEN)
        self.decoder = nn.GRU(EMBEDDING, HIDDEN, batch_first=True)
        self.readout = nn.Linear(HIDDEN, vocabulary)

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> tuple[Tensor, None]:
        """Logits [B, T, V]."""
        _, last = self.encoder(self.source(source))
        first = torch.tanh(self.bridge(last.transpose(0, 1).flatten(1))).unsqueeze(0)
        return self.readout(self.decoder(self.target(target), first)[0]), None


def build_model(arm: str, vocabulary: int) -> nn.Module:
    """An arm of the size above."""
    if arm == "torch":
        return Bare(vocabulary)
    overrides = [f"decoder={arm}", "logger=none", f"model.hidden_size={HIDDEN}", f"model.embedding_size={EMBEDDING}"]
    if arm == "bahdanau":
        overrides.append(f"decoder.score.attention_size={HIDDEN}")
    return assemble_model(
        compose_config(*overrides), source_vocabulary_size=vocabulary, target_vocabulary_size=vocabulary
    )


def measure(case: Case, seconds: float) -> dict[str, float]:
    """Seconds, MB and GFLOP of one step or one decoded batch, in this process."""
    torch.manual_seed(1)
    if case.what == "product":
        return {"gflops": product_gflops(seconds)}
    if case.arm != "torch":
        import attnspan.kernels.compiled  # noqa: F401  counts as one of the imports; it reads the number of threads

    forget_peak()
    before = peak_mb()
    model = build_model(case.arm, case.vocabulary)
    source = torch.randint(4, case.vocabulary, (BATCH, case.length))
    target = torch.randint(4, case.vocabulary, (BATCH, case.length))
    lengths = torch.full((BATCH,), case.length)
    if case.what != "train":
        return {"seconds": median_seconds(decoder(case.what, model, source, lengths), seconds)}
    learn = learner(model)
    taken = median_seconds(lambda: learn(source, lengths, target, target), seconds)
    memory = peak_mb() - before
    with FlopCounterMode(display=False) as counter:
        learn(source, lengths, target, target)
    return {"seconds": taken, "memory": memory, "gflop": counter.get_total_flops() / 1e9}


def learner(model: nn.Module) -> Callable[[Tensor, Tensor, Tensor, Tensor], None]:
    """A training step on sources, their lengths, the decoder's input and its target."""
    optimizer = torch.optim.Adam(model.parameters())

    def learn(source: Tensor, lengths: Tensor, target_input: Tensor, target: Tensor) -> None:
        logits, _ = model(source, lengths, target_input)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return learn


def decoder(what: str, model: Any, source: Tensor, lengths: Tensor) -> Callable[[], object]:
    """Greedy or beam decoding that never produces <eos>."""
    model.eval()
    with torch.no_grad():
        model.readout.bias[EOS] = -1e9
    limit = LengthLimit(ratio=1.0, margin=0)
    decoding = (
        Greedy(limit=limit)
        if what == "greedy"
        else Beam(limit=limit, beam_size=5, length_penalty=LengthNormalisation(exponent=1.0))
    )
    return lambda: decoding(model, source, lengths, specials=SPECIALS)


def in_process(cases: list[Case], options: argparse.Namespace) -> list[dict[str, float]]:
    """Measure cases that differ in length only, in one process: ours, or one in the other toolkit's environment."""
    case = cases[0]
    peer, _, theirs = case.arm.partition(" ")
    if peer in PEERS:
        command = [getattr(options, peer), str(Path(__file__).with_name(f"bench_{peer}.py")), case.what, theirs]
    else:
        command = [sys.executable, __file__, "--one", case.what, case.arm]
    lengths = ",".join(str(one.length) for one in cases)
    command += [lengths, str(case.vocabulary), str(options.threads), str(options.seconds)]
    if peer not in PEERS:
        command += ["--matmul-precision", options.matmul_precision]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: list[dict[str, float]] = json.loads(printed.splitlines()[-1])
    return found


def first_update() -> float:
    """Seconds from the start of the command to the line of the first update, on prepared data (the default run)."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "attnspan.cli.train", f"runs_dir={runs}", "logger=none", "trainer.max_steps=2"]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            taken = next(time.perf_counter() - began for line in process.stdout if "training update" in line)
            process.kill()
        return taken


def loading() -> dict[str, float]:
    """Milliseconds to load a training batch of the default run and to train on it, and the share of padding."""
    from attnspan.config.instantiate import build_corpus
    from attnspan.data.pipeline.datamodule import DataModule
    from attnspan.data.pipeline.prepare import prepare

    config = compose_config("logger=none")
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    loaders = DataModule(
        prepared=prepared,
        seed=1,
        batch_tokens=config["loader"]["batch_tokens"],
        evaluation_batch_tokens=config["loader"]["evaluation_batch_tokens"],
        workers=0,
    )
    began = time.perf_counter()
    batches = list(loaders.train_dataloader())
    taken = time.perf_counter() - began
    sides = [side for batch in batches for side in (batch.source, batch.target_input)]
    padding = sum(int((side == PAD).sum()) for side in sides) / sum(side.numel() for side in sides)

    torch.set_num_threads(config["threads"])
    model = assemble_model(
        config,
        source_vocabulary_size=len(prepared.source_tokenizer),
        target_vocabulary_size=len(prepared.target_tokenizer),
    )
    learn, steps = learner(model), []
    for batch in batches[:30]:
        began = time.perf_counter()
        learn(batch.source, batch.source_lengths, batch.target_input, batch.target_output)
        steps.append(time.perf_counter() - began)
    return {
        "milliseconds": 1000 * taken / len(batches),
        "step_milliseconds": 1000 * statistics.mean(steps[5:]),
        "padding": padding,
    }


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", default=["train", "greedy", "beam"], choices=["train", "greedy", "beam"])
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--lengths", nargs="+", type=int, default=[25, 50, 100, 200])
    parser.add_argument("--vocabularies", nargs="+", type=int, default=[100, 8000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--matmul-precision", default="highest", choices=["highest", "high", "medium"], help="of ours")
    parser.add_argument("--joeynmt", help="the python of an environment with JoeyNMT 2.3")
    parser.add_argument("--opennmt", help="the python of an environment with OpenNMT-py 3.0")
    parser.add_argument("--json", help="also write every measurement to this file, after each round")
    parser.add_argument(
        "--print", type=Path, metavar="FILE", help="measure nothing; print the tables of a file that --json wrote"
    )
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.print:
        print_tables(json.loads(options.print.read_text(encoding="utf-8")))
        return
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision(options.matmul_precision)
    if options.one:
        what, arm, lengths, vocabulary, threads, seconds = options.one
        torch.set_num_threads(int(threads))
        cases = [Case(what, arm, int(length), int(vocabulary)) for length in lengths.split(",")]
        print(json.dumps([measure(case, float(seconds)) for case in cases]))
        return

    arms = [*options.arms, *(f"{peer} {arm}" for peer in PEERS if getattr(options, peer) for arm in PEERS[peer])]
    together = [[Case("product", "", 0, 0)]]
    for vocabulary in options.vocabularies:
        for length in options.lengths:
            together += [[Case("train", arm, length, vocabulary)] for arm in arms if "train" in options.what]
    small = min(options.vocabularies)
    for what in (what for what in options.what if what != "train"):
        searching = [arm for arm in arms if arm != "torch" and not arm.startswith("opennmt")]
        together += [[Case(what, arm, length, small) for length in options.lengths] for arm in searching]
    found: Found = {case: [] for cases in together for case in cases}
    about: dict[str, Any] = {
        "command": f"python {' '.join(sys.argv)}",
        "machine": f"{processor_name()}, {platform.platform()}, python {platform.python_version()}",
        "torch": version("torch"),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "threads": options.threads,
        "matmul_precision": options.matmul_precision,
        "first_update": [first_update() for _ in range(4)][1:],  # the first one prepares the data
        "loading": loading(),
    }
    for number in range(options.rounds):
        for at, cases in enumerate(together if number % 2 == 0 else reversed(together)):
            if sys.stderr.isatty():
                print(f"round {number + 1}/{options.rounds}, {at + 1}/{len(together)}", end="\r", file=sys.stderr)
            for case, one in zip(cases, in_process(cases, options), strict=True):
                found[case].append(one)
        about["measured"] = [{**asdict(case), "rounds": rounds} for case, rounds in found.items()]
        if options.json:
            Path(options.json).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print_tables(about)


def print_tables(about: dict[str, Any]) -> None:
    """Print the contents of the JSON file, without the cases that are not measured yet."""
    found: Found = {Case(**one): rounds for one in about.pop("measured") if (rounds := one.pop("rounds"))}
    product = statistics.median(one["gflops"] for one in found[Case("product", "", 0, 0)])
    first, loaded = about["first_update"], about["loading"]
    print(about["command"])
    print(f"{about['date']}, {about['machine']},")
    rounds = max(map(len, found.values()))
    print(
        f"torch {about['torch']}, {about['threads']} threads, {rounds} rounds;"
        f" B {BATCH}, E {EMBEDDING}, H = A {HIDDEN}; matrix products: {about['matmul_precision']}"
    )
    print(f"a large matrix product: {product:.0f} GFLOP/s")
    print()
    vocabularies = sorted({case.vocabulary for case in found} - {0})
    for vocabulary in vocabularies:
        print_training(found, vocabulary, product)
    for what in dict.fromkeys(case.what for case in found if case.what in ("greedy", "beam")):
        print_decoding(found, what)
    print_fit(found, vocabularies[0])
    print(
        f"from the command to the first update: {statistics.median(first):.1f} s ({min(first):.1f} to {max(first):.1f})"
    )
    print(
        f"the default loader: {loaded['milliseconds']:.2f} ms a batch, "
        f"{loaded['milliseconds'] / loaded['step_milliseconds']:.2%} of a step on it with one thread "
        f"({loaded['step_milliseconds']:.0f} ms); {loaded['padding']:.1%} of its positions are padding"
    )


def median(found: Found, case: Case, key: str) -> float:
    """Over the rounds."""
    return statistics.median(one[key] for one in found[case])


def peer_of(found: Found, case: Case) -> Case:
    """The same case of the arm's counterpart in another toolkit; an arm without a name if there is none."""
    peers = (replace(case, arm=arm) for arm in COMPARED.get(case.arm, ()))
    return next((peer for peer in peers if peer in found), replace(case, arm=""))


def ratio(found: Found, case: Case, other: Case, key: str = "seconds") -> str:
    """Median, lowest and highest ratio of two cases over the rounds; empty if the other was not measured."""
    if other not in found or other == case:
        return ""
    ratios = [mine[key] / its[key] for mine, its in zip(found[case], found[other], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def print_training(found: Found, vocabulary: int, product: float) -> None:
    """Print the table of training steps."""
    print(f"training step, V = {vocabulary:,}")
    print(
        f"{'S = T':>5} {'arm':22} {'ms':>7} {'tokens/s':>9} {'MB':>6} {'GFLOP/s':>8} {'of product':>10}"
        f"  {'time over plain':17} {'time over peer':17} memory over peer"
    )
    for case in (case for case in found if (case.what, case.vocabulary) == ("train", vocabulary)):
        taken = median(found, case, "seconds")
        row = f"{case.length:5} {case.arm:22} {1000 * taken:7.1f} {BATCH * case.length / taken:9,.0f}"
        row += f" {median(found, case, 'memory'):6,.0f}"
        if "gflop" in found[case][0]:
            speed = median(found, case, "gflop") / taken
            row += f" {speed:8.1f} {speed / product:10.0%}"
        else:
            row += f" {'':8} {'':10}"
        peer = peer_of(found, case)
        over = ratio(found, case, replace(case, arm=BASE))
        print(f"{row}  {over:17} {ratio(found, case, peer):17} {ratio(found, case, peer, 'memory')}".rstrip())
    print()


def print_decoding(found: Found, what: str) -> None:
    """Print the table of one decoding strategy."""
    print("greedy decoding" if what == "greedy" else "beam search, 5 places")
    print(f"{'S = T':>5} {'arm':22} {'ms':>7} {'tokens/s':>9}  {'time over plain':17} time over peer")
    for case in sorted((case for case in found if case.what == what), key=lambda case: case.length):
        taken = median(found, case, "seconds")
        over, peer = (ratio(found, case, other) for other in (replace(case, arm=BASE), peer_of(found, case)))
        row = f"{case.length:5} {case.arm:22} {1000 * taken:7.1f} {BATCH * case.length / taken:9,.0f}  {over:17} {peer}"
        print(row.rstrip())
    print()


def print_fit(found: Found, vocabulary: int) -> None:
    """Print a least-squares fit a + b T + c T S of the time of a step; it needs more lengths than coefficients."""
    cases = [case for case in found if (case.what, case.vocabulary) == ("train", vocabulary)]
    if len({case.length for case in cases}) < 4:
        return
    print(f"training step, V = {vocabulary:,}: ms = a + b T + c T S")
    print(f"{'arm':22} {'a':>7} {'b':>7} {'1000 c':>7} {'missed at most':>14}")
    for arm in dict.fromkeys(case.arm for case in cases):
        lengths = [case.length for case in cases if case.arm == arm]
        times = [1000 * median(found, case, "seconds") for case in cases if case.arm == arm]
        # Each equation is divided by its time, so that relative errors count.
        columns = np.array([[1.0, length, length**2] for length in lengths]) / np.array(times)[:, None]
        a, b, c = np.linalg.lstsq(columns, np.ones(len(times)), rcond=None)[0]
        missed = np.abs(columns @ (a, b, c) - 1).max()
        print(f"{arm:22} {a:7.1f} {b:7.3f} {1000 * c:7.2f} {missed:14.0%}")
    print()


if __name__ == "__main__":
    main()
