"""The command ``attnspan-train``, as a user types it: sweeps, and every kind of bad input in one line."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from attnspan.cli.train import main
from attnspan.config.config_files import conf_directory
from attnspan.runs.layout import LOCK
from attnspan.runs.status import FAILED, TRAINING, read_status
from attnspan.sweeps.job import Job
from attnspan.sweeps.plan import Plan
from tests.commands import Command, complete
from tests.conftest import TINY
from tests.kills import assert_same
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
SINGLE = ("decoder=plain", *TINY)


def train(*arguments: str, cwd: Path, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in ``cwd``."""
    given = os.environ | {"ATTNSPAN_CACHE": str(cache)} | environment
    return complete("attnspan.cli.train", *arguments, cwd=cwd, environment=given)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A directory in which a sweep of three arms, one of them bad at run time, has been carried out."""
    cwd = tmp_path_factory.mktemp("swept")
    arguments = ["-m", "decoder=luong_general,bahdanau", "seed=1,2", "study=mine", *TINY]
    done = subprocess.run(  # a process that is started anew, as a user starts it
        [sys.executable, "-m", "attnspan.cli.train", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"ATTNSPAN_CACHE": str(cache)},
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (cwd / "printed").write_text(done.stdout, encoding="utf-8")
    return cwd


def directories(cwd: Path) -> list[Path]:
    return [cwd / line for line in (cwd / "runs" / "mine.txt").read_text(encoding="utf-8").split()]


def test_a_sweep_runs_every_job_and_lists_them(swept: Path) -> None:
    listed = directories(swept)
    assert len(listed) == 4
    assert [path.parent.name for path in listed] == ["luong_general"] * 2 + ["bahdanau"] * 2
    for directory in listed:
        assert (directory / "summary.json").is_file()
        config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
        assert config["study"] == "mine"
    printed = (swept / "printed").read_text(encoding="utf-8")
    assert "(4 of 4 runs)" in printed
    assert "left" in printed
    assert "attnspan-report @runs/mine.txt" in printed


def test_a_report_is_about_one_data_set() -> None:
    def reports(*names: str) -> list[tuple[str, str]]:
        config = {"arm": "plain", "seed": 1, "trainer": {"max_steps": 1}}
        runs = [Job(config=config | {"data_name": name}, directory=Path("x"), command="") for name in names]
        return Plan(jobs=runs, settings={"study": "mine", "runs_dir": "runs"}, n_jobs=1).reports

    assert reports("copy") == [("@runs/mine.txt", "mine")]
    assert reports("copy", "recall", "copy") == [("runs/copy", "mine/copy"), ("runs/recall", "mine/recall")]


def test_alone_as_third_in_a_sweep(swept: Path, tmp_path: Path, cache: Path) -> None:
    """The run that came third in the sweep, alone: the same id and the same numbers, bit for bit."""
    third = directories(swept)[2]
    done = train("decoder=bahdanau", "seed=1", *TINY, cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    alone = tmp_path / "runs" / "reverse" / "bahdanau" / third.name
    assert_same(alone, third)


def test_what_is_finished_is_skipped(swept: Path, cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in swept.rglob("summary.json")}
    done = train("-m", "decoder=luong_general,bahdanau", "seed=1,2", "study=mine", *TINY, cwd=swept, cache=cache)
    assert done.returncode == 0
    assert done.stdout.count("finished before, skipped") == 4
    assert {path: path.stat().st_mtime_ns for path in swept.rglob("summary.json")} == before


def test_a_failing_job_leaves_the_others_alone(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it, and a row would be several lines
    sweep = ("-m", "decoder=plain", "optimizer.lr=1e38,0.001", "trainer.gradient_clip_val=null", *TINY)
    done = train(*sweep, cwd=tmp_path, cache=cache)
    assert done.returncode == 1
    *_, row = (line for line in done.stdout.splitlines() if "optimizer.lr=1e+38" in line and " failed " in line)
    assert "the loss is" in row
    assert "Traceback" not in done.stdout + done.stderr
    assert len(list(tmp_path.rglob("summary.json"))) == 1


def test_one_bad_job_and_nothing_is_launched(tmp_path: Path, cache: Path) -> None:
    done = train("-m", "decoder=plain", *TINY, "seed=1,null", "trainer.max_steps=20,0", cwd=tmp_path, cache=cache)
    assert done.returncode == 2
    assert "seed is null" in done.stderr
    assert "trainer.max_steps: must be" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_sweep_that_is_stopped_takes_its_jobs_along(tmp_path: Path, cache: Path, number: signal.Signals) -> None:
    """Or its terminal closed, as by Ctrl-C: the running jobs stop, the table says so, and nobody stays at work."""
    sweep = ("-m", "decoder=plain", "seed=1,2,3", "study=mine", *TINY, "trainer.max_steps=100000")
    environment = os.environ | {"ATTNSPAN_CACHE": str(cache)}
    process = Command("attnspan.cli.train", *sweep, cwd=tmp_path, environment=environment)
    wait_until(
        lambda: any(status is not None and status.phase == TRAINING for status in map(read_status, jobs(tmp_path))),
        seconds=120,
    )
    process.send_signal(number)
    printed, complaint = process.communicate()
    assert process.returncode == 130
    assert "interrupted; the same command resumes" in complaint
    assert printed.count("interrupted") >= 1
    assert "not started" in printed
    for directory in jobs(tmp_path):
        FileLock(directory / LOCK, timeout=0).acquire().lock.release()  # nobody holds it


def jobs(cwd: Path) -> list[Path]:
    """Run directories that have a status."""
    return [path.parent for path in cwd.rglob("status.json")]


def test_help_in_words(tmp_path: Path, cache: Path) -> None:
    own = tmp_path / "own" / "decoder"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# An arm of my own.\n", encoding="utf-8")
    done = train("--help", "--config-dir", str(tmp_path / "own"), cwd=tmp_path, cache=cache)
    assert done.returncode == 0
    for word in ("decoder=", "luong_general", "pronunciation", "long_sequences", "An arm of my own."):
        assert word in done.stdout


def test_configs_of_ones_own(tmp_path: Path, cache: Path) -> None:
    """A directory beside ours: an arm and a sweep that only it has; the sweep's jobs find it too."""
    own = tmp_path / "own"
    (own / "decoder").mkdir(parents=True)
    (own / "sweep").mkdir()
    plain = (conf_directory() / "decoder" / "plain.yaml").read_text(encoding="utf-8")
    (own / "decoder" / "mine.yaml").write_text(plain, encoding="utf-8")
    (own / "sweep" / "few.yaml").write_text(
        "# @package _global_\n# One run.\nhydra: {mode: MULTIRUN, sweeper: {params: {decoder: mine}}}\n",
        encoding="utf-8",
    )
    done = train("--config-dir", "own", "sweep=few", *TINY, cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stdout + done.stderr
    (summary,) = tmp_path.rglob("summary.json")
    assert summary.parent.parent.name == "mine"


def test_out_of_memory_is_one_line(tmp_path: Path, cache: Path) -> None:
    """A run alone, not only one of a sweep; torch tells of it in an error of its own kind."""
    trouble = ("optimizer._target_=tests.troubles.Trouble", "+optimizer.how=memory")
    done = train(*SINGLE, *trouble, cwd=tmp_path, cache=cache, PYTHONPATH=str(ROOT))
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("attnspan-train: plain seed 1: out of memory (")
    assert "allocate" in line
    assert "loader.batch_tokens" in line
    (directory,) = (path.parent for path in tmp_path.rglob("status.json"))
    assert str(directory.relative_to(tmp_path)) in line
    status = read_status(directory)
    assert status is not None
    assert status.state == FAILED


def test_what_reads_the_output_may_go_away(tmp_path: Path, cache: Path) -> None:
    """``attnspan-train ... | head -1``: the run is not done for what it prints, and goes on to its end."""
    words = shlex.join([sys.executable, "-m", "attnspan.cli.train", *SINGLE, "trainer.max_steps=60"])
    done = subprocess.run(
        ["bash", "-c", f"{words} | head -n 1; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"ATTNSPAN_CACHE": str(cache)},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert len(list(tmp_path.rglob("summary.json"))) == 1


BAD = {
    "an unknown arm": (("decoder=bahdanu",), ("decoder=bahdanu", "did you mean 'bahdanau'", "plain")),
    "an unknown dataset": (("data=pronounciation",), ("did you mean 'pronunciation'",)),
    "an unknown sweep": (("sweep=long_sequence",), ("did you mean 'long_sequences'",)),
    "an unknown key": (("trainer.max_step=5",), ("trainer.max_step", "did you mean 'max_steps'")),
    "an unknown precision": (("matmul_precision=midium",), ("matmul_precision", "did you mean 'medium'")),
    "an unknown group": (("decodr=plain",), ("decodr", "did you mean 'decoder'")),
    "an unknown key of the decoder": (("decoder.heads=4",), ("decoder.heads", "no such key")),
    "no seed": (("seed=null",), ("seed is null",)),
    "a seed in words": (("seed=one",), ("seed: must be a whole number",)),
    "updates that are no number": (("trainer.max_steps=many",), ("trainer.max_steps: must be a whole number",)),
    "no validation": (("trainer.val_check_interval=0",), ("trainer.val_check_interval: must be a whole number",)),
    "devices in words": (("trainer.devices=both",), ("trainer.devices: must be a whole number",)),
    "no device": (("trainer.devices=0",), ("trainer.devices: must be a whole number of at least 1",)),
    "more devices than cores": (("trainer.devices=100000",), ("trainer.devices=100000", "cores")),
    "another strategy": (("trainer.strategy=fsdp",), ("trainer.strategy", "'fsdp'", "did you mean 'ddp'?")),
    "several machines": (("+trainer.num_nodes=2",), ("trainer.num_nodes=2", "one machine")),
    "an enormous seed": (("seed=99999999999",), ("seed: must be a whole number", "less than 2^32")),
    "more threads than cores": (("threads=100000",), ("threads=100000", "cores")),
    "a size of nothing": (("decoder=bahdanau", "decoder.score.attention_size=0"), ("decoder.score.attention_size",)),
    "a size in words": (("encoder.hidden_size=abc",), ("encoder.hidden_size: must be a whole number",)),
    "a switch that is no switch": (
        ("decoder=bahdanau", "decoder.fused=maybe"),
        ("decoder.fused: must be true or false",),
    ),
    "a limit that is no limit": (("decoding.limit.ratio=abc",), ("decoding.limit", "ratio")),
    "a shortened run": (("+trainer.fast_dev_run=true",), ("trainer.fast_dev_run", "trainer.max_steps")),
    "a part of a split": (("+trainer.limit_val_batches=0",), ("trainer.limit_val_batches", "whole splits")),
    "a log in words": (("trainer.log_every_n_steps=abc",), ("trainer.log_every_n_steps: must be a whole number",)),
    "a project that is a path": (("logger=wandb", "logger.wandb.project='a/b c'"), ("logger.wandb.project", "a/b c")),
    "a mode that W&B lacks": (
        ("logger=wandb", "logger.wandb.mode=onlin"),
        ("logger.wandb.mode", "'onlin'", "did you mean 'online'?"),
    ),
    "fewer examples than none": (("logger.wandb.examples=-1",), ("logger.wandb.examples: must be a whole number",)),
    "no W&B at all": (("logger.wandb=null",), ("logger.wandb", "logger=none switches W&B off")),
    "nowhere to write": (("runs_dir=null",), ("runs_dir: must be a path",)),
    "a group of nothing": (("optimizer=null",), ("optimizer",)),
    "a sweep of nothing": (("sweep=null",), ("sweep=null: leave it out for a single run",)),
    "an optimizer's bad setting": (("optimizer.betas=[1.5,2]",), ("optimizer", "1.5")),
    "an optimizer's bad word": (("optimizer.eps=abc",), ("optimizer",)),
    "a list where one value is meant": (("decoder=plain,bahdanau",), ("decoder=plain,bahdanau",)),
    "a word that is no override": (("bahdanau",), ("bahdanau",)),
    "a key added that nobody knows": (("+trainer.max_time_steps=3",), ("trainer", "max_time_steps")),
    "a bad device": (("trainer.accelerator=abacus",), ("trainer", "abacus")),
    "a file that is not there": (
        (
            "data=files",
            "data.train=a.csv",
            "data.validation=a.csv",
            "data.test=a.csv",
            "data.source=x",
            "data.target=y",
        ),
        ("a.csv",),
    ),
    "files that are not named": (("data=files",), ("data.", "no value", "data=files")),
    "a batch that is too small": (("loader.batch_tokens=3",), ("loader.batch_tokens=3", "longest example")),
    "a bad length limit": (("decoding.limit.ratio=0.0", "decoding.limit.margin=0"), ("decoding.limit",)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(
    case: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In this process, to spare the time that torch needs to start; the tests below start real ones."""
    arguments, words = BAD[case]
    generated = "data=files" not in arguments and not any(word.startswith("data=") for word in arguments)
    base = SINGLE if generated else ("trainer.accelerator=cpu", "logger=none")
    monkeypatch.setattr(sys, "argv", ["attnspan-train", *base, *arguments])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main()
    printed = capfd.readouterr()
    assert exit_.value.code == 2
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("attnspan-train: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in printed.out
    assert not list(tmp_path.rglob("config.yaml"))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_hub_name_without_a_network(tmp_path: Path, cache: Path) -> None:
    done = train(
        *("data=hub", "data.path=nobody/nothing", "data.source=a", "data.target=b", "logger=none"),
        cwd=tmp_path,
        cache=cache,
        HF_HUB_OFFLINE="1",
    )
    assert done.returncode == 2
    assert "nobody/nothing" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").exists(), reason="needs a path nobody can write")
def test_a_disk_that_refuses_writing(tmp_path: Path, cache: Path) -> None:
    """Nobody, not even root, can make a directory in /proc."""
    done = train(*SINGLE, "runs_dir=/proc/attnspan", cwd=tmp_path, cache=cache)
    assert done.returncode == 2
    assert "/proc/attnspan" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_directory_that_holds_another_run(swept: Path, tmp_path: Path, cache: Path) -> None:
    import shutil

    first, second = directories(swept)[:2]
    copy = tmp_path / "runs" / "reverse" / "luong_general" / first.name
    shutil.copytree(second, copy)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    done = train("decoder=luong_general", "seed=1", *TINY, cwd=tmp_path, cache=cache)
    assert done.returncode == 2
    assert "already holds another run" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_wandb_is_offline_and_asks_nothing(tmp_path: Path, cache: Path) -> None:
    """No key, no network, no terminal: the run is mirrored beside its records, and nothing else is written."""
    home = tmp_path / "home"
    home.mkdir()
    done = train(
        *SINGLE,
        "logger=wandb",
        cwd=tmp_path,
        cache=cache,
        HOME=str(home),
        WANDB_MODE="offline",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (mirror,) = tmp_path.rglob("*.wandb")
    assert mirror.is_relative_to(tmp_path / "runs" / "reverse" / "plain")
    assert not [path for path in home.rglob("*") if "wandb" in path.name]
