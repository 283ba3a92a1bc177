"""Greedy decoding."""

from __future__ import annotations

from attnspan.errors import SettingError
from attnspan.models.decoding.one_path import Choose, OnePath
from attnspan.models.decoding.strategy import Task


class Greedy(OnePath):
    """y_t = argmax p(y | y_1 ... y_{t-1}, x), free-running until <eos> or the limit."""

    def chooser(self, task: Task) -> Choose:
        """The most likely token.

        Raises:
            SettingError: more than one hypothesis is asked for.
        """
        if task.n_best > 1:
            raise SettingError("n_best", f"greedy decoding finds one hypothesis, not {task.n_best}; use a beam")
        return lambda log_probs, rows, t: log_probs.argmax(dim=-1)
