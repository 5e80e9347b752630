"""Reader of RAF-DB, basic emotions (Li et al. 2017).

It reads ``EmoLabel`` with ``Image/aligned``, or class folders 1 to 7. ``EmoLabel/list_patition_label.txt`` (so spelt)
has a line ``train_00001.jpg 5`` for each picture; the aligned picture is ``Image/aligned/train_00001_aligned.jpg``. A
common copy has ``train/5/train_00001_aligned.jpg`` instead. Digits mean RAF-DB's emotions only in these two layouts,
where file names are RAF-DB's own.
"""

import re
from pathlib import Path

from fer.data.faces import UNKNOWN
from fer.data.labels import SPLIT_FOLDERS
from fer.data.readers.image_folder import class_folders
from fer.data.readers.picture_set import (
    Listing,
    PictureSet,
    Sample,
    a_picture,
    first_of,
    lines_of,
    pictures_in,
    published_note,
    unlisted_note,
)

EMOTIONS = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")  # RAF-DB's 1 to 7
TABLES = ("EmoLabel/list_patition_label.txt", "EmoLabel/list_partition_label.txt")
LINE = re.compile(r"((train|test)_\d+)\.jpg\s+([1-7])")
ALIGNED = re.compile(r"(train|test)_\d+_aligned\.\w+")
PUBLISHED = 15_339  # pictures of train and test


def recognises(path: Path) -> bool:
    """Return whether ``path`` is RAF-DB, its folder ``basic``, or its copy with class folders."""
    return path.is_dir() and (_table(path) is not None or _is_copy(path))


def _table(path: Path) -> Path | None:
    return first_of(*(root / table for root in (path, path / "basic") for table in TABLES))


def _is_copy(path: Path) -> bool:
    """Return whether all class folders are named 1 to 7, and their pictures as RAF-DB's are."""
    folders = list(class_folders(path))
    if not folders or any(split == UNKNOWN or folder.name not in tuple("1234567") for split, folder in folders):
        return False
    return ALIGNED.fullmatch(a_picture(folders[0][1])) is not None


def listed(path: Path) -> Listing:
    """Return the pictures of train and test."""
    table = _table(path)
    listing = _of_copy(path) if table is None else _of_table(table)
    meaning = ", ".join(f"{number} {name}" for number, name in enumerate(EMOTIONS, start=1))
    listing.notes[:0] = [f"digits are RAF-DB's: {meaning}", published_note(len(listing.samples), PUBLISHED, "pictures")]
    return listing


def _of_table(table: Path) -> Listing:
    listing, pictures = Listing(tables=[table]), table.parent.parent / "Image" / "aligned"
    for where, line in lines_of(table):
        listing.add(where, _sample(line, pictures))
    listing.notes += unlisted_note(pictures, (sample.picture for sample in listing.samples), table.name)
    return listing


def _sample(line: str, pictures: Path) -> Sample | str:
    """Return the face of a line, or its problem."""
    match = LINE.fullmatch(line)
    if match is None:
        return f"{line[:40]!r}; expected a line such as train_00001.jpg 5"
    name, split, digit = match.groups()
    return Sample(pictures / f"{name}_aligned.jpg", EMOTIONS[int(digit) - 1], SPLIT_FOLDERS[split])


def _of_copy(path: Path) -> Listing:
    return Listing(
        [
            Sample(picture, EMOTIONS[int(folder.name) - 1], split)
            for split, folder in class_folders(path)
            for picture in pictures_in(folder)
        ]
    )


READER = PictureSet("rafdb", "RAF-DB, aligned", recognises, listed)
