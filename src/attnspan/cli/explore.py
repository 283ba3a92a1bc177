"""``attnspan-explore``: type a source, and see what runs write for it and where they look. A server on this machine."""

from __future__ import annotations

import argparse
import html
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnspan.cli.console import ListParser, add_trusted, command
from attnspan.errors import InputError, SettingError
from attnspan.runs.finished_run import Run, read_run
from attnspan.runs.layout import find_runs

if TYPE_CHECKING:  # torch and the server take seconds to load
    from starlette.applications import Starlette
    from starlette.requests import Request

    from attnspan.evaluation.loaded_run import Hypothesis, LoadedRun

HOST = "127.0.0.1"
LONGEST = 2_000
"""Tokens of a source: the weights of a longer one are more than a browser shows."""
_ALTERNATIVES = 5


@dataclass(frozen=True, eq=False)
class Served:
    """A run that decodes what is typed."""

    label: str
    seed: int
    loaded: LoadedRun


@command("attnspan-explore")
def main(arguments: list[str]) -> None:
    """Load the runs and serve until Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        import uvicorn
    except ImportError:
        raise InputError("needs the packages starlette and uvicorn: pip install 'attnspan[explore]'") from None

    app = application(load([Path(run) for run in options.runs], options.trusted), port=options.port)
    print(f"http://{HOST}:{options.port}/ shows them; Ctrl-C ends it", flush=True)
    config = uvicorn.Config(app, host=HOST, port=options.port, log_level="warning", timeout_graceful_shutdown=1)
    if not _is_free(options.port):
        raise InputError(f"--port {options.port}: is in use on this machine; give another")
    uvicorn.Server(config).run()


def _parser() -> argparse.ArgumentParser:
    parser = ListParser(
        prog="attnspan-explore",
        description="Serve a page on this machine in which one types a source and sees what each run writes for it, "
        "where it looks, and what else a beam finds. Only this machine can reach it.",
    )
    parser.add_runs()
    parser.add_argument("--port", type=int, default=8765, metavar="N", help="of the page (default: 8765)")
    add_trusted(parser)
    return parser


def _is_free(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def load(paths: Sequence[Path], trusted: Sequence[str] = ()) -> list[Served]:
    """The runs in or below ``paths``, one of each arm: that of lowest seed.

    Raises:
        InputError: there is none, one cannot be loaded or reads images, or two have other vocabularies.
    """
    from attnspan.data.tokenizer import Tokenizer
    from attnspan.evaluation.loaded_run import load_run

    first: dict[str, Run] = {}
    for run in sorted((read_run(directory) for directory in find_runs(paths)), key=lambda run: (run.arm, run.seed)):
        first.setdefault(run.arm, run)
    served = []
    for arm, run in first.items():
        loaded = load_run(run.trained_in, trusted=trusted)
        if not isinstance(loaded.source_tokenizer, Tokenizer):
            raise InputError(f"{run.directory}: reads images, which cannot be typed")
        served.append(Served(arm, run.seed, loaded))
    return served


def application(served: Sequence[Served], *, port: int) -> Starlette:
    """The server: one page, which decodes the ``source`` of its query. It answers this machine's own names only."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import HTMLResponse, PlainTextResponse
    from starlette.routing import Route

    one_at_a_time = threading.Lock()  # a model is decoded by one thread
    own = {f"{name}:{port}" for name in (HOST, "localhost")}

    async def page(request: Request) -> Any:
        origin = request.headers.get("origin", "")
        other_site = request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        # A page elsewhere may point a name of its own at this machine, so the name that was asked for counts.
        if request.headers.get("host") not in own or (origin and origin.partition("://")[2] not in own) or other_site:
            return PlainTextResponse("attnspan-explore answers pages of this machine only\n", status_code=403)
        source = request.query_params.get("source")
        return HTMLResponse(await run_in_threadpool(answer, served, source, one_at_a_time))

    return Starlette(routes=[Route("/", page)])


def answer(served: Sequence[Served], source: str | None, lock: threading.Lock) -> str:
    """The page for a source; None for the page without one."""
    from attnspan.evaluation.decoded_again import DecodedExample
    from attnspan.reporting.explorer.document import render
    from attnspan.reporting.explorer.hypotheses import ArmOutput, explorer_of

    title = ", ".join(one.label for one in served)
    if source is None:
        return render({}, [], title=title, form=_form(""))
    try:
        with lock:
            found = [_decode(one, source) for one in served]
    except InputError as error:
        problem = str(error).removeprefix("source 0: ")
        return render({}, [], title=title, form=f'{_form(source)}<p role="alert">{html.escape(problem)}</p>')
    outputs = [
        ArmOutput(
            one.label,
            one.seed,
            DecodedExample(
                source=best.source_tokens,
                reference=(),
                output=best.tokens,
                weights=None if best.weights is None else best.weights.numpy(),
            ),
        )
        for one, (best, _) in zip(served, found, strict=True)
    ]
    same = [one for one in outputs if list(one.decoded.source) == list(outputs[0].decoded.source)]
    lists = "".join(_alternatives(one, others) for one, (_, others) in zip(served, found, strict=True))
    return explorer_of(same, title=title, form=f"{_form(source)}{lists}")


def _decode(one: Served, source: str) -> tuple[Hypothesis, list[Hypothesis]]:
    """The hypothesis of the run's own strategy, and what a beam finds."""
    tokens = len(one.loaded.source_tokenizer.encode(source)) if source.strip() else 0  # type: ignore[union-attr]
    if tokens > LONGEST:
        raise InputError(f"the source has {tokens:,} tokens, and at most {LONGEST:,} are shown")
    with warnings.catch_warnings(action="ignore"):  # of unknown tokens: the page shows them
        (best,) = one.loaded.decode([source])
        try:
            (others,) = one.loaded.decode([source], beam_size=_ALTERNATIVES, n_best=_ALTERNATIVES)
        except SettingError:
            others = []
    return best, others


def _form(source: str) -> str:
    value = html.escape(source)
    return (
        '<form method="get" action="/"><label class="choice"><span>Source</span> '
        f'<input type="search" name="source" size="50" value="{value}"></label> <button>Decode</button></form>'
    )


def _alternatives(one: Served, others: Sequence[Hypothesis]) -> str:
    rows = "".join(
        f"<li>{html.escape(other.text) or '<i>nothing</i>'} <span class='quiet'>log p {other.log_prob:.3f}</span></li>"
        for other in others
    )
    words = f"{html.escape(one.label)}: what a beam of {_ALTERNATIVES} finds"
    return f"<details><summary>{words}</summary><ol>{rows}</ol></details>"


if __name__ == "__main__":
    sys.exit(main())
