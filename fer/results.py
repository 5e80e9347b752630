"""Results as files and as text: written whole or not at all, read by people. No torch here."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fer.errors import FerError


@contextmanager
def written_whole(file: Path) -> Iterator[IO[str]]:
    """Give a text stream beside ``file``, and rename it to ``file`` if the block ends well."""
    part = file.with_name(f".{file.name}.part")
    try:
        with open(part, "w", newline="", encoding="utf-8") as stream:
            yield stream
        os.replace(part, file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error  # a full disk names no file by itself
    finally:
        part.unlink(missing_ok=True)


def write_json(file: Path, contents: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Write plain values as JSON, whole or not at all."""
    with written_whole(file) as stream:
        json.dump(contents, stream, indent=2)
        stream.write("\n")


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


def score_table(results: Mapping[str, Any]) -> str:
    """Return the closing table: split, faces, accuracy with its interval, macro-F1, balanced accuracy, NLL, ECE."""
    low, high = (100 * value for value in results["accuracy_ci95"])
    heads = ("split", "faces", "accuracy, 95 % interval", "macro-F1", "balanced", "NLL", "ECE")
    cells = (
        str(results["split"]),
        f"{results['n']:,}",
        f"{100 * results['accuracy']:.2f} %  [{low:.2f}, {high:.2f}]",
        f"{100 * results['macro_f1']:.2f} %",
        f"{100 * results['balanced_accuracy']:.2f} %",
        f"{results['nll']:.4f}",
        f"{results['ece']:.4f}",
    )
    return text_table(heads, [cells])


def class_table(results: Mapping[str, Any]) -> str:
    """Return the table of the classes: faces, precision, recall with its interval, F1."""
    rows = []
    for name, values in results["per_class"].items():
        low, high = (100 * value for value in values["recall_ci95"])
        precision, recall, f1 = (f"{100 * values[figure]:5.1f} %" for figure in ("precision", "recall", "f1"))
        rows.append((name, f"{values['support']:>6,}", precision, f"{recall}  [{low:.1f}, {high:.1f}]", f1))
    return text_table(("emotion", " faces", "precision", "recall, 95 % interval", "F1"), rows)


def read_history(file: Path) -> list[dict[str, float]]:
    """Return the rows of a run's ``history.csv``, one an epoch."""
    with open(file, newline="", encoding="utf-8") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text in columns, with a line under the heads."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (heads, *rows)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join(line.rstrip() for line in (lines[0], rule, *lines[1:]))


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as a table in Markdown."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (heads, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], ["---"] * len(heads), *lines[1:]))


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss, or m:ss below an hour."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
