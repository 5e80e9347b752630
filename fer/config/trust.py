"""The check of overrides: which may come from the command line, and which from files.

A folder may be a stranger's. Run folders, sweeps, searches and campaigns store the overrides of their command line.
Some of Hydra's own keys name code that it would import and call. A resumed folder could thus run any code. Therefore

- ``hydra.callbacks``, both keys of logging and every ``_target_`` are taken from nowhere;
- a few keys are taken from a file only if the command line names them again. They are Hydra's other keys, search
  paths, plugins, a search's database, MLflow's address and interpolations (``${oc.env:NAME}``);
- of the rest, only keys of the settings and groups of ``conf/`` are taken.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from fer.config.errors import FerError
from fer.config.settings import TrainSettings

CODE = re.compile(r"[^=]*\bhydra[./](?:callbacks|job_logging|hydra_logging)\b|.*\b_target_\b|[^=]*@", re.DOTALL)
KEY = re.compile(r"[a-z_]+(?:[./]\w+)*=.*", re.DOTALL)
SECTIONS = {field.name for field in fields(TrainSettings)} | {"experiment", "tune", "space"}
# code, a database, a server, variables
NAMED_AGAIN = re.compile(r"hydra\b|(?:plugins|tune\.storage|logger\.mlflow_uri)=|.*\$\{", re.DOTALL)
FOLDER = re.compile(r"hydra\.searchpath=\['file://([^'\\]+)'\]")  # one folder, as --config-dir gives it
PATHS = ("resume", "init_from")  # keys outside sections whose values are paths, which a choice of a group never is
LONGEST = 10_000  # characters of a stored override
SHOWN = 80  # characters of a refused override in a message


def refuse_code(overrides: Sequence[str]) -> None:
    """Refuse overrides by which Hydra would import and call what they name.

    Raises:
        FerError: an override sets callbacks, logging or a ``_target_``, or moves a group to another key.
    """
    for text in overrides:
        if not text.startswith("-") and CODE.match(text):
            raise FerError(
                f"{text[:SHOWN]}: refused, Hydra would run the code that it names; networks, losses and readers of "
                "your own are plugins: plugins=[MODULE]"
            )


def runs_nothing(text: str) -> bool:
    """Return whether a text has the form of an override of a setting: no key of Hydra, plugin, option or variable."""
    return KEY.fullmatch(text) is not None and not CODE.match(text) and not NAMED_AGAIN.match(text)


def settable(text: Any) -> bool:
    """Return whether a stored text is an override of a key of the settings or of a group, which runs nothing."""
    if not isinstance(text, str) or len(text) > LONGEST or not runs_nothing(text):
        return False
    key, _, value = text.partition("=")
    elsewhere = "." not in key and key not in PATHS and re.search(r"\.\.|^['\"\[]*/", value)  # a choice outside conf/
    return re.split(r"[./]", key)[0] in SECTIONS and not elsewhere


def named_again(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that a resumed folder's command line has to repeat, since files alone are not trusted."""
    return [text for text in overrides if NAMED_AGAIN.match(text)]


def again(overrides: Sequence[str]) -> str:
    """Return the text that the command line of a resumed folder ends with; empty where nothing is to be repeated."""
    words: list[str] = []
    for text in named_again(overrides):
        folder = FOLDER.fullmatch(text)
        words += ["--config-dir", folder[1]] if folder else [text]
    return f" {shlex.join(words)}" if words else ""


def taken(stored: Sequence[str], file: Path, given: Sequence[str]) -> list[str]:
    """Return the overrides that a file stores, after a check of each.

    Args:
        stored: overrides.
        file: file or folder, for messages.
        given: overrides of the command line, which replace stored ones of the same key.

    Raises:
        FerError: an override is taken from a command line alone, or from nowhere.
    """
    keys = {text.partition("=")[0] for text in given}
    left = [text for text in stored if text.partition("=")[0] not in keys and not settable(text)]
    for text in left:
        if not NAMED_AGAIN.match(text) or CODE.match(text) or len(text) > LONGEST:
            raise FerError(f"{file}: {text[:SHOWN]!r} is refused; a file may set nothing but keys of fer.train")
    if left:
        raise FerError(
            f"{file}: holds settings that may run code, read this machine's variables or send results elsewhere; if "
            f"you trust it, add:{again(left)}"
        )
    return list(stored)
