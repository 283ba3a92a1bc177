"""Checks before a sweep starts that its runs can be built: sizes, optimizer, batches, trainer, disk space.

Building models loads torch, which takes seconds and memory that the sweep's own process does not need. The checks
therefore have their own process: ``python -m attnspan.sweeps.preflight`` reads a JSON list of configs and writes a JSON
object with complaints and remarks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from attnspan.config.identity import CHANGES_NOTHING
from attnspan.errors import InputError
from attnspan.files import free_bytes, size
from attnspan.runs.child_process import child_environment
from attnspan.runs.layout import OWN_CODE

_BYTES_KEPT = 4 * 4
"""Bytes per parameter that a finished run keeps: best weights, and last weights with Adam's two moments, float32."""

_UNKNOWN_VOCABULARY = 8
"""Tokens of a vocabulary that is not known before the data is prepared: the four special ones, and a few."""

_IGNORED = {"seed", *CHANGES_NOTHING} - {"data"}
"""Keys that do not affect the checks."""

_KNOWN_TO_LIGHTNING = {
    "_target_",
    "max_steps",
    "val_check_interval",
    "gradient_clip_val",
    "accelerator",
    "devices",
    "strategy",
    "precision",
    "deterministic",
    "log_every_n_steps",
}


def refuse_unfit(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Make what every config describes, without training it. Of data that is not prepared nothing is checked.

    Returns:
        What limits the results of the runs, one line each.

    Raises:
        InputError: one line with everything that is wrong.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for config in configs:
        groups.setdefault(repr({key: value for key, value in config.items() if key not in _IGNORED}), []).append(config)
    requests = [{"config": same[0], "runs": len(same)} for same in groups.values()]
    if not requests:
        return []
    done = subprocess.run(
        [sys.executable, "-m", "attnspan.sweeps.preflight"],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        env=child_environment(OMP_NUM_THREADS="1"),
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"the runs cannot be checked before they start ({last})")
    found = json.loads(done.stdout)
    if found["complaints"]:
        raise InputError("; ".join(found["complaints"]))
    remarks: list[str] = found["remarks"]
    return remarks


def check(config: dict[str, Any]) -> tuple[int, list[str]]:
    """Make all parts of a run, of the model their shapes only.

    Returns:
        The number of the model's parameters, and what limits the run's results.

    Raises:
        InputError: a part cannot be made, or references of validation are longer than a hypothesis may become.
    """
    import torch

    from attnspan.config.instantiate import (
        LOSSES_OF_ATTENTION,
        assemble_model,
        build,
        build_corpus,
        build_decoding,
        check_decoding,
        check_losses_of_attention,
        check_optimizer,
    )
    from attnspan.config.memory import check_size
    from attnspan.data.corpora.base import SIDES
    from attnspan.data.pipeline.batches import EncodedSplit, plan_batches
    from attnspan.data.pipeline.prepare import fingerprint_of, is_prepared, prepare
    from attnspan.data.pipeline.reachable import check_references, limit_of_training
    from attnspan.models.contract import check_contract

    torch.set_num_threads(1)
    corpus, cache, remarks = build_corpus(config), Path(config["cache_dir"]), []
    source = None if corpus.has_images else _UNKNOWN_VOCABULARY
    sizes: dict[str, Any] = {"source_vocabulary_size": source, "target_vocabulary_size": _UNKNOWN_VOCABULARY}
    unknown = dict(sizes)
    if is_prepared(fingerprint_of(corpus), cache_dir=cache):
        prepared = prepare(corpus, cache_dir=cache)
        for split in ("train", "validation", "test"):
            key = "batch_tokens" if split == "train" else "evaluation_batch_tokens"
            plan_batches(EncodedSplit(getattr(prepared, split)), config["loader"][key], f"loader.{key}")
        sizes = {f"{side}_vocabulary_size": getattr(prepared, f"{side}_tokenizer").vocabulary_size for side in SIDES}
        decoding = build_decoding(config, limit=limit_of_training(prepared))
        if (unreachable := check_references(prepared, decoding.limit)).count:
            remarks.append(f"{config['data_name']}: {unreachable}")
    strategy = build(config, "decoding")
    parameters = check_size(config, **sizes)
    if strategy.needs_attention or any(config.get(key) for key in LOSSES_OF_ATTENTION):
        model = assemble_model(config, **unknown)
        check_decoding(strategy, model)
        check_losses_of_attention(config, model)
    if OWN_CODE in config:
        check_contract(assemble_model(config, **sizes))
    check_optimizer(config, [torch.nn.Parameter(torch.zeros(1))])
    trainer = config["trainer"]
    known = (trainer["accelerator"], trainer.get("precision")) in product(("auto", "cpu"), ("32-true", None))
    if set(trainer) - _KNOWN_TO_LIGHTNING or not known:
        from attnspan.training.trainer import check_trainer  # takes seconds to import

        check_trainer(config)
    return parameters, remarks


def main() -> None:
    """Read configs, and write complaints and remarks."""
    complaints: list[str] = []
    remarks: list[str] = []
    need: dict[str, int] = {}
    for request in json.load(sys.stdin):
        config = request["config"]
        try:
            parameters, limits = check(config)
        except InputError as error:
            complaints.append(str(error))
        else:
            remarks += limits
            need[config["runs_dir"]] = need.get(config["runs_dir"], 0) + request["runs"] * parameters * _BYTES_KEPT
    for directory, count in need.items():
        free = free_bytes(Path(directory))
        if count > free:
            complaints.append(f"{directory}: the runs need about {size(count)}, and only {size(free)} are free")
    print(json.dumps({"complaints": list(dict.fromkeys(complaints)), "remarks": list(dict.fromkeys(remarks))}))


if __name__ == "__main__":
    main()
