"""The search for the data.

Its order: the given path, ``$FER_DATA``, ``data/`` here, ``data/`` at the checkout's root, drawn faces. Only a single
plain ``fer.train`` may draw faces if no data are named. A sweep, a resumed run and an evaluation never replace data by
drawn faces. The configuration keeps ``data.path: null``; the path in use is stored in ``metrics.json`` and in the
checkpoint.
"""

import os
from pathlib import Path

from fer.config.errors import FerError, setting
from fer.config.paths import expand_home
from fer.data.readers.synthetic import NAME as SYNTHETIC

VARIABLE = "FER_DATA"


def how_to_get() -> str:
    """Return instructions: the source of FER2013, and the settings by which a command finds it."""
    return (
        "FER2013 is Kaggle's 'challenges-in-representation-learning-facial-expression-recognition-challenge' "
        f"(or its copy 'msambare/fer2013'): put the file or folder into data/, or set {setting('data.path')} or "
        f"${VARIABLE}"
    )


def locate(path: str | None, *, drawn_faces_allowed: bool) -> tuple[str, bool]:
    """Return the path of the data, and whether drawn faces replace data that were not named.

    Args:
        path: the path given by the user, or None to search.
        drawn_faces_allowed: whether drawn faces are used if no data are found.

    Raises:
        FerError: a given path is missing, or no data are found and drawn faces are not allowed.
    """
    if path == SYNTHETIC:
        return SYNTHETIC, False
    if path is not None:
        return existing(path, setting("data.path", path)), False
    if os.environ.get(VARIABLE):
        return existing(os.environ[VARIABLE], f"${VARIABLE}={os.environ[VARIABLE]}"), False
    folders = data_folders()
    for folder in folders:
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            return str(folder), False
    if drawn_faces_allowed:
        return SYNTHETIC, True
    empty = f"{folders[0]} is" if len(folders) == 1 else f"{' and '.join(map(str, folders))} are"
    raise FerError(
        f"no data: {setting('data.path').rstrip('=')} and ${VARIABLE} are not set and {empty} empty or missing. "
        f"{how_to_get()}"
    )


def data_folders() -> list[Path]:
    """Return the folders that are searched: ``data/`` in the current folder, and at the root of a checkout."""
    checkout = Path(__file__).resolve().parents[2]
    roots = [Path.cwd(), *([checkout] if (checkout / "pyproject.toml").is_file() else [])]
    return [root / "data" for root in dict.fromkeys(roots)]


def existing(path: str, given: str, remedy: str = "") -> str:
    """Return the absolute path of data that a user has named.

    Args:
        path: of a file or folder.
        given: the setting, for the message.
        remedy: what to do where there is none.

    Raises:
        FerError: there is none.
    """
    whole = expand_home(path)
    if not path or not whole.exists():  # Path("") is the current folder
        raise FerError(f"{given}: no such file or folder. {remedy or how_to_get()}")
    return str(whole.absolute())  # a run may be resumed or evaluated from another folder
