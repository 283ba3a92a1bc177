"""What W&B holds of a run, read back with W&B's own command from the files of offline runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from attnspan import dashboard, report
from attnspan.attended import write_attended
from attnspan.collect import collect
from attnspan.heatmap import Heatmap
from attnspan.rundir import write_json
from attnspan.study import build_study
from attnspan.wandb_logging import PATIENCE, wandb_run
from attnspan.wandb_results import mirror_results
from tests.conftest import TINY, Compose
from tests.fake_runs import fake_study
from tests.test_train import train

ROOT = Path(__file__).parents[1]
WANDB = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"]


def summary_of(mirror: Path) -> dict[str, Any]:
    """State, config, and last values."""
    done = subprocess.run([*WANDB, "--summary", str(mirror)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def records_of(mirror: Path, kind: str) -> list[dict[str, Any]]:
    """All records of a kind, in their order."""
    done = subprocess.run([*WANDB, str(mirror)], check=True, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [record[kind] for record in found if record["type"] == kind]


def history_of(mirror: Path) -> list[dict[str, Any]]:
    return [record["item"] for record in records_of(mirror, "history")]


def mirrors(place: Path) -> list[Path]:
    return sorted(place.rglob("*.wandb"), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """One run, trained and tested."""
    place = tmp_path_factory.mktemp("wandb")
    done = train(
        "decoder=bahdanau", "seed=3", *TINY, "logger=wandb", "study='a study'", "trainer.log_every_n_steps=2",
        cwd=place, cache=cache, WANDB_MODE="offline", HOME=str(place / "home"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


def test_who_the_run_is(made: Path) -> None:
    (mirror,) = mirrors(made)
    found, (run, *_) = summary_of(mirror), records_of(mirror, "run")
    directory = next((made / "runs").glob("*/bahdanau/*"))
    assert found["run_id"] == directory.name
    assert found["name"] == "bahdanau reverse seed 3"
    assert (run["run_group"], run["job_type"], run["tags"]) == ("a study", "bahdanau", ["bahdanau", "reverse"])
    assert found["notes"].startswith("attnspan-train decoder=bahdanau seed=3 ")
    assert found["config"]["seed"] == 3
    assert found["config"]["data.train_lengths"] == [2, 6]
    assert not any(isinstance(value, dict) for key, value in found["config"].items() if key != "_wandb")
    assert (found["state"], found["exit_code"]) == ("finished", 0)


def test_what_is_logged_in_training(made: Path) -> None:
    (mirror,) = mirrors(made)
    rows = history_of(mirror)
    logged = {key for row in rows for key in row}
    assert logged >= {
        "train/loss", "train/learning_rate", "train/gradient_norm", "machine/train_tokens_per_second",
        "machine/peak_memory_mb", "validation/loss", "validation/teacher_forced_accuracy",
    }  # fmt: skip
    assert any(key.startswith("validation_loss/") for key in logged)
    for key in ("train/gradient_norm", "machine/train_tokens_per_second"):
        of = [row["trainer/global_step"] for row in rows if key in row]
        assert of == [row["trainer/global_step"] for row in rows if "train/loss" in row]
        assert of == sorted(set(of))


def test_losses_are_those_of_metrics_csv(made: Path) -> None:
    import pandas as pd

    local = pd.read_csv(next(made.rglob("metrics.csv"))).dropna(subset=["train/loss"])
    rows = [row for row in history_of(mirrors(made)[0]) if "train/loss" in row]
    assert [row["train/loss"] for row in rows] == pytest.approx(local["train/loss"].tolist())
    assert [row["trainer/global_step"] for row in rows] == local["step"].tolist()
    assert not [column for column in local if column.startswith("machine/")]


def test_validation_by_length_adds_up_to_validation(made: Path) -> None:
    """The loss of all tokens is between those of the bins, and with one bin it is that bin's."""
    rows = [row for row in history_of(mirrors(made)[0]) if "validation/loss" in row]
    assert rows
    for row in rows:
        bins = [value for key, value in row.items() if key.startswith("validation_loss/")]
        assert min(bins) - 1e-6 <= row["validation/loss"] <= max(bins) + 1e-6


def test_results_and_media(made: Path) -> None:
    (mirror,) = mirrors(made)
    found = summary_of(mirror)["summary"]
    scores = json.loads(next(made.rglob("summary.json")).read_text())["test"]
    assert {name: found["test/" + name] for name in scores} == pytest.approx(scores)
    assert found["cost/parameters"] > 0
    table = json.loads((mirror.parent / "files" / found["quality by length"]["path"]).read_text())
    assert {"lengths", "error_rate", "nll", "examples"} <= {*table["columns"]}
    examples = json.loads((mirror.parent / "files" / found["examples"]["path"]).read_text())
    assert 1 <= len(examples["data"]) <= 12
    assert "error rate by length_table" in found


def test_the_span_is_that_of_the_records_and_kept_maps_are_shown(tmp_path: Path) -> None:
    _, directory = fake_study(tmp_path / "runs", arms=("plain", "bahdanau"), seeds=[0], per_length=5)
    kept = Heatmap(source=list("abcde"), output=["A", "B"], weights=np.eye(2, 5, dtype=np.float32))
    write_attended(directory, {"e00000": kept})
    summary = json.loads((directory / "summary.json").read_text())
    write_json(directory / "summary.json", summary | {"test": {"error_rate": 0.5}})
    with wandb_run(config("offline"), tmp_path / "some", command="", say=print) as logger:
        assert logger is not None
        mirror_results(logger.experiment, directory)
    (span,) = build_study(collect([directory])).spans
    (mirror,) = mirrors(tmp_path)
    found = summary_of(mirror)["summary"]
    assert found["test/span"] == pytest.approx(span.span.length.tokens)
    assert found["test/span_in_words"] == str(span.span.length)
    picture = found["attention/bahdanau, 5 source tokens"]["path"]
    assert (mirror.parent / "files" / picture).read_bytes().startswith(b"\x89PNG")


def test_nothing_is_written_to_the_home(made: Path) -> None:
    assert not [path for path in (made / "home").rglob("*") if "wandb" in path.name]


def config(mode: str, **changes: Any) -> dict[str, Any]:
    return {
        "logger": {"wandb": {"project": "attnspan", "entity": None, "mode": mode}},
        "arm": "plain", "data_name": "reverse", "seed": 1, "study": None, **changes,
    }  # fmt: skip


def test_three_jobs_in_one_process_are_three_runs_with_their_own_configs(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        with wandb_run(config("offline", seed=seed), tmp_path / f"id{seed}", command="", say=print) as logger:
            assert logger is not None
            logger.log_metrics({"train/loss": float(seed)}, step=0)
    found = {summary_of(mirror)["run_id"]: summary_of(mirror) for mirror in mirrors(tmp_path)}
    assert [*sorted(found)] == ["id1", "id2", "id3"]
    for seed in (1, 2, 3):
        assert found[f"id{seed}"]["config"]["seed"] == seed
        assert found[f"id{seed}"]["summary"]["train/loss"] == seed


def test_a_run_that_fails_is_shown_to_have_failed(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        wandb_run(config("offline"), tmp_path / "some", command="", say=print),
    ):
        raise RuntimeError("no")
    (mirror,) = mirrors(tmp_path)
    assert summary_of(mirror)["exit_code"] == 1


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    with wandb_run(config("disabled"), tmp_path / "some", command="", say=print) as logger:
        assert logger is None
    assert not (tmp_path / "some").exists()


@pytest.mark.parametrize("server", ["refuses", "never answers"])
def test_without_a_network_the_run_goes_on_offline(tmp_path: Path, server: str) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if server == "never answers":
            listening.listen(50)
        key = "a" * 40
        environment = {
            "WANDB_API_KEY": key,
            "WANDB_BASE_URL": f"http://127.0.0.1:{listening.getsockname()[1]}",
            "HOME": str(tmp_path / "home"),
        }
        line, seconds = online(tmp_path, environment)
    assert line.startswith("W&B is out of reach (")
    assert "wandb sync" in line
    assert seconds < 10
    (mirror,) = mirrors(tmp_path / "runs")
    assert history_of(mirror)[0]["train/loss"] == 0.5
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and key in path.read_text("latin-1")]


def test_without_a_key_nobody_is_asked_for_one(tmp_path: Path) -> None:
    line, seconds = online(tmp_path, {"HOME": str(tmp_path / "home")}, terminal=True)
    assert line.startswith("W&B is out of reach (there is no key")
    assert seconds < PATIENCE
    (mirror,) = mirrors(tmp_path / "runs")
    assert history_of(mirror)[0]["train/loss"] == 0.5


def online(tmp_path: Path, environment: dict[str, str], *, terminal: bool = False) -> tuple[str, float]:
    """What is said, in one line, when a run begins online in a process of its own, and after how many seconds."""
    code = (
        "import json, time\nfrom pathlib import Path\nfrom attnspan.wandb_logging import wandb_run\n"
        f"said, began = [], time.monotonic()\n"
        "def say(line):\n    said.append([line, time.monotonic() - began])\n"
        f"config = json.loads({json.dumps(json.dumps(config('online')))})\n"
        f"with wandb_run(config, Path({str(tmp_path / 'runs' / 'some')!r}), command='', say=say) as logger:\n"
        "    logger.log_metrics({'train/loss': 0.5}, step=0)\n"
        f"Path({str(tmp_path / 'said')!r}).write_text(json.dumps(said))\n"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    command = [sys.executable, "-c", code]
    if terminal:
        import pty
        import shlex

        pid, descriptor = pty.fork()
        if pid == 0:
            os.execvpe("/bin/sh", ["sh", "-c", shlex.join(command)], inherited | environment)
        while True:
            try:
                if not os.read(descriptor, 1024):
                    break
            except OSError:  # the other end is closed
                break
        os.waitpid(pid, 0)
    else:
        subprocess.run(command, check=True, env=inherited | environment, stdin=subprocess.DEVNULL)
    ((line, seconds),) = json.loads((tmp_path / "said").read_text())
    return line, seconds


def test_a_kill_loses_two_seconds_at_most(tmp_path: Path) -> None:
    code = (
        "import time\nfrom pathlib import Path\nfrom attnspan.wandb_logging import wandb_run\n"
        f"with wandb_run({config('offline')!r}, Path({str(tmp_path / 'some')!r}), command='', say=print) as logger:\n"
        "    print('begun', flush=True)\n"
        "    for step in range(1_000):\n"
        "        logger.log_metrics({'train/loss': time.time()}, step=step)\n        time.sleep(0.5)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(8)  # too little logging to fill a buffer
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        killed = time.time()
        process.wait()
    (mirror,) = mirrors(tmp_path)
    assert killed - history_of(mirror)[-1]["train/loss"] < 4  # two, and what a busy machine needs


def test_a_resumed_run_is_the_same_run_and_no_update_stands_twice(tmp_path: Path, cache: Path) -> None:
    """Interrupted and started again: two files of one run, whose updates follow each other."""
    command = ("decoder=plain", "seed=1", *TINY, "logger=wandb", "trainer.log_every_n_steps=1", "trainer.max_steps=40")
    environment = {"WANDB_MODE": "offline"}
    process = subprocess.Popen(
        [sys.executable, "-m", "attnspan.train", *command, "checkpoint_every=0"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"ATTNSPAN_CACHE": str(cache)} | environment,
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not list(tmp_path.rglob("last.ckpt")):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert process.returncode == 143
    assert train(*command, "checkpoint_every=0", cwd=tmp_path, cache=cache, **environment).returncode == 0
    first, second = mirrors(tmp_path)
    assert summary_of(first)["run_id"] == summary_of(second)["run_id"]
    assert (summary_of(first)["exit_code"], summary_of(second)["exit_code"]) == (143, 0)
    steps = [
        row["trainer/global_step"] for mirror in (first, second) for row in history_of(mirror) if "train/loss" in row
    ]
    assert steps == list(range(40))


def test_a_sweep_of_wandb_drives_the_same_command(composed: Compose) -> None:
    """Dotted keys, lists and words with spaces come through what W&B's agent makes of its file."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    (path,) = (ROOT / "sweeps" / "wandb").glob("*.yaml")
    sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert sweep["command"][1:] == ["attnspan-train", "${args_no_hyphens}", "logger.wandb.mode=online"]
    chosen = {
        key: {"value": one["value"] if "value" in one else one["values"][-1]}
        for key, one in sweep["parameters"].items()
    }
    arguments = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
    found = composed(*arguments, *sweep["command"][3:])
    assert found["arm"] == "bahdanau"
    assert found["optimizer"]["lr"] == 0.008
    assert found["model"]["dropout"] == 0.2
    assert found["data"]["train_lengths"] == [5, 40]
    assert found["study"] == "learning rate, by W&B"
    assert found["logger"]["wandb"]["mode"] == "online"


def test_the_agent_of_a_sweep_finds_the_run_under_its_own_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "some")
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    with wandb_run(config("offline"), tmp_path / "ours", command="", say=print):
        pass
    found = summary_of(mirrors(tmp_path)[0])
    assert (found["run_id"], found["config"]["run_id"]) == ("given", "ours")


def test_the_dashboard_groups_by_arm_with_the_spread_over_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert dashboard.main(["--entity", "me", "--study", "a study", "--dry-run"]) == 0
    made = json.loads(capsys.readouterr().out)
    sections = made["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    assert [one["name"] for one in sections] == ["Quality against source length", "Curves", "Cost", "Failures"]
    panels = {panel["config"]["chartTitle"]: panel["config"] for one in sections for panel in one["panels"]}
    quality = panels["error rate of free-running output"]
    assert (quality["xAxis"], quality["metrics"]) == ("by_length/source_length", ["by_length/error_rate"])
    for panel in panels.values():
        assert (panel["groupBy"], panel["groupAgg"], panel["groupArea"]) == ("arm.value", "mean", "stddev")
    assert made["workspace"]["entity"] == "me"
    report = json.dumps(made["report"])
    assert '"value": "a study"' in report
    assert '"name": "jobType"}, "op": "!=", "value": "study"' in report
    assert "by_length/error_rate" in report


def test_every_metric_of_the_dashboard_is_one_that_runs_log(made: Path) -> None:
    (mirror,) = mirrors(made)
    logged = {key for row in history_of(mirror) for key in row} | {*summary_of(mirror)["summary"]}
    shown = {key for plots in dashboard.SECTIONS.values() for _, x, y in plots for key in (x, y)}
    shown |= {key for bars in dashboard.BARS.values() for _, key in bars}
    assert shown <= logged


def test_without_a_key_the_dashboard_says_so(tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-m", "attnspan.dashboard", "--entity", "me"],
        capture_output=True, text=True, env=inherited | {"HOME": str(tmp_path)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("attnspan-dashboard: W&B asks for a key")
    assert "Traceback" not in done.stderr


def test_a_study_is_one_run_with_plots_tables_and_the_page(tmp_path: Path) -> None:
    fake_study(tmp_path / "runs", per_length=5)
    command = [str(tmp_path / "runs"), "--out", str(tmp_path / "reports" / "some"), "--wandb", "offline"]
    assert report.main(command) == 0
    (mirror,) = mirrors(tmp_path)
    found, (run, *_) = summary_of(mirror), records_of(mirror, "run")
    assert run["job_type"] == "study"
    assert found["notes"].startswith("attnspan-report ")
    shown = found["summary"]
    assert {"plots/degradation", "plots/advantage", "quality by length", "advantage over the baseline", "spans"} <= {
        *shown
    }
    (artifact,) = [one for one in records_of(mirror, "artifact") if one["type"] == "report"]
    assert "index.html" in json.dumps(artifact)
    first = found["run_id"]
    assert report.main(command) == 0
    assert {summary_of(mirror)["run_id"] for mirror in mirrors(tmp_path)} == {first}
