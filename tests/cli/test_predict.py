"""attnspan-predict: a line for a line, in order, and one clear line for what is no source."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnspan import load_run
from attnspan.cli import predict
from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.prepare import prepare
from attnspan.training.run import execute
from tests.conftest import TINY, Compose

SOURCES = ["1 2 3", "0", "4 4 1 0 2", "3 2", "5 5 5 5"]


@pytest.fixture(scope="module")
def run(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = composed(*TINY, f"runs_dir={tmp_path_factory.mktemp('runs')}", "decoder=plain", "trainer.max_steps=4")
    data = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    directory = run_directory(config, data_fingerprint=data.fingerprint)
    execute(config, data=data, directory=directory, command="test", report=lambda status: None)
    return directory


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch):
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))

    return give


def test_one_hypothesis_a_line_in_the_order_of_the_sources(run: Path, standard_input, capsys) -> None:
    standard_input(("\ufeff" + "\r\n".join(SOURCES)).encode())
    assert predict.main([str(run), "--batch-size", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [one.text for one in load_run(run).decode(SOURCES)]


def test_scores_and_n_best_as_json(run: Path, standard_input, capsys) -> None:
    standard_input("\n".join(SOURCES).encode())
    assert predict.main([str(run), "--jsonl", "--beam", "4", "--n-best", "3"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = load_run(run).decode(SOURCES, beam_size=4, n_best=3)
    assert [one["source"] for one in found] == SOURCES
    for one, hypotheses in zip(found, expected, strict=True):
        assert one["hypothesis"] == hypotheses[0].text
        assert one["tokens"] == hypotheses[0].tokens
        assert [other["log_prob"] for other in one["n_best"]] == [other.log_prob for other in hypotheses]
        assert [other["hypothesis"] for other in one["n_best"]] == [other.text for other in hypotheses]


def test_n_best_as_lines(run: Path, standard_input, capsys) -> None:
    standard_input("\n".join(SOURCES).encode())
    assert predict.main([str(run), "--beam", "2", "--n-best", "2"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    expected = load_run(run).decode(SOURCES, beam_size=2, n_best=2)
    flat = [(number, one) for number, some in enumerate(expected, start=1) for one in some]
    assert [(int(number), text) for number, _, text in lines] == [(number, one.text) for number, one in flat]
    assert [float(log_prob) for _, log_prob, _ in lines] == pytest.approx([one.log_prob for _, one in flat], abs=1e-4)


BAD = {
    b"1 2\n\n3\n": "standard input line 2: the line is blank",
    b"1 2\n  \n3\n": "standard input line 2: '  ' has no token",
    b"1 2\n\xff\xfe\n3\n": "standard input line 2: not valid UTF-8 (byte 1 of the line is 0xff)",
    b"1 2\n3\r4\n": "standard input line 2: a carriage return (byte 0x0d) stands inside the line",
}


@pytest.mark.parametrize("content", BAD, ids=repr)
def test_what_is_no_source_is_named_after_the_lines_before_it(
    run: Path, standard_input, capsys, tmp_path: Path, content: bytes
) -> None:
    standard_input(content)
    assert predict.main([str(run)]) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [one.text for one in load_run(run).decode(["1 2"])]
    last = captured.err.splitlines()[-1]
    assert last.startswith(f"attnspan-predict: {BAD[content]}")
    standard_input(content)
    assert predict.main([str(run), "--output", str(tmp_path / "out.txt")]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_there_when_it_is_whole(run: Path, standard_input, capsys, tmp_path: Path) -> None:
    standard_input("\n".join(SOURCES).encode())
    assert predict.main([str(run), "--output", str(tmp_path / "out.txt")]) == 0
    assert capsys.readouterr().out == ""
    expected = [one.text for one in load_run(run).decode(SOURCES)]
    assert (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    standard_input(b"1\n")
    assert predict.main([str(run), "--output", str(tmp_path / "no" / "out.txt")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_unknown_symbols_are_counted(run: Path, standard_input, capsys) -> None:
    standard_input(b"1 2 3\n1 x y\nx 2\n")
    assert predict.main([str(run)]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    said = "3 of 8 source tokens are not in the run's vocabulary: 'x' (2), 'y' (1); the first in line 2"
    assert said in captured.err.splitlines()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-best", "2"], "--n-best 2: greedy decoding finds one hypothesis"),
        (["--beam", "2", "--n-best", "3"], "--n-best 3: a beam of 2 finds at most 2 hypotheses"),
        (["--device", "nowhere"], "--device nowhere: "),
    ],
)
def test_options_that_cannot_be(run: Path, standard_input, capsys, options: list[str], message: str) -> None:
    standard_input(b"1 2\n")
    assert predict.main([str(run), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"attnspan-predict: {message}")
    assert captured.err.count("\n") == 1


def test_what_is_no_run(run: Path, standard_input, capsys, tmp_path: Path) -> None:
    standard_input(b"1 2\n")
    assert predict.main([str(tmp_path / "nowhere")]) == 2
    assert "no such directory" in capsys.readouterr().err


@pytest.mark.slow
def test_a_reader_that_ends_is_no_error(run: Path, tmp_path: Path) -> None:
    """``attnspan-predict RUN < sources | head -n 1``."""
    sources = tmp_path / "sources.txt"
    sources.write_text("1 2 3\n" * 20_000, encoding="utf-8")
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "attnspan.cli.predict", str(run)]
    with sources.open("rb") as stdin:
        process = subprocess.Popen(command, stdin=stdin, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.readline().strip()
    _, error = process.communicate(timeout=120)
    assert b"Traceback" not in error
    assert b"Exception" not in error
    assert process.returncode == 0
