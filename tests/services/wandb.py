"""A small W&B server on this machine, which the real client (its Go process `wandb-core`) talks to.

It takes what the client sends, as GraphQL, as the stream of a run's files, and as uploads, and keeps it in memory.
Lines of a stream have an offset. Rows of history have a step; W&B keeps one row for each.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

KEY = "0123456789abcdef" * 2 + "01234567"
"""The only key that opens the server."""
ENTITY = "somebody"


@dataclass
class Run:
    """What the server has of a run."""

    name: str
    project: str
    fields: dict[str, Any] = field(default_factory=dict)
    """What was said of it last: group, job type, tags, ..."""
    config: dict[str, Any] = field(default_factory=dict)
    streams: dict[str, dict[int, str]] = field(default_factory=dict)
    """File of the stream to its lines by offset."""
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    started: int = 0
    """How often a process has begun or resumed it."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of history: one for each step, the last that came; in the order of steps."""
        lines = self.streams.get("wandb-history.jsonl", {})
        rows = [json.loads(lines[number]) for number in sorted(lines)]
        return sorted({row["_step"]: row for row in rows}.values(), key=lambda row: row["_step"])

    @property
    def summary(self) -> dict[str, Any]:
        """The last summary."""
        lines = self.streams.get("wandb-summary.json", {})
        return json.loads(lines[max(lines)]) if lines else json.loads(self.fields.get("summaryMetrics") or "{}")

    def updates(self, key: str) -> list[int]:
        """The updates at which a key was logged."""
        return [row["update"] for row in self.rows if key in row]


@dataclass
class Server:
    """The server, and what came to it.

    Attributes:
        runs: id to run.
        sweeps: id to config, and the commands that agents will get.
        views: saved workspaces and reports.
        charts: presets of charts.
        unknown: GraphQL operations that it does not know.
        asked: what was asked, in order: operation or path.
        away: while it is set, every connection breaks.
        status: while it is set, every answer is this error.
    """

    runs: dict[str, Run] = field(default_factory=dict)
    sweeps: dict[str, dict[str, Any]] = field(default_factory=dict)
    commands: list[dict[str, Any]] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    charts: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    away: bool = False
    status: int | None = None
    url: str = ""

    def run(self, name: str, project: str = "") -> Run:
        """The run of an id, which is made if it is new."""
        return self.runs.setdefault(name, Run(name, project))


@contextmanager
def wandb_server() -> Iterator[Server]:
    """A server that listens."""
    server = Server()
    listener = _Listener(("127.0.0.1", 0), _Handler)
    listener.state = server
    server.url = f"http://127.0.0.1:{listener.server_port}"
    threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()


class _Listener(ThreadingHTTPServer):
    state: Server
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Print nothing: clients go away when they like."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        state = self.server.state
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if state.away:
            self.close_connection = True
            return
        path = unquote(self.path)
        status, answer = (state.status, {"error": "trouble"}) if state.status else self._answer(path, body)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_GET  # noqa: N815

    def _answer(self, path: str, body: bytes) -> tuple[int, Any]:
        state = self.server.state
        if path.startswith("/upload/"):
            _, _, kind, name, file = path.split("/", 4)
            (state.run(name).files if kind == "run" else state.artifacts[name]["files"])[file] = body
            return 200, {}
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode():
            return 401, {"errors": [{"message": "user is not logged in", "code": 401}]}
        if path == "/graphql":
            asked = json.loads(body)
            name = asked.get("operationName") or _operation(asked["query"])
            state.asked.append(name)
            answer = _OPERATIONS.get(name)
            if answer is None:
                state.unknown.append(asked["query"])
                return 200, {"errors": [{"message": f"unknown operation {name}"}]}
            try:
                given = asked.get("variables") or {}
                given = given.get("input", given) if isinstance(given.get("input"), dict) else given
                return 200, {"data": answer(state, given, asked["query"])}
            except Exception as error:  # a fault of this server
                state.unknown.append(f"{error!r}: {body!r}")
                return 400, {"errors": [{"message": repr(error)}]}
        if match := re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path):
            state.asked.append("file_stream")
            _take(state.run(match[3], match[2]), json.loads(body))
            return 200, {"exitcode": None, "limits": {}}
        state.unknown.append(f"{self.command} {path}")
        return 404, {"error": "no such address"}


def _operation(query: str) -> str:
    match = re.search(r"(?:query|mutation)\s+(\w+)", query)
    return match[1] if match else query.strip()[:80]


def _take(run: Run, sent: dict[str, Any]) -> None:
    for file, part in sent.get("files", {}).items():
        lines = run.streams.setdefault(file, {})
        for number, line in enumerate(part["content"], start=part["offset"]):
            lines[number] = line
    if sent.get("complete"):
        run.exit_code = sent["exitcode"]


Variables = dict[str, Any]


def _upsert_run(state: Server, given: Variables, query: str) -> Any:
    name = given.get("name") or _storage_name(given["id"])
    inserted = name not in state.runs
    run = state.run(name, given.get("project") or "attnspan")
    run.project = given.get("project") or run.project
    run.fields |= {key: value for key, value in given.items() if value is not None}
    run.config = json.loads(given["config"]) if given.get("config") else run.config
    return {"upsertBucket": {"bucket": _bucket(run), "inserted": inserted}}


def _storage_name(storage_id: str) -> str:
    return storage_id.removeprefix("storage-")


def _project(name: str) -> dict[str, Any]:
    return {"id": f"project-{name}", "name": name, "entity": {"id": "entity-1", "name": ENTITY}, "internalId": "1"}


def _bucket(run: Run) -> dict[str, Any]:
    history, events, output = (
        run.streams.get(file, {}) for file in ("wandb-history.jsonl", "wandb-events.jsonl", "output.log")
    )
    started = {key: value for key, value in run.config.get("_wandb", {}).get("value", {}).items() if key == "t"}
    return {
        "id": f"storage-{run.name}",
        "name": run.name,
        "displayName": run.fields.get("displayName"),
        "description": None,
        "config": json.dumps(run.config),
        "sweepName": run.fields.get("sweep"),
        "project": _project(run.project),
        "historyLineCount": len(history),
        "eventsLineCount": len(events),
        "logLineCount": len(output),
        "historyTail": json.dumps([history[number] for number in sorted(history)][-1:]),
        "eventsTail": json.dumps([events[number] for number in sorted(events)][-1:]),
        "summaryMetrics": json.dumps(run.summary),
        "tags": run.fields.get("tags") or [],
        "notes": run.fields.get("notes"),
        "wandbConfig": json.dumps(started),
    }


def _resume_status(state: Server, given: Variables, query: str) -> Any:
    run = state.runs.get(given["name"])
    bucket = _bucket(run) if run else None
    return {"model": {**_project(given["project"]), "bucket": bucket}}


def _run_files(state: Server, given: Variables, query: str) -> Any:
    files = [{"name": name, "uploadUrl": f"{state.url}/upload/run/{given['run']}/{name}"} for name in given["files"]]
    return {"createRunFiles": {"runID": f"storage-{given['run']}", "uploadHeaders": [], "files": files}}


def _viewer(state: Server, given: Variables, query: str) -> Any:
    teams = {"edges": [{"node": {"name": ENTITY}}]}
    return {
        "viewer": {"id": "user-1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": teams}
    }


def _create_artifact(state: Server, given: Variables, query: str) -> Any:
    name = f"artifact-{len(state.artifacts) + 1}"
    state.artifacts[name] = {"input": given, "files": {}, "committed": False}
    artifact = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
    return {"createArtifact": {"artifact": artifact}}


def _manifest(state: Server, name: str) -> dict[str, Any]:
    file = {"id": "file-1", "uploadUrl": f"{state.url}/upload/artifact/{name}/{MANIFEST}", "uploadHeaders": []}
    return {"artifactManifest": {"id": f"manifest-of-{name}", "file": file}}


def _artifact_files(state: Server, given: Variables, query: str) -> Any:
    nodes = [
        {
            "name": one["name"],
            "displayName": one["name"],
            "storagePath": f"there/{one['name']}",
            "uploadUrl": f"{state.url}/upload/artifact/{one['artifactID']}/{one['name']}",
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "artifact": {"id": one["artifactID"]},
        }
        for one in given["artifactFiles"]
    ]
    return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}


def _commit_artifact(state: Server, given: Variables, query: str) -> Any:
    state.artifacts[given["artifactID"]]["committed"] = True
    return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}


def _upsert_sweep(state: Server, given: Variables, query: str) -> Any:
    name = f"sweep{len(state.sweeps) + 1}"
    state.sweeps[name] = given
    sweep = {"name": name, "project": _project(given["projectName"])}
    return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}


def _sweep(state: Server, given: Variables, query: str) -> Any:
    config = state.sweeps[given["sweep"]]["config"]
    return {"project": {"sweep": {"id": "1", "name": given["sweep"], "config": config, "runs": {"edges": []}}}}


def _heartbeat(state: Server, given: Variables, query: str) -> Any:
    commands, state.commands = state.commands[:1], state.commands[1:]
    return {"agentHeartbeat": {"agent": {"id": "agent-1"}, "commands": json.dumps(commands)}}


def _create_chart(state: Server, given: Variables, query: str) -> Any:
    state.charts.append(given)
    return {"createCustomChart": {"chart": {"id": f"{given['entity']}/{given['chartName']}"}}}


def _upsert_view(state: Server, given: Variables, query: str) -> Any:
    state.views.append(given)
    view = {
        "id": f"view-{len(state.views)}",
        **{key: given.get(key) for key in ("name", "type", "displayName", "spec")},
    }
    view |= {"description": given.get("description") or "", "updatedAt": None}
    view["project"] = {**_project(given["projectName"]), "entityName": ENTITY}
    return {"upsertView": {"view": view, "inserted": True}}


MANIFEST = "wandb_manifest.json"


def _project_entry(name: str) -> dict[str, Any]:
    entry = {"__typename": "Project", "entityName": ENTITY, "createdAt": "2026-01-01T00:00:00Z", "isBenchmark": False}
    return _project(name) | entry | {"user": None}


def _projects(state: Server, given: Variables, query: str) -> Any:
    edges = [{"node": _project_entry(name)} for name in {run.project for run in state.runs.values()}]
    info = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
    return {"models": {"pageInfo": info, "edges": edges}}


_OPERATIONS: dict[str, Callable[[Server, Variables, str], Any]] = {
    "Viewer": _viewer,
    "ServerFeaturesQuery": lambda *_: {"serverInfo": {"features": []}},
    "UpsertBucket": _upsert_run,
    "RunResumeStatus": _resume_status,
    "CreateRunFiles": _run_files,
    "GetDefaultEntity": _viewer,
    "GetProject": lambda state, given, _: {"project": _project_entry(given["name"])},
    "GetProjects": _projects,
    "ArtifactType": lambda *_: {"project": {"artifact": None}},
    "CreateArtifact": _create_artifact,
    "CreateArtifactManifest": lambda state, given, _: {"createArtifactManifest": _manifest(state, given["artifactID"])},
    "UpdateArtifactManifest": lambda state, given, _: {
        "updateArtifactManifest": _manifest(state, given["artifactManifestID"].removeprefix("manifest-of-"))
    },
    "CreateArtifactFiles": _artifact_files,
    "CommitArtifact": _commit_artifact,
    "UpsertSweep": _upsert_sweep,
    "SweepWithRuns": _sweep,
    "CreateAgent": lambda *_: {"createAgent": {"agent": {"id": "agent-1"}}},
    "Heartbeat": _heartbeat,
    "CreateCustomChart": _create_chart,
    "UpsertView2": _upsert_view,
    "upsertView": _upsert_view,
    "RunStoppedStatus": lambda *_: {"project": {"run": {"stopped": False}}},
}
