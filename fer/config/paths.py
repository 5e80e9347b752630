"""Paths as users write them."""

import os
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """Return a path with a home folder in place of ``~`` or ``~user``; the path itself where there is no such user."""
    return Path(os.path.expanduser(path))  # Path.expanduser raises RuntimeError for an unknown user
