"""How long the explorer takes to show an example of 91 to 100 tokens, in Chromium.

    python -m benchmarks.explorer_speed [--arms 3] [--examples 20] > benchmarks/explorer_speed.txt

The file is a synthetic one: every arm has weights from 91 to 100 source tokens to as many output tokens, none of them
0, which is the most that a study of ``data.test_lengths=[1,100]`` shows. The time is that from the choice of an example
to the end of the frame in which it is drawn, so that style, layout and painting are counted. Its weights are inflated
on the way. Examples are opened one after the other, each once. The processor's seconds are those of the page's main
thread, which a busy machine does not lengthen; rasterising happens on others.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tests.browser import Page, browser

from attnspan.reporting.explorer.document import render
from attnspan.reporting.explorer.packing import edit_path, packed, quantised

SHORTEST, LONGEST = 91, 100

_OPEN = """
(async () => {
  const message = () => new Promise((done) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => done();
    channel.port2.postMessage(0);
  });
  const frame = () => new Promise((done) => requestAnimationFrame(() => message().then(done)));
  const times = [];
  for (const example of study.examples) {
    await new Promise((done) => setTimeout(done, 100));
    const start = performance.now();
    change({ example: example.id, ref: 1 });
    while (panels[0].example !== example) await message();
    await frame();
    times.push(performance.now() - start);
  }
  return times;
})()
"""


def page(arms: int, examples: int) -> str:
    """An explorer of ``examples`` synthetic examples, in which each of the ``arms`` has attention."""
    rng = np.random.default_rng(1)
    entries, maps = zip(*(_example(rng, f"test-{n:06d}", arms) for n in range(examples)), strict=True)
    content: dict[str, object] = {
        "data": "synthetic", "metrics": [], "axes": [], "kinds": [], "notes": [], "chosen": "", "examples": entries,
        "separators": {"source": " ", "reference": " "}, "training": {"losses": [], "side": "", "errors": []},
        "arms": [
            {"label": f"arm {k}", "shown": f"arm {k}", "colour": "#0072B2", "seeds": [1], "seed": 1, "without": ""}
            for k in range(arms)
        ],
    }  # fmt: skip
    return render(content, list(maps), title="synthetic")


def _example(rng: np.random.Generator, name: str, arms: int) -> tuple[dict[str, Any], str]:
    source, reference = (_tokens(rng) for _ in range(2))
    outputs, weights = [], b""
    for _ in range(arms):
        tokens = _tokens(rng)
        drawn = rng.dirichlet(np.full(len(source), 0.3), size=len(tokens))
        weights += quantised(np.maximum(drawn, 1e-6)).tobytes()
        path = edit_path(tokens, reference)
        edits = len(path) - path.count("=")
        outputs.append(
            {"edits": edits, "edits_by_seed": [edits], "exact": False, "tokens": tokens, "path": path, "maps": 1}
        )
    gold = [[n, n] for n in range(min(len(source), len(reference)))]
    entry = {"id": name, "source": source, "reference": reference, "outputs": outputs, "gold": gold}
    return entry, packed(weights)


def _tokens(rng: np.random.Generator) -> list[str]:
    length = rng.integers(SHORTEST, LONGEST + 1)
    return [f"w{token}" for token in rng.integers(0, 30, length)]


def opened(browsed: Page, made: Path, *, view: str = "heat", width: int = 1280) -> tuple[list[float], float]:
    """Milliseconds that each example of the file takes, and those of the processor that one takes on average."""
    browsed.call("Page.navigate", url="about:blank")
    browsed.open(made, width=width, fragment=f"#view={view}")
    while not browsed.evaluate("document.querySelectorAll('.panel').length"):
        time.sleep(0.02)
    before = _processor_seconds(browsed)
    times = browsed.evaluate(_OPEN)
    return times, 1000 * (_processor_seconds(browsed) - before) / len(times)


def _processor_seconds(browsed: Page) -> float:
    browsed.call("Performance.enable", timeDomain="threadTicks")
    metrics = browsed.call("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "ThreadTime")


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", type=int, default=3)
    parser.add_argument("--examples", type=int, default=20)
    options = parser.parse_args()
    print(f"{options.examples} examples of {SHORTEST} to {LONGEST} tokens, {options.arms} arms; {platform.platform()}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, browser(Path(profile)) as browsed:
        version = browsed.evaluate("navigator.userAgent.split('Chrome/').at(-1)")
        print(f"Chromium {version}; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        made = Path(profile) / "explore.html"
        made.write_text(page(options.arms, options.examples), encoding="utf-8")
        print("milliseconds            median   90%   most   over 100   processor")
        for view, width in (("heat", 1280), ("heat", 390), ("beams", 1280)):
            times, processor = opened(browsed, made, view=view, width=width)
            middle, most = np.quantile(times, [0.5, 0.9])
            over = sum(one > 100 for one in times)
            row = f"{middle:12.0f} {most:5.0f} {max(times):6.0f} {over:10d} {processor:11.0f}"
            print(f"{view}, {width:4d} px wide  {row}")


if __name__ == "__main__":
    main()
