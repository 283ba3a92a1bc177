"""Mirrors on W&B, read back by what W&B itself reads them with."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mirrored:
    """What one ``.wandb`` file holds."""

    path: Path
    records: tuple[dict[str, Any], ...]

    def of(self, kind: str) -> list[Any]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @cached_property
    def run(self) -> dict[str, Any]:
        return self.of("run")[0]

    @cached_property
    def config(self) -> dict[str, Any]:
        return {key: value for key, value in self.run["config"]["update"].items() if key != "_wandb"}

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        return [record["item"] for record in self.of("history")]

    @cached_property
    def summary(self) -> dict[str, Any]:
        return {key: value for record in self.of("summary") for key, value in record["update"].items()}

    @cached_property
    def exit_code(self) -> int | None:
        return next((record["exit_code"] for record in self.of("exit")), None)

    def file(self, key: str) -> Path:
        """The file of a table or an image that was logged."""
        return self.path.parent / "files" / self.summary[f"{key}.path"]

    def table(self, key: str) -> list[dict[str, Any]]:
        content = json.loads(self.file(key).read_text(encoding="utf-8"))
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]

    def axis(self, key: str) -> str:
        """The metric that ``key`` is drawn against."""
        (axis,) = (
            metric["step_metric"]
            for metric in self.of("metric")
            if key.startswith(metric["glob_name"].removesuffix("*"))
        )
        return str(axis)


def read_mirrors(directory: Path) -> list[Mirrored]:
    """All mirrors beneath ``directory``, the oldest first."""
    from wandb.util import get_core_path

    mirrors = []
    for path in sorted(directory.rglob("*.wandb"), key=lambda path: (path.stat().st_mtime_ns, path)):
        # What ``wandb leet inspect --json`` starts, after it has imported wandb.
        place = ["--run-file", str(path), str(path.parents[1])]
        command = [get_core_path(), "leet", "inspect", "--json", *place]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        mirrors.append(Mirrored(path, tuple(json.loads(line) for line in done.stdout.splitlines())))
    return mirrors
