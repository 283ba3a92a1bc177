"""`data=hub` and the published datasets, by name and commit, through the real client of the Hugging Face hub."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tests.services.hub as service
from attnspan.config.instantiate import build_corpus
from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.hub import Hub
from attnspan.data.pipeline.prepare import PreparedData
from attnspan.data.readers import hub_client, streaming
from attnspan.errors import InputError
from tests.conftest import Compose
from tests.data.corpora import test_hub_images as hub_images
from tests.data.small_corpora import ANY_LENGTH
from tests.services.hub import SIGNATURE, Fault

Ready = Callable[[Corpus], PreparedData]
ROWS = [{"translation": {"de": f"Satz {n} von {n * n}", "en": f"sentence {n} of {n * n}"}} for n in range(90)]
SPLITS = {"train": ROWS, "validation": ROWS[:20], "test": ROWS[20:50]}


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=30, compression="none")
    return file.getvalue()


FILES = {"README.md": b"---\nlicense: mit\n---\n"} | {
    f"data/{split}-00000-of-00001.parquet": parquet(rows) for split, rows in SPLITS.items()
}
TRAIN = "data/train-00000-of-00001.parquet"


class Clock:
    """The module ``time`` for the clients, whose waits take no time here."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (
        huggingface_hub.utils._http,
        huggingface_hub.file_download,
        datasets.utils.file_utils,
        hub_client,
    ):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[service.Hub]:
    """A hub, to which the client of this process talks, with an empty cache and no token."""
    with service.hub() as one:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", one.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", one.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", one.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        huggingface_hub.HfFileSystem.clear_instance_cache()
        yield one
        huggingface_hub.utils.close_session()


def of(path: str, **changes: Any) -> Hub:
    given = {"source": "translation.de", "target": "translation.en", "source_tokens": "words", "target_tokens": "words"}
    return Hub(path=path, **{**given, "limits": ANY_LENGTH, **changes})


def sources(prepared: PreparedData) -> dict[str, list[str]]:
    return {split: getattr(prepared, split)["source"][:] for split in SPLITS}


RIGHT = {split: [row["translation"]["de"] for row in rows] for split, rows in SPLITS.items()}


def configs(*names: str) -> bytes:
    """A card that says where each split of each config lies, as those of the published datasets."""
    splits = "".join(f"  - split: {split}\n    path: {{0}}/{split}-*\n" for split in SPLITS)
    entries = "".join(f"- config_name: {name}\n  data_files:\n{splits.format(name)}" for name in names)
    return f"---\nlicense: other\nconfigs:\n{entries}---\n".encode()


def in_folders(pattern: str, *names: str) -> dict[str, bytes]:
    """The splits of ``names``; only the first has the right rows."""
    return {
        pattern.format(name=name, split=split): parquet(rows if name == names[0] else rows[::-1])
        for name in names
        for split, rows in SPLITS.items()
    }


WITH_CARD = {"README.md": configs("de-en", "cs-en")} | in_folders(
    "{name}/{split}-00000-of-00001.parquet", "de-en", "cs-en"
)
PUBLISHED: dict[str, tuple[str, dict[str, bytes]]] = {
    "multi30k": (
        "bentrevett/multi30k",
        {f"{name}.jsonl": jsonl([row["translation"] for row in SPLITS[split]])
         for name, split in (("train", "train"), ("val", "validation"), ("test", "test"))},
    ),
    "wmt14": ("wmt/wmt14", WITH_CARD),
    "opus100": ("Helsinki-NLP/opus-100", WITH_CARD),
    "opus_books": ("Helsinki-NLP/opus_books", WITH_CARD),
    "iwslt2017": (
        "IWSLT/iwslt2017", in_folders("{name}/{split}/0000.parquet", "iwslt2017-de-en", "iwslt2017-de-fr"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_dataset_by_name_then_without_network(
    hub: service.Hub, composed: Compose, ready: Ready, name: str
) -> None:
    path, files = PUBLISHED[name]
    config = composed(f"data={name}", "data.source_tokens=words", "data.target_tokens=words", "logger=none")
    hub.add(path, files, commit=config["data"]["revision"], branch="refs/convert/parquet")
    hub.add(path, {"train.jsonl": jsonl([{"de": "wrong", "en": "wrong"}])})  # the branch has moved on
    prepared = ready(build_corpus(config))
    side = "en" if name == "wmt14" else "de"
    lower = str.lower if name == "multi30k" else str
    texts = {split: [lower(row["translation"][side]) for row in rows] for split, rows in SPLITS.items()}
    if name == "opus_books":  # it has one split, of which the config makes three
        rows = texts["train"]
        texts = {"train": rows[:81], "validation": rows[81:86], "test": rows[86:]}
    assert sources(prepared) == texts
    hub.asked.clear()
    assert sources(ready(build_corpus(config))) == texts
    assert not hub.asked


@pytest.mark.parametrize("form", ["imagefolder", "parquet"])
def test_images_by_name_then_without_network(hub: service.Hub, ready: Ready, form: str, tmp_path: Path) -> None:
    """With the images of an imagefolder; other folders of the dataset are not downloaded."""
    path = hub_images.write(tmp_path / "copy", form)
    files = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    commit = hub.add("owner/photos", {**files, "unrelated/large.png": b"\0" * 5000})
    hub_images.check(ready(hub_images.images("owner/photos", revision=commit)))
    assert not [one for one in hub.asked if "large.png" in str(one)]
    hub.asked.clear()
    hub_images.check(ready(hub_images.images("owner/photos", revision=commit)))
    assert not hub.asked


def test_an_image_that_the_hub_does_not_have(hub: service.Hub, ready: Ready) -> None:
    files = hub_images.imagefolder()
    del files["test/1.png"]
    commit = hub.add("owner/photos", files)
    with pytest.raises(InputError, match=r"owner/photos/test/metadata\.jsonl line 2: 1\.png: No such file"):
        ready(hub_images.images("owner/photos", revision=commit))


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_stream_has_the_rows_of_a_copy(hub: service.Hub, ready: Ready, form: str) -> None:
    files = FILES if form == "parquet" else {f"{split}.jsonl": jsonl(rows) for split, rows in SPLITS.items()}
    commit = hub.add("owner/name", files)
    copied = of("owner/name", revision=commit)
    streamed = of("owner/name", revision="main", streaming=True)
    assert sources(ready(streamed)) == RIGHT
    assert not list(Path(huggingface_hub.constants.HF_HUB_CACHE).rglob("*.parquet"))
    assert ready(copied).fingerprint == ready(streamed).fingerprint


def test_a_branch_that_moves_meanwhile_is_read_at_one_commit(hub: service.Hub, ready: Ready) -> None:
    hub.add("owner/name", FILES)
    corpus = of("owner/name")
    corpus.identity()
    hub.add("owner/name", {path: parquet(ROWS[:7]) for path in FILES if path != "README.md"})
    assert sources(ready(corpus)) == RIGHT


def entry(**what: Any) -> Fault:
    return Fault(where=r"^/api/datasets/owner/name(/revision/[^/]+)?$", **what)


def head(**what: Any) -> Fault:
    return Fault(where="resolve/.*train", method="HEAD", **what)


def tree(**what: Any) -> Fault:
    return Fault(where="/tree/", **what)


def get(**what: Any) -> Fault:
    return Fault(where="storage.*train", method="GET", **what)


@pytest.mark.parametrize("streams", [False, True])
def test_what_passes_is_repeated(hub: service.Hub, ready: Ready, clock: Clock, streams: bool) -> None:
    commit = hub.add("owner/name", FILES)
    hub.faults = [
        entry(status=429, headers={"Retry-After": "11"}, times=1),
        entry(status=503, times=2),
        tree(status=502, times=1),
        get(status=429, headers={"RateLimit": '"api";r=0;t=17'}, times=1),
        get(status=503, times=1),
        get(cut_after=3000, times=1),
    ]
    if not streams:  # a stream knows the size of no part, and asks for the size of no file
        hub.faults += [head(status=429, times=1), get(short=3000, times=1)]
    assert sources(ready(of("owner/name", revision=commit, streaming=streams))) == RIGHT
    assert not [fault for fault in hub.faults if fault.times]
    assert {11.0, 18.0} <= set(clock.waits)  # as long as the hub wants


AGAIN = "the same command tries again, and does not repeat what has arrived"
GIVES_UP: dict[str, tuple[Fault, str, str]] = {
    "unavailable, at first": (entry(status=503), "", f"the hub answers 503 Service Unavailable; {AGAIN}"),
    "too many requests, at first": (
        entry(status=429, headers={"Retry-After": "300"}),
        "",
        "the hub answers 429 Too Many Requests; give the same command in 300 s; with a token (`hf auth login`) the hub",
    ),
    "another server, at first": (
        entry(status=200),
        "",
        "no such directory, and the hub cannot be reached (what answers is not a hub); check the network and HF_ENDPOI",
    ),
    "unavailable, list": (tree(status=500), "the list of files", f"the hub answers 500 Internal Server Error; {AGAIN}"),
    "unavailable, file": (get(status=503), TRAIN, f"the hub answers 503 Service Unavailable; {AGAIN}"),
    "forbidden, file": (
        get(status=403, words="expired"),
        TRAIN,
        "the hub answers 403 Forbidden (expired); a copy of the dataset on this machine is given by data.path=DIRECTO",
    ),
    "cut in the middle, file": (get(cut_after=3000), TRAIN, "the connection broke (peer closed connection without"),
    "no such file": (
        Fault(where="resolve/.*train", status=404, headers={"X-Error-Code": "EntryNotFound"}),
        TRAIN,
        "there is no such file at this revision; choose another data.revision",
    ),
    "short, file": (get(short=3000), TRAIN, f"3000 bytes have arrived instead of {len(FILES[TRAIN])}; {AGAIN}"),
}
CASES = [(case, streams) for case in GIVES_UP for streams in (False, True)[: 2 if case.endswith(", file") else 1]]


@pytest.mark.parametrize(("case", "streams"), [one for one in CASES if one != ("short, file", True)])
def test_what_does_not_pass_is_one_line_with_revision_file_and_remedy(
    hub: service.Hub, ready: Ready, clock: Clock, case: str, streams: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left behind that could be taken for a file: where all is well again, the same command ends right."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    fault, file, words = GIVES_UP[case]
    commit = hub.add("owner/name", FILES)
    hub.faults = [fault]
    corpus = of("owner/name", revision=commit, streaming=streams)
    with pytest.raises(InputError) as error:
        ready(corpus)
    (line,) = str(error.value).splitlines()
    expected = f"data.path: owner/name at {commit}: {file}: {words}" if file else f"data.path: owner/name: {words}"
    assert line.startswith(expected)
    assert hub.token not in line
    assert SIGNATURE not in line
    if {fault.short, fault.cut_after} != {None}:
        hub.faults = []
        assert sources(ready(corpus)) == RIGHT


def test_an_interrupted_stream_resumes(
    hub: service.Hub, ready: Ready, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PART_ROWS", 20)
    parts = {f"train-{n:05d}-of-00003.parquet": parquet(ROWS[30 * n : 30 * n + 30]) for n in range(3)}
    commit = hub.add(
        "owner/name",
        {**parts, "validation.parquet": parquet(SPLITS["validation"]), "test.parquet": parquet(SPLITS["test"])},
    )
    corpus = of("owner/name", revision=commit, streaming=True)
    hub.faults = [Fault(where="train-00001", method="GET", status=503)]
    with pytest.raises(
        InputError, match=r"train-00001-of-00003\.parquet: .*; 20 rows are stored, the same command resumes"
    ):
        ready(corpus)
    hub.faults = []
    assert sources(ready(corpus)) == RIGHT


def test_a_silent_server_is_not_waited_for_forever(
    hub: service.Hub, ready: Ready, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client asks for the list of files without a limit of time."""
    monkeypatch.setattr(hub_client, "TIMEOUT", 0.1)
    commit = hub.add("owner/name", FILES)
    hub.faults = [tree(wait=60)]
    began = time.monotonic()
    with pytest.raises(InputError, match=r"the list of files: the connection broke \(timed out\); the same command"):
        ready(of("owner/name", revision=commit))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("where", ["large", "small"])
def test_a_damaged_file_in_the_clients_cache_is_never_used(hub: service.Hub, ready: Ready, where: str) -> None:
    """It ends with a whole row, so that only the checksum tells."""
    rows = SPLITS["train"] if where == "large" else SPLITS["train"][:6]
    commit = hub.add("owner/name", {f"{split}.jsonl": jsonl(rows) for split in SPLITS})
    corpus = of("owner/name", revision=commit)
    path = huggingface_hub.hf_hub_download("owner/name", "train.jsonl", repo_type="dataset", revision=commit)
    Path(path).write_bytes(jsonl(rows[:5]))
    with pytest.raises(InputError) as error:
        ready(corpus)
    problem = "its content is not that of the hub, so it was removed; the same command downloads it again"
    assert str(error.value) == f"data.path: owner/name: {path}: {problem}"
    assert len(ready(corpus).train) == len(rows)


@pytest.mark.parametrize("revision", ["main", "f" * 40])
def test_offline_mode_asks_nothing(
    hub: service.Hub, ready: Ready, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    problem = "no such directory, and HF_HUB_OFFLINE forbids to ask the hub; unset it; a copy of the dataset on this"
    with pytest.raises(InputError, match=f"^data.path: owner/name: {problem} machine is given by data.path=DIRECTORY$"):
        ready(of("owner/name", revision=revision))
    assert not hub.asked


NO_DATASET = "path: owner/nane: no such directory, and no such dataset on the hub; for a private one, `hf auth login`"
NO_REVISION = "revision: owner/name has no revision"
RESTRICTED = (
    "path: owner/name at main: access is restricted; accept the terms at {url}/datasets/owner/name, then "
    "`hf auth login` or set HF_TOKEN"
)
BAD_TOKEN = "HF_TOKEN: the token for the hub holds characters that no token has; set it anew, or unset it"


@pytest.mark.parametrize(
    ("changes", "token", "words"),
    [
        ({"path": "owner/nane"}, None, f"data.{NO_DATASET}"),
        ({"path": "owner/nane"}, "right", f"data.{NO_DATASET}"),
        (
            {"revision": "mian"},
            None,
            f"data.{NO_REVISION} 'mian' on the hub; did you mean 'main'? known: main, refs/conv",
        ),
        (
            {"revision": "f" * 40},
            None,
            f"data.{NO_REVISION} '{'f' * 40}' on the hub; known: main, refs/convert/parquet",
        ),
        ({}, None, f"data.{RESTRICTED}"),
        ({"streaming": True}, None, f"data.{RESTRICTED}"),
        (
            {},
            "hf_wrong",
            "data.path: owner/name: the hub refuses the token; set HF_TOKEN to a valid one or unset it, or",
        ),
        ({}, "hf_two lines", BAD_TOKEN),
        ({}, "hf_ä", BAD_TOKEN),
    ],
)
def test_who_may_not_read_is_told_why(
    hub: service.Hub, ready: Ready, monkeypatch: pytest.MonkeyPatch, changes: Any, token: str | None, words: str
) -> None:
    if token:
        token = hub.token if token == "right" else token
        monkeypatch.setenv("HF_TOKEN", token)
    hub.add("owner/name", FILES, gated=True)
    hub.add("owner/name", FILES, branch="refs/convert/parquet")
    with pytest.raises(InputError) as error:
        ready(of(**{"path": "owner/name"} | changes))
    (line,) = str(error.value).splitlines()
    assert line.startswith(words.format(url=hub.url))
    assert not token or token not in line


def test_a_line_holds_no_token_and_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    said = "at https://me:pw@there/file?Signature=xyz with b'Bearer hf_other\\x00' and hf_mine\nand more"
    assert hub_client.shorten(said) == "at https://there/file with b'Bearer <token>' and <token> and more"


def test_a_token_opens_what_is_restricted_and_stays_on_the_hub(
    hub: service.Hub, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.add("owner/name", FILES, gated=True)
    assert sources(ready(of("owner/name"))) == RIGHT
    assert {one.token for one in hub.asked if "/storage/" in one.path} == {False}
    assert {one.token for one in hub.asked if "/resolve/" in one.path} == {True}


def test_a_script_is_not_run_and_the_converted_branch_is_named(hub: service.Hub, ready: Ready) -> None:
    hub.add("owner/name", FILES | {"name.py": b"raise SystemExit"})
    with pytest.raises(InputError, match=r"found name\.py; try data\.revision=refs/convert/parquet$"):
        ready(of("owner/name"))
