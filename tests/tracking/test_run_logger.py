"""W&B mirrors a run: what is there is read back with W&B's own reader, and the run is the same as without."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from attnspan.config.identity import flatten
from attnspan.errors import InputError, Interrupted, NotFiniteError
from attnspan.files import read_json
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import PREVIOUS, read_config
from attnspan.runs.records import read_records
from attnspan.runs.status import TRAINING, read_status
from attnspan.tracking.session import _environment, exit_code
from tests.cli.test_train import train
from tests.commands import Command
from tests.conftest import TINY, Compose
from tests.kills import assert_same, attempt, begin, directory_of
from tests.mirrors import Mirrored, read_mirrors
from tests.training.test_run import run
from tests.waiting import wait_until

MIRRORED = ("logger=wandb", "logger.wandb.mode=offline", "study=mine", "trainer.log_every_n_steps=5")
KEY = "f" * 40
"""A key that nobody has."""


def updates(mirror: Mirrored, key: str) -> list[int]:
    return [row["update"] for row in mirror.rows if key in row]


@pytest.fixture(scope="module")
def three(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three runs in this process, one after the other; the second fails."""
    runs, directories = tmp_path_factory.mktemp("three"), {}
    for arm, *more in (("bahdanau",), ("plain", "optimizer.lr=1e38", "trainer.gradient_clip_val=null"), ("luong_dot",)):
        overrides = (f"decoder={arm}", *MIRRORED, *more)
        try:
            run(composed, runs, *overrides)
        except NotFiniteError:
            assert arm == "plain"
        directories[arm] = directory_of(composed(*TINY, f"runs_dir={runs}", *overrides))
    return directories


@pytest.fixture(scope="module")
def mirror(three: dict[str, Path]) -> Mirrored:
    (one,) = read_mirrors(three["bahdanau"])
    return one


def test_three_jobs_of_one_process_are_three_runs_with_their_own_configs(three: dict[str, Path]) -> None:
    for arm, directory in three.items():
        (one,) = read_mirrors(directory)
        assert one.run["run_id"] == directory.name
        assert one.run["display_name"] == f"{arm} reverse seed 1"
        assert one.run["run_group"] == "mine"
        assert one.run["job_type"] == arm
        assert one.run["project"] == "attnspan"
        assert one.run["tags"] == [arm, "reverse"]
        assert one.run["notes"] == "test"
        assert one.config == {"run_id": directory.name, "variant": arm, **flatten(read_config(directory))}
        assert one.config["trainer.max_steps"] == 20
        assert one.exit_code == (2 if arm == "plain" else 0)
    assert "WANDB_SILENT" not in os.environ  # what a run sets for itself is gone with it


def test_what_failed_says_why(three: dict[str, Path]) -> None:
    (failed,) = read_mirrors(three["plain"])
    assert "the loss is" in failed.summary["failure"]
    assert "test/error_rate" not in failed.summary


def test_curves_are_those_of_metrics_csv_against_the_update(three: dict[str, Path], mirror: Mirrored) -> None:
    curves = pd.read_csv(three["bahdanau"] / "metrics.csv")
    for key in ("train/loss", "train/learning_rate", "train/gradient_norm", "validation/loss"):
        rows = curves.dropna(subset=[key])
        assert updates(mirror, key) == (rows["step"] + 1).tolist()
        assert [row[key] for row in mirror.rows if key in row] == pytest.approx(rows[key].tolist())
        assert mirror.axis(key) == "update"
    assert updates(mirror, "train/loss") == [5, 10, 15, 20]
    assert updates(mirror, "validation/loss") == [10, 20]


def test_cost_is_logged_beside_the_loss(mirror: Mirrored) -> None:
    for key in ("machine/train_tokens_per_second", "machine/peak_memory_mb"):
        assert updates(mirror, key) == updates(mirror, "train/loss")
        assert all(row[key] > 0 for row in mirror.rows if key in row)
        assert mirror.axis(key) == "update"


def test_no_clock_stands_in_metrics_csv(three: dict[str, Path]) -> None:
    assert not [name for name in pd.read_csv(three["bahdanau"] / "metrics.csv").columns if "machine" in name]


def test_validation_is_told_by_length(mirror: Mirrored) -> None:
    for key in ("validation_loss/source_2-6", "validation_accuracy/source_2-6"):
        assert updates(mirror, key) == [10, 20]
        assert mirror.axis(key) == "update"


def test_quality_by_length_is_that_of_the_records(three: dict[str, Path], mirror: Mirrored) -> None:
    records = read_records(three["bahdanau"] / "records.parquet")
    table = mirror.table("test/by_length")
    assert sum(row["examples"] for row in table) == len(records)
    rows = [row for row in mirror.rows if "test_by_source_length/error_rate" in row]
    assert len(rows) == len(table) == 2
    assert mirror.axis("test_by_source_length/error_rate") == "test_by_source_length/length"
    inside = [records[records["source_length"] <= 6], records[records["source_length"] > 6]]
    for row, said, part in zip(rows, table, inside, strict=True):
        rate = part["edits"].sum() / part["target_length"].sum()
        assert row["test_by_source_length/length"] == pytest.approx(part["source_length"].mean())
        assert row["test_by_source_length/error_rate"] == said["error_rate"] == pytest.approx(rate)
        assert said["examples"] == len(part)
    assert [row["side"] for row in table] == ["in range", "extrapolation"]
    drawn = mirror.table("quality_by_length_table")
    assert [row["lineVal"] for row in drawn if row["lineKey"] == "error_rate"] == [row["error_rate"] for row in table]
    assert any("_wandb.visualize.quality_by_length" in record["update"] for record in mirror.of("config"))


def test_examples_come_with_where_attention_went(three: dict[str, Path], mirror: Mirrored) -> None:
    records = read_records(three["bahdanau"] / "records.parquet").set_index("example_id")
    table = mirror.table("test/examples")
    assert len(table) == 8
    assert [row["source_length"] for row in table] == sorted(row["source_length"] for row in table)
    assert {table[0]["source_length"], table[-1]["source_length"]} == {2, 9}
    for row in table:
        record = records.loc[row["example_id"]]
        assert all(row[name] == record[name] for name in ("source", "reference", "hypothesis", "edits"))
    maps = [row["attention"] for row in table if row["attention"]]
    assert 1 <= len(maps) <= 3
    alone = [mirror.file(f"test/attention_{number + 1}") for number in range(len(maps))]
    assert all(path.is_file() for path in alone)
    assert f"test/attention_{len(maps) + 1}.path" not in mirror.summary
    pictures = list((mirror.path.parent / "files" / "media" / "images").rglob("*.png"))
    assert len(pictures) >= len(maps)
    for path in pictures:
        assert path.stat().st_size < 100_000
        assert max(Image.open(path).size) < 2_000


def test_attention_forms_before_ones_eyes(three: dict[str, Path], mirror: Mirrored) -> None:
    """The same two examples, as two images of one size each, at the validations that are looked at."""
    for key in ("validation_attention/1", "validation_attention/2"):
        assert updates(mirror, f"{key}.path") == [10, 20]
        assert mirror.axis(key) == "update"
        shown = [row for row in mirror.rows if f"{key}.path" in row]
        first, last = (Image.open(mirror.path.parent / "files" / row[f"{key}.path"]) for row in shown)
        assert first.size == last.size
        assert first.convert("RGB").tobytes() != last.convert("RGB").tobytes()
        assert [row[f"{key}.caption"].partition(", ")[2] for row in shown] == ["after 10 updates", "after 20 updates"]
    steps = [row["_step"] for row in mirror.rows]
    assert steps == sorted(set(steps))
    places = {row["_step"] % 8 for row in mirror.rows if "validation/loss" in row}
    assert places == {3}  # as where no images are logged, so that a row that is logged again has the same step
    (plain,) = read_mirrors(three["plain"])
    assert not any("validation_attention" in key for row in plain.rows for key in row)


def test_attention_forms_in_an_arm_that_copies(composed: Compose, tmp_path: Path) -> None:
    """Its source is read in two vocabularies."""
    (one,) = read_mirrors(run(composed, tmp_path, "decoder=luong_pointer", *MIRRORED))
    assert updates(one, "validation_attention/1.path") == [10, 20]


def test_attention_that_cannot_be_drawn_harms_none(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ValueError("no such picture")

    monkeypatch.setattr("attnspan.tracking.run_results.captioned", fail)
    directory = run(composed, tmp_path, "decoder=bahdanau", *MIRRORED)
    assert is_finished(directory)
    assert "attention after update 10 could not be logged (ValueError: no such picture)" in capfd.readouterr().out


def test_the_summary_has_what_the_run_came_to(three: dict[str, Path], mirror: Mirrored) -> None:
    summary = read_json(three["bahdanau"] / "summary.json")
    for name, value in summary["test"].items():
        assert mirror.summary[f"test/{name}"] == pytest.approx(value)
    for name in ("parameters", "best_validation_loss", "train_seconds", "peak_memory_mb", "git_commit"):
        assert mirror.summary[name] == summary[name]


def test_a_span_is_told_where_there_is_one(composed: Compose, tmp_path: Path) -> None:
    learns = ("trainer.max_steps=600", "trainer.val_check_interval=300", "data.train_size=2000")
    directory = run(composed, tmp_path, "decoder=bahdanau", *MIRRORED, *learns, "logger.wandb.examples=0")
    (one,) = read_mirrors(directory)
    assert 2 <= one.summary["span/source_length"] <= 9
    assert one.summary["span/in_words"].endswith(f"({one.summary['span/in_words'].partition('(')[2]}")
    assert "tokens (" in one.summary["span/in_words"]
    assert "test/examples.path" not in one.summary
    assert not list(directory.rglob("*.png"))


def test_numbers_are_the_same_without(composed: Compose, three: dict[str, Path], tmp_path: Path) -> None:
    for arm in ("bahdanau", "luong_dot"):
        without = run(composed, tmp_path, f"decoder={arm}", *MIRRORED, "logger.wandb.mode=disabled")
        assert without.name == three[arm].name
        assert not list(without.rglob("*wandb*"))
        assert_same(three[arm], without)


def test_none_and_disabled_are_one(composed: Compose) -> None:
    assert composed("logger=none")["logger"] == composed("logger.wandb.mode=disabled")["logger"]


def test_disabled_does_not_even_load_wandb(composed: Compose, cache: Path, tmp_path: Path) -> None:
    code = "import sys, attnspan.cli.train as t\ntry: t.main()\nfinally: print('loaded:', 'wandb' in sys.modules)"
    arguments = ("decoder=plain", *TINY, f"runs_dir={tmp_path}")
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "loaded: False" in done.stdout


def test_environment_gives_defaults_and_the_command_line_wins(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MODE", "disabled"), ("PROJECT", "theirs"), ("ENTITY", "team")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    found = composed("seed=41")["logger"]["wandb"]
    assert (found["mode"], found["project"], found["entity"]) == ("disabled", "theirs", "team")
    found = composed("seed=41", "logger.wandb.mode=online", "logger.wandb.project=ours")["logger"]["wandb"]
    assert (found["mode"], found["project"]) == ("online", "ours")


def test_a_run_of_a_sweeps_agent_has_the_agents_id(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "not_of_a_sweep")
    directory = run(composed, tmp_path / "alone", "decoder=plain", *MIRRORED)
    assert read_mirrors(directory)[0].run["run_id"] == directory.name
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "agents1")
    directory = run(composed, tmp_path / "swept", "decoder=plain", *MIRRORED)
    (one,) = read_mirrors(directory)
    assert one.run["run_id"] == "agents1"
    assert one.config["run_id"] == directory.name


def test_results_that_cannot_be_mirrored_harm_none(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ValueError("no such plot")

    monkeypatch.setattr("wandb.plot.line_series", fail)
    directory = run(composed, tmp_path, "decoder=plain", *MIRRORED)
    assert is_finished(directory)
    assert "W&B: the results could not be logged (ValueError: no such plot)" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("bad"), 2),
        (NotFiniteError("nan"), 2),
        (MemoryError(), 2),
        (RuntimeError("a bug"), 1),
        (KeyboardInterrupt(), 130),
        (Interrupted(signal.SIGTERM), 143),
        (SystemExit(3), 3),
        (SystemExit("words"), 1),
        (SystemExit(None), 0),
    ],
)
def test_the_exit_code_is_that_of_the_command(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


LONG = (
    *TINY,
    *MIRRORED,
    "trainer.max_steps=1200",
    "trainer.val_check_interval=250",
    "data.train_size=900",
    "checkpoint_interval=1",
)


def test_killed_and_resumed_is_one_run_with_nothing_twice(composed: Compose, tmp_path: Path) -> None:
    """The mirror of the last attempt is that of a run that nobody killed; the first has some of its rows."""
    config = composed("decoder=plain", *LONG, f"runs_dir={tmp_path}")
    directory, process = directory_of(config), begin(config)[0]
    wait_until((directory / PREVIOUS).exists, seconds=60)
    time.sleep(1.5)  # so that more was logged than the checkpoint has
    process.kill()
    process.join()
    assert not attempt(config)[0]
    mirrors = read_mirrors(directory)
    assert [one.exit_code for one in mirrors] == [None, 0]
    assert {one.run["run_id"] for one in mirrors} == {directory.name}
    last = mirrors[-1]
    steps = [row["_step"] for row in last.rows]
    assert steps == sorted(set(steps))
    curves = pd.read_csv(directory / "metrics.csv")
    for key in ("train/loss", "validation/loss"):
        expected = curves.dropna(subset=[key])
        assert updates(last, key) == (expected["step"] + 1).tolist()
        assert [row[key] for row in last.rows if key in row] == pytest.approx(expected[key].tolist())
        at = {row["_step"]: row[key] for row in last.rows if key in row}
        for one in mirrors[:-1]:  # W&B keeps one row for each step
            assert {row["_step"]: row[key] for row in one.rows if key in row}.items() <= at.items()
    # metrics.csv has nothing of machine/: what W&B had not written when it was killed is lost, up to the checkpoint.
    logged, machine = updates(last, "train/loss"), updates(last, "machine/peak_memory_mb")
    written = updates(mirrors[0], "machine/peak_memory_mb")[-1]
    resumed = next(update for update in [*machine, logged[-1] + 1] if update > written)
    assert machine == [update for update in logged if not written < update < resumed]
    assert last.summary["failure"] is None
    assert sum("test_by_source_length/error_rate" in row for row in last.rows) == 2


def test_what_wandb_lost_is_made_up_from_the_checkpoint(composed: Compose, tmp_path: Path) -> None:
    config = composed("decoder=plain", *LONG, f"runs_dir={tmp_path}")
    directory, process = directory_of(config), begin(config)[0]
    wait_until((directory / PREVIOUS).exists, seconds=60)  # so there is a last one too, with something to make up
    process.kill()
    process.join()
    shutil.rmtree(directory / "wandb")
    assert not attempt(config)[0]
    (one,) = read_mirrors(directory)
    curves = pd.read_csv(directory / "metrics.csv")
    for key in ("train/loss", "train/learning_rate", "validation/loss", "validation_loss/source_2-6"):
        rows = curves.dropna(subset=[key])
        assert updates(one, key) == (rows["step"] + 1).tolist()
        assert [row[key] for row in one.rows if key in row] == pytest.approx(rows[key].tolist())


@contextmanager
def endless(composed: Compose, tmp_path: Path) -> Iterator[tuple[Command, Path]]:
    """A run that trains until somebody ends it, with all its processes in a group of their own; and its directory."""
    arguments = ["decoder=plain", *LONG, "trainer.max_steps=1000000", f"runs_dir={tmp_path}"]
    directory = directory_of(composed(*arguments))
    process = Command("attnspan.cli.train", *arguments, cwd=tmp_path)
    wait_until(lambda: (status := read_status(directory)) is not None and status.phase == TRAINING, seconds=60)
    yield process, directory


def test_what_is_stopped_ends_with_the_signals_code(composed: Compose, tmp_path: Path) -> None:
    with endless(composed, tmp_path) as (process, directory):
        process.send_signal(signal.SIGTERM)
        process.communicate()
        assert process.returncode == 143
    (one,) = read_mirrors(directory)
    assert one.exit_code == 143
    assert one.summary["failure"].endswith("SIGTERM")


def test_a_machine_that_goes_down_takes_two_seconds_along(composed: Compose, tmp_path: Path) -> None:
    """W&B's own process, which writes the file, is killed too."""
    with endless(composed, tmp_path) as (process, directory):
        time.sleep(3)
        killed = time.time()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    (one,) = read_mirrors(directory)
    assert one.exit_code is None
    assert killed - one.rows[-1]["_timestamp"] < 3  # two, and what a busy machine needs


@contextmanager
def server(*, answers: bool) -> Iterator[int]:
    """A port at which nobody listens, or somebody who never says a word."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if answers:
            taken.listen(50)
        yield taken.getsockname()[1]


def seconds_of(commands: list[Command]) -> list[float]:
    """How long each of the commands takes from now on."""
    began, ended = time.monotonic(), dict[int, float]()
    while len(ended) < len(commands):
        for number, command in enumerate(commands):
            if number not in ended and command.poll() is not None:
                ended[number] = time.monotonic() - began
        assert time.monotonic() - began < 600
        time.sleep(0.02)
    return [seconds for _, seconds in sorted(ended.items())]


@pytest.mark.parametrize("case", ["no key, at a terminal", "nobody answers"])
def test_online_falls_back_to_offline_with_one_line(tmp_path: Path, cache: Path, case: str) -> None:
    """A run that is offline from the start, at the same time, says how long all takes without a wait of W&B's."""
    home, online, offline = (tmp_path / name for name in ("home", "online", "offline"))
    for path in (home, online, offline):
        path.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"ATTNSPAN_CACHE": str(cache), "HOME": str(home)}
    ours, terminal = os.openpty()  # at which W&B would ask for a key
    with server(answers=case == "nobody answers") as port:
        environment |= {"WANDB_BASE_URL": f"http://127.0.0.1:{port}"}
        environment |= {} if case.startswith("no key") else {"WANDB_API_KEY": KEY}
        both = [
            Command(
                "attnspan.cli.train",
                *("decoder=plain", *TINY, "logger=wandb", f"logger.wandb.mode={cwd.name}"),
                cwd=cwd,
                environment=environment,
                terminal=Path(os.ttyname(terminal)),
            )
            for cwd in (online, offline)
        ]
        seconds = seconds_of(both)
    os.close(terminal)
    os.set_blocking(ours, False)
    try:
        assert not os.read(ours, 1)  # nothing was printed there
    except (BlockingIOError, OSError):
        pass
    finally:
        os.close(ours)
    printed = [command.communicate()[0] for command in both]
    assert [command.returncode for command in both] == [0, 0], printed
    lines, none = ([line for line in text.splitlines() if "W&B" in line] for text in printed)
    assert len(lines) == 1, printed
    assert "the run is logged offline" in lines[0]
    assert not none
    (one,) = read_mirrors(online)
    assert one.path.parent.name.startswith("offline-run-")
    assert one.exit_code == 0
    assert updates(one, "train/loss") == [10, 20]
    # W&B has 5 s to begin. Where nobody bounds it, it waits for 90, and without a network 20 to report its own errors.
    assert seconds[0] < 2 * seconds[1] + 12
    assert not [path for path in home.rglob("*") if "wandb" in path.name or "netrc" in path.name]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_of_several_processes_one_logs(composed: Compose, tmp_path: Path, cache: Path) -> None:
    arguments = ("decoder=plain", *TINY, *MIRRORED, "trainer.devices=2", "trainer.strategy=ddp")
    done = train(*arguments, cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stdout + done.stderr
    (one,) = read_mirrors(tmp_path)
    assert updates(one, "train/loss") == [5, 10, 15, 20]
    assert updates(one, "validation_loss/source_2-6") == [10, 20]
    assert one.exit_code == 0


def test_a_rerun_replaces_what_was_logged(composed: Compose, tmp_path: Path) -> None:
    """Else the old curves stand beside the new result, and the new ones are taken for logged."""
    directory = run(composed, tmp_path, "decoder=plain", *MIRRORED)
    (first,) = read_mirrors(directory)
    run(composed, tmp_path, "decoder=plain", *MIRRORED, "rerun=true")
    (second,) = read_mirrors(directory)
    assert not second.run.get("resume")
    assert [row["train/loss"] for row in second.rows if "train/loss" in row]
    assert len(second.rows) == len(first.rows)


@pytest.mark.parametrize(
    ("setting", "value"), [("base_url", "garbage"), ("console", "bogus"), ("x_graphql_timeout_seconds", "abc")]
)
def test_a_setting_that_wandb_refuses_is_named(setting: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb
    from pydantic import ValidationError

    from attnspan.tracking.session import _reason

    with pytest.raises(ValidationError) as refused:
        wandb.Settings(**{setting: value})
    assert _reason(refused.value).startswith(f"{setting}={value}: ")
    name = f"WANDB_{setting.removeprefix('x_').upper()}"
    monkeypatch.setenv(name, value)
    assert _reason(refused.value).startswith(f"{name}={value}: ")


def test_an_empty_variable_counts_as_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's client would take WANDB_MODE= for a mode without a name."""
    for name in ("WANDB_MODE", "WANDB_BASE_URL", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, "")
    with _environment(tmp_path):
        assert not {"WANDB_MODE", "WANDB_BASE_URL"} & {*os.environ}
        assert os.environ["WANDB_DATA_DIR"] == str(tmp_path)
    assert os.environ["WANDB_MODE"] == os.environ["WANDB_DATA_DIR"] == ""
