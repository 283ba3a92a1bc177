"""A study's own run on W&B, and the workspaces and report that are built for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attnspan.analysis.collection import collect
from attnspan.analysis.lengths.spans import Span
from attnspan.analysis.study import build_study
from attnspan.cli import dashboard, report
from attnspan.errors import InputError
from attnspan.reporting.csv_files import points_frame
from attnspan.reporting.findings import findings
from attnspan.reporting.plots import styles
from attnspan.tracking import chart_preset, dashboards
from attnspan.tracking.run_logger import _variant
from attnspan.tracking.study import find_study
from tests.fake_runs import example, fake_run, fake_study
from tests.mirrors import Mirrored, read_mirrors
from tests.tracking.test_run_logger import server

LENGTHS = range(5, 65)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study") / "runs"
    fake_study(root, lengths=LENGTHS, per_length=5, attention=True)
    return root


@pytest.fixture(scope="module")
def out(runs: Path) -> Path:
    out = runs.parent / "long"
    assert report.main([str(runs), "--out", str(out), "--wandb", "offline"]) == 0
    return out


@pytest.fixture(scope="module")
def mirror(out: Path) -> Mirrored:
    (one,) = read_mirrors(out)
    return one


def test_it_stands_in_the_group_of_its_runs(mirror: Mirrored, runs: Path) -> None:
    assert mirror.run["run_group"] == "long"  # the fake runs are of no study, so the directory gives the name
    assert mirror.run["job_type"] == "study"
    assert mirror.run["display_name"] == "long study"
    assert mirror.run["notes"].startswith("attnspan-report ")
    assert mirror.config["arms"] == ["plain", "bahdanau", "luong_general"]
    assert set(mirror.config["runs"]) == {path.name for path in runs.glob("*/*/*")}
    assert mirror.exit_code == 0


def test_it_has_the_plots_and_the_numbers_behind_them(mirror: Mirrored, out: Path, runs: Path) -> None:
    for name in ("degradation", "advantage", "attention"):
        assert mirror.file(f"pronunciation/{name}").read_bytes() == (out / f"{name}.png").read_bytes()
    study = build_study(collect([runs]))
    curve = mirror.table("pronunciation/curve")
    assert len(curve) == len(points_frame(study, study.curve))
    assert any("low" in name for name in curve[0])  # intervals
    drawn = mirror.table("pronunciation/error_rate_by_source_length_table")
    rates = {
        (point.arm, point.region.mean_length): point.metrics["error_rate"].value
        for point in study.curve
        if not point.region.total
    }
    assert {(row["lineKey"], row["step"]): row["lineVal"] for row in drawn} == pytest.approx(rates)
    for one in study.spans:
        assert isinstance(one.span, Span)
        assert mirror.summary[f"pronunciation/span/source_length/{one.arm}"] == pytest.approx(one.span.length.value)
    assert [row["arm"] for row in mirror.table("pronunciation/spans")] == [one.arm for one in study.spans]


def test_the_report_is_an_artifact(mirror: Mirrored, out: Path) -> None:
    (artifact,) = (one for one in mirror.of("artifact") if one["type"] == "report")
    logged = {entry["path"]: entry["local_path"] for entry in artifact["manifest"]["contents"]}
    written = {path.name for path in out.iterdir() if path.is_file()}
    assert set(logged) == written
    assert "index.html" in logged
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in logged.values())


def test_again_it_is_the_same_run(out: Path, mirror: Mirrored, runs: Path) -> None:
    before = mirror.run["run_id"]
    assert report.main([str(runs), "--out", str(out), "--wandb", "offline"]) == 0
    (again,) = read_mirrors(out)
    assert again.run["run_id"] == before


def test_several_data_sets_are_one_run(tmp_path: Path) -> None:
    for data in ("copy", "recall"):
        fake_study(tmp_path / "runs", lengths=LENGTHS, per_length=4, data=data)
    out = tmp_path / "both"
    assert report.main([str(tmp_path / "runs"), "--out", str(out), "--wandb", "offline"]) == 0
    (one,) = read_mirrors(out)
    for key in ("copy/degradation", "recall/degradation", "ranking"):
        assert one.file(key).is_file()
    assert one.config["data"] == ["copy", "recall"]


def test_as_runs_takes_the_mode_of_the_runs(tmp_path: Path) -> None:
    for mode, mirrors in (("disabled", 0), ("offline", 1)):
        examples = [example(n, 5 + n % 10) for n in range(40)]
        logger = {"logger": {"wandb": {"mode": mode, "project": "theirs"}}, "study": "mine"}
        directory = fake_run(tmp_path / mode, "plain", 1, examples, [1] * 40, config=logger)
        out = tmp_path / f"report {mode}"
        assert report.main([str(directory), "--out", str(out), "--wandb", "as-runs"]) == 0
        found = read_mirrors(out)
        assert len(found) == mirrors
        for one in found:
            assert one.run["project"] == "theirs"
            assert one.run["run_group"] == "mine"


def test_not_asked_for_it_is_not_loaded(runs: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from attnspan.cli.report import main; main(sys.argv[1:]); print('loaded:', 'wandb' in sys.modules)"
    )
    arguments = [str(runs), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "loaded: False" in done.stdout


def test_a_word_that_is_no_mode(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(runs), "--out", str(tmp_path / "out"), "--wandb", "onlin"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("attnspan-report: --wandb onlin: there is no such mode; did you mean 'online'?")
    assert not (tmp_path / "out").exists()


def study_of(root: Path, *, study: str | None = "mine", **more: Any) -> Path:
    """Some runs of one study."""
    examples = [example(n, 5 + n % 10) for n in range(40)]
    for arm in ("plain", "bahdanau"):
        for seed in (1, 2):
            fake_run(root, arm, seed, examples, [1] * 40, config={"study": study, **more})
    return root


def dumped(root: Path, out: Path, *more: str) -> tuple[dict[str, Any], dict[str, Any]]:
    assert dashboard.main([str(root), "--dry-run", "--out", str(out), *more]) == 0
    (workspace,) = out.glob("workspace-*.json")
    return json.loads(workspace.read_text(encoding="utf-8")), json.loads(
        (out / "report.json").read_text(encoding="utf-8")
    )


@pytest.fixture
def without_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_SILENT", "WANDB_ERROR_REPORTING"):  # the command sets them, for its own process
        monkeypatch.setenv(name, "true")


def panels(workspace: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections = workspace["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: [panel["config"] for panel in section["panels"]] for section in sections}


@pytest.mark.usefixtures("without_key")
class TestDashboard:
    def test_a_line_is_an_arm_and_its_band_the_seeds(self, tmp_path: Path) -> None:
        workspace, _ = dumped(study_of(tmp_path / "runs"), tmp_path, "--entity", "me", "--project", "ours")
        assert (workspace["entity"], workspace["project"]) == ("me", "ours")
        found = panels(workspace)
        *costs, price = found["Cost"]
        assert (price["xAxis"], price["yAxis"]) == ("summary:train_seconds", "summary:test/error_rate")
        for panel in [*found["Curves"], *found["Quality against length"], *costs]:
            assert (panel["groupBy"], panel["groupAgg"], panel["groupArea"]) == ("arm.value", "mean", "stddev")
        assert {panel["xAxis"] for panel in found["Curves"]} == {"update"}
        assert {panel["xAxis"] for panel in found["Quality against length"]} == {"test_by_source_length/length"}
        assert found["Quality against length"][0]["metrics"] == ["test_by_source_length/error_rate"]
        (runset,) = workspace["spec"]["section"]["runSets"]
        filters = {(one["key"]["name"], one["op"], one["value"]) for one in runset["filters"]["filters"]}
        assert filters == {("group", "=", "mine"), ("data_name", "=", "pronunciation")}
        assert "summary:failure" in runset["runFeed"]["columnPinned"]

    def test_it_draws_only_what_is_logged(self, tmp_path: Path, mirrored_keys: set[str]) -> None:
        workspace, report_ = dumped(study_of(tmp_path / "runs"), tmp_path)
        drawn = [panel for section in panels(workspace).values() for panel in section]
        for block in report_["spec"]["blocks"]:
            for panel in block.get("metadata", {}).get("panelBankSectionConfig", {}).get("panels", []):
                drawn.append(panel["config"])
        keys = {key for panel in drawn for key in (*panel.get("metrics", ()), panel.get("xAxis"))}
        keys = {key.removeprefix("summary_metrics.").removeprefix("summary:") for key in keys if key and key != "_step"}
        shown = {key for panel in drawn for key in panel.get("mediaKeys", ())}
        keys |= {key for key in shown if key.startswith(("test/", "validation_"))}
        assert len(keys) > 20
        assert keys <= mirrored_keys

    def test_every_table_that_is_logged_has_a_panel(self, tmp_path: Path, mirrored_keys: set[str], out: Path) -> None:
        (mirror,) = read_mirrors(out)
        workspace, report_ = dumped(study_of(tmp_path / "runs"), tmp_path)
        of_runs, of_study = json.dumps(workspace), json.dumps(report_)
        comparison = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
        (runset,) = comparison["spec"]["section"]["runSets"]
        filters = {(one["key"]["name"], one["op"], one["value"]) for one in runset["filters"]["filters"]}
        assert filters == {("group", "=", "mine"), ("jobType", "=", "study")}
        for name in ("test/by_length", "test/examples"):
            assert name in mirrored_keys
            assert f'"{name}"' in of_runs
        for name in ("curve", "differences", "spans", "cost"):
            assert mirror.table(f"pronunciation/{name}")
            assert f'"pronunciation/{name}"' in of_study
            assert f'"pronunciation/{name}"' in json.dumps(panels(comparison)["pronunciation"])

    def test_the_report_says_the_finding_first(self, tmp_path: Path) -> None:
        root = study_of(tmp_path / "runs")
        _, found = dumped(root, tmp_path)
        paragraphs = [
            "".join(child["text"] for child in block["children"])
            for block in found["spec"]["blocks"]
            if block["type"] == "paragraph"
        ]
        paragraphs = [words for words in paragraphs if words]
        study = build_study(collect([root]))
        assert paragraphs[: len(findings(study))] == findings(study)
        assert all(f"Read with care: {note}" in paragraphs for note in study.notes)

    def test_arms_have_the_colours_of_the_report(self, tmp_path: Path) -> None:
        workspace, found = dumped(study_of(tmp_path / "runs"), tmp_path)
        preset = json.loads((tmp_path / "curve-preset.json").read_text(encoding="utf-8"))
        colours = {arm: style.colour for arm, style in styles(["plain", "bahdanau"]).items()}
        for arm, colour in colours.items():
            for text in (json.dumps(workspace), json.dumps(found)):
                assert arm in text
                assert colour in text
        assert preset["encoding"]["color"]["scale"] == {"domain": [*colours], "range": [*colours.values()]}

    def test_the_curve_is_drawn_from_columns_that_its_table_has(self, tmp_path: Path, out: Path) -> None:
        (mirror,) = read_mirrors(out)
        _, found = dumped(study_of(tmp_path / "runs"), tmp_path, "--entity", "me")
        (curve,) = mirror.table("pronunciation/curve")[:1]
        assert {*chart_preset.FIELDS.values()} <= {*curve}
        text = json.dumps(chart_preset.specification({}))
        assert {*re.findall(r"\$\{field:(\w+)\}", text)} == {*chart_preset.FIELDS}
        assert '"me/attnspan-curve"' in json.dumps(found)

    def test_a_search_shows_what_its_settings_change(self, tmp_path: Path) -> None:
        root = tmp_path / "runs"
        study_of(root / "small", optimizer={"lr": 0.001})
        study_of(root / "large", optimizer={"lr": 0.01})
        workspace, _ = dumped(root, tmp_path)
        parallel, importance = panels(workspace)["What the settings change"]
        assert [one["accessor"] for one in parallel["columns"]] == [
            "config:optimizer.value.lr",
            "summary:best_validation_loss",
        ]
        assert "best_validation_loss" in json.dumps(importance)
        plain, _ = dumped(study_of(tmp_path / "others"), tmp_path)
        assert "What the settings change" not in panels(plain)

    def test_more_runs_than_a_plot_shows_are_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(dashboards, "_MOST_RUNS", 3)
        dumped(study_of(tmp_path / "runs"), tmp_path)
        assert "note: the plots show 3 of the 4 runs; the study's own run has all of them" in capsys.readouterr().out

    @pytest.mark.parametrize("oracle_length", [True, False])
    def test_the_length_given_is_drawn_where_a_run_decoded_so(self, tmp_path: Path, oracle_length: bool) -> None:
        workspace, _ = dumped(study_of(tmp_path / "runs", oracle_length=oracle_length), tmp_path)
        drawn = {key for panel in panels(workspace)["Quality against length"] for key in panel["metrics"]}
        assert ("test_by_source_length/oracle_error_rate" in drawn) == oracle_length

    def test_the_report_compares_and_says_what_failed(self, tmp_path: Path) -> None:
        _, found = dumped(study_of(tmp_path / "runs"), tmp_path)
        text = json.dumps(found)
        for word in ("pronunciation/degradation", "Quality against length", "Cost", "Failures", "groupAgg"):
            assert word in text
        assert found["displayName"].startswith("mine")

    def test_data_sets_are_never_averaged(self, tmp_path: Path) -> None:
        root = tmp_path / "runs"
        for data in ("copy", "recall"):
            study_of(root / data, data_name=data)
        assert dashboard.main([str(root), "--dry-run", "--out", str(tmp_path)]) == 0
        for data in ("copy", "recall"):
            text = (tmp_path / f"workspace-{data}.json").read_text(encoding="utf-8")
            (runset,) = json.loads(text)["spec"]["section"]["runSets"]
            assert ("data_name", data) in {(one["key"]["name"], one["value"]) for one in runset["filters"]["filters"]}

    def test_variants_of_an_arm_are_never_averaged(self, tmp_path: Path) -> None:
        root = tmp_path / "runs"
        study_of(root / "small")
        study_of(root / "large", **{"model.hidden_size": 512})
        workspace, _ = dumped(root, tmp_path)
        assert {panel["groupBy"] for panel in panels(workspace)["Curves"]} == {"variant.value"}

    @pytest.mark.parametrize(
        ("study", "words"), [(None, "belongs to no study"), ("it's", "quotes"), ("gone", "no such directory")]
    )
    def test_what_is_no_study(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], study: str | None, words: str
    ) -> None:
        root = tmp_path / "nowhere" if study == "gone" else study_of(tmp_path / "runs", study=study)
        assert dashboard.main([str(root), "--dry-run", "--out", str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line

    def test_several_studies(self, tmp_path: Path) -> None:
        study_of(tmp_path / "runs" / "a")
        study_of(tmp_path / "runs" / "b", study="other")
        with pytest.raises(InputError, match=r"of several studies .* of mine, .* of other"):
            find_study([tmp_path / "runs"])

    def test_with_a_key_it_saves_all_and_says_where(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked: list[str] = []

        class Api:
            default_entity = "me"

            def __init__(self, **kwargs: Any) -> None: ...

            def project(self, name: str, entity: str) -> SimpleNamespace:
                asked.append(f"{entity}/{name}")
                return SimpleNamespace(id="1")

            def create_custom_chart(self, entity: str, **chart: Any) -> str:
                asked.append(f"{entity}/{chart['name']}")
                return asked[-1]

        def save(view: Any) -> SimpleNamespace:
            return SimpleNamespace(url=f"https://there/{view.entity}/{view.project}/{type(view).__name__}")

        monkeypatch.setattr("wandb.Api", Api)
        monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save", save)
        monkeypatch.setattr("wandb_workspaces.reports.v2.Report.save", save)
        assert dashboard.main([str(study_of(tmp_path / "runs")), "--project", "ours"]) == 0
        assert asked == ["me/ours", "me/attnspan-curve"]
        printed = capsys.readouterr().out.split()
        assert printed == [f"https://there/me/ours/{kind}" for kind in ("Workspace", "Workspace", "Report")]

    @pytest.mark.parametrize("case", ["no key", "nobody listens"])
    def test_what_cannot_be_saved_is_one_line(self, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
        root = study_of(tmp_path / "runs")
        with server(answers=False) as port:
            monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
            if case != "no key":
                monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
            command = [sys.executable, "-m", "attnspan.cli.dashboard", str(root)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("attnspan-dashboard: --project attnspan: cannot be found on W&B")
        assert "f" * 40 not in line
        assert done.stdout == ""


@pytest.fixture(scope="module")
def mirrored_keys(composed: Any, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Everything that a run of an arm with attention logs."""
    from tests.tracking.test_run_logger import MIRRORED
    from tests.training.test_run import run

    directory = run(composed, tmp_path_factory.mktemp("logged"), "decoder=bahdanau", *MIRRORED)
    (one,) = read_mirrors(directory)
    keys = {*one.summary, *(key for row in one.rows for key in row)}
    return {key.partition(".")[0] for key in keys}


@pytest.mark.parametrize(
    ("command", "variant"),
    [
        ("attnspan-train decoder=bahdanau seed=1", "bahdanau"),
        ("attnspan-train decoder=bahdanau seed=2 logger.wandb.mode=online +trainer.devices=2 threads=1", "bahdanau"),
        ("attnspan-train decoder=bahdanau rnn=lstm seed=2 data=copy study=x", "bahdanau rnn=lstm"),
        ("attnspan-train --config-dir mine seed=2 data.symbols=6 hydra.mode=RUN", "bahdanau data.symbols=6"),
    ],
)
def test_a_variant_is_what_the_command_line_sets(command: str, variant: str) -> None:
    assert _variant("bahdanau", command) == variant
