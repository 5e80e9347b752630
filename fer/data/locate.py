"""Where the faces are: the path given, else ``$FER_DATA``, else ``data/`` at the checkout's root, else drawn faces."""

import os
from pathlib import Path

from fer.config.errors import FerError, setting
from fer.data.readers.synthetic import NAME as SYNTHETIC

VARIABLE = "FER_DATA"


def how_to_get() -> str:
    """Return where FER2013 comes from, and how the command at hand finds it."""
    return (
        "FER2013 is Kaggle's 'challenges-in-representation-learning-facial-expression-recognition-challenge' "
        f"(or its copy 'msambare/fer2013'): put the file or folder into data/, or set {setting('data.path')} or "
        f"${VARIABLE}"
    )


def locate(path: str | None, *, drawn_faces_allowed: bool) -> tuple[str, bool]:
    """Return the path of the data, and whether drawn faces stand in for data that nobody named.

    Args:
        path: as given by the user, or None to look around.
        drawn_faces_allowed: whether finding nothing is answered by drawn faces.

    Raises:
        FerError: a path that was given is missing, or nothing was found and nothing may stand in.
    """
    if path == SYNTHETIC:
        return SYNTHETIC, False
    if path is not None:
        return _existing(path, setting("data.path", path)), False
    if os.environ.get(VARIABLE):
        return _existing(os.environ[VARIABLE], f"${VARIABLE}={os.environ[VARIABLE]}"), False
    folder = data_folder()
    if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        return str(folder), False
    if drawn_faces_allowed:
        return SYNTHETIC, True
    raise FerError(
        f"no data: {setting('data.path').rstrip('=')} and ${VARIABLE} are not set and {folder} is empty or missing. "
        f"{how_to_get()}"
    )


def data_folder() -> Path:
    """Return ``data/`` at the checkout's root; for an installed package, in the current folder."""
    checkout = Path(__file__).resolve().parents[2]
    return (checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()) / "data"


def _existing(path: str, given: str) -> str:
    expanded = Path(path).expanduser()
    if not path or not expanded.exists():  # Path("") is the current folder
        raise FerError(f"{given}: no such file or folder. {how_to_get()}")
    return str(expanded.absolute())  # a run is resumed and evaluated from other folders too
