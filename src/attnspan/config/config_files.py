"""Where the config files are, and what each says of itself in its first sentence."""

from __future__ import annotations

from pathlib import Path


def conf_directory() -> Path:
    """The directory of the configs: inside the installed package, or at the top of the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def describe_config(path: Path) -> str:
    """The first sentence at the head of a config file, which may take several lines."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.lstrip("# ").strip()
        if not line.startswith("#") or (lines and not words):
            break
        if words and not words.startswith("@"):
            lines.append(words)
            if words.endswith((".", "?")):
                break
    return " ".join(lines)
