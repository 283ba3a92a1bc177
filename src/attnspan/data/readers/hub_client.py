"""Requests to the Hugging Face hub: repeated where a failure may pass, told in one line where it does not.

The hub's client repeats some requests itself, others not at all. It keeps a file only when all its bytes have arrived,
but does not compare them with the hub's checksum; :func:`damaged_download` does.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from attnspan.checksums import sha256
from attnspan.errors import InputError

T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0)
"""Seconds to wait before each repetition."""

LONGEST_WAIT = 60.0
"""The longest wait, in seconds, that the hub may ask for. If it asks for more, the user is told."""

_PASSING = (408, 429, 500, 502, 503, 504)
"""Status codes of failures that may pass."""

TIMEOUT = 20.0
"""Seconds to wait for the next bytes of an answer, where the client itself sets no limit."""

COPY = "a copy of the dataset on this machine is given by data.path=DIRECTORY"
UNREACHABLE = f"check the network and HF_ENDPOINT; {COPY}"
"""What to do where there is no answer."""

_INCOMPLETE = re.compile(r"Consistency check failed: file should be of size (\d+) but has size (\d+) \(([^)]*)\)")
_AGAIN = "the same command tries again, and does not repeat what has arrived"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A request to the hub that failed."""

    status: int | None
    """The status code of the answer; None where none came, or not all of it."""
    code: str | None = None
    """The hub's own name of the error, such as ``GatedRepo``."""
    words: str
    """What the hub or the client says of it."""
    file: str | None
    """The file in the dataset that was asked for."""
    wait: float = 0.0
    """Seconds after which the hub wants to be asked again."""
    may_pass: bool
    """Whether the client has not repeated the request, and another one may succeed."""

    def explain(self, page: str) -> str:
        """The file, the reason and the remedy. ``page`` is the address of the dataset for people."""
        reason, remedy = self._reason(page)
        return "; ".join(filter(None, [f"{self.file}: {reason}" if self.file else reason, remedy]))

    def _reason(self, page: str) -> tuple[str, str]:
        if self.status is None:
            return self.words, _AGAIN
        if self.code == "GatedRepo":
            return "access is restricted", f"accept the terms at {page}, then `hf auth login` or set HF_TOKEN"
        if self.status == HTTPStatus.UNAUTHORIZED:
            return "the hub refuses the token", "set HF_TOKEN to a valid one or unset it, or `hf auth login`"
        if self.code == "EntryNotFound":
            return "there is no such file at this revision", "choose another data.revision"
        phrase = next((one.phrase for one in HTTPStatus if one == self.status), "")
        reason = f"the hub answers {self.status} {phrase}".rstrip()
        if self.words and self.words not in phrase:
            reason += f" ({shorten(self.words)})"
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            when = f"in {self.wait:.0f} s" if self.wait else "later"
            return reason, f"give the same command {when}; with a token (`hf auth login`) the hub allows more"
        return reason, _AGAIN if self.may_pass else COPY


def find_failure(error: BaseException) -> Failure | None:
    """The failed request behind ``error``, which builders wrap in errors of their own; None if there is none."""
    from datasets.utils.file_utils import CONNECTION_ERRORS_TO_RETRY

    for one in _chain(error):
        response: Any = getattr(one, "response", None)
        if isinstance(status := getattr(response, "status_code", None), int):
            urls = [str(each.request.url) for each in (*response.history, response)]
            return Failure(
                status=status,
                code=response.headers.get("X-Error-Code"),
                words=response.headers.get("X-Error-Message") or "",
                file=next(filter(None, map(_file_of, urls)), None),
                wait=_wait_of(response.headers),
                may_pass=status in _PASSING,
            )
        if isinstance(one, CONNECTION_ERRORS_TO_RETRY):
            request = getattr(one, "_request", None)  # the property raises where there is none
            file = _file_of(str(request.url)) if request is not None else None
            return Failure(status=None, words=f"the connection broke ({one_line(one)})", file=file, may_pass=False)
        if "is a gated dataset" in str(one):  # `datasets` has dropped the answer
            return Failure(status=HTTPStatus.UNAUTHORIZED, code="GatedRepo", words="", file=None, may_pass=False)
        if isinstance(one, OSError) and (match := _INCOMPLETE.search(str(one))):
            words = f"{match[2]} bytes have arrived instead of {match[1]}"
            file = None if match[3].startswith("(") else match[3]  # part of an address
            return Failure(status=None, words=words, file=file, may_pass=True)
    return None


def patiently(call: Callable[[], T], what: str) -> T:
    """The result of ``call``, which is repeated after failures that may pass; each is told on standard error.

    Args:
        call: makes requests to the hub.
        what: is asked for, for the messages.

    Raises:
        Exception: the error of ``call`` that did not pass.
    """
    for least in WAITS:
        never_wait_forever()  # the client makes a new session after some errors
        try:
            return call()
        except Exception as error:
            failure = find_failure(error)
            if failure is None or not failure.may_pass or failure.wait > LONGEST_WAIT:
                raise
            wait, reason = max(least, failure.wait), failure.status or "incomplete"
            print(f"{what}: the hub's answer was {reason}; trying again in {wait:.0f} s", file=sys.stderr)
            time.sleep(wait)
    return call()


def check_token() -> None:
    """Check that the token can stand in a request: the client's error would print it.

    Raises:
        InputError: it cannot.
    """
    from huggingface_hub import get_token

    if (token := get_token()) and not re.fullmatch(r"[!-~]+", token):
        problem = "the token for the hub holds characters that no token has; set it anew, or unset it"
        raise InputError(f"HF_TOKEN: {problem} and `hf auth login`")


def never_wait_forever() -> None:
    """Let no request of the client wait longer than :data:`TIMEOUT` for bytes; some have no limit of their own."""
    from huggingface_hub.utils import get_session

    session = get_session()
    hooks = session.event_hooks
    if _limit not in hooks["request"]:
        session.event_hooks = hooks | {"request": [*hooks["request"], _limit]}


def _limit(request: Any) -> None:
    limits = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {name: seconds or TIMEOUT for name, seconds in limits.items()}


def branches(name: str) -> list[str]:
    """The branches and tags of a dataset; none where the hub does not say."""
    from huggingface_hub import HfApi

    try:
        refs = HfApi().list_repo_refs(name, repo_type="dataset")
    except Exception:  # of the client; this is only a hint
        return []
    return [one.name for one in (*refs.branches, *refs.tags)] + [one.ref for one in refs.converts]


def damaged_download(name: str, commit: str) -> Path | None:
    """A file of a dataset in the client's cache whose content is not the hub's. It is removed from the cache.

    Raises:
        Exception: the hub's checksums cannot be had.
    """
    from huggingface_hub import HfApi, RepoFile, constants

    directory = Path(constants.HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}", "snapshots", commit)
    files = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    if not files:
        return None
    entries = [
        entry
        for first in range(0, len(files), 500)
        for entry in HfApi().get_paths_info(name, files[first : first + 500], repo_type="dataset", revision=commit)
    ]
    for entry in entries:
        if not isinstance(entry, RepoFile):
            continue
        path, lfs = directory / entry.path, entry.lfs
        if (lfs and sha256(path) != lfs.sha256) or (not lfs and _git_hash(path) != entry.blob_id):
            path.resolve().unlink(missing_ok=True)  # the snapshot has links to the contents
            path.unlink(missing_ok=True)
            return path
    return None


def shorten(text: str) -> str:
    """``text`` in one line of at most 300 characters, without tokens and signatures of addresses."""
    from huggingface_hub import get_token

    if token := get_token():
        text = text.replace(token, "<token>")
    text = re.sub(r"Bearer [^'\"]+", "Bearer <token>", text)
    text = re.sub(r"(https?://)[^/@\s'\"]+@", r"\1", text)
    text = re.sub(r"(https?://[^\s'\"?]+)\?[^\s'\"]*", r"\1", text)
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def one_line(error: BaseException) -> str:
    """The message of an error and of its cause, as :func:`shorten` makes it."""
    text = str(error).strip() or type(error).__name__
    cause = str(error.__cause__ or "").strip()
    return shorten(text if cause in text else f"{text} {cause}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and all that led to it."""
    seen: list[BaseException] = []
    next_ones: list[BaseException | None] = [error]
    while next_ones:
        one = next_ones.pop(0)
        if one is not None and one not in seen:
            seen.append(one)
            yield one
            next_ones += [one.__cause__, one.__context__]


def _file_of(url: str) -> str | None:
    """The file that an address of the hub, or of its storage, means."""
    parts = urlsplit(url)
    if match := re.search(r"/resolve/[^/]+/(.+)$", parts.path.replace("refs/convert/", "")):
        return unquote(match[1])
    if re.search(r"/(tree|paths-info)/", parts.path):
        return "the list of files"
    disposition = parse_qs(parts.query).get("response-content-disposition", [""])[0]
    match = re.search(r'filename="([^"]+)"', disposition)
    return match[1] if match else None


def _wait_of(headers: Any) -> float:
    """Seconds to wait, by ``Retry-After`` or by the hub's ``RateLimit``; 0 if neither says."""
    if (said := headers.get("Retry-After") or "").strip().isdigit():
        return float(said)
    match = re.search(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("RateLimit") or "")
    return float(match[1]) if match else 0.0


def _git_hash(path: Path) -> str:
    """The name that git gives to the content of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
