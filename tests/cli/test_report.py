import base64
import contextlib
import csv
import html
import io
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from attnspan.analysis.collection import collect
from attnspan.analysis.notes import notes_on_origin
from attnspan.analysis.study import build_study
from attnspan.cli import report
from attnspan.reporting import page, plots, report_files, tables
from attnspan.reporting.latex import latex
from attnspan.reporting.plots import styles
from tests.fake_runs import example, fake_run, fake_study, sign

FILES = {
    "index.html", "explore.html", "curve.csv", "seeds.csv", "differences.csv", "spans.csv", "trends.csv",
    "training.csv", "report.md", "tables.tex",
    "degradation.png", "degradation.svg", "degradation.pdf", "advantage.png", "advantage.svg", "advantage.pdf",
}  # fmt: skip


FILES_ON_ATTENTION = {"attention.csv", "attention_seeds.csv", "attention.png", "attention.svg", "attention.pdf"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("study") / "runs"
    fake_study(root, per_length=10)
    return root


@pytest.fixture(scope="module")
def made_and_printed(runs) -> tuple[Path, str]:
    out = runs.parent / "reports" / "made"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert report.main([str(runs), "--out", str(out)]) == 0
    return out, printed.getvalue()


@pytest.fixture(scope="module")
def made(made_and_printed) -> Path:
    return made_and_printed[0]


@pytest.fixture(scope="module")
def printed(made_and_printed) -> str:
    return made_and_printed[1]


@pytest.fixture
def unpainted(monkeypatch) -> None:
    """Plots are drawn for the page only, and their files are empty: for tests that look into none."""
    monkeypatch.setattr(plots.Plot, "save", lambda self, path: path.write_bytes(b""))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_it_writes_its_files_and_nothing_beside_them(made):
    assert {path.name for path in made.iterdir()} == FILES
    assert [path.name for path in made.parent.iterdir()] == ["made"]


@pytest.mark.usefixtures("unpainted")
def test_the_numbers_of_a_hand_made_example_are_in_every_file(tmp_path, capsys):
    # 30 sources of 4 and 30 of 8 tokens, trained to 4. plain: 1 edit of 4, then 6 of 8; bahdanau: 1 of 4, then 2 of 8
    examples = [example(n, 4 if n < 30 else 8) for n in range(60)]
    for arm, longer in (("plain", 6), ("bahdanau", 2)):
        for seed in (0, 1):
            fake_run(tmp_path / "runs", arm, seed, examples, [1] * 30 + [longer] * 30, training_lengths=(1, 4))
    out = tmp_path / "out"
    assert report.main([str(tmp_path / "runs"), "--out", str(out), "--bins", "0,4,8"]) == 0

    curve = {(row["arm"], row["lengths"]): row for row in rows(out / "curve.csv")}
    assert float(curve["plain", "1–4"]["error_rate"]) == 0.25
    assert float(curve["plain", "5–8"]["error_rate"]) == 0.75
    assert float(curve["bahdanau", "5–8"]["error_rate"]) == 0.25
    assert curve["plain", "5–8"]["examples"] == "30"
    assert curve["plain", "5–8"]["side"] == "extrapolation"
    advantages = {row["lengths"]: float(row["advantage"]) for row in rows(out / "differences.csv")}
    assert advantages == {"1–4": 0, "5–8": 0.5, "in range": 0, "extrapolation": 0.5}
    # threshold 0.375; plain falls from 0.75 at 4 to 0.25 at 8: (0.75 - 0.375) / 0.5 = 3/4 of the way, at 7
    spans = {row["arm"]: row for row in rows(out / "spans.csv")}
    assert (spans["plain"]["span"], spans["plain"]["span_censored"]) == ("7", "")
    assert (spans["bahdanau"]["span"], spans["bahdanau"]["span_censored"]) == ("8", ">")
    for text in (capsys.readouterr().out, (out / "index.html").read_text(), (out / "report.md").read_text()):
        assert "0.750" in text
        assert "0.500" in text
        assert "5–8" in text
        assert "&gt; 8" in text or "> 8" in text


def test_every_file_says_which_length_it_is(tmp_path, capsys):
    # sources of 4 tokens; 30 targets of 4 and 30 of 8, trained to 4 and 4
    examples = [example(n, 4, target_length=length, target_tokens=length + 1) for n, length in enumerate([4, 8] * 30)]
    for arm in ("plain", "bahdanau"):
        same = {"training_lengths": (1, 4), "training_target_lengths": (1, 4)}
        fake_run(tmp_path / "runs", arm, 0, examples, [1, 4] * 30, **same)
    out = tmp_path / "out"
    assert report.main([str(tmp_path / "runs"), "--out", str(out), "--length", "target-multiple"]) == 0
    for name in ("curve.csv", "seeds.csv", "differences.csv", "spans.csv"):
        assert {row["length"] for row in rows(out / name)} == {"target-multiple"}, name
    for text in (
        capsys.readouterr().out,
        *((out / name).read_text() for name in ("index.html", "report.md", "tables.tex")),
    ):
        assert "target length" in text
        assert "by source length" not in text
        assert "ources of" not in text
    svg = (out / "degradation.svg").read_text()
    assert svg.count("<!-- target length (× 4 tokens, the longest in training) -->") == 1
    text = " ".join((out / "index.html").read_text().split())
    assert "test examples of 4 to 4 source tokens and 4 to 8 target tokens" in text
    assert "longer than the longest in training (4 source and 4 target tokens)" in text
    assert report.main([str(tmp_path / "runs"), "--out", str(out), "--length", "sauce"]) == 2
    assert "--length sauce: there is no such length; did you mean 'source'?" in one_line(capsys)


def test_the_terminal_table_is_aligned_plain_text_of_at_most_100_columns(printed, made):
    assert "\x1b" not in printed
    assert max(map(len, printed.splitlines())) <= 100
    in_range = printed.split("in range: lengths seen in training\n")[1].splitlines()[:9]
    assert len({len(line) for line in in_range}) == 1
    assert f"report: {made / 'index.html'}" in printed


def test_counts_stand_above_the_rates(printed):
    counts = next(line for line in printed.splitlines() if line.startswith("examples "))
    assert counts.split() == ["examples", "60", "100", "100", "100", "100", "100", "560"]


@pytest.mark.usefixtures("unpainted")
def test_a_file_may_list_the_runs(runs, tmp_path):
    listing = tmp_path / "study.txt"
    directories = sorted(str(path.parent) for path in runs.rglob("summary.json"))
    listing.write_text("# made by a sweep\n\n" + "\n".join(directories) + "\n")
    assert report.main([f"@{listing}", "--out", str(tmp_path / "out")]) == 0
    assert {row["arm"] for row in rows(tmp_path / "out" / "curve.csv")} == {"plain", "bahdanau", "luong_general"}


@pytest.mark.usefixtures("unpainted")
def test_a_report_is_replaced_whole(runs, tmp_path):
    out = tmp_path / "out"
    assert report.main([str(runs), "--out", str(out)]) == 0
    (out / "left_over.txt").write_text("from an older version")
    assert report.main([str(runs), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == FILES


def test_a_directory_that_is_no_report_is_left_alone(runs, tmp_path, capsys):
    out = tmp_path / "precious"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    assert report.main([str(runs), "--out", str(out)]) == 2
    assert (
        one_line(capsys)
        == f"attnspan-report: --out {out}: has other files (thesis.tex) and is not a report; it was not changed"
    )
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def one_line(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.strip()


def test_a_file_in_the_way(runs, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert report.main([str(runs), "--out", str(tmp_path / "out")]) == 2
    assert "exists and is not a directory" in one_line(capsys)


@pytest.mark.usefixtures("unpainted")
def test_failing_half_way_leaves_the_old_report_and_no_rubbish(runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert report.main([str(runs), "--out", str(out)]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "pages", full)
    assert report.main([str(runs), "--out", str(out)]) == 2
    assert "cannot be written (No space left on device)" in one_line(capsys)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_failing_at_the_very_end_leaves_the_old_report(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("old")
    with pytest.raises(OSError, match="No such file"):
        report_files._swap(tmp_path / "gone", tmp_path / "out", tmp_path / "old")
    assert (tmp_path / "out" / "index.html").read_text() == "old"
    assert not (tmp_path / "old").exists()


def test_bad_input_leaves_nothing_behind(runs, tmp_path, capsys):
    for arguments in (
        [str(tmp_path / "nowhere")],
        [str(runs), "--baseline", "transformer"],
        [str(runs), "--bins", "10,5"],
        [str(runs), "--keep", "2"],
    ):
        assert report.main([*arguments, "--out", str(tmp_path / "out")]) == 2
        one_line(capsys)
        assert not (tmp_path / "out").exists()


def change(run: Path, how: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    how(pd.read_parquet(run / "records.parquet")).to_parquet(run / "records.parquet")
    sign(run)


BAD = {
    "is not finished (summary.json missing)": lambda run: (run / "summary.json").unlink(),
    "column 'nll' is null": lambda run: change(run, lambda frame: frame.assign(nll=float("nan"))),
    "records.parquet has 16 bytes": lambda run: (run / "records.parquet").write_bytes(b"PAR1 and no more"),
    "another test set than 5 other runs": lambda run: change(run, lambda frame: frame.iloc[:-1]),
}


@pytest.mark.usefixtures("unpainted")
def test_bad_runs_are_each_named_in_one_line_and_on_the_page_and_never_averaged_in(tmp_path, capsys):
    directories = fake_study(tmp_path / "runs", seeds=(0, 1, 2), per_length=3)
    bad = dict(zip(BAD, directories[-4:], strict=True))
    for reason, directory in bad.items():
        BAD[reason](directory)
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--explore", "0"]) == 0
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    assert not (tmp_path / "out" / "explore.html").exists()
    assert "explore.html" not in (tmp_path / "out" / "index.html").read_text()
    for name in ("index.html", "report.md"):
        text = html.unescape((tmp_path / "out" / name).read_text())
        for reason, directory in bad.items():
            assert any(line.startswith(f"excluded: {directory}: ") and reason in line for line in errors)
            (line,) = (line for line in text.splitlines() if str(directory) in line)
            assert reason in line
        assert "bahdanau has no run with seed 2" in text
    for directory in bad.values():
        shutil.rmtree(directory)
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "without")]) == 0
    with_bad, without = ((tmp_path / name / "curve.csv").read_bytes() for name in ("out", "without"))
    assert with_bad == without


@pytest.mark.usefixtures("unpainted")
def test_runs_of_several_data_sets_give_a_ranking_above_a_report_on_each(tmp_path, capsys):
    examples = [example(n, 4 if n < 30 else 8) for n in range(60)]
    for data in ("one", "two"):
        for arm, wrong in (("plain", 3), ("bahdanau", 1)):
            for seed in (0, 1):
                edits = [wrong - seed] * 60
                fake_run(tmp_path / "runs", arm, seed, examples, edits, data=data, training_lengths=(1, 4))
    bad = fake_run(tmp_path / "runs", "bahdanau", 2, examples, [0] * 60, data="two", training_lengths=(1, 4))
    (bad / "records.parquet").unlink()
    out = tmp_path / "out"
    assert report.main([str(tmp_path / "runs"), "--out", str(out), "--bins", "0,4,8", "--explore", "0"]) == 0
    report.refuse_foreign(out)  # it is a report, and may be replaced
    printed, errors = capsys.readouterr()
    assert errors.count("\n") == 1
    assert "Over 2 data sets (one and two), on examples of lengths seen in training, bahdanau" in " ".join(
        printed.split()
    )
    assert {path.name for path in out.iterdir()} == {
        "index.html", "report.md", "ranking.csv", "improvement.csv", "scores.csv", "ranking.png", "ranking.svg",
        "ranking.pdf", "tables.tex", "one", "two",
    }  # fmt: skip
    for data in ("one", "two"):
        assert {path.name for path in (out / data).iterdir()} == FILES - {"explore.html"}
    in_range = {row["arm"]: row for row in rows(out / "ranking.csv") if row["side"] == "in range"}
    # plain: 0.25 and 0.5 on each data set, bahdanau 0.75 and 1; of four the outermost go
    assert {arm: float(row["iqm"]) for arm, row in in_range.items()} == {"plain": 0.375, "bahdanau": 0.875}
    assert {float(row["probability"]) for row in rows(out / "improvement.csv") if row["arm"] == "bahdanau"} == {1}
    text = (out / "index.html").read_text()
    for data in ("one", "two"):
        assert f'href="{data}/index.html"' in text
    assert "<script" not in text
    pages = {name: (out / name / "index.html").read_text() for name in (".", "one", "two")}
    assert [str(bad) in page for page in pages.values()] == [True, False, True]
    for name in ("ranking.csv", "improvement.csv", "scores.csv", "tables.tex", "one/curve.csv", "two/curve.csv"):
        assert (out / name).read_bytes() in held_in(text)


def test_the_same_runs_give_the_same_bytes(runs, tmp_path):
    for name in ("a", "b"):
        assert report.main([str(runs), "--out", str(tmp_path / name / "report")]) == 0
    for name in FILES - {"index.html", "report.md"}:  # those hold the command, which holds --out
        a, b = (tmp_path / which / "report" / name for which in ("a", "b"))
        assert a.read_bytes() == b.read_bytes(), name


def test_the_page_tells_a_stranger_what_was_compared_and_what_every_arm_wrote(made, runs):
    text = html.unescape((made / "index.html").read_text())
    for words in (
        "CMU Pronouncing Dictionary",
        "20,000 examples",
        "No attention: the source enters through",
        "298,112",
    ):
        assert words in text
    written = text.partition('id="written"')[2].partition("</section>")[0]
    # the shortest bin, the longest in range, the longest of all; sources of 5, 51 and 91 tokens
    for number in (0, 460, 860):
        source = example(number, 5 + number // 10)["source"]
        assert f'<td class="long">{source}</td>' in written
        assert written.count(f'<td class="long">{source.upper()} <span') == 3  # fake runs write the reference
    headings = re.findall(r'<h2 id="([^"]*)"', text)
    assert re.findall(r'<li><a href="#([^"]*)"', text.partition("<nav")[2].partition("</nav>")[0]) == headings


def test_latex_has_half_the_interval_and_fits_a_column():
    row = tables.Row(("51–60 †", "0.500 [0.400, 0.610]", "–"))
    narrow = tables.Table("An error rate", ("lengths", "plain", "other"), (row,), interval="over seeds")
    text = latex([narrow])
    assert r"51--60 \dag{} & 0.500 $\pm$ 0.110 & --" in text
    marked = r"\dag{} a run of the arm was still improving when its training ended"
    assert rf"\caption{{An error rate; $\pm$ is half of the 95\% interval over seeds; {marked}.}}" in text
    assert r"\label{tab:an-error-rate-1}" in text
    assert "resizebox" not in text
    wide = tables.Table("An error rate", ("lengths", *["a column with a long name"] * 4), (tables.Row(("1", *"2345")),))
    assert r"\resizebox{\columnwidth}{!}" in latex([wide])


def test_the_page_is_one_file_that_asks_for_nothing(made):
    text = (made / "index.html").read_text()
    assert "<script" not in text
    assert "src=" not in text
    assert "url(http" not in text
    assert "@import" not in text
    links = [part.split('"')[0] for part in text.split('href="')[1:]]
    assert all(link.startswith(("#", "data:")) or link in FILES for link in links)
    assert text.count('role="img"') == text.count("<svg") == 4
    assert text.count("aria-label=") >= 4


def held_in(text: str, suffix: str = "") -> list[bytes]:
    """The files that a page holds in itself."""
    links = re.findall(r'href="data:text/plain;base64,([^"]*)" download="([^"]*)"', text)
    return [base64.b64decode(content) for content, name in links if name.endswith(suffix)]


def test_the_page_alone_has_the_numbers_and_the_config_of_each_run(made, runs):
    held = held_in((made / "index.html").read_text())
    for path in (path for path in made.iterdir() if path.suffix in (".csv", ".tex")):
        assert path.read_bytes() in held, path.name
    configs = [yaml.safe_load(one) for one in held_in((made / "index.html").read_text(), ".yaml")]
    assert len(configs) == 6
    for run in runs.rglob("config.yaml"):
        config = yaml.safe_load(run.read_text())
        assert {key: value for key, value in config.items() if key not in ("runs_dir", "cache_dir")} in configs


def test_every_other_link_says_that_it_leads_to_the_folder(made):
    text = (made / "index.html").read_text()
    for link in re.findall(r'href="([^#"][^":]*)"', text):
        (place,) = {line for line in re.split(r"<p[ >]|</p>", text) if f'href="{link}"' in line}
        assert "in the folder" in " ".join(place.split()), link


@pytest.mark.usefixtures("unpainted")
def test_text_from_outside_is_escaped(tmp_path):
    examples = [example(n, 5) for n in range(30)]
    fake_run(tmp_path / "runs", "plain", 0, examples, [1] * 30, command="<script>alert('hello')</script>")
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert "<script>" not in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.usefixtures("unpainted")
def test_a_command_works_on_another_machine(tmp_path):
    command = "attnspan-train 'runs_dir=/some where' decoder=plain 'data.train_lengths=[5,60]' cache_dir=/there"
    fake_run(tmp_path / "runs", "plain", 0, [example(n, 5) for n in range(30)], [1] * 30, command=command)
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert (
        "\nattnspan-train decoder=plain 'data.train_lengths=[5,60]'\n" in (tmp_path / "out" / "report.md").read_text()
    )


def test_latex_tables_are_whole_and_escaped(made):
    text = (made / "tables.tex").read_text()
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    assert r"luong\_general" in text
    rows_of_quality = text.split(r"\midrule")[1].splitlines()
    assert all(line.count("&") == 4 for line in rows_of_quality if "&" in line)
    assert not set("−–<_") & set(text.replace(r"\_", "").replace("$<$", ""))


@pytest.mark.usefixtures("unpainted")
def test_one_arm_has_a_page_without_differences(tmp_path):
    fake_study(tmp_path / "runs", arms=("plain",), per_length=5)
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert rows(tmp_path / "out" / "differences.csv") == []
    text = (tmp_path / "out" / "index.html").read_text()
    assert "There is one arm only (plain)" in text
    assert "Advantage over the baseline" not in text


@pytest.mark.usefixtures("unpainted")
def test_where_attention_looks_stands_in_every_file(tmp_path):
    # 30 sources of 4 and 30 of 8 tokens; each target token of the longer ones gets half as much attention
    lengths = [4] * 30 + [8] * 30
    examples = [example(n, length) for n, length in enumerate(lengths)]
    attention = [
        {
            "gold_attention": [2 / length] * length,
            "attention_entropy": [length / 4] * (length - 1) + [None],
            "attention_support": [length / 2] * length,
            "links": length,
            "gold_links": length - 1,
            "links_in_sure": 1,
            "links_in_possible": 2,
        }
        for length in lengths
    ]
    for arm in ("plain", "bahdanau"):
        shown = attention if arm == "bahdanau" else None
        fake_run(tmp_path / "runs", arm, 0, examples, [1] * 60, training_lengths=(1, 4), attention=shown)
    out = tmp_path / "out"
    assert report.main([str(tmp_path / "runs"), "--out", str(out), "--bins", "0,4,8"]) == 0
    assert {path.name for path in out.iterdir()} == FILES | FILES_ON_ATTENTION
    points = {row["lengths"]: row for row in rows(out / "attention.csv")}
    assert {row["arm"] for row in points.values()} == {"bahdanau"}
    expected = {"1–4": (0.5, 1, 2, 1 - 3 / 7), "5–8": (0.25, 2, 4, 1 - 3 / 15)}
    for lengths_of_bin, values in expected.items():
        row = points[lengths_of_bin]
        names = ("gold_attention", "attention_entropy", "attention_support", "alignment_error_rate")
        found = [float(row[name]) for name in names]
        assert found == pytest.approx(values)
    assert float(rows(out / "attention_seeds.csv")[1]["alignment_error_rate"]) == 0.8
    for name in ("index.html", "report.md", "tables.tex"):
        text = (out / name).read_text()
        for caption in (
            "Teacher-forced attention on the gold source tokens by source length",
            "Entropy of teacher-forced attention (nats) by source length",
            "Alignment error rate of teacher-forced attention by source length",
        ):
            assert caption in text
        assert "0.800 (no variation)" in text
    assert "bahdanau from 0.500 at 1–4 source tokens to 0.250 at 5–8 source tokens" in (out / "index.html").read_text()


@pytest.mark.usefixtures("unpainted")
def test_without_gold_links_there_is_only_an_entropy(tmp_path):
    examples = [example(n, 5) for n in range(30)]
    attention = [{"attention_entropy": [0.5] * 5}] * 30
    fake_run(tmp_path / "runs", "bahdanau", 0, examples, [1] * 30, attention=attention)
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert set(rows(tmp_path / "out" / "attention_seeds.csv")[0]) >= {"arm", "seed", "attention_entropy"}
    for name in ("index.html", "report.md"):
        text = (tmp_path / "out" / name).read_text().casefold()
        assert "entropy of teacher-forced attention" in text
        assert "gold alignment" not in text
        assert "alignment error rate" not in text
        assert "on the gold" not in text


def test_many_arms_and_long_names(tmp_path):
    arms = [f"luong_general_with_a_long_name_{n}" for n in range(9)]
    fake_study(tmp_path / "runs", arms=["plain", *arms], seeds=(0, 1), per_length=3)
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0


def test_as_many_arms_as_there_are_look_different():
    looks = styles([f"arm {n}" for n in range(28)]).values()
    assert len({(look.colour, look.marker, look.line) for look in looks}) == 28
    assert len({(look.colour, look.line) for look in looks}) == 28  # bands and curves have no markers


@pytest.mark.usefixtures("unpainted")
def test_the_headlines_numbers_have_its_difference_where_seeds_are_missing(tmp_path, capsys):
    """Both rates are of the seeds that both arms have."""
    directories = fake_study(tmp_path / "runs", arms=("plain", "bahdanau"), seeds=(0, 1, 2, 3), per_length=3)
    shutil.rmtree(directories[0])
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    lede = " ".join((tmp_path / "out" / "report.md").read_text().splitlines()[2:5])
    found = re.search(r"makes (\S+) errors .* plain makes ([\d.]+)\D.* That is (\S+) fewer", lede)
    own, its, fewer = (float(number.rstrip(".")) for number in found.groups())
    assert fewer == pytest.approx(its - own, abs=0.0011)
    assert "3 seeds" in lede


@pytest.mark.usefixtures("unpainted")
def test_bins_that_reach_beyond_all_sources(tmp_path):
    """A bin is of the lengths that training saw if its longest source is, wherever its edge lies."""
    fake_study(tmp_path / "runs", lengths=range(5, 61), per_length=3)  # trained up to 60
    out = tmp_path / "out"
    assert report.main([str(tmp_path / "runs"), "--bins", "0,10,20,100", "--out", str(out)]) == 0
    assert set(pd.read_csv(out / "curve.csv")["side"]) == {"in range"}


def test_it_imports_neither_torch_nor_lightning_nor_hydra(runs, tmp_path):
    code = (
        "import sys; from attnspan.cli import report; "
        f"assert report.main([{str(runs)!r}, '--out', {str(tmp_path / 'out')!r}]) == 0; "
        "assert not {'torch', 'lightning', 'hydra', 'datasets', 'wandb'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_large_study_takes_under_ten_seconds(tmp_path):
    arms = ("plain", "bahdanau", "luong_general", "luong_dot")
    fake_study(tmp_path / "runs", arms=arms, seeds=range(5), per_length=52)  # 20 runs of 4,992 records
    command = [sys.executable, "-m", "attnspan.cli.report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # of the processor, not of the clock, and 10 s on two cores when idle: nothing else here must make this fail
    assert (
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 25
    )  # 10 s on two cores, and more on a busy machine


def test_help_shows_the_options():
    done = subprocess.run(
        [sys.executable, "-m", "attnspan.cli.report", "--help"], capture_output=True, text=True, check=True
    )
    for word in ("--out", "--baseline", "--bins", "--keep", "--explore", "--metric", "--figure-size", "@FILE"):
        assert word in done.stdout


@pytest.mark.usefixtures("unpainted")
def test_an_arm_looks_the_same_in_every_study_of_a_report(tmp_path):
    fake_study(tmp_path / "runs", arms=("plain", "bahdanau", "luong_dot"), per_length=3, data="one")
    fake_study(tmp_path / "runs", arms=("plain", "luong_dot", "concat"), per_length=3, data="two")
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    colours = {}
    for data in ("one", "two"):
        page = (tmp_path / "out" / data / "index.html").read_text(encoding="utf-8")
        names = dict(re.findall(r'id="show-(arm\d+)" checked> (\S+)</label>', page))
        colours[data] = {
            label: re.search(rf'<g class="{name}">.*?fill: (#\w+); fill-opacity', page, re.DOTALL)[1]
            for name, label in names.items()
        }
    assert list(colours["one"]) == ["plain", "bahdanau", "luong_dot"]
    assert {*colours["two"]} == {"plain", "luong_dot", "concat"}
    assert colours["one"]["luong_dot"] == colours["two"]["luong_dot"]
    assert len({*colours["one"].values(), *colours["two"].values()}) == 4


def test_where_an_interval_goes_on_beyond_the_plot_a_triangle_says_so(tmp_path):
    examples = [example(n, length) for length in (4, 5) for n in range(length * 30, length * 30 + 30)]
    for seed, wrong in ((0, 0), (1, 2), (2, 4)):  # seeds that differ evenly: from far below 0 to far above 1
        fake_run(tmp_path, "plain", seed, examples, [wrong] * len(examples))
        fake_run(tmp_path, "bahdanau", seed, examples, [1] * len(examples))
    study = build_study(collect([tmp_path]), edges=[0, 4, 10])
    for plot, markers in ((plots.degradation(study), {"^": 2}), (plots.advantage(study), {"^": 2, "v": 2})):
        drawn = Counter()
        for line in plot.figure.axes[0].lines:
            if not line.get_clip_on():
                drawn[line.get_marker()] += len(line.get_xdata())
        assert drawn == markers
        assert plot.figure.axes[0].get_position().height > 0.5


def test_what_ends_just_inside_the_plot_has_no_triangle():
    axes = Figure().subplots()
    axes.set_ylim(0, 1)
    plots._mark_cut(axes, styles(["plain"])["plain"], np.array([5.0, 15.0]), np.array([0.99, 1.01]))
    plots._mark_cut(axes, styles(["plain"])["plain"], np.array([5.0, 15.0]), np.array([-0.01, 0.01]))
    above, below = axes.lines
    assert (above.get_marker(), *above.get_xdata(), *above.get_ydata()) == ("^", 15, 1)
    assert (below.get_marker(), *below.get_xdata(), *below.get_ydata()) == ("v", 5, 0)


@pytest.mark.usefixtures("unpainted")
def test_runs_of_two_test_sets_stand_on_the_page_that_leaves_some_out(tmp_path, capsys):
    examples = [example(n, 6) for n in range(40)]
    first = fake_run(tmp_path, "plain", 0, examples, [1] * 40)
    other = fake_run(tmp_path, "bahdanau", 0, examples[:-2], [1] * 38)
    assert report.main([str(first), str(other), "--out", str(tmp_path / "out")]) == 0
    reason = "another test set than 1 other run"
    assert f"excluded: {other}: {reason}" in capsys.readouterr().err
    for name in ("report.md", "index.html"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert other.name in text
        assert reason in text


def test_runs_of_two_machines_and_of_two_commits_are_said_to_be(tmp_path):
    examples = [example(n, 6) for n in range(40)]
    places = ((0, "Xeon", "a" * 40), (1, "Xeon", "a" * 40), (2, "EPYC", "b" * 40))
    for seed, processor, commit in places:
        fake_run(tmp_path, "plain", seed, examples, [1] * 40, machine={"processor": processor}, git_commit=commit)
    notes = build_study(collect([tmp_path])).notes
    assert any("several processors (2 on Xeon, 1 on EPYC)" in note for note in notes)
    assert any("several commits of this code (2 by aaaaaaaaaaaa, 1 by bbbbbbbbbbbb)" in note for note in notes)
    one_place = build_study(collect([next((tmp_path / "pronunciation" / "plain").iterdir())])).notes
    assert not any("several" in note for note in one_place)


@pytest.mark.parametrize(
    ("summaries", "note"),
    [
        ([("aaa", "111"), ("aaa", "222")], "several states of this code (1 by aaa (code 111), 1 by aaa (code 222))"),
        ([("aaa", "111"), ("aaa+", "222")], "several commits of this code (1 by aaa, 1 by aaa+)"),
        ([("aaa", None), ("bbb", "222")], "several commits of this code (1 by aaa, 1 by bbb)"),
        ([("aaa", "111"), ("bbb", "111")], None),
    ],
)
def test_runs_of_several_states_of_the_code_are_said_to_be(tmp_path, summaries, note):
    """Two commits with the same source files are the same code."""
    examples = [example(n, 6) for n in range(40)]
    for seed, (commit, code) in enumerate(summaries):
        fake_run(tmp_path, "plain", seed, examples, [1] * 40, git_commit=commit, **({"code": code} if code else {}))
    about_code = [one for one in build_study(collect([tmp_path])).notes if "of this code" in one]
    assert about_code == ([f"The runs were made by {note}."] if note else [])


def test_runs_with_several_kernels_are_said_to_be(tmp_path):
    examples = [example(n, 6) for n in range(40)]
    for seed, kernels in enumerate((None, "numba", "numba", "torch")):
        summary = {"kernels": kernels} if kernels else {}
        fake_run(tmp_path, "plain", seed, examples, [1] * 40, **summary)
    runs = sorted(collect([tmp_path]).runs, key=lambda run: run.seed)
    assert "(2 with numba, 1 with unknown, 1 with torch)" in " ".join(notes_on_origin(runs))
    assert notes_on_origin(runs[:3]) == []  # a former run does not say


def test_the_share_of_quality_lost_is_one_at_most(tmp_path):
    examples = [example(n, length) for length in (4, 8) for n in range(length * 10, length * 10 + 30)]
    for seed, wrong in ((0, 6), (1, 9)):
        edits = [0] * 30 + [wrong] * 30
        fake_run(tmp_path, "plain", seed, examples, edits)
    (trend,) = build_study(collect([tmp_path]), edges=[0, 5, 10]).trends
    assert trend.relative_drop.value < 1
    assert trend.relative_drop.high == 1


def test_an_arm_without_a_seed_of_the_best_is_named_beside_its_span(tmp_path):
    examples = [example(n, 6) for n in range(40)]
    for arm, seeds, wrong in (("bahdanau", (0, 1), 1), ("plain", (2, 3), 2)):
        for seed in seeds:
            fake_run(tmp_path, arm, seed, examples, [wrong] * 40)
    notes = build_study(collect([tmp_path])).notes
    assert any(note.startswith("plain has no seed in common with bahdanau, the best arm") for note in notes)
