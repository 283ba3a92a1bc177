"""Hugging Face `datasets`, kept quiet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no log lines below an error while `datasets` and its hub client work."""
    import datasets
    import huggingface_hub.utils

    shown = datasets.is_progress_bar_enabled()
    level = datasets.utils.logging.get_verbosity()
    hub_level = huggingface_hub.utils.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    huggingface_hub.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
        datasets.utils.logging.set_verbosity(level)
        huggingface_hub.utils.logging.set_verbosity(hub_level)
