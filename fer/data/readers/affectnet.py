"""Readers of AffectNet (Mollahosseini et al. 2017).

One reads the tables of 2017, another the folders of 2021. 2017: ``training.csv`` and ``validation.csv`` name pictures
of ``Manually_Annotated_Images``, with the face's box and the emotion's number. 2021: ``train_set/images/0.jpg`` is a
cut-out face, and ``train_set/annotations/0_exp.npy`` its number; likewise ``val_set``. Numbers have AffectNet's own
meaning in these two layouts alone: copies under the same name have other orders.
"""

import csv
import io
from pathlib import Path

import numpy as np

from fer.data.crop import Box
from fer.data.readers.picture_set import Listing, PictureSet, Sample, first_of, published_note, unlisted_note
from fer.system.files import opened, why

WORDS = (
    "neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt", "none", "uncertain", "no face",
)  # fmt: skip
MEANING = "numbers are AffectNet's: " + ", ".join(f"{number} {word}" for number, word in enumerate(WORDS))
EMOTIONS = WORDS[:7]  # those of the published counts
FILES = ((0, "training.csv", 283_901), (1, "validation.csv", 3_500))  # split, table, its published faces of EMOTIONS
COLUMNS = ("subdirectory_filepath", "face_x", "face_y", "face_width", "face_height", "expression")
SETS = {"train_set": 0, "val_set": 1}


# --- tables of 2017 -------------------------------------------------------------------------------------------------


def has_tables(path: Path) -> bool:
    """Return whether ``path`` has one of the tables, with AffectNet's columns."""
    return path.is_dir() and any(_is_table(table) for _, table, _ in _tables(path))


def _tables(path: Path) -> list[tuple[int, Path, int]]:
    tables = ((split, first_of(path / name, path / "Manually_Annotated_file_lists" / name), published)
             for split, name, published in FILES)  # fmt: skip
    return [(split, table, published) for split, table, published in tables if table is not None]


def _is_table(table: Path) -> bool:
    with opened(table) as stream:
        head = stream.readline(1000).decode("utf-8", "replace").lower()
    return all(column in head for column in COLUMNS)


def listed_tables(path: Path) -> Listing:
    """Return the faces of the tables, each with the box of its picture."""
    listing = Listing(notes=[MEANING])
    annotated = path / "Manually_Annotated" / "Manually_Annotated_Images"
    pictures = first_of(path / "Manually_Annotated_Images", annotated) or path
    for split, table, published in _tables(path):
        listing.tables.append(table)
        before = len(listing.samples)
        with opened(table) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="") as stream:
            heads = [head.lower() for head in split_line(next(stream, ""))]
            for number, line in enumerate(stream, start=2):
                where = f"{table}, line {number}"
                listing.add(where, _sample(dict(zip(heads, split_line(line), strict=False)), pictures, split, where))
        count = sum(sample.label in EMOTIONS for sample in listing.samples[before:])
        listing.notes.append(published_note(count, published, f"faces of seven emotions in {table.name}"))
    return listing


def split_line(line: str) -> list[str]:
    """Return the fields of one line; none if it is broken. An open quote cannot include the next line."""
    try:
        return [field.strip() for field in next(csv.reader([line]), [])]
    except csv.Error:
        return []


def _sample(row: dict[str, str], pictures: Path, split: int, where: str) -> Sample | str:
    """Return the face of a row, or its problem."""
    if missing := [column for column in COLUMNS if not row.get(column)]:
        return f"has no {missing[0]}; expected {', '.join(COLUMNS)}"
    word = _word(row["expression"])
    if word is None:
        return f"expression is {row['expression'][:20]!r}; it is one of 0 to {len(WORDS) - 1}"
    picture = pictures / row["subdirectory_filepath"]
    if word in WORDS[8:]:  # they are left out, and may have no box
        return Sample(picture, word, split, where=where)
    try:
        box = Box(*(float(row[column]) for column in COLUMNS[1:5]))
    except ValueError:
        box = Box(0, 0, 0, 0)
    if not (box.width > 0 and box.height > 0):
        return "has no box of a face in pixels in face_x, face_y, face_width, face_height"
    return Sample(picture, word, split, box=box, where=where)


def _word(number: str) -> str | None:
    """Return the word of an emotion's number; None for another text."""
    text = number.strip()
    return WORDS[int(text)] if text in map(str, range(len(WORDS))) else None


# --- folders of 2021 ------------------------------------------------------------------------------------------------


def has_folders(path: Path) -> bool:
    """Return whether ``path`` has one of the folders with pictures and annotations."""
    folders = [path / name for name in SETS]
    return any((folder / "images").is_dir() and (folder / "annotations").is_dir() for folder in folders)


def listed_folders(path: Path) -> Listing:
    """Return the cut-out faces of both folders."""
    listing = Listing(notes=[MEANING])
    for name, split in SETS.items():
        pictures, annotated = path / name / "images", []
        for file in sorted((path / name / "annotations").glob("*_exp.npy")):
            listing.tables.append(file)
            annotated.append(pictures / f"{file.name.removesuffix('_exp.npy')}.jpg")
            try:  # a number, or a text of one
                word = _word(str(np.load(file, allow_pickle=False).item()))
            except (OSError, ValueError, EOFError) as error:
                listing.add(file, f"holds no emotion's number ({why(error)})")
                continue
            problem = f"expected an emotion's number, 0 to {len(WORDS) - 1}"
            listing.add(file, problem if word is None else Sample(annotated[-1], word, split))
        listing.notes += unlisted_note(pictures, annotated, f"{name}/annotations")
    return listing


TABLES = PictureSet("affectnet", "AffectNet, tables of 2017", has_tables, listed_tables)
FOLDERS = PictureSet("affectnet", "AffectNet, folders of 2021", has_folders, listed_folders)
