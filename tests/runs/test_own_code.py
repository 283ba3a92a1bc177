"""A user's own code belongs to the id of a run, whose directory keeps a copy; old weights never meet new code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attnspan.config.identity import run_id
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.prepare import fingerprint_of
from attnspan.errors import InputError
from attnspan.evaluation.loaded_run import load_run
from attnspan.files import read_json
from attnspan.runs import own_code
from attnspan.sweeps.job import Job
from tests.conftest import TINY, Compose
from tests.training.test_resume import run

SCORE = """\
import attnspan.models.attention.scores

SHARPNESS = 1.0

class MyScore(attnspan.models.attention.scores.GeneralScore):
    def forward(self, query, keys):
        return SHARPNESS * super().forward(query, keys)
"""
CORPUS = """\
from dataclasses import dataclass
from attnspan.data.corpora.synthetic.reverse import Reverse

@dataclass(frozen=True, kw_only=True)
class Mine(Reverse):
    pass
"""
MINE = ("decoder=luong_general", "decoder.score._target_=mine_scores.MyScore", *TINY)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on Python's path, as by PYTHONPATH, whose modules are forgotten afterwards."""
    path = tmp_path / "own"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    monkeypatch.setattr(own_code, "_frozen", None)
    before = set(sys.modules)
    yield path
    for name in set(sys.modules) - before:
        if str(path) in str(getattr(sys.modules[name], "__file__", "")) or name.startswith(("mine_", "pack_")):
            del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    importlib.invalidate_caches()


def id_of(config: dict[str, Any]) -> str:
    return run_id(config, data_fingerprint="d")


def composed_anew(*overrides: str) -> dict[str, Any]:
    from hydra.core.global_hydra import GlobalHydra

    from attnspan.config.compose import compose_config

    GlobalHydra.instance().clear()
    return compose_config(*overrides)


def test_another_score_under_the_same_name_is_another_run(folder: Path, cache: Path) -> None:
    write(folder / "mine_scores.py", SCORE)
    first = id_of(composed_anew(*MINE))
    assert id_of(composed_anew(*MINE)) == first
    write(folder / "mine_scores.py", SCORE.replace("1.0", "50.0"))
    assert id_of(composed_anew(*MINE)) != first
    write(folder / "mine_scores.py", SCORE)
    assert id_of(composed_anew(*MINE)) == first


@pytest.mark.parametrize(
    ("files", "target", "edited"),
    [
        ({"mine_a.py": "import mine_b", "mine_b.py": "x = 1"}, "mine_a.A", "mine_b.py"),
        ({"mine_a.py": "def f():\n    from mine_b import x", "mine_b.py": "x = 1"}, "mine_a.A", "mine_b.py"),
        ({"mine_a.py": "import mine_b", "mine_b.py": "import mine_c", "mine_c.py": "x = 1"}, "mine_a.A", "mine_c.py"),
        (
            {"pack_p/__init__.py": "", "pack_p/a.py": "from . import b", "pack_p/b.py": "x = 1"},
            "pack_p.a.A",
            "pack_p/b.py",
        ),
        (
            {"pack_p/__init__.py": "from .a import A", "pack_p/a.py": "from .sub.c import x", "pack_p/sub/c.py": ""},
            "pack_p.A",
            "pack_p/sub/c.py",
        ),
        ({"pack_p/__init__.py": "x = 1", "pack_p/a.py": "class A: ..."}, "pack_p.a.A", "pack_p/__init__.py"),
        ({"pack_n/a.py": "import pack_n.b", "pack_n/b.py": "x = 1"}, "pack_n.a.A", "pack_n/b.py"),  # no __init__
        ({"mine_a.py": "def ("}, "mine_a.A", "mine_a.py"),  # not Python: its import will say so
    ],
)
def test_what_it_imports_belongs_to_it(folder: Path, files: dict[str, str], target: str, edited: str) -> None:
    for name, text in files.items():
        write(folder / name, text)
    write(folder / "mine_unrelated.py", "x = 1")
    before = own_code.code_of([target])
    assert set(before) == set(files)
    write(folder / "mine_unrelated.py", "x = 2")
    assert own_code.code_of([target]) == before
    write(folder / edited, files[edited] + "\ny = 2")
    after = own_code.code_of([target])
    assert {name for name in files if after[name] != before[name]} == {edited}
    assert not [name for name in sys.modules if name.startswith(("mine_", "pack_"))]  # nothing was run


def test_a_class_in_a_list_or_named_by_hydras_helper_counts(folder: Path) -> None:
    write(folder / "mine_a.py", "")
    assert own_code.own_code({"parts": [{"of": {"_target_": "mine_a.A"}}]}) == own_code.code_of(["mine_a.A"])
    helper = {"_target_": "hydra.utils.get_method", "path": "mine_a.f"}
    assert set(own_code.own_code({"activation": helper})) == {"mine_a.py"}


def test_an_installed_package_counts_with_its_release(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = folder / "site-packages"
    write(site / "pack_q" / "__init__.py", "class A: ...")
    info = site / "pack_q-1.2.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: pack-q\nVersion: 1.2\n")
    write(info / "top_level.txt", "pack_q\n")
    write(info / "RECORD", "pack_q/__init__.py,sha256=aaa,12\n")
    monkeypatch.syspath_prepend(str(site))
    before = own_code.code_of(["pack_q.A"])
    assert before["pack_q"].startswith("1.2 ")
    write(info / "RECORD", "pack_q/__init__.py,sha256=bbb,12\n")  # installed again, under the same version
    assert own_code.code_of(["pack_q.A"])["pack_q"] not in (before["pack_q"], "unknown")


def test_the_code_of_attnspan_torch_and_python_is_nobodys_own(composed: Compose) -> None:
    assert "own_code" not in composed("decoder=bahdanau")
    assert own_code.code_of(["torch.nn.GRU", "functools.partial", "attnspan.models.seq2seq.Seq2Seq"]) == {}


def test_prepared_data_of_an_edited_corpus_is_not_used(folder: Path, composed: Compose) -> None:
    write(folder / "mine_corpus.py", CORPUS)
    config = composed("data=reverse", "data._target_=mine_corpus.Mine")
    corpus = build_corpus(config)
    before = fingerprint_of(corpus)
    write(folder / "mine_corpus.py", CORPUS + "\n    note = 2\n")
    assert fingerprint_of(corpus) != before


def test_old_weights_do_not_meet_new_code(folder: Path, tmp_path: Path, cache: Path) -> None:
    write(folder / "mine_scores.py", SCORE)
    directory, _ = run(composed_anew(*MINE, f"runs_dir={tmp_path}"))
    kept = directory / "own_code" / "mine_scores.py"
    assert kept.read_text(encoding="utf-8") == SCORE
    assert "own_code/mine_scores.py" in read_json(directory / "summary.json")["files"]
    load_run(directory, trusted=["mine_scores"])
    write(folder / "mine_scores.py", SCORE.replace("1.0", "50.0"))
    with pytest.raises(InputError, match=r"mine_scores\.py changed since the run was computed.*PYTHONPATH=.*own_code"):
        load_run(directory, trusted=["mine_scores"])
    sys.path.insert(0, str(kept.parent))
    try:
        load_run(directory, trusted=["mine_scores"])
    finally:
        sys.path.remove(str(kept.parent))


def test_a_job_runs_the_code_of_its_launch(folder: Path, tmp_path: Path, cache: Path) -> None:
    write(folder / "mine_scores.py", SCORE)
    config = composed_anew(*MINE)
    directory = tmp_path / "run"
    Job(config=config, directory=directory, command="").write()
    assert own_code.use_kept_code(config, directory) == []
    write(folder / "mine_scores.py", SCORE.replace("1.0", "50.0"))
    Job(config=config, directory=directory, command="").write()  # again when it starts: the copy is there
    assert own_code.use_kept_code(config, directory) == ["mine_scores.py"]
    try:
        importlib.invalidate_caches()
        assert importlib.import_module("mine_scores").SHARPNESS == 1.0
        assert own_code.changed_code(config, config["own_code"]) == []
    finally:
        sys.path.remove(str(directory / "own_code"))


def test_code_that_changes_before_the_copy_is_refused(folder: Path, tmp_path: Path, cache: Path) -> None:
    write(folder / "mine_scores.py", SCORE)
    config = composed_anew(*MINE)
    write(folder / "mine_scores.py", SCORE + "\n")
    with pytest.raises(InputError, match=r"^mine_scores\.py has changed since this run was composed"):
        own_code.keep_own_code(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_sweep_reads_a_users_code_once(folder: Path) -> None:
    write(folder / "mine_a.py", "x = 1")
    own_code.freeze_own_code()
    before = own_code.code_of(["mine_a.A"])
    write(folder / "mine_a.py", "x = 2")
    assert own_code.code_of(["mine_a.A"]) == before
