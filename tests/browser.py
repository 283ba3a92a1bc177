"""Chromium without a window, spoken to over a pipe in its DevTools protocol. No driver, no port."""

from __future__ import annotations

import base64
import contextlib
import gzip
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_AXE = Path(__file__).parent / "axe_core" / "axe.min.js.gz"
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip


class Page:
    """One open page, and all that it said and asked for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._ids = to_browser, from_browser, itertools.count(1)
        self._buffer = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        message: dict[str, Any] = {"id": next(self._ids), "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _read(self, seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(end - time.monotonic(), 0))
            chunk = os.read(self._from, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError("chromium does not answer")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, *, width: int, height: int = 900, dark: bool = False, fragment: str = "") -> None:
        """Show a file in a window of this size, and wait until it is loaded."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri() + fragment)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; that of a promise when it is there."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return found["result"].get("value")

    def barriers(self) -> list[str]:
        """What axe-core finds that keeps a reader out, as it says it: WCAG 2.2 AA and its best practices."""
        self.evaluate(gzip.decompress(_AXE.read_bytes()).decode() + "; 0")
        rules = "{resultTypes: ['violations'], rules: {'target-size': {enabled: true}}}"
        told = "`${rule.id}: ${node.html.slice(0, 200)} ${node.failureSummary}`"
        found = f"({{violations}}) => violations.flatMap((rule) => rule.nodes.map((node) => {told}))"
        return self.evaluate(f"axe.run(document, {rules}).then({found})")

    def of(self, *methods: str) -> list[dict[str, Any]]:
        """Events so far."""
        self.evaluate("0")  # whatever is under way arrives before its answer
        return [event["params"] for event in self.events if event.get("method") in methods]

    def click(self, selector: str) -> None:
        """Press the mouse where the element is."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, selector: str) -> None:
        """Move the mouse to where the element is."""
        x, y = self._middle(selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def _middle(self, selector: str) -> list[float]:
        return self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect(); "
            f"return [b.x + b.width / 2, b.y + b.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        )

    def press(self, key: str) -> None:
        """Press a key that is named as in ``KeyboardEvent.key``."""
        code = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36}
        code |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        more = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code[key], **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code[key])

    def screenshot(self, path: Path) -> None:
        """A picture of the whole page."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=self._whole())
        path.write_bytes(base64.b64decode(picture["data"]))

    def _whole(self) -> dict[str, float]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def pdf(self, path: Path) -> None:
        """The page as it prints."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"]))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with a fresh profile; it ends with the block."""
    read_commands, to_browser = os.pipe()
    from_browser, write_answers = os.pipe()
    command = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={profile}"]
    script = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
    with subprocess.Popen(
        ["bash", "-c", script, "bash", *command],
        pass_fds=(read_commands, write_answers),
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(read_commands)
        os.close(write_answers)
        try:
            yield Page(to_browser, from_browser)
        finally:
            process.terminate()
            os.close(to_browser)
            os.close(from_browser)
