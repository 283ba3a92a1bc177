"""What README and docs print can be done: every code block runs in an empty folder, or says why not."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from attnspan.runs.layout import find_runs
from attnspan.sweeps import preflight
from tests.conftest import TINY, Compose
from tests.documented_blocks import PAGES, ROOT, Reader, blocks_of, call
from tests.sweeps.test_preflight import check_here

LISTS = ("mine", "smoke")
"""The studies that pages suppose to be there."""
NOT_AS_PRINTED = {
    "not run: installs packages": 2,
    "not run: installs packages and takes a quarter of an hour": 1,
    "not run: needs a network": 5,
    "not run: needs a cluster": 1,
    "not run: needs a terminal": 1,
    "not run: a server, which Ctrl-C ends": 1,
    "not run: needs your files": 4,
    "not run: takes minutes": 1,
    "not run: needs the run of this page": 1,
    "not run: needs the evaluations": 1,
    "dry run: minutes": 2,
    "dry run: an hour": 1,
    "dry run: hours": 3,
    "dry run: starts processes": 1,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, composed: Compose) -> Path:
    """A folder with two runs of one study and the lists that name them."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for arm in ("plain", "bahdanau"):
            assert call("attnspan-train", [f"decoder={arm}", *TINY, "study=mine"]) == 0
        runs = [str(run) for run in find_runs([Path("runs")])]
        for name in LISTS:
            Path(f"runs/{name}.txt").write_text("\n".join(runs) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_can_be_followed(page: Path, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(study / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")  # its process takes seconds; tests/services starts it
    monkeypatch.setattr(preflight, "subprocess", SimpleNamespace(run=check_here))
    reader = Reader(next(run for run in find_runs([Path("runs")]) if run.parent.name == "bahdanau"))
    for block in blocks_of(page):
        if block.tag != "not run":
            reader.follow(block)


def test_what_is_not_run_as_printed_is_counted() -> None:
    tags = Counter(
        f"{block.tag}: {block.why}" for page in PAGES for block in blocks_of(page) if block.tag.endswith("run")
    )
    assert tags == NOT_AS_PRINTED


def test_a_block_that_fails_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```bash\nattnspan-status nowhere\n```\n\n```bash\nmake study\n```\n", encoding="utf-8")
    wrong, foreign = blocks_of(page)
    with pytest.raises(AssertionError, match="attnspan-status nowhere"):
        Reader(tmp_path).follow(wrong)
    with pytest.raises(AssertionError, match="not tagged: make study"):
        Reader(tmp_path).follow(foreign)


def test_the_readme_is_read_once() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert len(text.split()) <= 700


def test_the_site_has_at_most_15_pages_beside_the_studies() -> None:
    pages = [path for path in (ROOT / "docs").rglob("*.md") if not {"decisions", "_generated"} & {*path.parts}]
    own = [path for path in pages if "results" not in path.relative_to(ROOT / "docs").parts]
    assert 10 <= len(own) <= 15
    listed = re.findall(r"^([\w/-]+)$", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(
        path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in own if path.stem != "index"
    )
