"""``predictions.csv``: the prediction of a network for each face.

It is written, found and read here.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fer.config.errors import FerError
from fer.metrics import results as metrics_json
from fer.metrics.results import Results
from fer.system import hub
from fer.system.files import MOST_BYTES, contents, readable, written_whole

FILE = "predictions.csv"
ROUNDED = 1e-3  # largest deviation from 1 of a sum of probabilities, which are written with six digits


@dataclass(frozen=True)
class Scored:
    """N faces of a split with a network's probabilities.

    Args:
        images: (N, S, S) uint8 grey.
        targets: (N,) class indices.
        probabilities: (N, C) of the classes.
        rows: (N,) row in the source.
        classes: C names.
        colour: (N, 3, S, S) uint8 of the same faces, of networks that take colours; None of others.
        groups: (N,) number, from 0, of the person, video or picture that a face is of; None where no two share one.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    rows: NDArray[np.int64]
    classes: Sequence[str]
    colour: NDArray[np.uint8] | None = None
    groups: NDArray[np.int64] | None = None


class Predictions(NamedTuple):
    """The predictions for N faces, in the order of the file.

    Args:
        rows: (N,) row in the data, each once.
        targets: N names of classes, the labels.
        answers: N names of classes, the predictions.
        classes: C names.
        probabilities: (N, C) float64.
    """

    rows: NDArray[np.int64]
    targets: list[str]
    answers: list[str]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]


def write(file: Path, split: str, scored: Scored, soft: ArrayLike | None = None) -> None:
    """Write one line for each face: row,split,target,predicted,p_<class>..., with soft targets also t_<class>...

    Args:
        file: file to write, whole or not at all.
        split: name of the split.
        scored: faces of the split.
        soft: (N, D) soft targets over the first D classes, or None.
    """
    classes, table = scored.classes, scored.probabilities
    heads = [f"p_{name}" for name in classes]
    if soft is not None:
        targets = np.asarray(soft)
        heads += [f"t_{name}" for name in classes[: targets.shape[1]]]
        table = np.concatenate([table, targets], 1)
    answers = scored.probabilities.argmax(1).tolist()
    with written_whole(file) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["row", "split", "target", "predicted", *heads])
        lines = zip(scored.rows.tolist(), scored.targets.tolist(), answers, table.tolist(), strict=True)
        for row, target, guess, values in lines:
            writer.writerow([row, split, classes[target], classes[guess], *(f"{value:.6g}" for value in values)])


def read(file: Path) -> Predictions:
    """Read a ``predictions.csv``, or a compressed ``.csv.gz``.

    Raises:
        FerError: the file is missing, damaged or has no predictions; a row stands twice; values are no probabilities.
    """
    with readable(file), _opened(file) as stream:
        table = csv.DictReader(stream)
        classes = tuple(head.removeprefix("p_") for head in table.fieldnames or () if head.startswith("p_"))
        if not classes:
            raise ValueError("it has no columns p_<emotion>")
        lines = list(table)
        if short := next((number for number, line in enumerate(lines, start=2) if None in line.values()), None):
            raise ValueError(f"line {short} is cut short")
        rows = np.array([int(line["row"]) for line in lines], np.int64)
        columns = [[float(line[f"p_{name}"]) for name in classes] for line in lines]
        values = np.array(columns, np.float64).reshape(len(lines), len(classes))
        if len(np.unique(rows)) < len(rows):
            raise ValueError("a row stands twice")
        bad = ~((values >= 0) & (values <= 1)).all(1) | (np.abs(values.sum(1) - 1) > ROUNDED)
        if bad.any():
            raise ValueError(f"line {2 + int(bad.argmax())}: its values are no probabilities, which add up to 1")
        return Predictions(
            rows,
            [line["target"] for line in lines],
            [line["predicted"] for line in lines],
            classes,
            values,
        )


def _opened(file: Path) -> IO[str]:
    packed = contents(file)
    if file.suffix == ".gz":
        try:
            with gzip.open(io.BytesIO(packed)) as stream:
                unpacked = stream.read(MOST_BYTES + 1)
        except (EOFError, zlib.error) as error:  # its other faults are OSErrors
            raise ValueError(f"its compression is damaged: {error}") from error
        if len(unpacked) > MOST_BYTES:
            raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")
        packed = unpacked
    return io.TextIOWrapper(io.BytesIO(packed), encoding="utf-8-sig", newline="")


# --- folders of predictions -----------------------------------------------------------------------------------------


class Recorded(NamedTuple):
    """A file of predictions, and the results that ``fer.train`` or ``fer.evaluate`` wrote beside it."""

    file: Path
    results: Results


def name_of(split: str, views: str) -> str:
    """Return the name of the results of a split with these views of each face, such as "val_flip"."""
    return split if views == "none" else f"{split}_{views}"


def holds_weights(folder: Path) -> bool:
    """Return whether a folder has a network: the checkpoints of a run, or shared weights."""
    return (folder / "checkpoints").is_dir() or (folder / hub.NETWORK).is_file()


def holds_predictions(folder: Path) -> bool:
    """Return whether a folder without a network has predictions of any split."""
    if not folder.is_dir() or holds_weights(folder):
        return False
    named = [file for split in ("train", "val", "test", "all") for file in folder.glob(f"{split}*.csv*")]
    return bool(named) or (folder / FILE).is_file() or any(folder.glob(f"evaluations/*/{FILE}"))


def views_of(file: Path) -> str | None:
    """Return the views with which predictions were made, as the results beside them state; None without such."""
    beside = file.with_name("metrics.json" if file.name == FILE else f"{file.name.partition('.csv')[0]}.json")
    try:
        return metrics_json.read(beside).tta
    except FerError:  # a file of predictions may lie anywhere
        return None


def recorded(folder: Path, split: str, views: str) -> Recorded:
    """Return a folder's predictions of a split, and the results beside them.

    Args:
        folder: folder with ``<split>[_<views>].csv`` (or ``.csv.gz``) beside a ``.json`` of that name; or the folder
            of a run or of an evaluation.
        split: split of the faces.
        views: views of each face, a name of ``fer.inference.tta.VIEWS``.

    Raises:
        FerError: the folder has no predictions of this split with these views, or the results are damaged.
    """
    name, stored = name_of(split, views), []
    inside = folder / "evaluations" / name
    for file, beside in (
        (folder / f"{name}.csv.gz", folder / f"{name}.json"),
        (folder / f"{name}.csv", folder / f"{name}.json"),
        (inside / FILE, inside / "metrics.json"),
        (folder / FILE, folder / "metrics.json"),
    ):
        if not file.is_file():
            continue
        results = metrics_json.read(beside)
        stated = (results.split, results.tta)
        if stated == (split, views):
            return Recorded(file, results)
        stored.append(f"; {file.name} is of {stated[0]} with --tta {stated[1]}")
    raise FerError(f"{folder}: no predictions of {split} with --tta {views}{''.join(stored)}")
