"""What many tests compose from the same files and the same words is read, parsed and composed once."""

from __future__ import annotations

import copy
import functools
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigResult

from attnspan.config.compose import compose_config


def remember_parts() -> None:
    """Let Hydra keep the files that it has read, and the words that it has parsed."""
    read, parse = FileConfigSource.load_config, OverridesParser.parse_rule
    files: dict[tuple[object, ...], ConfigResult] = {}

    def load_config(self: FileConfigSource, config_path: str) -> ConfigResult:
        path = os.path.join(self.path, self._normalize_file_name(config_path))
        if not os.path.isfile(path):
            return read(self, config_path)
        facts = os.stat(path)
        key = (self.path, self.provider, path, facts.st_ino, facts.st_mtime_ns, facts.st_size)
        if key not in files:
            files[key] = read(self, config_path)
        return copy.deepcopy(files[key])

    @functools.cache
    def parsed(text: str, rule: str) -> Any:
        return parse(OverridesParser.create(), text, rule)

    def parse_rule(self: OverridesParser, s: str, rule_name: str) -> Any:
        return copy.deepcopy(parsed(s, rule_name))

    FileConfigSource.load_config = load_config  # type: ignore[method-assign]
    OverridesParser.parse_rule = parse_rule  # type: ignore[method-assign]


def compose_once(overrides: tuple[str, ...], *, place: Path, cache: Path) -> dict[str, Any]:
    """The config of :func:`compose_config`, kept in ``place`` for all processes of a test session.

    Args:
        overrides: of the config.
        place: a directory that the processes share.
        cache: where this process has its prepared data.
    """
    path = place / hashlib.sha256(repr(overrides).encode()).hexdigest()
    if not path.exists():
        GlobalHydra.instance().clear()
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(pickle.dumps(compose_config(*overrides)))
        part.rename(path)
    config: dict[str, Any] = pickle.loads(path.read_bytes())
    return config | {"cache_dir": str(cache)}
