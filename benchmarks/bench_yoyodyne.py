"""A whole run next to Yoyodyne 0.5's, from the command to the hypotheses of the test.

    make bench-yoyodyne DATA=path/to/sigmorphon2020
    python benchmarks/bench_yoyodyne.py YOYODYNE DATA [--language L] [--updates N ...] [--rounds N] [--threads N]

YOYODYNE is the python of an environment with Yoyodyne. DATA holds <language>/train.tsv, validation.tsv and test.tsv
(conf/data/sigmorphon2020.yaml says where they come from). Both train additive attention over a bidirectional GRU, one
layer, E = 128, H = 256 (128 a direction), dropout 0, Adam, float32, 57 updates an epoch of 3,600 words (batches of 64
words there, of 480 positions here), validate after each epoch, and decode the test greedily: `fit` and then `predict`
there, one command here. Each run prepares its data anew. The two take turns, and the order changes from round to round.
Updates per second count the whole command or commands. Do not use the machine for anything else meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import yaml

from attnspan.training.machine import processor_name

EPOCH = 57  # updates
EMBEDDING, HIDDEN = 128, 256


def ours(data: Path, language: str, updates: int, threads: int, work: Path) -> float:
    """Seconds of our command."""
    settings = (
        f"data=sigmorphon2020 data.root={data} data.language={language} runs_dir={work}/runs cache_dir={work}/cache "
        f"logger=none threads={threads} decoder=bahdanau decoder.score.attention_size={HIDDEN} "
        f"model.hidden_size={HIDDEN} model.embedding_size={EMBEDDING} loader.batch_tokens=480 optimizer.lr=0.001 "
        f"trainer.max_steps={updates} trainer.val_check_interval={EPOCH}"
    )
    return timed([sys.executable, "-m", "attnspan.cli.train", *settings.split()], threads)


def theirs(yoyodyne: Path, data: Path, language: str, updates: int, threads: int, work: Path) -> float:
    """Seconds of ``fit`` and ``predict``."""
    folder = data / language
    model = {
        "class_path": "yoyodyne.models.SoftAttentionGRUModel",
        "init_args": {
            "embedding_size": EMBEDDING,
            "decoder_hidden_size": HIDDEN,
            "decoder_layers": 1,
            "decoder_dropout": 0.0,
            "source_encoder": {
                "class_path": "yoyodyne.models.modules.GRUEncoder",
                "init_args": {"hidden_size": HIDDEN // 2, "layers": 1, "bidirectional": True, "dropout": 0.0},
            },
        },
    }
    config = {
        "seed_everything": 1,
        "trainer": {
            "max_steps": updates,
            "accelerator": "cpu",
            "logger": False,
            "gradient_clip_val": 1.0,
            "enable_progress_bar": False,
        },
        "model": model,
        "data": {
            "model_dir": f"{work}/model",
            "train": f"{folder}/train.tsv",
            "val": f"{folder}/validation.tsv",
            "predict": f"{folder}/test.tsv",
            "target_col": 2,
            "target_sep": " ",
            "batch_size": 64,
            "tie_embeddings": False,
        },
        "checkpoint": {"dirpath": f"{work}/checkpoints", "filename": "last"},
        "prediction": {"path": f"{work}/hypotheses.txt"},
    }
    fit = config | {"optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001}}}
    predict = config | {"ckpt_path": f"{work}/checkpoints/last.ckpt"}
    (work / "fit.yaml").write_text(yaml.safe_dump(fit), encoding="utf-8")
    (work / "predict.yaml").write_text(yaml.safe_dump(predict), encoding="utf-8")
    command = [str(yoyodyne), "-c", "from yoyodyne.cli.main import main; main()"]
    return sum(timed([*command, what, "--config", f"{work}/{what}.yaml"], threads) for what in ("fit", "predict"))


def timed(command: list[str], threads: int) -> float:
    """Seconds of a command with ``threads`` threads; if it fails, print its output and exit."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    taken = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{done.stdout}\n{' '.join(command)}: exit code {done.returncode}")
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("yoyodyne", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--language", default="fre")
    parser.add_argument("--updates", type=int, nargs="+", default=[50, 300])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    for split in ("train", "validation", "test"):
        if not (table := options.data / options.language / f"{split}.tsv").is_file():
            parser.error(f"{table}: no such file")
    given = (options.data, options.language)
    found: dict[tuple[str, int], list[float]] = {}
    for number in range(options.rounds):
        for updates in options.updates:
            for name in ("attnspan", "yoyodyne") if number % 2 == 0 else ("yoyodyne", "attnspan"):
                with tempfile.TemporaryDirectory() as directory:
                    rest = (*given, updates, options.threads, Path(directory))
                    taken = ours(*rest) if name == "attnspan" else theirs(options.yoyodyne, *rest)
                found.setdefault((name, updates), []).append(taken)
    code = "from importlib.metadata import version; print(version('yoyodyne'), version('torch'))"
    peer = subprocess.run([options.yoyodyne, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    print("python benchmarks/bench_yoyodyne.py YOYODYNE DATA", *sys.argv[3:])
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {processor_name()}, {platform.platform()}, python {platform.python_version()},"
    )
    print(f"torch {version('torch')}, {options.threads} threads, {options.rounds} rounds; Yoyodyne {peer[0]} with its")
    print(f"torch {peer[1]}; language {options.language}; median over rounds, lowest and highest")
    print()
    print(f"{'updates':>7} {'of':9} {'seconds':>21} {'updates/s':>9}  attnspan's updates/s over Yoyodyne's")
    for updates in options.updates:
        times = {name: found[name, updates] for name in ("attnspan", "yoyodyne")}
        faster = [their / our for our, their in zip(times["attnspan"], times["yoyodyne"], strict=True)]
        for name, taken in times.items():
            median = statistics.median(taken)
            row = f"{updates:7} {name:9} {median:6.1f} ({min(taken):5.1f}–{max(taken):5.1f}) {updates / median:9.1f}"
            over = f"  {statistics.median(faster):.1f} ({min(faster):.1f}–{max(faster):.1f})"
            print(row + (over if name == "attnspan" else ""))


if __name__ == "__main__":
    main()
