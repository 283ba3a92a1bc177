"""Runs, studies and dashboards on W&B, through the real client and a server on this machine."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import wandb
import yaml

import tests.services.wandb as service
from attnspan.cli import dashboard, report
from attnspan.config.config_files import conf_directory
from attnspan.tracking import session as session_module
from attnspan.tracking.run_logger import WandbMirror
from attnspan.tracking.session import earlier_rows, session
from tests.conftest import Compose
from tests.fake_runs import fake_study
from tests.services.child import RUN, log_updates
from tests.services.wandb import ENTITY, KEY, Run, Server
from tests.tracking.test_run_logger import MIRRORED
from tests.tracking.test_study import study_of
from tests.tracking.test_sweeps import first_values
from tests.training.test_run import run
from tests.waiting import wait_until

ONLINE = (*MIRRORED, "logger.wandb.mode=online")
SCRIPTS = Path(sys.executable).parent


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server, to which W&B's client of this process talks."""
    with service.wandb_server() as one:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("WANDB_BASE_URL", one.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        wandb.teardown()  # it has read the environment before
        yield one
        wandb.teardown()


def sent(run: Run) -> list[int]:
    """The updates whose loss came, in the order of the lines that came."""
    lines = run.streams.get("wandb-history.jsonl", {})
    rows = [json.loads(lines[number]) for number in sorted(lines)]
    return [row["update"] for row in rows if "train/loss" in row]


def sync(*paths: Path | str) -> None:
    command = [sys.executable, "-m", "wandb", "sync", "--include-synced", *map(str, paths)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)


def assert_no_key(directory: Path) -> None:
    for path in directory.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_an_online_run_is_there_with_all_that_belongs_to_it(
    composed: Compose, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = run(composed, tmp_path, "decoder=bahdanau", *ONLINE)
    (one,) = server.runs.values()
    said = capfd.readouterr().out
    assert f"W&B: {server.url}/{ENTITY}/attnspan/runs/{directory.name}" in said
    assert (one.name, one.project, one.exit_code) == (directory.name, "attnspan", 0)
    assert (one.fields["groupName"], one.fields["jobType"]) == ("mine", "bahdanau")
    assert one.config["data.symbols"]["value"] == 6
    curves = pd.read_csv(directory / "metrics.csv")
    for key in ("train/loss", "validation/loss"):
        expected = curves.dropna(subset=[key])
        assert one.updates(key) == (expected["step"] + 1).tolist()
        assert [row[key] for row in one.rows if key in row] == pytest.approx(expected[key].tolist())
    assert one.updates("machine/peak_memory_mb") == [5, 10, 15, 20]
    assert not server.unknown
    assert len(one.streams["wandb-history.jsonl"]) == len(one.rows)
    assert one.summary["test/error_rate"] == pytest.approx(
        json.loads((directory / "summary.json").read_text())["test"]["error_rate"]
    )
    for name in ("media/images/test/attention_1", "media/table/test/examples", "media/table/test/by_length"):
        (path,) = (path for path in one.files if path.startswith(f"{name}_"))
        assert one.files[path] == next(directory.rglob(Path(path).name)).read_bytes()
    assert not server.unknown
    assert KEY not in said
    assert_no_key(tmp_path)


def test_a_network_that_comes_back_has_lost_nothing(server: Server, tmp_path: Path) -> None:
    with session(tmp_path, mode="online", run_id=RUN, log=print, project="ours") as one:
        mirror = WandbMirror(one, earlier=[], examples=0, log=print)
        log_updates(mirror, 1, 5)
        wait_until(lambda: RUN in server.runs and len(sent(server.runs[RUN])) == 5, seconds=60)
        server.away = True
        log_updates(mirror, 6, 10)
        time.sleep(1)
        server.away = False
    assert sent(server.runs[RUN]) == list(range(1, 11))
    assert server.runs[RUN].exit_code == 0


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_network_that_is_gone_at_the_end_costs_ten_seconds(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    """If it is back, all is uploaded then; otherwise by the command that is said."""
    if comes_back:
        monkeypatch.setattr(session_module, "_FINISH_TIMEOUT", 1.0)
        answers = session_module._upload
        monkeypatch.setattr(session_module, "_upload", lambda one: setattr(server, "away", False) or answers(one))
    said: list[str] = []
    with session(tmp_path, mode="online", run_id=RUN, log=said.append, project="ours") as one:
        mirror = WandbMirror(one, earlier=[], examples=0, log=print)
        log_updates(mirror, 1, 5)
        wait_until(lambda: RUN in server.runs and len(sent(server.runs[RUN])) == 5, seconds=60)
        server.away = True
        log_updates(mirror, 6, 10)
        began = time.monotonic()
    if not comes_back:
        assert time.monotonic() - began < 30  # ten on an idle machine; a wait without a bound has no end
        line = said[-1]
        assert line.startswith("W&B: the upload is incomplete; finish it with wandb sync --include-online ")
        server.away = False
        sync(*shlex.split(line.partition("wandb sync ")[2]))
    else:
        assert len(said) == 1  # the address
    assert server.runs[RUN].updates("train/loss") == list(range(1, 11))
    assert server.runs[RUN].exit_code == 0


def test_killed_before_all_was_sent_and_resumed_nothing_is_lost_or_twice(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.services.child", str(tmp_path), "1", "5"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdin
        assert process.stdout
        wait_until(lambda: RUN in server.runs and len(sent(server.runs[RUN])) == 5, seconds=100)
        server.away = True
        process.stdin.write("\n")
        process.stdin.flush()
        assert any(line == "logged more\n" for line in process.stdout)
        time.sleep(3)  # what W&B needs to write its file
        os.killpg(process.pid, signal.SIGKILL)
    server.away = False
    earlier = earlier_rows(tmp_path, RUN)
    with session(tmp_path, mode="online", run_id=RUN, log=print, project="ours") as one:
        mirror = WandbMirror(one, earlier=earlier, examples=0, log=print)
        mirror.catch_up("step,train/loss\n6,0.14285714285714285\n", 8)  # a checkpoint after update 8
        log_updates(mirror, 9, 15)
    assert sent(server.runs[RUN]) == list(range(1, 16))
    assert [row["train/loss"] for row in server.runs[RUN].rows] == [1 / update for update in range(1, 16)]
    assert server.runs[RUN].exit_code == 0


def test_offline_runs_are_synced_in_any_number_of_times(server: Server, tmp_path: Path) -> None:
    for first, last in ((1, 5), (4, 10)):  # the second resumes after update 3
        earlier = earlier_rows(tmp_path, RUN)
        with session(tmp_path, mode="offline", run_id=RUN, log=print, project="ours") as one:
            mirror = WandbMirror(one, earlier=earlier, examples=0, log=print)
            mirror.catch_up("step,train/loss\n", first - 1)
            log_updates(mirror, first, last)
        time.sleep(1.1)  # W&B names its directories by the second
    paths = sorted(tmp_path.glob("wandb/offline-run-*"))
    assert len(paths) == 2
    for some in (paths, paths[1:], paths):
        sync(*some)
        assert server.runs[RUN].updates("train/loss") == list(range(1, 11))
    assert server.runs[RUN].exit_code == 0
    assert_no_key(tmp_path)


BAD_KEY = "f" * 40


@pytest.mark.parametrize("case", ["a key that is none", "nobody there", "trouble"])
def test_without_a_server_that_takes_it_a_run_is_offline(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """The line has the command that uploads it later, whole."""
    monkeypatch.setattr(session_module, "_INIT_TIMEOUT", 1.5)
    if case == "a key that is none":
        monkeypatch.setenv("WANDB_API_KEY", BAD_KEY)
    server.away, server.status = case == "nobody there", 500 if case == "trouble" else None
    said: list[str] = []
    with session(tmp_path, mode="online", run_id=RUN, log=said.append, project="ours") as one:
        log_updates(WandbMirror(one, earlier=[], examples=0, log=print), 1, 5)
    (line,) = said
    assert "; the run is logged offline, upload it with wandb sync " in line
    assert not {KEY, BAD_KEY} & set(line.split())
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not {key for key in (KEY, BAD_KEY) if key.encode() in path.read_bytes()}, path
    server.away, server.status = False, None
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    sync(*shlex.split(line.partition("wandb sync ")[2]))
    assert sent(server.runs[RUN]) == list(range(1, 6))


def test_what_is_repeated_replaces_the_old_rows(server: Server, tmp_path: Path) -> None:
    for factor in (1, 2):
        with session(tmp_path, mode="online", run_id=RUN, log=print, project="ours", replaces=factor == 2) as one:
            mirror = WandbMirror(one, earlier=[], examples=0, log=print)
            for update in range(1, 5):
                mirror.log_metrics({"train/loss": factor * update}, update - 1)
    assert [row["train/loss"] for row in server.runs[RUN].rows] == [2, 4, 6, 8]


def test_a_sweep_of_wandb_starts_its_run_and_gets_its_loss(server: Server, cache: Path, tmp_path: Path) -> None:
    path = conf_directory() / "sweep" / "wandb" / "hyperparameters.yaml"
    environment = os.environ | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", "ATTNSPAN_CACHE": str(cache)}

    def start(*words: str) -> str:
        command = [sys.executable, "-m", "wandb", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    printed = start("sweep", "--project", "ours", str(path))
    (name,) = server.sweeps
    assert f"wandb agent {ENTITY}/ours/{name}" in printed
    sweep = yaml.safe_load(server.sweeps[name]["config"])
    values = first_values(sweep["parameters"]) | {"trainer.max_steps": 100, "logger.wandb.examples": 0}
    arguments = {key: {"value": value} for key, value in values.items()}
    server.commands = [{"type": "run", "run_id": "agents1", "program": sweep["program"], "args": arguments}]
    server.run("agents1", "ours")  # the server makes the run that an agent is to start
    printed += start("agent", "--count", "1", f"{ENTITY}/ours/{name}")
    one = server.runs["agents1"]
    assert server.runs.keys() == {"agents1"}
    assert one.fields["sweep"] == name
    assert one.exit_code == 0
    assert sweep["metric"]["name"] == "validation/loss"
    assert one.updates("validation/loss") == [100]
    assert one.config["optimizer.lr"]["value"] == pytest.approx(3e-4)
    assert KEY not in printed
    assert_no_key(tmp_path)


def test_a_report_and_its_dashboard_are_saved(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "runs", tmp_path / "long"
    fake_study(root, lengths=range(5, 65), per_length=2)
    assert report.main([str(root), "--out", str(out), "--wandb", "online"]) == 0
    (one,) = server.runs.values()
    assert (one.fields["jobType"], one.fields["groupName"], one.exit_code) == ("study", "long", 0)
    assert [name for name in one.files if name.startswith("media/images/pronunciation/degradation")]
    (artifact,) = (one for one in server.artifacts.values() if one["input"]["artifactTypeName"] == "report")
    assert artifact["committed"]
    for path in (path for path in out.iterdir() if path.is_file()):
        assert artifact["files"][path.name] == path.read_bytes()
    assert dashboard.main([str(study_of(tmp_path / "of a study")), "--project", "attnspan"]) == 0
    assert [view["type"] for view in server.views] == ["project-view", "project-view", "runs"]
    (chart,) = server.charts
    assert json.loads(chart["spec"])["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    assert all(view["projectName"] == "attnspan" for view in server.views)
    said = "".join(capsys.readouterr())
    assert sum(server.url in line for line in said.splitlines()) == 4  # of the study's run, two workspaces, the report
    assert not server.unknown
    assert KEY not in said
    assert_no_key(tmp_path)
