"""``data_sets.json``: the results of one network on several data sets, a row each, as the command prints them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fer.metrics.results import Results
from fer.metrics.statistics import Interval
from fer.system.files import new_file, write_json
from fer.system.records import plain

STEM = "data_sets"


@dataclass(frozen=True)
class Clean:
    """The accuracy over the N faces that the network was not trained on."""

    n: int
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """The result on one data set.

    Args:
        name: of the data set.
        path: of it.
        fingerprint: of its faces.
        split: that was scored.
        n: number of faces.
        accuracy: over all of them.
        accuracy_ci95: its 95 % interval.
        macro_f1: mean F1 of the classes with faces.
        balanced_accuracy: mean recall of these.
        clean: over the faces that were not trained on; None where these are not known.
        absent: classes without faces.
        results: folder with the whole evaluation, relative to the file.
    """

    name: str
    path: str
    fingerprint: str
    split: str
    n: int
    accuracy: float | None
    accuracy_ci95: Interval | None
    macro_f1: float | None
    balanced_accuracy: float | None
    clean: Clean | None
    absent: tuple[str, ...]
    results: str


@dataclass(frozen=True)
class DataSetTable:
    """The command, and what it found on each data set, in its order."""

    command: str
    data_sets: tuple[Row, ...]


def write(found: Sequence[tuple[Results, Path]]) -> Path:
    """Write the table beside the folder of the last evaluation, under a new name, and return its path.

    Args:
        found: results and folder of the evaluation on each data set.
    """
    parent = found[-1][1].parent
    rows = tuple(_row(results, folder, parent) for results, folder in found)
    file = new_file(parent, STEM, ".json")
    write_json(file, plain(DataSetTable(found[0][0].command, rows)))
    return file


def _row(results: Results, folder: Path, parent: Path) -> Row:
    metrics, clean, data = results.metrics, results.clean, results.dataset
    return Row(
        name=data.name,
        path=data.path,
        fingerprint=data.fingerprint,
        split=results.split,
        n=results.scores.n,
        accuracy=results.scores.accuracy.value,
        accuracy_ci95=results.scores.accuracy.ci95,
        macro_f1=metrics["macro_f1"].value,
        balanced_accuracy=metrics["balanced_accuracy"].value,
        clean=None if clean is None else Clean(clean.n, clean.accuracy.value),
        absent=tuple(results.scores.absent),
        results=os.path.relpath(folder.resolve(), parent.resolve()),
    )
