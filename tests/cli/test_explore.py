"""The server of attnspan-explore: what it answers, whom it refuses, and that Ctrl-C ends it."""

from __future__ import annotations

import asyncio
import html
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from attnspan.cli import explore
from attnspan.cli.explore import LONGEST, Served, answer, application, load
from tests.browser import CHROMIUM, browser
from tests.conftest import Compose
from tests.training.test_run import run

PORT = 8765
OWN = {"host": f"127.0.0.1:{PORT}"}


@pytest.fixture(scope="module")
def runs(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    for arm in ("plain", "bahdanau"):
        run(composed, runs, f"decoder={arm}", "trainer.max_steps=4", "trainer.val_check_interval=2")
    return runs


@pytest.fixture(scope="module")
def served(runs: Path) -> list[Served]:
    return load([runs])


def get(served: list[Served], path: str = "/", **headers: str) -> tuple[int, str]:
    """Status and text of the answer to one request, without a socket."""
    target, _, query = path.partition("?")
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in (OWN | headers).items()]
    scope = {"type": "http", "method": "GET", "path": target, "query_string": query.encode(), "headers": fields}
    sent: list[dict] = []

    async def ask() -> None:
        async def receive() -> dict:
            return {"type": "http.request", "body": b""}

        async def send(message: dict) -> None:
            sent.append(message)

        await application(served, port=PORT)(scope, receive, send)

    asyncio.run(ask())
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:]).decode()


def test_a_source_is_decoded_by_every_arm(served: list[Served]) -> None:
    status, text = get(served, f"/?source={quote('s1 s2 s3')}")
    assert status == 200
    assert text.count("what a beam of 5 finds") == 2
    for one in served:
        (others,) = one.loaded.decode(["s1 s2 s3"], beam_size=5, n_best=5)
        for other in others:
            assert f"log p {other.log_prob:.3f}" in text
    assert 'value="s1 s2 s3"' in text


@pytest.mark.parametrize(
    ("source", "said"),
    [("", "has no token"), ("   ", "has no token"), ("s1 " * (LONGEST + 1), f"{LONGEST + 1:,} tokens"), ("<b>", "")],
)
def test_a_source_that_cannot_be_decoded_is_told_on_the_page(served: list[Served], source: str, said: str) -> None:
    status, text = get(served, f"/?source={quote(source)}")
    assert status == 200
    assert said in html.unescape(text)
    assert "<b>" not in text


def test_the_longest_source_is_decoded(served: list[Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore, "LONGEST", 30)  # 2,000 take half a minute on a busy machine
    for length, refused in ((30, False), (31, True)):
        status, text = get(served[:1], f"/?source={quote('s1 ' * length)}")
        assert status == 200
        assert ('role="alert"' in text) == refused


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": f"evil.example:{PORT}"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
    ],
)
def test_others_are_refused(served: list[Served], headers: dict[str, str]) -> None:
    assert get(served, "/?source=s1", **headers)[0] == 403


def test_the_same_machine_by_its_other_name_is_served(served: list[Served]) -> None:
    page = {"host": f"localhost:{PORT}", "origin": f"http://localhost:{PORT}", "sec_fetch_site": "same-origin"}
    assert get(served, "/", **page)[0] == 200


def test_two_browsers_at_once_get_their_own_answers(served: list[Served]) -> None:
    paths = [f"/?source={quote(source)}" for source in ("s1 s2", "s3 s4 s5")]
    alone = [get(served, path) for path in paths]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda path: get(served, path), paths * 3)) == alone * 3


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
def test_the_page_shows_both_arms(served: list[Served], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    with browser(tmp_path / "profile") as page:
        for source, panels in ((None, 0), ("s1 s2 s3", 2)):
            path.write_text(answer(served, source, threading.Lock()), encoding="utf-8")
            page.open(path, width=1000)
            end = time.monotonic() + 60
            while page.evaluate("document.querySelectorAll('.panel').length") != panels:
                assert time.monotonic() < end
                time.sleep(0.02)
            assert page.of("Runtime.exceptionThrown", "Log.entryAdded") == []
            assert page.evaluate("document.querySelectorAll('form input').length") == 1


def test_ctrl_c_ends_it_and_a_port_in_use_is_one_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert explore.main([str(runs), "--port", str(port)]) == 2
        assert capsys.readouterr().err == f"attnspan-explore: --port {port}: is in use on this machine; give another\n"
    timer = threading.Timer(2, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    explore.main([str(runs), "--port", str(port)])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))  # nothing listens any more
