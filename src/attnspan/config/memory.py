"""Whether a model fits into this machine's memory, found out without building it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attnspan.config.instantiate import assemble_model
from attnspan.errors import InputError
from attnspan.files import size
from attnspan.runs.layout import OWN_CODE

_IN_TRAINING = 4 * 4
"""Bytes per parameter on a CPU: weights, gradients and Adam's two moments, float32."""
_TO_BUILD = 4
"""Bytes per parameter in the machine's memory where another device trains."""


def check_size(config: dict[str, Any], *, source_vocabulary_size: int | None, target_vocabulary_size: int) -> int:
    """Count the parameters of a run's model on torch's meta device, where tensors have a shape and no content.

    Raises:
        InputError: a part refuses an argument, the parts do not fit each other, or the model is too large for this
            machine's memory.
    """
    import torch

    sizes: dict[str, Any] = {
        "source_vocabulary_size": source_vocabulary_size,
        "target_vocabulary_size": target_vocabulary_size,
    }
    try:
        with torch.device("meta"):
            model = assemble_model(config, **sizes)
    except InputError:
        if OWN_CODE not in config:
            raise
        model = assemble_model(config, **sizes)  # a class of a user's own may need tensors with content
    count = sum(parameter.numel() for parameter in model.parameters())
    need, have = count * (_IN_TRAINING if _trains_on_cpu(config) else _TO_BUILD), memory()
    if need > have:
        chosen = ", ".join(f"model.{name}={config['model'][name]}" for name in ("hidden_size", "embedding_size"))
        raise InputError(
            f"the model has {count:,} parameters, which need {size(need)} of memory; this machine has {size(have)}: "
            f"{chosen} are too large"
        )
    return count


def memory() -> int:
    """Bytes of memory that this process may use at most."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdecimal() else physical


def _trains_on_cpu(config: dict[str, Any]) -> bool:
    import torch

    accelerator = config["trainer"]["accelerator"]
    return accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
