"""What many tests need: composed configs, and one finished run."""

from __future__ import annotations

import copy
import functools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from attnspan.config.config_files import conf_directory
from tests import tensor_types
from tests.composing import compose_once, remember_parts

tensor_types.install()  # before anything imports a model
remember_parts()

os.environ["WANDB_MODE"] = "offline"
os.environ["OMP_NUM_THREADS"] = "1"
# A shell that starts us in the background has us, and all that we start, ignore Ctrl-C, which tests send to processes.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has us ignore this one, and tests send it too
torch.set_num_threads(1)

ARMS = sorted(path.stem for path in (conf_directory() / "decoder").glob("*.yaml"))
"""Every arm there is: one added to conf/decoder/ is in every suite that uses this."""

TINY = (
    "data=reverse",
    "data.symbols=6",
    "data.train_lengths=[2,6]",
    "data.test_lengths=[2,9]",
    "data.train_size=300",
    "data.validation_size=40",
    "data.test_size=48",
    "model.hidden_size=16",
    "model.embedding_size=8",
    "loader.batch_tokens=256",
    "trainer.max_steps=20",
    "trainer.val_check_interval=10",
    "trainer.log_every_n_steps=10",
    "trainer.accelerator=cpu",
    "logger=none",
)
"""A run of a second or two."""

SLOW = (
    "training/test_resume.py",
    "cli/test_train.py",
    "tracking/test_run_logger.py",
    "services/test_wandb.py",
    "services/test_hub.py",
    "sweeps/test_collisions.py",
    "training/test_ddp.py",
    "sweeps/test_hyperparameters.py",
    "runs/test_full_disk.py",
    "test_documentation.py",
    "cli/test_report.py",
    "training/test_kills.py",
    "tracking/test_study.py",
    "training/test_run.py",
    "config/test_threads.py",
    "sweeps/test_processes.py",
    "training/test_checkpoint_selection.py",
    "training/test_deferred_imports.py",
    "sweeps/test_frozen_jobs.py",
    "tracking/test_sweeps.py",
    "sweeps/test_overview.py",
    "cli/test_evaluate.py",
    "config/test_wrong_kinds.py",
    "config/test_configs.py",
    "reporting/test_page.py",
    "training/test_evaluate.py",
    "kernels/test_compiled.py",
    "kernels/test_backend.py",
    "data/pipeline/test_tokenize.py",
    "data/pipeline/test_prepare.py",
    "test_sigmorphon2020.py",
    "sweeps/test_preflight.py",
    "cli/test_inspect.py",
    "models/test_contract_of_own_parts.py",
    "models/test_planted_square.py",
    "training/test_image_runs.py",
    "cli/test_gradient_flow.py",
    "reporting/test_explorer.py",
    "analysis/test_text_metrics.py",
    "test_notebooks.py",
    "cli/test_command_line.py",
    "cli/test_explore.py",
    "test_wheel.py",
)
"""Files that start processes, train many runs or take long, the longest first; ``-m "not slow"`` leaves them out."""

LONG = ("models/test_contract.py", "models/test_decoding.py", "models/test_equations.py")
"""Files of quick tests that take longest."""

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, so that the processes that share the files are done at about the same time."""
    places = {TESTS / name: number for number, name in enumerate((*SLOW, *LONG))}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    slow = {TESTS / name for name in SLOW}
    for item in items:
        if item.path in slow:
            item.add_marker(pytest.mark.slow)


Compose = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where prepared data goes, for this test session only."""
    path = tmp_path_factory.mktemp("cache")
    os.environ["ATTNSPAN_CACHE"] = str(path)
    return path


@pytest.fixture(scope="session")
def composed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Compose:
    """Compose the plain config of a run from overrides."""

    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "composed"
    place.mkdir(exist_ok=True)

    @functools.cache
    def once(*overrides: str) -> dict[str, Any]:
        return compose_once(overrides, place=place, cache=cache)

    def make(*overrides: str) -> dict[str, Any]:
        return copy.deepcopy(once(*overrides))

    return make


def parsed(*words: str) -> list[Override]:
    """Words of the command line, as Hydra hands them to a sweeper."""
    return OverridesParser.create(config_loader=ConfigLoaderImpl(ConfigSearchPathImpl())).parse_overrides(list(words))


@pytest.fixture
def float64() -> Iterator[None]:
    """New tensors and modules are float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
