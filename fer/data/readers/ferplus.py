"""Reader of FER+ (Barsoum et al. 2016): ten votes for each image.

Votes come from ``fer2013new.csv`` or from the folders of its generator. ``fer2013new.csv`` has one row for each row of
``fer2013.csv``, in the same order, and is joined by row. The numbers in its column ``Image name`` are not row numbers
throughout. The generator's folders ``FER2013Train|Valid|Test`` contain PNG files and a ``label.csv`` with votes but
without FER2013's labels; ``fer.data.votes`` derives labels from the votes.
"""

import csv
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.data.faces import UNKNOWN, BadRows, Faces, OnBad, Source
from fer.data.labels import FERPLUS_COLUMNS, SPLITS, USAGES, emotion_index
from fer.data.readers.images import PictureError, read_picture
from fer.data.readers.picture_set import pictures_in, unlisted_note
from fer.system.files import opened_text
from fer.system.text import plural

LABELS = "label.csv"
VOTES_ALONE = "votes, no labels"  # value of Source.labels
FOLDERS = {"FER2013Train": 0, "FER2013Valid": 1, "FER2013Test": 2}

# vote column -> index in EMOTIONS; -1 for contempt, unknown and NF (not a face)
COLUMN_EMOTIONS = np.array([-1 if (i := emotion_index(name)) is None else i for name in FERPLUS_COLUMNS], np.int8)

# joined by row, the votes' arg-max agrees with FER2013's label on 62 % of PrivateTest; shifted by one row, on 18 %.
# Of any 100 rows in sequence it agrees on at least 47 %; shifted, on at most 32 %
LEAST_AGREEMENT, SEQUENCE = 0.4, 100


def recognises(path: Path) -> bool:
    """Return whether ``path`` contains folders of the FER+ generator."""
    return path.is_dir() and any((path / folder / LABELS).is_file() for folder in FOLDERS)


def files(path: Path) -> list[Path]:
    """Return the files that ``read`` would open."""
    paths = []
    for folder in FOLDERS:
        if (path / folder).is_dir():
            paths += sorted(Path(entry.path) for entry in os.scandir(path / folder) if entry.is_file())
    return paths


def read(path: Path, *, image_size: int = 48, on_bad: OnBad = "error") -> Faces:
    """Read the generator's folders, whose faces have votes but no labels.

    Raises:
        FerError: no usable face; with ``on_bad="error"`` a bad row or picture.
    """
    bad = BadRows(on_bad)
    notes = [note for folder in FOLDERS for note in _unlisted(path / folder, bad)]
    images: list[NDArray[np.uint8]] = []
    votes: list[list[int]] = []
    official: list[int] = []
    rows: list[int] = []
    row = 0
    for folder, split in FOLDERS.items():
        for where, fields in _label_rows(path / folder / LABELS):
            face = _face(where, fields, path / folder, image_size, bad)
            if face is not None:
                images.append(face[0])
                votes.append(face[1])
                official.append(split)
                rows.append(row)
            row += 1
    if not images:
        raise FerError(f"{path}: holds no usable face")
    splits = np.array(official, np.int8)
    return Faces(
        images=np.stack(images),
        targets=np.full(len(images), UNKNOWN, np.int8),
        official=splits,
        given=splits,
        rows=np.array(rows, np.int64),
        votes=np.array(votes, np.uint8),
        source=Source("ferplus", "FER+ folders", str(path), VOTES_ALONE, tuple(notes), tuple(bad.messages)),
    )


def _unlisted(folder: Path, bad: BadRows) -> Iterator[str]:
    """Yield a note on pictures that the folder's ``label.csv`` does not name; pictures without that file are bad."""
    if (folder / LABELS).is_file():
        yield from unlisted_note(folder, (folder / fields[0] for _, fields in _label_rows(folder / LABELS)), LABELS)
    elif count := len(pictures_in(folder)):
        bad.add(folder, f"{plural(count, 'picture')} without votes, since its {LABELS} is missing")


def _label_rows(file: Path) -> Iterable[tuple[str, list[str]]]:
    if file.is_file():
        with _as_csv(file), opened_text(file) as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():  # parsed line by line: an open quote must not include the next face
                    yield f"{file}, line {number}", next(csv.reader([line]))


@contextmanager
def _as_csv(origin: object) -> Iterator[None]:
    try:
        yield
    except (UnicodeDecodeError, csv.Error, OSError) as error:  # such as an archive, a picture or a spreadsheet
        raise FerError(f"{origin}: is no CSV file ({error})") from error


def _face(
    where: str, fields: list[str], folder: Path, image_size: int, bad: BadRows
) -> tuple[NDArray[np.uint8], list[int]] | None:
    """Return picture and votes of a face; None if one is bad and bad rows are skipped."""
    votes = _votes(fields[2:])
    if votes is None:
        bad.add(where, f"expected a file name, a box and {len(FERPLUS_COLUMNS)} votes 0 to 10")
        return None
    try:
        return read_picture(folder / fields[0], image_size)[0], votes
    except PictureError as error:
        bad.add(folder / fields[0], str(error))
        return None


def _votes(fields: list[str]) -> list[int] | None:
    """Return ten votes, or None if these are not ten whole numbers 0 to 10, at least one above 0."""
    if len(fields) != len(FERPLUS_COLUMNS) or not all(re.fullmatch(r"\s*[0-9]{1,9}\s*", field) for field in fields):
        return None
    votes = [int(field) for field in fields]
    return votes if 0 < max(votes) <= 10 else None  # the arg-max of ten zeros would be neutral


def join_votes(faces: Faces, file: Path) -> Faces:
    """Return ``faces`` with the votes of ``fer2013new.csv``, joined by row.

    Raises:
        FerError: the file is missing or bad, has too few rows, or belongs to another table.
    """
    given = setting("data.votes", file)
    usages, votes = _read_votes(file)
    if not faces.source.layout.startswith("table"):
        raise FerError(f"{given}: votes are joined by row and need the CSV table, not {faces.source.layout}")
    if faces.rows.max() >= len(votes):
        least = f"{faces.rows.max() + 1:,}"
        raise FerError(
            f"{given}: has {len(votes):,} rows, but {faces.source.path} has at least {least}; expected the votes of "
            "this table"
        )
    joined, usage = votes[faces.rows], usages[faces.rows]
    different = np.flatnonzero((usage != faces.official) & (faces.official != UNKNOWN))
    if different.size:
        row = int(faces.rows[different[0]])
        names = [SPLITS[int(split)] for split in (usage[different[0]], faces.official[different[0]])]
        raise FerError(f"{given}: row {row} is in {names[0]}, but in {faces.source.path} it is in {names[1]}")
    joined_faces, labelled = replace(faces, votes=joined), faces.targets != UNKNOWN
    if not labelled.any():
        return joined_faces.noted("FER+ votes joined by row; there are no labels to check them against")
    agreeing = (COLUMN_EMOTIONS[joined.argmax(1)] == faces.targets)[labelled]
    shares, surplus = _shares_agreeing(agreeing), _surplus(faces, votes)
    if (low := np.flatnonzero(shares < LEAST_AGREEMENT)).size:
        sequence = faces.rows[labelled][low[0] :][:SEQUENCE]
        raise FerError(
            f"{given}: agrees with the labels of {faces.source.path} on only {shares[low[0]]:.0%} of the rows "
            f"{sequence[0]} to {sequence[-1]}; "
            + "; ".join(["expected the votes of this table, in the order of its rows", *surplus])
        )
    return joined_faces.noted(
        f"FER+ votes joined by row; their arg-max agrees with the labels on {agreeing.mean():.1%}",
        *surplus,
    )


def _shares_agreeing(agreeing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share that agrees of each ``SEQUENCE`` rows in sequence, by the first of them.

    Args:
        agreeing: (N,) of the rows with a label, N > 0. Fewer than ``SEQUENCE`` are one sequence.
    """
    length = min(SEQUENCE, len(agreeing))
    before = np.concatenate(([0], np.cumsum(agreeing)))
    shares: NDArray[np.float64] = (before[length:] - before[:-length]) / length
    return shares


def _surplus(faces: Faces, votes: NDArray[np.uint8]) -> list[str]:
    """Return a note on rows of votes behind the last face, if there are any."""
    surplus = len(votes) - 1 - int(faces.rows.max())
    return (
        [f"{plural(surplus, 'row')} of votes after the last face: rows may be missing in the table"] if surplus else []
    )


def _read_votes(file: Path) -> tuple[NDArray[np.int8], NDArray[np.uint8]]:
    """Return (N,) int8 splits and (N, 10) uint8 votes of ``fer2013new.csv``."""
    given = setting("data.votes", file)
    if not file.is_file():
        raise FerError(f"{given}: no such file; expected FER+'s fer2013new.csv")
    with _as_csv(given), opened_text(file) as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in ("Usage", *FERPLUS_COLUMNS) if name not in (reader.fieldnames or ())]
        if missing:
            raise FerError(f"{given}, line 1: no column {missing[0]!r}; expected FER+'s fer2013new.csv")
        usages, votes = [], []
        for row in reader:
            numbers = _votes([row[name] or "" for name in FERPLUS_COLUMNS])
            if numbers is None or (row["Usage"] or "").lower() not in USAGES:
                raise FerError(f"{given}, line {reader.line_num}: expected a Usage and ten votes 0 to 10")
            usages.append(USAGES[row["Usage"].lower()])
            votes.append(numbers)
    return np.array(usages, np.int8), np.array(votes, np.uint8)
