"""Feeding images: the loader's share of an update, and its memory against the size of the corpus.

    python benchmarks/images.py [--images N ...] [--batches N] > benchmarks/images.txt

For ``sweep=digits`` and ``sweep=scenes`` with their batches and their encoder: CPU seconds to load a batch, and to load
it and train ``bahdanau`` on it, of this process alone, so that a busy machine does not matter; means over the same
batches. Memory is the anonymous memory that one pass over the training split adds, not that of the mapped file. Linux.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import scale
import torch

from attnspan.config.compose import compose_config
from attnspan.config.instantiate import assemble_model, build_corpus
from attnspan.data.pipeline.batches import EncodedSplit, TrainingLoader, plan_batches
from attnspan.data.pipeline.prepare import PreparedData, prepare
from attnspan.data.tokenizer import PAD


def loader_of(data: PreparedData, batch_tokens: int) -> TrainingLoader:
    """The batches of training in this process."""
    split = EncodedSplit(data.train)
    batches = plan_batches(split, batch_tokens, "loader.batch_tokens")
    return TrainingLoader(split=split, batches=batches, seed=1, workers=0, pin_memory=False)


def shares(config: dict[str, Any], data: PreparedData, number: int) -> tuple[float, float]:
    """CPU seconds to load a batch, and to load it and train on it."""
    torch.manual_seed(1)
    model = assemble_model(config, source_vocabulary_size=None, target_vocabulary_size=len(data.target_tokenizer))
    optimizer = torch.optim.Adam(model.parameters())
    seconds = []
    for trains in (True, False):
        batches = iter(loader_of(data, config["loader"]["batch_tokens"]))
        next(batches)
        began = time.process_time()
        for _, batch in zip(range(number), batches, strict=False):
            if trains:
                logits, _ = model(batch.source, batch.source_lengths, batch.target_input)
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), batch.target_output.flatten(), ignore_index=PAD
                ).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
        seconds.append((time.process_time() - began) / number)
    return seconds[1], seconds[0]


def memory(config: dict[str, Any], data: PreparedData) -> float:
    """Megabytes of anonymous memory that a pass over the training split adds."""
    with scale.most_anonymous() as most:
        for _ in loader_of(data, config["loader"]["batch_tokens"]):
            pass
    return most[0] / scale.MB


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--batches", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, {platform.machine()}, one thread")
    print("sweep    images   to load a batch   with training   share of loading   memory of a pass")
    with tempfile.TemporaryDirectory() as directory:
        for sweep in ("digits", "scenes"):
            for number in options.images:
                config = compose_config(f"sweep={sweep}", "decoder=bahdanau", f"data.train_size={number}")
                data = prepare(build_corpus(config), cache_dir=Path(directory))
                load, train = shares(config, data, options.batches)
                print(
                    f"{sweep:6} {number:8,} {1e3 * load:14.2f} ms {1e3 * train:12.1f} ms {load / train:18.1%} "
                    f"{memory(config, data):15.1f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
