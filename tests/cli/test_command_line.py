"""What a user types or writes into a yaml and Hydra takes as something else: one line with the key and the remedy."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from attnspan.cli.train import main
from attnspan.config.overrides import check_override, in_quotes
from attnspan.errors import InputError
from attnspan.sweeps import preflight
from tests.conftest import TINY
from tests.sweeps.test_preflight import check_here

GLOBAL = "# @package _global_\n"
TWO_SEEDS = "sweeper: {params: {decoder: plain, seed: '1,2'}}"


@pytest.fixture
def refused(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run the command in this process, and return the one line with which it refuses."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["attnspan-train", *arguments])
        monkeypatch.setattr(preflight, "subprocess", SimpleNamespace(run=check_here))
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = capfd.readouterr()
        assert exit_.value.code == 2, printed
        assert "Traceback" not in printed.out + printed.err
        (line,) = printed.err.strip().splitlines()
        assert not list(tmp_path.rglob("config.yaml"))
        return line.removeprefix("attnspan-train: ")

    return run


def sweep_file(folder: Path, text: str) -> tuple[str, ...]:
    path = folder / "conf" / "sweep" / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return ("--config-dir", str(folder / "conf"), "sweep=mine", "dry_run=true")


WORDS = {
    "decoder=plain,bahdanau": ("add -m",),
    "seed=range(1,3)": ("add -m",),
    "model.hidden_size=64, 128": ("add -m", "'model.hidden_size=[64, 128]'"),
    "data.train_lengths=2,6": ("data.train_lengths=[2,6]",),
    "optimizer.lr=0,5": ("add -m", "a decimal point: optimizer.lr=0.5"),
    "optimizer.lr=0,001": ("decimal comma", "optimizer.lr=0.001"),
    "decoder=[plain,bahdanau]": ("decoder: takes one choice", "-m"),
    "seed": ("seed=VALUE", "without spaces"),
    "=3": ("without spaces",),
    "seed==3": ("give seed=3",),
    "--seed=3": ("a setting is given as seed=3",),
    "-multirun": ("did you mean '--multirun'?",),
    "+seed=3": ("'seed'", "Leave out the +"),
    "study=${nothing}": ("study: ", "nothing"),
    "sweep=mine": ("known: bottleneck", "DIR/sweep/mine.yaml", "--config-dir DIR sweep=mine"),
    "sweep=sweeps/mine.yaml": ("sweep=sweeps/mine.yaml: there is no such sweep", "DIR/sweep/mine.yaml"),
    "decoder=mine": ("no such decoder", "DIR/decoder/mine.yaml"),
    "decoder.score._target_=my_scores.Score": ("No module named 'my_scores'", "PYTHONPATH=DIR"),
    "data_name=a&b": ("""'data_name="a&b"'""",),
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_hydra_takes_as_something_else(refused: Any, word: str) -> None:
    line = refused("decoder=luong_general", *TINY, word)
    for part in WORDS[word]:
        assert part in line


@pytest.mark.parametrize(
    "value",
    [
        *("~/train.tsv", "données.tsv", "epoch=3.tsv", "it's.tsv", "a#b.tsv", "data(1).tsv", "<a>", "[a.tsv", "{a"),
        *('say "x".tsv', "日本", "!x", "a;b", "a&b", 'it\'s "x"', "back\\slash's", "'", "50%;"),
    ],
)
def test_the_remedy_pasted_into_a_shell_means_the_value(value: str) -> None:
    with pytest.raises(InputError) as complaint:
        check_override(f"data.train={value}")
    (word,) = shlex.split(str(complaint.value).partition("; give ")[2])
    assert OverridesParser.create().parse_override(word).value() == value


@pytest.mark.parametrize(
    "word", ["seed=3", "~seed", "+a.b=1", "decoder=plain,bahdanau", "lr=interval(1,2)", "x=", "y='a,b'"]
)
def test_what_hydra_can_read_is_left_to_it(word: str) -> None:
    check_override(word)


def test_there_is_no_way_to_quote_what_no_quotes_hold() -> None:
    assert in_quotes("a", "plain") == """'a="plain"'"""


FILES = {
    "every unknown key": (
        GLOBAL
        + "choseby: x\nsede: 1\nmodle: {dropout: 0.5}\nloader: {batch_token: 5}\n"
        + f"hydra: {{mode: MULTIRUN, {TWO_SEEDS}}}",
        ("choseby: ", "'selection_metric' now", "'seed'", "'model'", "loader.batch_token: ", "'batch_tokens'"),
    ),
    "no package": (f"hydra: {{mode: MULTIRUN, {TWO_SEEDS}}}", ("sweep=mine", "first line", "'# @package _global_'")),
    "a package that comes too late": (f"# Mine.\n{GLOBAL}seed: 3", ("first line", "'# @package _global_'")),
    "no mode": (f"{GLOBAL}hydra: {{{TWO_SEEDS}}}", ("sweep=mine", "mode: MULTIRUN")),
    "a mode in small letters": (f"{GLOBAL}hydra: {{mode: multirun, {TWO_SEEDS}}}", ("sweep/mine.yaml: ", "hydra.mode")),
    "a list to sweep over": (
        f"{GLOBAL}hydra: {{mode: MULTIRUN, sweeper: {{params: {{seed: [1, 2]}}}}}}",
        ("hydra.sweeper.params.seed", "'1,2'", "'[1,2]'"),
    ),
    "params as a list": (
        f"{GLOBAL}hydra: {{mode: MULTIRUN, sweeper: {{params: [seed=1]}}}}",
        ("hydra.sweeper.params: must be a mapping",),
    ),
    "a typo in hydra": (f"{GLOBAL}hydra: {{mode: MULTIRUN, sweper: {{}}}}", ("hydra.sweper", "'sweeper'")),
    "a typo in the sweeper": (
        f"{GLOBAL}hydra: {{mode: MULTIRUN, sweeper: {{parms: {{seed: '1,2'}}}}}}",
        ("hydra.sweeper.parms", "'params'"),
    ),
    "a typo in the launcher": (
        f"{GLOBAL}hydra: {{mode: MULTIRUN, launcher: {{njobs: 1}}, {TWO_SEEDS}}}",
        ("hydra.launcher.njobs", "'n_jobs'"),
    ),
    "a key twice": (f"{GLOBAL}seed: 1\nseed: 2", ("mine.yaml: line 3", "duplicate key seed")),
    "a tab": (f"{GLOBAL}seed: 1\n\tstudy: x", ("mine.yaml: line 3",)),
    "defaults that are no list": (f"{GLOBAL}defaults: {{data: copy}}", ("sweep/mine", "must be a list")),
    "defaults without override": (f"{GLOBAL}defaults: [data: copy]", ("override /data: copy",)),
    "a section that is none": (f"{GLOBAL}schedule: 3", ("schedule: must be", "mapping, not 3")),
    "a part's typo, in a dry run on data that is not prepared": (
        f"{GLOBAL}data: {{data_seed: 977}}\noptimizer: {{lrr: 1}}\nhydra: {{mode: MULTIRUN, {TWO_SEEDS}}}",
        ("optimizer.lrr", "'lr'"),
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_sweeps_file_is_read_to_the_last_key(refused: Any, tmp_path: Path, case: str) -> None:
    text, words = FILES[case]
    tiny = [word for word in TINY if not word.startswith("data.data_seed")]
    line = refused(*sweep_file(tmp_path, text), *tiny)
    for word in words:
        assert word in line


def test_a_sweep_without_its_mode_may_be_one_run(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = sweep_file(tmp_path, f"{GLOBAL}hydra: {{{TWO_SEEDS}}}")
    monkeypatch.setattr(sys, "argv", ["attnspan-train", *arguments, *TINY, "hydra.mode=RUN"])
    monkeypatch.setattr(preflight, "subprocess", SimpleNamespace(run=check_here))
    monkeypatch.chdir(tmp_path)
    main()
    assert "1 runs, 1 of them to run" in capfd.readouterr().out
