"""A search over settings: what it may try, what it tries, and that nothing of it is lost. Its runs hold no model."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest
import yaml

from attnspan.cli.train import main
from attnspan.config.config_files import conf_directory
from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.runs.layout import CONFIG, SUMMARY
from attnspan.sweeps.hyperparameters.space import Choices, NumberRange, Space, corners
from hydra_plugins.attnspan_sweeps.search_space import read_space
from tests.conftest import TINY, parsed
from tests.stub_train import loss_of, stubs

optuna = pytest.importorskip("optuna")

from optuna.samplers import TPESampler  # noqa: E402
from optuna.storages import JournalStorage  # noqa: E402
from optuna.storages.journal import JournalFileBackend  # noqa: E402
from optuna.trial import FrozenTrial, TrialState  # noqa: E402

from attnspan.sweeps.hyperparameters.journal import Journal, read_trials  # noqa: E402
from tests.waiting import wait_until  # noqa: E402

ROOT = Path(__file__).parents[2]
SPACE = ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.hidden_size=choice(16,32)")
SEARCH = ("-m", "hydra/sweeper=optuna", "study=mine", *TINY[:7], "logger=none", *SPACE)


def space_of(*words: str) -> tuple[Space, list[str]]:
    return read_space(parsed(*words))


def test_a_space_is_written_as_hydra_does() -> None:
    space, fixed = space_of(
        "optimizer.lr=tag(log, interval(1e-4, 1e-2))",
        "rnn.layers=int(interval(1, 3))",
        "decoder=plain,bahdanau",
        "model.dropout=range(0, 0.4, 0.1)",
        "trainer.max_steps=range(100,401,100)",
        "encoder=choice(unidirectional,bidirectional)",
        "seed=3",
        "+new=4",
        "~old",
    )
    assert space == {
        "optimizer.lr": NumberRange(low=1e-4, high=1e-2, log=True),
        "rnn.layers": NumberRange(low=1, high=3),
        "decoder": Choices(values=("plain", "bahdanau")),
        "model.dropout": NumberRange(low=0, high=0.3, step=0.1),
        "trainer.max_steps": NumberRange(low=100, high=400, step=100),
        "encoder": Choices(values=("unidirectional", "bidirectional")),
    }
    assert fixed == ["seed=3", "+new=4", "~old"]


def test_what_comes_later_counts() -> None:
    space, fixed = space_of("seed=1", "model.dropout=interval(0,1)", "seed=choice(1,2)", "model.dropout=0.1")
    assert space == {"seed": Choices(values=("1", "2"))}
    assert fixed == ["model.dropout=0.1"]


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("a.b=interval(2,1)", r"a\.b: the lower end must come first"),
        ("a.b=tag(log,interval(0,1))", r"a\.b: a logarithmic scale needs numbers above 0"),
        ("a.b=tag(log,range(1,9,2))", r"a\.b: a logarithmic scale cannot have steps of 2"),
        ("a.b=tag(lgo,interval(1,2))", r"a\.b: has the tag 'lgo'; did you mean 'log'"),
        ("a.b=tag(log,choice(1,2))", r"a\.b: the tag 'log' is for range"),
        ("a.b=range(5,5)", r"a\.b: .* is empty"),
    ],
)
def test_a_space_of_nothing_is_refused(word: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        space_of(word)


def test_every_end_is_a_corner_once() -> None:
    space = {"a": NumberRange(low=1, high=2), "b": Choices(values=("x", "y", "z")), "c": NumberRange(low=5, high=5)}
    assert corners(space) == [
        {"a": "1", "b": "x", "c": "5"},
        {"a": "2", "b": "x", "c": "5"},
        {"a": "1", "b": "y", "c": "5"},
        {"a": "1", "b": "z", "c": "5"},
    ]


def journal(path: Path) -> Journal:
    space = {
        "optimizer.lr": NumberRange(low=1e-4, high=1e-1, log=True),
        "model.hidden_size": Choices(values=("16", "32")),
    }
    return Journal(path, space=space, sampler=TPESampler, seed=1)


def test_later_trials_are_better_for_those_before(tmp_path: Path) -> None:
    losses = []
    with journal(tmp_path / "a.journal") as kept:
        for _ in range(40):
            trial = kept.ask()
            losses.append(loss_of([f"{key}={value}" for key, value in trial.settings.items()]))
            kept.finished(trial, losses[-1])
    assert sum(losses[30:]) < 0.5 * sum(losses[:10])
    assert min(losses) < 0.05


def test_what_comes_next_does_not_depend_on_what_is_lost_with_a_process(tmp_path: Path) -> None:
    """One journal kept open, one opened anew for each trial, and one whose trial was killed before it had settings."""
    asked: list[list[dict[str, str]]] = [[], [], []]
    with journal(tmp_path / "a.journal") as kept:
        for number in range(14):
            trial = kept.ask()
            asked[0].append(trial.settings)
            kept.finished(trial, number % 5)
    for number in range(14):
        with journal(tmp_path / "b.journal") as kept:
            trial = kept.ask()
            asked[1].append(trial.settings)
            kept.finished(trial, number % 5)
        with journal(tmp_path / "c.journal") as kept:
            kept._study.ask()
        with journal(tmp_path / "c.journal") as kept:
            trial = kept.trials[-1]
            asked[2].append(trial.settings)
            kept.finished(trial, number % 5)
    assert asked[0] == asked[1] == asked[2]
    assert len({str(settings) for settings in asked[0]}) == 14


def test_a_line_half_written_is_dropped(tmp_path: Path) -> None:
    """As a full disk leaves it."""
    path = tmp_path / "a.journal"
    with journal(path) as kept:
        kept.finished(kept.ask(), 1.0)
    with path.open("ab") as file:
        file.write(b'{"op_code":5,"wor')
    for _ in range(2):
        with journal(path) as kept:
            kept.finished(kept.ask(), 2.0)
    assert [trial.loss for trial in read_trials(path)] == [1.0, 2.0, 2.0]
    path.write_text('{"op_code":77}\n{"op_code"\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.journal: not readable as an optuna journal"), journal(path):
        pass


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with journal(tmp_path / "a.journal") as kept:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"a\.journal: cannot be written \(No space left on device; .* are free"):
            kept.ask()


def words_of(n_trials: int, n_jobs: int | None) -> list[str]:
    launcher = [f"hydra.launcher.n_jobs={n_jobs}"] if n_jobs else []
    return [*SEARCH, f"hydra.sweeper.n_trials={n_trials}", *launcher]


def search(cwd: Path, n_trials: int, *words: str, n_jobs: int | None = 1, fails: str = "") -> tuple[int, str, str]:
    """Search in this process, and return the exit code and what was printed on both ways out."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err), stubs():
        patch.chdir(cwd)
        patch.setenv("ATTNSPAN_CACHE", str(cwd / "cache"))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("COLUMNS", "1000")
        patch.setenv("STUB_FAILS", fails)
        patch.setattr("attnspan.sweeps.processes._POLL_INTERVAL", 0.05)
        patch.setattr(sys, "argv", ["attnspan-train", *words_of(n_trials, n_jobs), *words])
        try:
            main()
        except SystemExit as exit_:
            return int(exit_.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


@contextmanager
def searching(
    cwd: Path, n_trials: int, *words: str, n_jobs: int = 1, seconds: float
) -> Iterator[subprocess.Popen[str]]:
    """Search in a process of its own."""
    more = {"ATTNSPAN_CACHE": str(cwd / "cache"), "PYTHONPATH": str(ROOT), "STUB_SECONDS": str(seconds)}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stub_train", *words_of(n_trials, n_jobs), *words],
        cwd=cwd,
        env=os.environ | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def trials(cwd: Path) -> list[FrozenTrial]:
    """As optuna reads them."""
    (path,) = (cwd / "runs").glob("mine-*.journal")
    return optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(path)))).trials


def computed(cwd: Path) -> list[int]:
    """How often each run was computed."""
    return [len(path.read_text(encoding="utf-8").splitlines()) for path in (cwd / "runs").rglob("*.computed")]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which a search of six trials, one at a time, has been carried out."""
    cwd = tmp_path_factory.mktemp("searched")
    code, printed, complaint = search(cwd, 6)
    assert code == 0, printed + complaint
    (cwd / "printed").write_text(printed, encoding="utf-8")
    return cwd


def test_the_best_trial_and_the_command_that_runs_it(searched: Path) -> None:
    printed = (searched / "printed").read_text(encoding="utf-8").splitlines()
    made = trials(searched)
    assert [trial.state for trial in made] == [TrialState.COMPLETE] * 6
    best = min(made, key=lambda trial: trial.value or 0.0)
    (row,) = (line for line in printed if " * " in line)
    assert row.split()[0] == str(best.number)
    assert f"{best.value:.4f}" in row
    assert any(line.startswith(f"best: trial {best.number}, validation loss {best.value:.4f}, ") for line in printed)
    (line,) = (line for line in printed if line.startswith("command: attnspan-train "))
    words = shlex.split(line)[2:]
    assert f"optimizer.lr={best.params['optimizer.lr']!r}" in words
    assert f"model.hidden_size={best.params['model.hidden_size']}" in words
    assert words[-1] == "hydra.mode=RUN"
    assert not any("error rate" in line for line in printed)  # the test's numbers choose nothing
    directories = (searched / "runs" / "mine.txt").read_text(encoding="utf-8").split()
    losses = [read_json(searched / directory / SUMMARY)["best_validation_loss"] for directory in directories]
    assert losses == [trial.value for trial in made]


def test_again_nothing_is_computed_and_a_dry_run_says_so(searched: Path, tmp_path: Path) -> None:
    code, printed, _ = search(searched, 9, "dry_run=true")
    assert code == 0
    assert printed.count("finished before") == 6
    assert "9 trials, 3 of them to run, in about " in printed
    code, printed, _ = search(searched, 6)
    assert code == 0
    assert computed(searched) == [1] * 6
    assert "best: trial" in printed
    code, printed, _ = search(tmp_path, 9, "dry_run=true")
    assert "3 runs at the ends of the space can be run; 9 trials, 9 of them to run, in an unknown time" in printed
    assert not (tmp_path / "runs").exists()


def test_killed_it_goes_on_to_what_it_would_have_tried(searched: Path, tmp_path: Path) -> None:
    """SIGKILL for the search and for its trial, wherever they are; one at a time, so what is tried is known."""
    for moment in (0.0, 0.5):
        with searching(tmp_path, 6, seconds=0.2) as process:
            began = len(computed(tmp_path))
            wait_until(lambda began=began: len(computed(tmp_path)) > began, seconds=60)
            time.sleep(moment)
            assert process.poll() is None
            process.kill()
        for path in (tmp_path / "runs").rglob("*.computed"):
            with suppress(ProcessLookupError):
                os.kill(int(path.read_text(encoding="utf-8").split()[-1]), signal.SIGKILL)
    code, printed, complaint = search(tmp_path, 6)
    assert code == 0, printed + complaint
    assert " trials done before, " in printed
    assert [(trial.params, trial.value) for trial in trials(tmp_path)] == [
        (trial.params, trial.value) for trial in trials(searched)
    ]
    assert len(computed(tmp_path)) == 6
    assert sum(computed(tmp_path)) <= 6 + 2  # no trial that was done, again


def test_stopped_it_says_so_and_goes_on(tmp_path: Path) -> None:
    with searching(tmp_path, 3, n_jobs=2, seconds=60) as process:
        wait_until(lambda: len(computed(tmp_path)) == 2, seconds=60)
        code, _, complaint = search(tmp_path, 3)
        assert code == 75
        assert "this search is running in another process" in complaint
        process.send_signal(signal.SIGINT)
        printed, complaint = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "the same command resumes" in complaint
    assert printed.count("interrupted") == 2
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.RUNNING] * 2
    # Killed alone, a search leaves its runs to themselves, for long enough that the next one finds them at work.
    with searching(tmp_path, 3, n_jobs=2, seconds=12) as process:
        wait_until(lambda: sum(computed(tmp_path)) == 4, seconds=60)
        process.kill()
    code, printed, complaint = search(tmp_path, 3, n_jobs=2)
    assert code == 0, printed + complaint
    assert "this sweep waits for it" in printed
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.COMPLETE] * 3
    assert sorted(computed(tmp_path)) == [1, 2, 2]


def test_what_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    code, printed, _ = search(tmp_path, 4, fails="model.hidden_size=16")
    assert code == 1
    made = trials(tmp_path)
    failed = [trial for trial in made if trial.state == TrialState.FAIL]
    assert len(made) == 4
    assert failed
    assert {trial.params["model.hidden_size"] for trial in failed} == {"16"}
    assert {trial.user_attrs["reason"] for trial in failed} == {"it had to be"}
    assert "best: trial" in printed
    code, printed, complaint = search(tmp_path, 4)
    assert code == 0, printed + complaint
    assert f"{4 - len(failed)} trials done before, {len(failed)} to do" in printed
    code, printed, complaint = search(tmp_path, 4)
    assert code == 0, printed + complaint
    assert len(computed(tmp_path)) == 4
    assert sum(computed(tmp_path)) == 4 + len(failed)


def test_edits_while_it_searches_change_no_trial(tmp_path: Path) -> None:
    """Trials are composed when they are asked for, from the config files as they were at launch."""
    for group in ("optimizer", "decoder"):
        (tmp_path / "own" / group).mkdir(parents=True)
    optimizer, decoder = tmp_path / "own" / "optimizer" / "mine.yaml", tmp_path / "own" / "decoder" / "mine.yaml"
    shutil.copy(conf_directory() / "optimizer" / "adam.yaml", optimizer)
    shutil.copy(conf_directory() / "decoder" / "plain.yaml", decoder)
    own = ("--config-dir", "own", "optimizer=mine", "decoder=mine,plain")
    with searching(tmp_path, 5, *own, seconds=0.5) as process:
        wait_until(lambda: computed(tmp_path), seconds=60)
        optimizer.write_text(optimizer.read_text(encoding="utf-8").replace("0.98", "0.5"), encoding="utf-8")
        decoder.unlink()
        printed, complaint = process.communicate(timeout=240)
    assert process.returncode == 0, printed + complaint
    directories = [tmp_path / line for line in (tmp_path / "runs" / "mine.txt").read_text(encoding="utf-8").split()]
    configs = [yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8")) for directory in directories]
    assert [config["optimizer"]["betas"] for config in configs] == [[0.9, 0.98]] * 5
    assert {config["arm"] for config in configs[1:]} == {"mine", "plain"}


BAD = {
    "nothing varies": (("optimizer.lr=0.1", "model.hidden_size=8"), ("nothing varies",)),
    "no trials": (("hydra.sweeper.n_trials=0",), ("hydra.sweeper.n_trials: must be a whole number of at least 1",)),
    "an unknown sampler": (
        ("hydra.sweeper.sampler._target_=optuna.samplers.TPESamplr",),
        ("hydra.sweeper.sampler", "did you mean 'TPESampler'"),
    ),
    "another launcher": (
        ("hydra/launcher=basic",),
        (
            "hydra/launcher=basic",
            "use hydra/launcher=processes or hydra/launcher=submitit_slurm",
        ),
    ),
    "an end that is no run": (
        ("model.dropout=interval(0,1)",),
        ("model.dropout: must be a number of at least 0 and less than 1",),
    ),
    "an unknown key": (("model.droput=interval(0,1)",), ("model.droput", "did you mean 'dropout'")),
    "an unknown arm": (("decoder=choice(plain,bahdanu)",), ("did you mean 'bahdanau'",)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, tmp_path: Path) -> None:
    arguments, words = BAD[case]
    code, _, complaint = search(tmp_path, 2, *arguments, n_jobs=None)
    assert code == 2
    (line,) = complaint.strip().splitlines()
    for word in words:
        assert word in line
    assert not (tmp_path / "runs").exists()


def test_without_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra_plugins.attnspan_sweeps import sweepers as plugin

    monkeypatch.setattr(plugin, "find_spec", lambda name: None)
    code, _, complaint = search(tmp_path, 2)
    assert code == 2
    assert "pip install 'attnspan[optuna]'" in complaint
