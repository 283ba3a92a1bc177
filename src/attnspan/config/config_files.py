"""Where the config files are, what each says of itself, and which of them a part of a run's config comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from attnspan.errors import InputError
from attnspan.runs.stable_name import stable_name

LABEL = "label"
"""The key of an arm's or a data set's file with its name in tables and plots; it is no setting of a run."""


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


@dataclass(frozen=True)
class ConfigFiles:
    """The config files of attnspan, and of a user's own folders.

    Of two files with one name it is attnspan's that trains, as Hydra has it; the label is that of the user's.
    """

    own: tuple[Path, ...] = ()

    def described(self, group: str, name: str) -> str:
        """The first sentence of a file; empty where there is no such file."""
        return next((describe_config(path) for path in self._files(group, name)), "")

    def label(self, group: str, name: str) -> str:
        """The ``label`` of a file, else its name.

        Raises:
            InputError: it is not a text, or the file is not YAML.
        """
        for path in reversed(self._files(group, name)):
            if LABEL in (content := _content(path)):
                check_label(content[LABEL], f"{path}: {LABEL}")
                return str(content[LABEL])
        return name

    def own_choices(self, group: str) -> dict[str, tuple[Path, dict[str, Any]]]:
        """Path and content of every file of a group in the user's own folders, by name; of two, the first folder's."""
        paths = [path for one in reversed(self.own) for path in sorted((one / group).glob("*.yaml"))]
        return {path.stem: (path, _content(path)) for path in paths}

    def choice(self, config: dict[str, Any], path: str) -> str:
        """The choice that a class of a run's config comes from, as in ``score=forward``.

        Args:
            config: of the run.
            path: dotted, of the node with the class; ``rnn.cell`` is found in the files of the group ``rnn``.

        Returns:
            The last word of the group's name and the file's name; the class's name where it is in no file.
        """
        words = path.split(".")
        node = _at(config, words)
        target = stable_name(str(node["_target_"]))
        for end in range(len(words), 1 if words[0] in ("decoder", "data") else 0, -1):  # an arm has one file
            around, inside = _at(config, words[:end]), words[end:]
            files = self._group(words[:end])
            named = {stem: content for stem, content in files if _target(_at(content, inside)) == target}
            # Only a file that is alone with the class may differ from the part in other classes, as that of an old run.
            found = [stem for stem in sorted(named) if len(named) == 1 or _has_classes_of(named[stem], around)]
            if found:
                return f"{words[end - 1]}={max(found, key=lambda stem: _agreement(named[stem], around))}"
        for end in range(len(words) - 1, 0, -1):  # one part within another of the same group
            for stem, content in self._group(words[:end]):
                if _target(content) == target:
                    return f"{words[-1]}={stem}"
        return f"{words[-1]}={str(node['_target_']).rpartition('.')[2]}"

    def _directories(self) -> list[Path]:
        return [conf_directory(), *self.own]

    def _files(self, group: str, name: str) -> list[Path]:
        """The files of a choice, attnspan's first."""
        paths = [directory / group / f"{name}.yaml" for directory in self._directories()]
        return [path for path in paths if path.is_file()]

    def _group(self, words: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and content of each file of a group, with what it takes from others of the group."""
        paths = [path for one in reversed(self._directories()) for path in sorted(one.joinpath(*words).glob("*.yaml"))]
        files = {path.stem: path for path in paths}
        for stem in files:
            yield stem, _with_defaults(stem, files)


ATTNSPANS = ConfigFiles()
"""Those of attnspan alone."""


def check_label(label: object, key: str) -> None:
    """Raise :class:`InputError` for a label that is not a text of one line."""
    if not isinstance(label, str) or not label.strip() or "\n" in label:
        raise InputError(f"{key}: must be a text of one line, not {label!r}")


def _content(path: Path) -> dict[str, Any]:
    return _read(path, path.stat().st_mtime_ns)


@cache
def _read(path: Path, changed: int) -> dict[str, Any]:
    """The content of a file, which a notebook may change and read again."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise InputError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from error
    return content if isinstance(content, dict) else {}


def _with_defaults(stem: str, files: Mapping[str, Path]) -> dict[str, Any]:
    """The content of a file over that of the files of its group that its defaults list names."""
    content = _content(files[stem])
    found: dict[str, Any] = {}
    for one in content.get("defaults") or []:
        if isinstance(one, str) and one in files and one != stem:
            found = _over(found, _with_defaults(one, files))
    return _over(found, {key: value for key, value in content.items() if key != "defaults"})


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two mappings as one; the values of ``above`` are stronger."""
    both = {
        key: _over(below[key], above[key])
        for key in below.keys() & above.keys()
        if isinstance(above[key], dict) and isinstance(below[key], dict)
    }
    return below | above | both


def _at(node: Any, words: Sequence[str]) -> dict[str, Any]:
    for word in words:
        node = node.get(word) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _target(node: dict[str, Any]) -> str | None:
    return stable_name(str(node["_target_"])) if "_target_" in node else None


def _has_classes_of(content: dict[str, Any], node: dict[str, Any]) -> bool:
    """Whether every class that a file names, at any depth, stands in the node too."""
    if _target(content) not in (None, _target(node)):
        return False
    parts = ((key, child) for key, child in content.items() if isinstance(child, dict))
    return all(_has_classes_of(child, _at(node, [key])) for key, child in parts)


def _agreement(content: dict[str, Any], node: dict[str, Any]) -> int:
    """How many of a file's values the node has."""
    return sum(1 for key, value in content.items() if key != "_target_" and node.get(key) == value)
