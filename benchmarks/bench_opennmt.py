"""OpenNMT-py's recurrent models at the sizes of bench.py, which starts this file in OpenNMT-py's own environment.

    python benchmarks/bench_opennmt.py train ARM LENGTH,... VOCABULARY THREADS SECONDS

Prints seconds per step, and MB, as JSON for each length. ARM is OpenNMT-py's name of a score: ``mlp`` is additive,
``general`` is Luong's. Both use Luong's wiring with input feeding, the only one that it has.
"""

from __future__ import annotations

import json
import sys
import warnings

import torch
from meter import forget_peak, median_seconds, peak_mb

warnings.filterwarnings("ignore")
from onmt.decoders.decoder import InputFeedRNNDecoder  # noqa: E402
from onmt.encoders.rnn_encoder import RNNEncoder  # noqa: E402
from onmt.models import NMTModel  # noqa: E402
from onmt.modules import Embeddings  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

BATCH, EMBEDDING, HIDDEN, PAD = 64, 128, 256, 1


def main() -> None:
    """Measure and print."""
    _, arm, lengths, vocabulary, threads, seconds = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(json.dumps([measure(arm, int(one), int(vocabulary), float(seconds)) for one in lengths.split(",")]))


def measure(arm: str, length: int, vocabulary: int, seconds: float) -> dict[str, float]:
    """Seconds and MB of one step, in this process."""
    torch.manual_seed(1)
    forget_peak()
    before = peak_mb()
    embeddings = [Embeddings(EMBEDDING, vocabulary, PAD) for _ in range(2)]
    encoder = RNNEncoder("GRU", True, 1, HIDDEN, embeddings=embeddings[0], use_bridge=True)
    decoder = InputFeedRNNDecoder("GRU", True, 1, HIDDEN, attn_type=arm, embeddings=embeddings[1])
    model = NMTModel(encoder, decoder)
    readout = nn.Linear(HIDDEN, vocabulary)
    optimizer = torch.optim.Adam([*model.parameters(), *readout.parameters()])
    source = torch.randint(4, vocabulary, (BATCH, length, 1))
    target = torch.randint(4, vocabulary, (BATCH, length + 1, 1))  # the model drops the last token of its input
    lengths = torch.full((BATCH,), length)

    def train() -> None:
        outputs, _ = model(source, target, lengths)
        loss = F.cross_entropy(readout(outputs).flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return {"seconds": median_seconds(train, seconds), "memory": peak_mb() - before}


if __name__ == "__main__":
    main()
