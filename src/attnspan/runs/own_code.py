"""The code of a user's own that a config names: it belongs to the run's id, and the run's directory keeps a copy.

``own_code`` of a config maps each source file to a hash: of the modules from outside of attnspan that ``_target_``
names, and of the modules of a user's own that those import, directly or not. A file is named as from the directory in
which Python finds it, as in ``my_scores.py`` or ``my_package/scores.py``. A class of an installed package is named by
the package, with its version and a hash of its list of files. attnspan itself, Python's own library, torch and
Lightning are left out: ``RESULTS_VERSION`` and the summary's ``versions`` stand for them. Nothing is imported here.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from attnspan.errors import InputError
from attnspan.files import write_atomically
from attnspan.runs.layout import OWN_CODE
from attnspan.runs.stable_name import class_paths

_LIBRARIES = {"attnspan", "hydra_plugins", "hydra", "torch", "lightning", "optuna", *sys.stdlib_module_names}
"""Top-level modules whose code is no user's."""


_frozen: dict[Path, bytes] | None = None


def freeze_own_code() -> None:
    """From now on a source file counts as it was when this process first read it, as Hydra's config files do.

    A sweep composes jobs for hours, and they are jobs of one sweep.
    """
    global _frozen
    _frozen = {} if _frozen is None else _frozen


def own_code(node: Any) -> dict[str, str]:
    """Source file -> hash, for every class that ``node`` names: a config, a part of one, or a list of parts."""
    return code_of(class_paths(node))


def code_of(paths: Iterable[str]) -> dict[str, str]:
    """Source file -> hash, for the classes at these dotted paths."""
    own, installed = _sources(paths)
    found = {name: _digest(_read(path)) for name, path in own.items()}
    return dict(sorted((found | {package: _release(package) for package in installed}).items()))


def keep_own_code(config: Mapping[str, Any], directory: Path) -> None:
    """Copy the source files of ``config["own_code"]`` into a run's directory, unless they are there.

    The copy can be imported: ``PYTHONPATH=<run>/own_code``.

    Raises:
        InputError: a file has changed since the config was composed, or cannot be written.
    """
    expected = config.get(OWN_CODE) or {}
    missing = [name for name in _files(expected) if not _is_kept(directory / OWN_CODE / name, expected[name])]
    if not missing:
        return
    own, _ = _sources(class_paths(config))
    for name in missing:
        content = _read(own[name]) if name in own else b""
        if _digest(content) != expected[name]:
            raise InputError(f"{name} has changed since this run was composed; give the command again")
        write_atomically(directory / OWN_CODE / name, content, durable=False)


def kept_files(config: Mapping[str, Any], directory: Path) -> list[str]:
    """The copies in a run's directory, named as from there."""
    names = (f"{OWN_CODE}/{name}" for name in _files(config.get(OWN_CODE) or {}))
    return [name for name in names if (directory / name).is_file()]


def use_kept_code(config: Mapping[str, Any], directory: Path) -> list[str]:
    """Have Python import the copies in a run's directory, if the user's own code is not what it was.

    Returns:
        What has changed since the config was composed: source files, and installed packages.
    """
    changed = changed_code(config, config.get(OWN_CODE) or {})
    if _files(changed):
        sys.path.insert(0, str((directory / OWN_CODE).absolute()))
    return changed


def changed_code(node: Any, expected: Mapping[str, str]) -> list[str]:
    """The files and packages of the classes that ``node`` names whose hash is not the ``expected`` one, by name."""
    return [name for name, digest in own_code(node).items() if expected.get(name) != digest]


def _files(names: Iterable[str]) -> list[str]:
    """Without the packages, which are named by one word."""
    return [name for name in names if "." in name]


def _is_kept(path: Path, digest: str) -> bool:
    return path.is_file() and _digest(path.read_bytes()) == digest


def _read(path: Path) -> bytes:
    if _frozen is None:
        return path.read_bytes()
    return _frozen.setdefault(path, path.read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _sources(paths: Iterable[str]) -> tuple[dict[str, Path], set[str]]:
    """The source files of a user's own, by name, and the installed packages to which the other classes belong."""
    own: dict[str, Path] = {}
    installed: set[str] = set()
    for path in paths:
        module = path.rpartition(".")[0]
        if _root(module) in _LIBRARIES:
            continue
        if _is_installed(spec := _find(_root(module))):
            installed.add(_root(module))
        elif spec is not None:
            _add_module(path, own)  # the class may be a module's attribute: what is no module is passed over
    return own, installed


def _add_module(name: str, own: dict[str, Path]) -> None:
    """Add the file of a module of a user's own, of the packages around it, and of all that they import."""
    words = name.split(".")
    for end in range(1, len(words) + 1):
        module = ".".join(words[:end])
        spec = _find(module)
        if spec is None or _is_installed(spec):
            return
        origin = Path(spec.origin) if spec.has_location and spec.origin else None
        if origin is None or not origin.is_file():  # a namespace package has no file
            continue
        key = Path(*words[: end - 1], *([words[end - 1]] if spec.submodule_search_locations is not None else []))
        key_name = (key / origin.name).as_posix()
        if key_name in own:
            continue
        own[key_name] = origin
        package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
        for imported in _imports(origin, package):
            if _root(imported) not in _LIBRARIES:
                _add_module(imported, own)


def _imports(path: Path, package: str) -> Iterator[str]:
    """What a file imports anywhere, dotted; the names that it takes from a module may be modules, too."""
    try:
        tree = ast.parse(_read(path))
    except (SyntaxError, ValueError):  # compiled, or Python will say what is wrong when it imports the file
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" if module else alias.name for alias in node.names)


def _find(module: str) -> ModuleSpec | None:
    """Where Python would find a module; unlike ``importlib.util.find_spec`` this imports no package around it."""
    first, *others = module.split(".")
    at_the_top = (finder.find_spec(first, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    spec = next((one for one in at_the_top if one is not None), None)
    name = first
    for word in others:
        name = f"{name}.{word}"
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        importers = [importer for place in places if (importer := pkgutil.get_importer(place)) is not None]
        inside = (importer.find_spec(name, None) for importer in importers)
        spec = next((one for one in inside if isinstance(one, ModuleSpec)), None)
    return spec


def _is_installed(spec: ModuleSpec | None) -> bool:
    """Whether a module belongs to an installed package; one that is installed as editable is a user's own."""
    places = [spec.origin or "", *(spec.submodule_search_locations or ())] if spec is not None else []
    return any({"site-packages", "dist-packages"} & set(Path(place).parts) for place in places)


def _release(package: str) -> str:
    """The version of an installed package, and a hash of the list of its files, which has a hash of each."""
    names = importlib.metadata.packages_distributions().get(package, ())
    words = []
    for name in sorted(set(names)):
        distribution = importlib.metadata.distribution(name)
        record = (distribution.read_text("RECORD") or "").splitlines()
        words.append(f"{distribution.version} {_digest(chr(10).join(sorted(record)).encode())}")
    return ", ".join(words) or "unknown"


def _root(module: str) -> str:
    return module.partition(".")[0]
