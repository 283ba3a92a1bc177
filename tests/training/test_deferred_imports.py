"""A run does without torch's compiler and scipy.signal, and who needs them still gets them."""

from __future__ import annotations

import subprocess
import sys

CODE = """
from attnspan.training.deferred_imports import StandIn, defer_imports
defer_imports()
import sys
import torch
from torch import nn
import lightning.pytorch as L
from lightning.pytorch.utilities.compile import to_uncompiled

class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
    def training_step(self, batch):
        return self.linear(batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

module = Module()
trainer = L.Trainer(max_steps=3, deterministic=True, accelerator="cpu", logger=False, enable_checkpointing=False,
                    enable_progress_bar=False, enable_model_summary=False)
trainer.fit(module, torch.utils.data.DataLoader(torch.ones(8, 2)))
for name in ("torch._dynamo", "torch._inductor", "torch._inductor.config", "scipy.signal"):
    assert isinstance(sys.modules[name], StandIn), name

import scipy.signal
assert scipy.signal.find_peaks([0, 1, 0])[0].tolist() == [1]
compiled = torch.compile(nn.Linear(2, 1), backend="eager")
assert compiled(torch.ones(1, 2)).shape == (1, 1)
assert not [name for name, module in sys.modules.items() if isinstance(module, StandIn)]
from lightning.fabric.wrappers import OptimizedModule
assert isinstance(compiled, OptimizedModule) and not isinstance(module, OptimizedModule)
import torch._inductor.config
assert torch._inductor.config.deterministic is True
assert to_uncompiled(torch.compile(module, backend="eager")) is module
import torch._dynamo.config  # a submodule
"""


def test_stand_ins_make_way_for_the_modules() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
