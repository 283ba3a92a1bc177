"""The environment of processes that we start: they import what we import, whatever lies in the current directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def child_environment(**variables: str) -> dict[str, str]:
    """The environment for ``python -m ...``, with ``variables`` added.

    Python puts the current directory in front of its path for a module. There a user may have a ``datasets.py`` or a
    ``random.py`` for something else, which the command ``attnspan-train`` never sees. It is imported from only if this
    process does, as where ``PYTHONPATH`` names it.
    """
    places = {Path(place).resolve() for place in sys.path}  # the empty place is the current directory
    safe = {} if Path.cwd() in places else {"PYTHONSAFEPATH": "1"}
    return os.environ | safe | variables
