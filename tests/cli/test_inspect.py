"""attnspan-inspect: what it prints and writes, and that its weights are those by which each token was chosen."""

from __future__ import annotations

import io
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnspan import load_run
from attnspan.cli import inspect
from attnspan.data.tokenizer import BOS, EOS, Tokenizer
from attnspan.evaluation import loaded_run as loaded
from attnspan.evaluation.loaded_run import LoadedRun, UnknownTokensWarning
from attnspan.models.decoding.strategy import Hypotheses, Specials
from attnspan.runs.attention_maps import AttentionMap
from attnspan.runs.finished_run import read_run
from attnspan.runs.records import read_records
from tests.conftest import Compose
from tests.fake_runs import example, fake_run
from tests.reporting.test_heatmap import cells, shade
from tests.training.test_run import run


def known_weights(length: int) -> np.ndarray:
    """[2 S, S] of :class:`Doubling`: output tokens 2j and 2j+1 come from source token j, with a look at the next."""
    weights = np.zeros((2 * length, length))
    for t in range(2 * length):
        weights[t, t // 2] = 0.8
        weights[t, min(t // 2 + 1, length - 1)] += 0.2 if t % 2 else 0.1
    return weights


class Doubling:
    """A search that says every source token twice, looks where :func:`known_weights` say, and leaves NaN in padding."""

    def __call__(
        self,
        model: nn.Module,
        source: Tensor,
        lengths: Tensor,
        *,
        specials: Specials,
        with_weights: bool,
        n_best: int,
        given_tokens: Tensor | None,
    ) -> Hypotheses:
        B, S = source.shape
        weights = torch.full((B, 2 * S, S), torch.nan)
        for row, length in enumerate(lengths.tolist()):
            weights[row, : 2 * length, :length] = torch.tensor(known_weights(length))
        return Hypotheses(
            tokens=source.repeat_interleave(2, dim=1),
            lengths=2 * lengths,
            log_prob=torch.full((B,), -0.5),
            truncated=lengths > 4,
            weights=weights if with_weights else None,
        )


@pytest.fixture
def doubling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a finished run that is :class:`Doubling`, from lower case to upper case; in an empty one."""
    model: Any = nn.Linear(1, 1)
    model.decoder = SimpleNamespace(copies=False)
    found = LoadedRun(
        config={},
        model=model,
        decoding=Doubling(),  # type: ignore[arg-type]
        source_tokenizer=Tokenizer.train("characters", ["abcdefgh "]),
        target_tokenizer=Tokenizer.train("characters", ["ABCDEFGH "]),
    )
    monkeypatch.setattr(loaded, "load_run", lambda directory, trusted: found)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    examples = [example(number, length) for number, length in enumerate([3, 4, 5, 6, 7, 8, 9, 10, 30])]
    return fake_run(tmp_path / "runs", "doubling", 3, examples, [0] * len(examples))


def plots(tmp_path: Path) -> list[str]:
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.suffix in (".png", ".svg"))


def stdin(content: bytes, encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding=encoding, errors="surrogateescape")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which the arguments are refused."""
    assert inspect.main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("attnspan-inspect: ")
    assert captured.out == ""
    return captured.err


# ---- what it shows


def test_every_source_of_a_batch_has_its_own_map(
    doubling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, AttentionMap] = {}
    plot = inspect._plots

    def remember(heatmap: AttentionMap, stem: Path, title: Sequence[str]) -> Iterator[Path]:
        drawn[stem.name] = heatmap
        return plot(heatmap, stem, title)

    monkeypatch.setattr(inspect, "_plots", remember)
    sources = ["ab", "hgfed cba", "c"]
    assert inspect.main([str(doubling), *sources]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    head, *blocks = printed.split("\nsource     ")
    assert head == f"doubling, pronunciation, seed 3, run {doubling.name}\n"
    for source, block in zip(sources, blocks, strict=True):
        output = [letter for letter in source.upper() for _ in range(2)]
        expected = known_weights(len(source))
        words, text = block.split("\n\n", 1)
        assert words.splitlines()[0] == source
        assert words.splitlines()[1] == "output     " + "".join(output)
        assert ("cut at the length limit" in words) == (len(source) > 4)
        rows = text.splitlines()[: 1 + len(output)]
        assert text.splitlines()[len(rows)].startswith("weights ")
        assert cells(rows, list(source), output) == {at: shade(weight) for at, weight in np.ndenumerate(expected)}
    for name, source in zip(("1-ab", "2-hgfed-cba", "3-c"), sources, strict=True):
        assert drawn[name].source == list(source)
        assert drawn[name].output == [letter for letter in source.upper() for _ in range(2)]
        np.testing.assert_allclose(drawn[name].weights, known_weights(len(source)), atol=1e-6)
    names = [f"inspect/{doubling.name}/{name}.{kind}" for name in drawn for kind in ("png", "svg")]
    assert plots(tmp_path) == sorted(names)
    assert all(f"plot: {name}\n" in printed for name in names)


def test_sources_come_from_standard_input(
    doubling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin(b"\xef\xbb\xbfab\r\n c\n\n\n"))
    assert inspect.main([str(doubling), "--out", "plots"]) == 0
    printed = capsys.readouterr().out
    assert "output     AABB\n" in printed
    assert "output       CC\n" in printed  # the space before it was there, and doubled
    assert plots(tmp_path) == ["plots/1-ab.png", "plots/1-ab.svg", "plots/2-c.png", "plots/2-c.svg"]


def test_options_may_stand_anywhere(doubling: Path, tmp_path: Path) -> None:
    assert (
        inspect.main(["--out", "plots", str(doubling.parent), "--trusted", "mine", "ab", "--trusted=other", "c"]) == 0
    )
    assert len(plots(tmp_path)) == 4


def test_what_the_vocabulary_lacks_is_said(doubling: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(doubling), "añbñ€", "ab"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "1-a-b: not in the source vocabulary: 'ñ' '€'\n"
    assert "<unk>" in captured.out


def test_decoding_warns_of_what_the_vocabulary_lacks(doubling: Path) -> None:
    run = loaded.load_run(doubling, trusted=())
    with pytest.warns(
        UnknownTokensWarning, match=r"^source 1 has tokens that are not in the source vocabulary: 'ñ' '€'$"
    ):
        known, unknown = run.decode(["ab", "añbñ€"])
    assert (known.unknown_tokens, unknown.unknown_tokens) == ([], ["ñ", "ñ", "€"])
    with pytest.warns(UnknownTokensWarning, match=r"^2 of 3 sources have tokens .*; of source 0: 'ñ'$"):
        run.decode(["ñ", "ab", "ö"])
    with warnings.catch_warnings(action="error"):
        run.decode(["ab"])


def test_an_empty_output_has_nothing_to_draw(
    doubling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say_nothing(self: Doubling, model: nn.Module, source: Tensor, lengths: Tensor, **options: object) -> Hypotheses:
        nothing = torch.zeros_like(lengths)
        return Hypotheses(
            tokens=source[:, :0], lengths=nothing, log_prob=nothing * 1.0, truncated=nothing > 0, weights=None
        )

    monkeypatch.setattr(Doubling, "__call__", say_nothing)
    assert inspect.main([str(doubling), "ab"]) == 0
    printed = capsys.readouterr().out
    assert "the output is empty: there is no map" in printed
    assert "has no attention" not in printed
    assert plots(tmp_path) == []


# ---- runs that were trained


@pytest.fixture(scope="module")
def trained(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each wiring."""
    runs = tmp_path_factory.mktemp("runs")
    arms: dict[str, list[str]] = {"plain": [], "bahdanau": [], "luong_general": ["decoder.input_feeding=true"]}
    return {arm: run(composed, runs, f"decoder={arm}", *overrides) for arm, overrides in arms.items()}


@pytest.mark.parametrize("beam_size", [None, 3])
@pytest.mark.parametrize("arm", ["bahdanau", "luong_general"])
def test_row_t_holds_the_weights_by_which_token_t_was_chosen(
    trained: dict[str, Path], arm: str, beam_size: int | None
) -> None:
    """Step by step through one source at a time: what each step attended to, and that its log p adds up."""
    found = load_run(trained[arm])
    sources = ["1 2 3 4 5 0 1 2 3", "5 0", "3 3 3 1"]
    for source, hypothesis in zip(sources, found.decode(sources, beam_size=beam_size), strict=True):
        ids = torch.tensor([found.source_tokenizer.encode(source)])
        target = found.target_tokenizer.encode(hypothesis.text)
        assert hypothesis.weights is not None
        assert len(target) == len(hypothesis.tokens) == len(hypothesis.weights) > 0
        with torch.no_grad():
            memory = found.model.encode(ids, torch.tensor([ids.size(1)]))
            state, previous, log_prob = found.model.decoder.start(memory), BOS, 0.0
            for token, shown in zip([*target, EOS], [*hypothesis.weights, None], strict=True):
                logits, decoded = found.model.step(torch.tensor([previous]), state, memory)
                if shown is not None:
                    assert decoded.weights is not None
                    torch.testing.assert_close(shown, decoded.weights[0, 0], rtol=0, atol=1e-5)
                if shown is not None or not hypothesis.truncated:
                    log_prob += float(logits.log_softmax(dim=-1)[0, token])
                state, previous = decoded.state, token
        assert log_prob == pytest.approx(hypothesis.log_prob, abs=1e-4)


def test_examples_are_of_test_with_what_the_run_said_there(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.main([str(trained["bahdanau"]), "--examples", "4", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    records = read_records(trained["bahdanau"] / "records.parquet").set_index("source")
    sources = [block.splitlines()[0].strip() for block in printed.split("\nsource ")[1:]]
    assert [len(source.split()) for source in sources] == [2, 4, 7, 9]  # of 2 to 9
    for source in sources:
        record = records.loc[source]
        block = printed.split(f"source     {source}\n")[1]
        reference, output = block.splitlines()[:2]
        assert reference == f"reference  {record['reference']}"
        assert output.removeprefix("output").strip() == record["hypothesis"]
        if record["hypothesis"]:
            assert (tmp_path / f"{record['example_id']}.svg").is_file()


def test_no_example_is_taken_twice(doubling: Path) -> None:
    """Most of the lengths asked for are nearest to the same few examples; there are 3, 4 ... 10 and 30."""
    for count, lengths in ((1, [3]), (2, [3, 30]), (4, [3, 9, 10, 30]), (9, [*range(3, 11), 30])):
        found = list(inspect._examples(read_run(doubling), count))
        assert [len(subject.source) for subject in found] == lengths


def test_an_arm_without_attention_says_so(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = [r for _, r in read_records(trained["plain"] / "records.parquet").iterrows() if r["hypothesis"]][:1]
    assert inspect.main([str(trained["plain"]), record["source"], record["source"], "--out", str(tmp_path / "p")]) == 0
    captured = capsys.readouterr()
    assert captured.out.count(f"output     {record['hypothesis']}\n") == 2
    assert captured.out.endswith("\nplain has no attention weights: there is no map\n")
    assert captured.err == ""
    assert not list(tmp_path.iterdir())


# ---- what it refuses


def test_a_run_that_did_not_finish_says_its_state(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = shutil.copytree(trained["bahdanau"], tmp_path / "runs" / "copy")
    (directory / "summary.json").unlink()
    (directory / "status.json").write_text('{"state": "training"}')
    line = refused(capsys, directory, "1 2", "--out", tmp_path / "plots")
    assert line == (
        f"attnspan-inspect: {directory}: is not finished (summary.json missing; its last state was 'training')\n"
    )
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "a"], "nowhere: no such directory"),
        (["empty", "a"], "empty: holds no run directory"),
        (["RUN", "a", "--beam-size", "0"], "--beam-size 0: must be at least 1"),
        (["RUN", "a", "--examples", "1"], "give either sources or --examples, not both"),
        (["RUN", "--examples", "0"], "--examples 0: the test split of"),
        (["RUN", "--examples", "10"], "has 9 examples; give 1 to 9"),
        (["RUN", "a", ""], "source 1: '' has no token"),
        (["RUN"], "standard input: has no source"),
        (["RUN", "a", "--out", "file"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    doubling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], words: str,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("not a directory")
    if arguments[0] == "runs":
        fake_run(tmp_path / "runs", "doubling", 4, [example(0, 5)], [0])
    monkeypatch.setattr(sys, "stdin", stdin(b"\n\n"))
    before = sorted(tmp_path.rglob("*"))
    assert inspect.main([str(doubling) if word == "RUN" else word for word in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert words in captured.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ab\nh\xe4b\n", "standard input line 2: not valid UTF-8 (byte 2 of the line is 0xe4)"),
        ("ab\n".encode("utf-16"), "standard input line 1: not valid UTF-8"),
        (b"ab\n\nc\n", "standard input line 2: the line is blank"),
        (b"ab\n \t\nc\n", "standard input line 2: the line is blank"),
        (b"ab\rc\r", "standard input line 1: a carriage return (byte 0x0d) stands inside the line"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_standard_input_that_is_no_text(
    doubling: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, content: bytes, words: str,
    encoding: str,
) -> None:  # fmt: skip
    """Whatever the locale says, as in a container without one."""
    monkeypatch.setattr(sys, "stdin", stdin(content, encoding=encoding))
    assert words in refused(capsys, doubling)


def test_a_source_of_other_bytes_is_refused(doubling: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shell hands over any bytes: caf\\xe9 is caf\\udce9 for Python."""
    assert "source 2: 'caf\\udce9' is not valid UTF-8" in refused(capsys, doubling, "ab", "caf\udce9")


def test_a_terminal_prompts_until_an_empty_line(
    doubling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter(["ab", "xyz", "c", "", "never read"])
    monkeypatch.setattr(sys, "stdin", stdin(b""))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    assert inspect.main([str(doubling), "--out", "plots"]) == 0
    printed = capsys.readouterr()
    assert [line for line in printed.out.splitlines() if line.startswith("source ")] == [
        f"source     {text}" for text in ("ab", "xyz", "c")
    ]
    assert "2-xyz: not in the source vocabulary: 'x' 'y' 'z'" in printed.err
    assert next(typed) == "never read"
    assert {name.partition(".")[0] for name in plots(tmp_path)} == {"plots/1-ab", "plots/2-xyz", "plots/3-c"}


def test_several_runs_decode_the_same_sources(
    doubling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [example(number, length) for number, length in enumerate([3, 4])]
    other = fake_run(tmp_path / "others", "other", 1, examples, [0, 0])
    listed = tmp_path / "both.txt"
    listed.write_text(f"{doubling}\n{other}\n", encoding="utf-8")
    for runs in ((doubling, other), (f"@{listed}",)):
        assert inspect.main([*map(str, runs), "ab", "--out", "plots"]) == 0
        printed = capsys.readouterr().out
        heads = [line for line in printed.splitlines() if ", seed " in line]
        assert sorted(heads) == [
            f"doubling, pronunciation, seed 3, run {doubling.name}",
            f"other, pronunciation, seed 1, run {other.name}",
        ]
        assert printed.count("output     AABB\n") == 2
    assert plots(tmp_path) == sorted(
        f"plots/{run.name}/1-ab.{kind}" for run in (doubling, other) for kind in ("png", "svg")
    )


def test_weights_of_another_version(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = shutil.copytree(trained["bahdanau"], tmp_path / "run")
    shutil.copy(trained["plain"] / "checkpoints" / "best.ckpt", directory / "checkpoints" / "best.ckpt")
    assert "another version of attnspan wrote it" in refused(capsys, directory, "1 2")


def test_help_says_what_a_row_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        inspect.main(["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Row t shows the weights that produced output token t; <eos> has no row." in text
    for option in ("--examples N", "--beam-size K", "--out DIR", "--trusted PACKAGE"):
        assert option in text


# ---- heads


def test_the_map_of_each_head_is_drawn_and_their_mean_is_the_map(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the model itself, of a hypothesis that is read again: the heads' mean is what decoding saw."""
    directory = run(composed, tmp_path / "runs", "decoder=luong_multihead", "decoder.heads=2", "trainer.max_steps=20")
    source = str(read_records(directory / "records.parquet")["source"][0])
    found = load_run(directory)
    (hypothesis,) = found.decode([source])
    apart = loaded.weights_of_heads(found, source, hypothesis)
    assert apart is not None
    assert hypothesis.weights is not None
    torch.testing.assert_close(apart.mean(dim=0), hypothesis.weights, atol=1e-5, rtol=0)
    assert (apart[0] - apart[1]).abs().max() > 1e-3

    assert inspect.main([str(directory), source, "--heads", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("head ")] == ["head 1", "head 2"]
    assert len(list((tmp_path / "out").glob("*-head-[12].png"))) == 2
