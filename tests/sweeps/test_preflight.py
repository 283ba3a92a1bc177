"""What a sweep finds out about its runs before the first starts; the check runs in this process."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from attnspan.config import memory
from attnspan.config.instantiate import assemble_model
from attnspan.config.memory import check_size
from attnspan.errors import InputError
from attnspan.sweeps import plan, preflight
from tests.conftest import ARMS, TINY, Compose


def check_here(arguments: list[str], *, input: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """``subprocess.run`` without a process."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
        patch.setattr(sys, "stdin", io.StringIO(input))
        preflight.main()
    return subprocess.CompletedProcess(arguments, 0, stdout=output.getvalue(), stderr="")


def planned(composed: Compose, runs: Path, *overrides: str) -> str:
    """What a sweep of two seeds prints before it starts."""
    words = [[*overrides, f"seed={seed}"] for seed in (1, 2)]
    configs = [composed(*TINY, f"runs_dir={runs}", *each) for each in words]
    printed = io.StringIO()
    console = Console(file=printed, width=80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "subprocess", SimpleNamespace(run=check_here))
        plan.make_plan(configs, words, config_directory=None, n_jobs=1, console=console)
    return printed.getvalue()


def test_references_of_test_out_of_reach_are_said_once(composed: Compose, tmp_path: Path) -> None:
    assert planned(composed, tmp_path) == "preparing data: reverse\n"
    # 48 examples of 2 to 9 tokens, six of each length
    assert planned(composed, tmp_path, "decoding.limit.ratio=0", "decoding.limit.margin=6").splitlines() == [
        "preparing data: reverse",
        "reverse: test: 18 of 48 references are longer than a hypothesis may become, 0 * source tokens + 6 "
        "(decoding.limit); decoding.limit.margin=9 reaches them all",
    ]


def test_references_of_validation_out_of_reach_stop_the_sweep(composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^validation: \d+ of 40 .*decoding\.limit\.margin=6 reaches them all$"):
        planned(composed, tmp_path, "decoding.limit.ratio=0", "decoding.limit.margin=5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arm", ARMS)
def test_parameters_are_counted_without_building_the_model(composed: Compose, arm: str) -> None:
    config = composed(f"decoder={arm}", "model.hidden_size=8", "model.embedding_size=8")
    sizes = {"source_vocabulary_size": 11, "target_vocabulary_size": 9}
    model = assemble_model(config, **sizes)
    assert check_size(config, **sizes) == sum(parameter.numel() for parameter in model.parameters())


def test_a_model_that_no_memory_holds_is_refused_at_once(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"source_vocabulary_size": 11, "target_vocabulary_size": 9}
    began = time.process_time()
    with pytest.raises(InputError, match=r"^the model has \d+,\d+,\d+,\d+ parameters.*model\.hidden_size=90000"):
        check_size(composed("model.hidden_size=90000"), **sizes)
    assert time.process_time() - began < 10
    config = composed("model.hidden_size=8")
    needed = 16 * check_size(config, **sizes)
    monkeypatch.setattr(memory, "memory", lambda: needed)
    check_size(config, **sizes)
    monkeypatch.setattr(memory, "memory", lambda: needed - 1)
    with pytest.raises(InputError, match="too large"):
        check_size(config, **sizes)


def test_a_decoding_that_does_not_go_with_the_arm_stops_the_sweep(composed: Compose, tmp_path: Path) -> None:
    beam = ("decoding=beam", "decoding.coverage_penalty=0.2")
    assert planned(composed, tmp_path, "decoder=bahdanau", *beam) == "preparing data: reverse\n"
    with pytest.raises(InputError, match=r"^decoding\.coverage_penalty: is about attention, and this arm has none"):
        planned(composed, tmp_path, "decoder=plain", *beam)
