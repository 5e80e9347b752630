"""Results as files and as text: written whole or not at all, read by people. No torch here."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fer.config.errors import FerError

# what reading a damaged file may raise, a row number of twenty digits and brackets a thousand deep included
UNREADABLE = (OSError, LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError, csv.Error)
CHANCE = (
    "Chance: what a perfectly calibrated network of the same confidences shows on as many faces; it is never 0. "
    "Debiased: the root mean square of the bins' gaps without it (Kumar, Liang & Ma 2019), about 0 where calibrated."
)


@contextmanager
def written_whole(file: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Give a stream of text or bytes beside ``file``, and rename it to ``file`` if the block ends well."""
    part = file.with_name(f".{file.name}.part")
    try:
        with open(part, "wb") if binary else open(part, "w", newline="", encoding="utf-8") as stream:
            yield stream
        os.replace(part, file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error  # a full disk names no file by itself
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Say which file cannot be read, and why, in one line.

    Raises:
        FerError: the block met a missing or damaged file.
    """
    try:
        yield
    except UNREADABLE as error:
        raise FerError(f"{file}: cannot be read ({why(error)})") from error


def why(error: Exception) -> str:
    """Return what was wrong with a file, in one line."""
    reason = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
    return " ".join(reason.split())[:200]


def write_json(file: Path, contents: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Write plain values as JSON, whole or not at all."""
    with written_whole(file) as stream:
        json.dump(contents, stream, indent=2)
        stream.write("\n")


def read_list(file: Path) -> list[dict[str, Any]]:
    """Return the entries of a JSON file that holds a list of them.

    Raises:
        FerError: it is damaged.
    """
    try:
        entries: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("it is no list of entries")
    except ValueError as error:
        raise FerError(f"{file}: damaged ({error}); mend or move it") from error
    return entries


def read_kept(file: Path, kind: str, missing: str, sound: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return what an earlier sweep or search has kept of itself.

    Args:
        file: in its folder.
        kind: "sweep" or "search".
        missing: what a folder without the file is not.
        sound: whether contents are laid out as they should be; may raise ``LookupError`` or ``TypeError``.

    Raises:
        FerError: there is no such file, or it is damaged.
    """
    if not file.is_file():
        raise FerError(f"{file.parent}: no {missing} (it has no {file.name})")
    try:
        contents: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not sound(contents):
            raise ValueError("it is not laid out as it should be")
    except (ValueError, LookupError, TypeError) as error:
        raise FerError(f"{file}: damaged ({error}); a new {kind} in another folder is what is left") from error
    return contents


def new_folder(parent: Path, name: str) -> Path:
    """Make and return the first free of ``<name>``, ``<name>_2``... in ``parent``: no earlier result is overwritten."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        return folder


def calibration_beside(held: Mapping[str, Any], digits: int = 4) -> str:
    """Return in words the mean ECE of a calibrated network and the debiased error; empty for files that lack them.

    Args:
        held: as ``metrics.json``, or its ``clean`` or ``calibrated``.
        digits: after the point.
    """
    mean, debiased = held.get("ece_if_calibrated_mean"), held.get("ece_rms_debiased")
    if mean is None or debiased is None:
        return ""
    return f"mean of a calibrated network {mean:.{digits}f}; debiased, RMS {debiased:.{digits}f}"


def read_history(file: Path) -> list[dict[str, float]]:
    """Return the rows of a run's ``history.csv``, one an epoch."""
    with open(file, newline="", encoding="utf-8") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
