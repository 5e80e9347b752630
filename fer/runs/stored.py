"""``.hydra/`` of a run folder as plain values: the configuration, the overrides, the choices.

The folder may be a stranger's. The files are small, so large ones are refused.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer.config.conf import from_yaml, search_paths
from fer.config.errors import FerError
from fer.config.trust import again, taken
from fer.system.files import contents, why

MOST_BYTES = 2**18  # of a file; a run's configuration has some 5,000


def stored(folder: Path, name: str) -> Any:
    """Return a configuration file of a run folder, as plain values; interpolations stay as they are.

    Args:
        folder: run folder.
        name: "config.yaml", "hydra.yaml" or "overrides.yaml".

    Raises:
        FerError: the file is missing or damaged.
    """
    file = folder / ".hydra" / name
    try:
        return from_yaml(contents(file, MOST_BYTES).decode("utf-8"))
    except Exception as error:  # YAML and OmegaConf have a dozen classes of their own
        raise FerError(f"{file}: cannot be read ({why(error)})") from error


def choices(folder: Path) -> dict[str, str | None]:
    """Return group -> choice of a run.

    Raises:
        FerError: ``.hydra/hydra.yaml`` is missing or damaged.
    """
    mapping = _of_hydra(folder, "runtime", "choices")
    if not isinstance(mapping, dict) or not all(isinstance(choice, str | None) for choice in mapping.values()):
        raise FerError(f"{folder / '.hydra' / 'hydra.yaml'}: cannot be read (no choices of groups)")
    return mapping


def overrides(folder: Path, given: Sequence[str]) -> list[str]:
    """Return the overrides that a run was started with, its search paths last, as far as a file is trusted with them.

    Args:
        folder: run folder.
        given: overrides of the command line, which replace those of the same key.

    Raises:
        FerError: a file is damaged, or holds what only a command line may; see ``fer.config.trust``.
    """
    return taken(_all_overrides(folder), folder / ".hydra", given)


def resume_line(folder: Path, shown: Path) -> str:
    """Return the command that resumes a run, with the overrides that it has to name again.

    Args:
        folder: run folder.
        shown: the folder as messages name it.
    """
    try:
        more = again(_all_overrides(folder))
    except FerError:  # a run by code, without Hydra's files
        more = ""
    return f"python -m fer.train resume={shlex.quote(str(shown))}{more}"


def _all_overrides(folder: Path) -> list[str]:
    of_run, of_hydra = stored(folder, "overrides.yaml"), _of_hydra(folder, "overrides", "hydra")
    if not all(
        isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in (of_run, of_hydra)
    ):
        raise FerError(f"{folder / '.hydra'}: damaged; expected lists of key=value as overrides")
    return [*of_run, *search_paths(of_hydra)]


def _of_hydra(folder: Path, *keys: str) -> Any:
    entry = stored(folder, "hydra.yaml")
    for key in ("hydra", *keys):
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry
