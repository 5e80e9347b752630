"""Reader of image folders: FER2013 or other faces as folders of pictures.

Layouts: ``train/ val/ test/`` or ``images/train images/validation`` with class folders inside, or class folders alone.
Class folders are recognised by name, in any case and with common synonyms. Files named ``Training_N``, ``PublicTest_N``
or ``PrivateTest_N`` have their official split by their name.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fer.config.errors import FerError
from fer.data.faces import UNKNOWN, BadRows, Faces, OnBad, Source, some
from fer.data.labels import SPLIT_FOLDERS, USAGES, emotion_index
from fer.data.readers.images import SUFFIXES, PictureError, read_picture

OFFICIAL_NAME = re.compile(r"(training|publictest|privatetest)_\d+", re.IGNORECASE)

# split sizes of a common copy, whose train folder holds 3,589 images of the official test and val sets
RESHUFFLED = {0: 28_821, 1: 7_066}


@dataclass(frozen=True)
class Picture:
    """One picture file with its label and splits."""

    path: Path
    target: int
    given: int
    official: int


@dataclass
class Listing:
    """The files and folders below the data folder, by kind."""

    pictures: list[Picture] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)  # broken, or loops
    ignored: list[str] = field(default_factory=list)  # files that are no pictures
    unknown: list[Path] = field(default_factory=list)  # folders with pictures whose name is no emotion
    loose: list[str] = field(default_factory=list)  # pictures outside the class folders, without a label


def recognises(path: Path) -> bool:
    """Return whether ``path`` contains class folders, directly or in split folders."""
    return path.is_dir() and any(emotion_index(folder.name) is not None for _, folder in _class_folders(path))


def files(path: Path) -> list[Path]:
    """Return the files that ``read`` would open."""
    return [picture.path for picture in _list(path).pictures]


def read(path: Path, *, image_size: int = 48, on_bad: OnBad = "error") -> Faces:
    """Read every picture in the class folders as (image_size, image_size) grey.

    Raises:
        FerError: no picture; with ``on_bad="error"`` a class folder with an unknown name or an unreadable picture.
    """
    listing, bad = _list(path), BadRows(on_bad)
    for link in listing.links:
        bad.add(link, "is a broken link or a loop of links")
    for folder in listing.unknown:
        bad.add(folder, "is no emotion's folder; expected names such as angry, disgust, fear, happy, sad")
    if not listing.pictures:
        raise FerError(f"{path}: holds no pictures in its class folders")
    images = np.empty((len(listing.pictures), image_size, image_size), np.uint8)
    kept: list[int] = []
    stretched = 0
    for index, picture in enumerate(listing.pictures):
        try:
            images[len(kept)], was_stretched = read_picture(picture.path, image_size)
        except PictureError as error:
            bad.add(picture.path, str(error))
            continue
        kept.append(index)
        stretched += was_stretched
    if not kept:
        raise FerError(f"{path}: none of its {len(listing.pictures)} pictures could be read; first: {bad.messages[0]}")
    pictures = [listing.pictures[index] for index in kept]
    return Faces(
        images=images[: len(kept)],
        targets=np.array([picture.target for picture in pictures], np.int8),
        official=np.array([picture.official for picture in pictures], np.int8),
        given=np.array([picture.given for picture in pictures], np.int8),
        rows=np.array(kept, np.int64),
        source=Source(
            name="fer2013" if all(picture.official != UNKNOWN for picture in pictures) else path.resolve().name,
            layout="image tree",
            path=str(path),
            labels="folder names",
            notes=_notes(listing, stretched),
            skipped=tuple(bad.messages),
        ),
    )


def _notes(listing: Listing, stretched: int) -> tuple[str, ...]:
    notes = []
    if listing.ignored:
        notes.append(f"{len(listing.ignored)} files are no pictures and were ignored: {some(listing.ignored)}")
    if listing.loose:
        notes.append(
            f"{len(listing.loose)} pictures are outside the class folders and were ignored: {some(listing.loose)}"
        )
    if stretched:
        notes.append(f"{stretched} pictures are not square and were stretched")
    sizes = {split: sum(picture.given == split for picture in listing.pictures) for split in RESHUFFLED}
    if sizes == RESHUFFLED:
        notes.append("28,821 + 7,066 is not the official split: its train folder holds official test images")
    return tuple(notes)


def _class_folders(path: Path) -> Iterator[tuple[int, Path]]:
    """Yield (split, class folder); the split is ``UNKNOWN`` without split folders."""
    for folder in _subfolders(path):
        split = SPLIT_FOLDERS.get(folder.name.lower())
        if split is None:
            yield UNKNOWN, folder
        else:
            yield from ((split, inner) for inner in _subfolders(folder))


def _subfolders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_dir())


def _list(path: Path) -> Listing:
    """List all files; folders inside class folders are not entered, so that a loop of links cannot trap the search."""
    listing = Listing()
    parents = [path, *(folder for folder in _subfolders(path) if folder.name.lower() in SPLIT_FOLDERS)]
    for outside in sorted(entry for parent in parents for entry in parent.iterdir()):
        if _is_broken_link(outside):
            listing.links.append(outside)
        elif outside.name.lower().endswith(SUFFIXES) and outside.is_file():
            listing.loose.append(outside.name)
    for split, folder in _class_folders(path):
        target = emotion_index(folder.name)
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        if target is None:
            if _holds_pictures(folder):
                listing.unknown.append(folder)
            continue
        for entry in ordered:
            _add(entry, target, split, listing)
    return listing


def _holds_pictures(folder: Path) -> bool:
    """Return whether a folder or one of its subfolders contains pictures."""
    return any(
        entry.name.lower().endswith(SUFFIXES) for inner in (folder, *_subfolders(folder)) for entry in inner.iterdir()
    )


def _is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _add(entry: os.DirEntry[str], target: int, split: int, listing: Listing) -> None:
    path = Path(entry.path)
    if _is_broken_link(path):
        listing.links.append(path)
    elif not entry.name.lower().endswith(SUFFIXES) or not entry.is_file():
        listing.ignored.append(entry.name)
    else:
        name = OFFICIAL_NAME.match(entry.name)
        official = USAGES[name.group(1).lower()] if name else UNKNOWN
        listing.pictures.append(Picture(path, target, split, official))
