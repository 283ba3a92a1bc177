"""The table of SIGMORPHON 2020: its scores by hand, its means, and the runs that it refuses."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attnspan.runs.records import Record, edit_distance
from tests.fake_runs import example, fake_run

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "sigmorphon2020.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sigmorphon2020_table", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


TABLE = load()


@pytest.mark.parametrize(
    ("hypothesis", "reference", "published", "true"),
    [
        ("abc", "abc", 0, 0),
        ("abd", "abc", 1, 1),
        ("abc", "ab", 1, 1),  # too much at the end
        ("ab", "abcd", 2, 2),  # missing at the end
        ("xyabc", "abc", 1, 2),  # too much at the beginning costs 1 altogether
        ("c", "abc", 1, 2),  # and so does what is missing there
        ("", "abc", 1, 3),
        ("abc", "", 1, 3),
        ("", "", 0, 0),
        ("xyz", "abc", 3, 3),  # row by row 1 1 1, then 1 1 2 2, 1 2 2 3, 1 2 3 3 below 0 1 1 1: the corner is 3
        ("bca", "abc", 2, 2),
        ("xya", "ab", 2, 3),  # border 1 for xy, then a = a, then b is missing
    ],
)
def test_published_edits_by_hand(hypothesis: str, reference: str, published: int, true: int) -> None:
    assert TABLE.published_edits(hypothesis, reference) == published
    assert edit_distance(hypothesis, reference) == true


def test_published_edits_are_the_definition() -> None:
    """Every pair of short strings, against the recursion that the scorer's table computes."""

    def distance(x: str, y: str) -> int:
        if not x or not y:
            return int(x != y)
        if x[-1] == y[-1]:
            return distance(x[:-1], y[:-1])
        return 1 + min(distance(x[:-1], y), distance(x, y[:-1]), distance(x[:-1], y[:-1]))

    words = ["".join(letters) for n in range(5) for letters in itertools.product("ab", repeat=n)]
    for x, y in itertools.product(words, words):
        assert TABLE.published_edits(x, y) == distance(x, y) <= edit_distance(x, y)


WORDS = [("ab", "A B"), ("cde", "C D E"), ("f", "F"), ("gh", "G H")]


def decoded_as(*hypotheses: str) -> Callable[[list[Record]], list[Record]]:
    """Fill in the hypotheses of a run and the scores that follow."""

    def change(records: list[Record]) -> list[Record]:
        return [
            replace(
                record,
                hypothesis=text,
                exact_match=text == record.reference,
                edits=edit_distance(text.split(), record.reference.split()),
            )
            for record, text in zip(records, hypotheses, strict=True)
        ]

    return change


RIGHT = tuple(reference for _, reference in WORDS)
ONE_WRONG = ("A B", "E", "F", "G H")  # 2 of 8 phones, 1 for the published scorer
ALL_WRONG = ("", "", "", "")


def write(root: Path, language: str, arm: str, seed: int, hypotheses: tuple[str, ...], **changes: Any) -> Path:
    examples = [
        example(
            n, len(word), source=word, reference=phones, target_length=len(phones.split()), target_tokens=len(phones)
        )
        for n, (word, phones) in enumerate(WORDS)
    ]
    config = {"data.language": language, "model.hidden_size": 64, **changes}
    data = f"sigmorphon2020_{language}"
    return fake_run(
        root,
        arm,
        seed,
        examples,
        [0] * 4,
        data=data,
        config=config | {"data_name": data},
        change_records=decoded_as(*hypotheses),
    )


def grid(root: Path, leave_out: tuple[str, str, int] | None = None, **changes: Any) -> None:
    """Two arms, two seeds, four languages: in Hindi plain produces nothing, and attention's second seed errs once."""
    for language, arm, seed in itertools.product(TABLE.LANGUAGES, ("bahdanau", "plain"), (1, 2)):
        if (language, arm, seed) != leave_out:
            worse = ALL_WRONG if arm == "plain" else ONE_WRONG if seed == 2 else RIGHT
            write(root, language, arm, seed, worse if language == "hin" else RIGHT, **changes)


def rows(text: str, title: str) -> dict[str, list[str]]:
    lines = text.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in cells}


def test_the_table_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid(tmp_path / "runs")
    assert TABLE.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_text(encoding="utf-8") == text

    words = rows(text, "Word error rate")
    systems = ["LSTM with attention", "Transformer", "pair n-gram"]
    assert words["language"] == ["test words", "plain", "bahdanau", *systems]
    assert words["French"] == ["4", "0.00 ± 0.00", "0.00 ± 0.00", "6.22", "6.89", "13.56"]
    assert words["Hindi"] == ["4", "100.00 ± 0.00", "12.50 ± 17.68", "6.67", "9.56", "12.67"]  # 0 and 25
    assert words["**mean**"] == ["16", "25.00 ± 0.00", "3.12 ± 4.42", "6.89", "8.56", "13.06"]  # 0 and 6.25

    published = rows(text, "Phone error rate, as the published scorer counts")
    assert published["Hindi"] == ["4", "50.00 ± 0.00", "6.25 ± 8.84", "1.47", "2.40", "2.82"]  # 4 of 8; 0 and 1 of 8
    true = rows(text, "Phone error rate")
    assert true["language"] == ["test words", "plain", "bahdanau"]
    assert true["Hindi"] == ["4", "100.00 ± 0.00", "12.50 ± 17.68"]  # 8 of 8; 0 and 2 of 8

    for setting in (
        "plain has 2 (1 and 2)",
        "model.hidden_size=64",
        "2026-11-22",
        "a1d2ba2",
        "torch 2.13.0",
    ):
        assert setting in text
    with (tmp_path / "out" / "runs.csv").open(encoding="utf-8", newline="") as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 16
    (one,) = [run for run in runs if (run["language"], run["arm"], run["seed"]) == ("hin", "bahdanau", "2")]
    rates = [float(one[name]) for name in ("word_error_rate", "published_phone_error_rate", "phone_error_rate")]
    assert rates == [25.0, 12.5, 25.0]


def refused(capsys: pytest.CaptureFixture[str], root: Path) -> str:
    assert TABLE.main([str(root / "runs"), "--out", str(root / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert not (root / "out").exists()
    assert printed.err.count("\n") == 1
    return printed.err


def test_a_missing_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid(tmp_path / "runs", leave_out=("vie", "plain", 2))
    assert "nothing is averaged over what is left: plain seed 2 on vie missing" in refused(capsys, tmp_path)


def test_an_unfinished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid(tmp_path / "runs")
    unfinished = sorted((tmp_path / "runs" / "sigmorphon2020_ice" / "plain").iterdir())[0]
    (unfinished / "summary.json").unlink()
    assert f"{unfinished} is not finished" in refused(capsys, tmp_path)


@pytest.mark.parametrize("odd", ["vie", "bahdanau"])
def test_mixed_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: str) -> None:
    """For one language only, or for one arm only."""
    for language, arm in itertools.product(TABLE.LANGUAGES, ("plain", "bahdanau")):
        rate = 0.1 if odd in (language, arm) else 0.2
        write(tmp_path / "runs", language, arm, 1, RIGHT, **{"optimizer.lr": rate})
    message = "there is not one setting for all languages and arms; runs differ in optimizer.lr\n"
    assert refused(capsys, tmp_path).endswith(message)


def test_an_unpublished_language_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid(tmp_path / "runs")
    write(tmp_path / "runs", "fra", "plain", 1, RIGHT)
    assert "nothing is published for 'fra'; did you mean 'fre'?" in refused(capsys, tmp_path)


def test_one_seed_has_no_deviation() -> None:
    assert TABLE.over_seeds([6.217]) == "6.22"
    assert TABLE.over_seeds([6.0, 7.0, 8.0]) == "7.00 ± 1.00"


def test_it_runs_without_torch(tmp_path: Path) -> None:
    grid(tmp_path / "runs")
    code = (
        f"import runpy, sys; sys.argv = ['x', {str(tmp_path / 'runs')!r}, '--out', {str(tmp_path / 'out')!r}]\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as end: sys.exit(end.code or len({'torch', 'lightning', 'hydra'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
