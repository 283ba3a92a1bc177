"""A small Hugging Face hub on this machine, which the real client talks to.

It speaks the part of the hub's API that `huggingface_hub` and `datasets` use to read a dataset: the dataset's entry,
its file tree, and its files. As on the hub, large files are redirected to another address, where no token may be sent;
all files have an ETag, and parts of them can be asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

LARGE = 1 << 10
"""Bytes from which a file lies at the other address; on the hub it is the kind of file that decides."""

SIGNATURE = "signature-of-an-address"
"""It must not be printed."""


@dataclass
class Repository:
    """A dataset: its commits, and the branches that name them."""

    commits: dict[str, dict[str, bytes]]
    """Full hash to the files of the commit by path."""
    branches: dict[str, str]
    gated: bool = False
    """Whether only :attr:`Hub.token` may read it."""

    def commit(self, revision: str) -> str | None:
        """The full hash of a branch or a commit."""
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    range: str | None
    token: bool
    """Whether it had a token."""
    status: int


@dataclass
class Fault:
    """What goes wrong, instead of an answer or with it.

    Args:
        where: a regular expression for the paths.
        status: of the answer; None for the right one.
        headers: of the answer.
        wait: seconds before the answer.
        cut_after: bytes of the body after which the connection is cut.
        short: bytes that the body has instead of all of them, in a whole answer.
        times: how often it happens; then all is well.
        method: it happens to these requests only.
        words: the hub's own explanation.
    """

    where: str = ""
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0
    cut_after: int | None = None
    short: int | None = None
    times: float = float("inf")
    method: str = "HEAD|GET|POST"
    words: str = ""


class Hub:
    """The server, and what came to it.

    Attributes:
        repositories: name to dataset.
        faults: what goes wrong; the first that fits counts.
        asked: all requests so far.
        token: the only one that may read gated datasets.
    """

    def __init__(self, *, token: str = "hf_a_token_of_the_tests") -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.token = token
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._storage = _Server(("127.0.0.1", 0), _Handler)  # another origin, as the hub's storage
        self._storage.hub = self

    @property
    def url(self) -> str:
        """For ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def storage_url(self) -> str:
        """Where large files lie."""
        return f"http://127.0.0.1:{self._storage.server_port}"

    def add(self, name: str, files: Mapping[str, bytes], *, commit: str | None = None, **options: Any) -> str:
        """Add a commit to a dataset, move its branch ``main`` there, and return the commit's hash."""
        commit = commit or hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repository = self.repositories.setdefault(name, Repository({}, {}))
        repository.commits[commit] = dict(files)
        repository.branches[options.pop("branch", "main")] = commit
        for key, value in options.items():
            setattr(repository, key, value)
        return commit

    def count(self, where: str, method: str = "GET") -> int:
        """How many requests of a method had a path that fits."""
        return sum(one.method == method and re.search(where, one.path) is not None for one in self.asked)

    def fault(self, method: str, path: str) -> Fault | None:
        """What goes wrong with this request."""
        for one in self.faults:
            if one.times > 0 and re.fullmatch(one.method, method) and re.search(one.where, path):
                one.times -= 1
                return one
        return None


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub that listens."""
    one = Hub()
    servers = (one._server, one._storage)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield one
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    hub: Hub
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _answer(self) -> None:
        hub, path = self.server.hub, unquote(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = hub.fault(self.command, path) or Fault()
        time.sleep(fault.wait)
        if fault.status is None:
            status, headers, content = self._right_answer(path, body)
        else:
            status, headers, content = fault.status, dict(fault.headers), fault.words.encode()
            if fault.words:
                headers["X-Error-Message"] = fault.words
        if fault.short is not None:
            content = content[: fault.short]
        token = self.headers.get("Authorization")
        hub.asked.append(Asked(self.command, path, self.headers.get("Range"), token is not None, status))
        try:
            self._send(status, headers, content, fault.cut_after)
        except OSError:  # who asked is gone
            self.close_connection = True

    def _send(self, status: int, headers: dict[str, str], content: bytes, cut_after: int | None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[:cut_after])
        if cut_after is not None:
            self.wfile.flush()
            # So that the other side sees a broken connection and no end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    def _right_answer(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        hub = self.server.hub
        if match := re.match(r"/storage/(\w+)", path):
            names = parse_qs(urlsplit(path).query)["response-content-disposition"]
            return self._part(_blobs(hub)[match[1]], {"ETag": f'"{match[1]}"', "Content-Disposition": names[0]})
        name, rest = _split(path, hub)
        repository = hub.repositories.get(name)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token != hub.token:
            return _refusal(401, None, "Invalid credentials in Authorization header")
        if repository is None:  # without a token the hub does not tell what does not exist
            return _refusal(404 if token else 401, "RepoNotFound", "Repository not found")
        for pattern, serve in self._routes():
            if match := re.fullmatch(pattern, rest):
                revision, *more = match.groups(default="main")
                commit = repository.commit(revision)
                if commit is None:
                    return _refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                return serve(name, repository, commit, *more, body)
        return _refusal(404, None, f"no such address: {path}")

    def _routes(self) -> list[tuple[str, Callable[..., tuple[int, dict[str, str], bytes]]]]:
        return [
            (r"(?:/revision/(.+))?", self._entry),
            (r"/refs(\?.*)?", self._refs),
            (r"/tree/(refs/convert/parquet|[^/?]+)(/[^?]*)?(\?.*)?", self._tree),
            (r"/paths-info/(.+)", self._paths),
            (r"/resolve/(refs/convert/parquet|[^/]+)/(.+)", self._file),
        ]

    def _entry(self, name: str, repository: Repository, commit: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        siblings = [{"rfilename": path} for path in repository.commits[commit]]
        entry = {"id": name, "sha": commit, "siblings": siblings, "private": False, "disabled": False}
        return _json(entry | {"gated": "auto" if repository.gated else False, "tags": [], "likes": 0, "downloads": 0})

    def _refs(self, name: str, repository: Repository, commit: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        refs = [(branch, commit) for branch, commit in repository.branches.items()]
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
            for name, commit in refs
            if "/" not in name
        ]
        converts = [
            {"name": name.rpartition("/")[2], "ref": name, "targetCommit": commit}
            for name, commit in refs
            if "/" in name
        ]
        return _json({"branches": branches, "converts": converts, "tags": []})

    def _tree(
        self, name: str, repository: Repository, commit: str, folder: str, query: str, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        folder = folder.strip("/") if folder != "main" else ""
        recursive = parse_qs(query.lstrip("?")).get("recursive", ["false"])[0].lower() == "true"
        found = _entries(repository.commits[commit], folder, recursive=recursive)
        if not found:
            return _refusal(404, "EntryNotFound", f"{folder} does not exist on {commit}")
        return _json(found)

    def _paths(self, name: str, repository: Repository, commit: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        wanted = parse_qs(body.decode())["paths"]
        everything = _entries(repository.commits[commit], "", recursive=True)
        return _json([one for one in everything if one["path"] in wanted])

    def _file(
        self, name: str, repository: Repository, commit: str, path: str, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        hub, about = self.server.hub, {"X-Repo-Commit": commit}
        if repository.gated and self.headers.get("Authorization") != f"Bearer {hub.token}":
            problem = f"Access to dataset {name} is restricted. You must have access to it and be authenticated."
            return _refusal(401, "GatedRepo", problem)
        content = repository.commits[commit].get(path)
        if content is None:
            status, headers, text = _refusal(404, "EntryNotFound", "Entry not found")
            return status, headers | about, text
        if len(content) < LARGE:
            return self._part(content, about | {"ETag": f'"{_git_hash(content)}"'})
        digest = hashlib.sha256(content).hexdigest()
        about |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        # The address says the file's name and has a signature, which is a secret for some hours.
        query = urlencode({"response-content-disposition": f'inline; filename="{path}";', "Signature": SIGNATURE})
        return 302, about | {"Location": f"{hub.storage_url}/storage/{digest}?{query}"}, b""

    def _part(self, content: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """The whole file, or the part that was asked for."""
        headers = headers | {"Accept-Ranges": "bytes"}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            return 200, headers, content
        first = int(match[1])
        end = min(int(match[2] or len(content)) + 1, len(content)) if match[2] else len(content)
        if first >= len(content):
            return 416, headers | {"Content-Range": f"bytes */{len(content)}"}, b""
        return 206, headers | {"Content-Range": f"bytes {first}-{end - 1}/{len(content)}"}, content[first:end]


def _split(path: str, hub: Hub) -> tuple[str, str]:
    """The name of the dataset, and the path below it."""
    path = re.sub(r"^(/api)?/datasets/", "", path)
    known = next((name for name in hub.repositories if path == name or path.startswith(f"{name}/")), None)
    name = known or "/".join(urlsplit(path).path.split("/")[:2])
    return name, path.removeprefix(name)


def _entries(files: Mapping[str, bytes], folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """The files and folders below ``folder``, as the hub tells them."""
    below = f"{folder}/" if folder else ""
    found: dict[str, dict[str, Any]] = {}
    for path, content in files.items():
        if not path.startswith(below):
            continue
        parents = path[len(below) :].split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            of_folder = below + "/".join(parents[:depth])
            if recursive or depth == 1:
                found[of_folder] = {"type": "directory", "path": of_folder, "oid": "0" * 40, "size": 0}
        if recursive or not parents:
            entry = {"type": "file", "path": path, "size": len(content), "oid": _git_hash(content)}
            if len(content) >= LARGE:
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
            found[path] = entry
    return list(found.values())


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _blobs(hub: Hub) -> dict[str, bytes]:
    contents = [
        content
        for repository in hub.repositories.values()
        for files in repository.commits.values()
        for content in files.values()
    ]
    return {hashlib.sha256(content).hexdigest(): content for content in contents}


def _json(content: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _refusal(status: int, code: str | None, words: str) -> tuple[int, dict[str, str], bytes]:
    headers = {"X-Error-Message": words, "Content-Type": "application/json"}
    if code:
        headers["X-Error-Code"] = code
    return status, headers, json.dumps({"error": words}).encode()
