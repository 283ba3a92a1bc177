"""JoeyNMT 2.3's recurrent models at the sizes of bench.py, which starts this file in JoeyNMT's own environment.

    python benchmarks/bench_joeynmt.py train|greedy|beam ARM LENGTH,... VOCABULARY THREADS SECONDS

Prints seconds per step or decoded batch, and MB, as JSON for each length. JoeyNMT uses input feeding in both arms.
"""

from __future__ import annotations

import json
import logging
import sys
from types import SimpleNamespace

import torch
from joeynmt.model import build_model
from joeynmt.search import beam_search, greedy
from joeynmt.vocabulary import Vocabulary
from meter import forget_peak, median_seconds, peak_mb

BATCH, EMBEDDING, HIDDEN = 64, 128, 256


def main() -> None:
    """Measure and print."""
    what, arm, lengths, vocabulary, threads, seconds = sys.argv[1:]
    logging.disable()
    torch.set_num_threads(int(threads))
    print(json.dumps([measure(what, arm, int(one), int(vocabulary), float(seconds)) for one in lengths.split(",")]))


def measure(what: str, arm: str, length: int, vocabulary_size: int, seconds: float) -> dict[str, float]:
    """Seconds and MB of one step or one decoded batch, in this process."""
    torch.manual_seed(1)
    forget_peak()
    before = peak_mb()
    specials = SimpleNamespace(
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        sep_token=None,
        unk_id=0,
        pad_id=1,
        bos_id=2,
        eos_id=3,
        sep_id=None,
        lang_tags=[],
    )
    vocabulary = Vocabulary([str(number) for number in range(vocabulary_size - 4)], specials)
    part = {"type": "recurrent", "rnn_type": "gru", "embeddings": {"embedding_dim": EMBEDDING}, "num_layers": 1}
    config = {
        "encoder": {**part, "hidden_size": HIDDEN // 2, "bidirectional": True},
        "decoder": {**part, "hidden_size": HIDDEN, "attention": arm, "input_feeding": True, "init_hidden": "bridge"},
    }
    model = build_model(config, vocabulary, vocabulary)
    model.loss_function = ("crossentropy", 0.0)
    optimizer = torch.optim.Adam(model.parameters())
    source = torch.randint(4, vocabulary_size, (BATCH, length))
    target = torch.randint(4, vocabulary_size, (BATCH, length))
    mask = torch.ones(BATCH, 1, length, dtype=torch.bool)
    lengths = torch.full((BATCH,), length)

    def train() -> None:
        loss, *_ = model(
            return_type="loss",
            src=source,
            src_length=lengths,
            src_mask=mask,
            trg_input=target,
            trg=target,
            trg_mask=mask,
        )
        optimizer.zero_grad()
        (loss / target.numel()).backward()
        optimizer.step()

    def decode() -> None:
        with torch.no_grad():
            encoded, last, _, _ = model(return_type="encode", src=source, src_length=lengths, src_mask=mask)
            given = {"src_mask": mask, "max_output_length": length, "model": model}
            if what == "greedy":
                greedy(**given, encoder_output=encoded, encoder_hidden=last)
            else:
                beam_search(**given, encoder_output=encoded, encoder_hidden=last, beam_size=5, alpha=1.0)

    if what != "train":
        model.eval()
        with torch.no_grad():  # this layer has no bias; a logit of 0 is never the largest of hundreds
            model.decoder.output_layer.weight[3] = 0.0
    taken = median_seconds(train if what == "train" else decode, seconds)
    return {"seconds": taken, "memory": peak_mb() - before}


if __name__ == "__main__":
    main()
