"""What the settings of a run may be."""

from __future__ import annotations

LOSS, SEQUENCE_ERROR_RATE = "loss", "sequence_error_rate"


CRITERIA = (LOSS, SEQUENCE_ERROR_RATE)
"""What ``selection_metric`` may be: what is the least of ``validation/...`` at the best checkpoint."""


MATMUL_PRECISIONS = ("highest", "high", "medium")
"""What ``matmul_precision`` may be: what ``torch.set_float32_matmul_precision`` takes."""


OFFLINE, ONLINE, DISABLED = "offline", "online", "disabled"


MODES = (OFFLINE, ONLINE, DISABLED)
