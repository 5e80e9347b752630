"""The user's modules that register networks, losses, optimizers, schedules and readers.

No Hydra here, whose import takes a while.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fer.config.errors import FerError, setting


def listed(names: str | None) -> list[str]:
    """Return the modules that an option ``--plugins`` names, separated by commas."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def import_plugins(names: Sequence[str]) -> None:
    """Import modules that register networks, losses, readers and the like, from the current folder or Python's path.

    Raises:
        FerError: a module cannot be imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # a plugin is the user's code and may raise anything, or exit
            found = f"{setting('plugins', name)}: could not be imported ({type(error).__name__}: {error})"
            raise FerError(f"{found}{_advice(name, error)}") from error


def _advice(name: str, error: BaseException) -> str:
    """Return what would be right where the module itself was not found; empty where something in it failed."""
    if os.sep in name or name.endswith(".py"):
        return f"; name a module, not a file: {Path(name).stem}, from the folder that it is in"
    if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
        return f"; modules are searched for in the current folder, {os.getcwd()}, and in PYTHONPATH"
    return ""
