"""Reader of image folders: FER2013 or other faces as folders of pictures.

Layouts: ``train/ val/ test/`` or ``images/train images/validation`` with class folders inside, or class folders alone.
Class folders are recognised by name, in any case, with common synonyms, with a number before the name, or by
``data.class_names``. Files named ``Training_N``, ``PublicTest_N`` or ``PrivateTest_N``, and nothing more, have their
official split by their name.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.data.faces import UNKNOWN, BadRows, Faces, OnBad, Source, some, split_sizes
from fer.data.labels import (
    EMOTIONS,
    FERPLUS_EMOTIONS,
    OFFICIAL_SIZES,
    SPLIT_FOLDERS,
    USAGES,
    class_index,
    folder_key,
    naming,
)
from fer.data.readers import pixel_memory
from fer.data.readers.decoding import Cut
from fer.data.readers.images import LARGE, named_as_picture, photograph_notes
from fer.system.text import plural

in_colour = True  # ``read`` takes ``channels``
Names = Mapping[str, str]  # folder, in small letters -> emotion, of ``data.class_names``
NO_NAMES: Names = MappingProxyType({})
FOLDERS = 8  # that are listed at a time: on a disk of the network each answer takes its time

# the whole name without its ending; a second download of a file is marked " (1)"
OFFICIAL_NAME = re.compile(r"(training|publictest|privatetest)_\d+(?: \(\d+\))?(?P<addition>.+)?", re.IGNORECASE)

# split sizes of a common copy, whose train folder holds 3,589 images of the official test and val sets
RESHUFFLED = (28_821, 7_066)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture file with its label and splits; ``added`` is whether its name is an official one with an addition."""

    path: Path
    target: int
    given: int
    official: int
    added: bool


@dataclass(frozen=True, slots=True)
class Unknown:
    """A picture in a folder whose name is no emotion."""

    path: Path
    folder: Path  # that stands where class folders do


@dataclass
class Listing:
    """The files and folders below the data folder, by kind."""

    pictures: list[Picture] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)  # broken, or loops
    ignored: list[Path] = field(default_factory=list)  # files that are no pictures
    unknown: list[Unknown] = field(default_factory=list)
    loose: list[Path] = field(default_factory=list)  # pictures outside the class folders, without a label
    nested: list[Path] = field(default_factory=list)  # pictures in folders inside class folders

    def add(self, other: "Listing") -> None:
        """Append the files and folders of another listing."""
        for kind in fields(self):
            getattr(self, kind.name).extend(getattr(other, kind.name))


@dataclass(frozen=True)
class Named:
    """The reader of image folders whose class folders mean what ``names`` says, besides their own names."""

    names: Names
    in_colour = True

    def recognises(self, path: Path) -> bool:
        """Return whether ``path`` contains class folders of these names."""
        return recognises(path, self.names)

    def files(self, path: Path) -> list[Path]:
        """Return the files that ``read`` would open."""
        return files(path, self.names)

    def read(self, path: Path, *, image_size: int = 48, on_bad: OnBad = "error", channels: int = 1) -> Faces:
        """Read every picture, see ``read`` of the module."""
        return read(path, image_size=image_size, on_bad=on_bad, names=self.names, channels=channels)


def named(names: Names) -> Named:
    """Return the reader for these names of class folders."""
    return Named(names)


def recognises(path: Path, names: Names = NO_NAMES) -> bool:
    """Return whether ``path`` contains class folders, directly or in split folders."""
    return path.is_dir() and any(class_index(folder.name, names) is not None for _, folder in class_folders(path))


def files(path: Path, names: Names = NO_NAMES) -> list[Path]:
    """Return the files that ``read`` would open, and the files, folders and links that it would report."""
    listing = _list(path, names)
    unknown = (picture.path for picture in listing.unknown)
    reported = (*listing.links, *unknown, *listing.loose, *listing.nested, *listing.ignored)
    return [*(picture.path for picture in listing.pictures), *reported]


def read(
    path: Path, *, image_size: int = 48, on_bad: OnBad = "error", names: Names = NO_NAMES, channels: int = 1
) -> Faces:
    """Read every picture in the class folders as (image_size, image_size) grey; contempt is an eighth class.

    With three ``channels`` the colours are kept too.

    Raises:
        FerError: no picture; with ``on_bad="error"`` a class folder with an unknown name or an unreadable picture.
    """
    listing, bad = _list(path, names), BadRows(on_bad)
    _report_faults(listing, bad, path, names)
    if not listing.pictures:
        raise FerError(f"{path}: holds no pictures in its class folders")
    pixels = pixel_memory.current().pixels(len(listing.pictures), image_size)
    colours = pixel_memory.Colours(len(listing.pictures), image_size, channels)
    cuts = [Cut(picture.path, whole=True, colour=channels == 3) for picture in listing.pictures]
    kept: list[int] = []
    sizes: list[tuple[int, int]] = []
    for index, face in enumerate(pixels.decoded(cuts)):
        if face.pixels is None:
            bad.add(cuts[index].picture, face.problem)
            continue
        pixels.add(face.pixels, cuts[index])
        colours.add(face)
        kept.append(index)
        sizes.append(face.size)
    if not kept:
        raise FerError(f"{path}: none of its {len(listing.pictures)} pictures could be read; first: {bad.messages[0]}")
    pictures = [listing.pictures[index] for index in kept]
    targets = np.array([picture.target for picture in pictures], np.int8)
    official = np.array([picture.official for picture in pictures], np.int8)
    return Faces(
        images=pixels.images(),
        targets=targets,
        official=official,
        given=np.array([picture.given for picture in pictures], np.int8),
        rows=np.array(kept, np.int64),
        colour=colours.images(),
        classes=FERPLUS_EMOTIONS if (targets >= len(EMOTIONS)).any() else EMOTIONS,
        source=Source(
            name="fer2013" if split_sizes(official) == OFFICIAL_SIZES else path.resolve().name,
            layout="image tree",
            path=str(path),
            labels="folder names",
            notes=(*_notes(listing, path), *unused_names(path, names), *_size_notes(pictures, sizes)),
            skipped=tuple(bad.messages),
        ),
    )


def _report_faults(listing: Listing, bad: BadRows, path: Path, names: Names) -> None:
    for link in listing.links:
        bad.add(link, "is a broken link or a loop of links")
    for picture in listing.unknown:
        bad.add(picture.path, _why_unknown(picture, path, names))


def _why_unknown(picture: Unknown, path: Path, names: Names) -> str:
    """Return in words what is wrong with the name or the place of a folder, and what would be right."""
    folder, outside = picture.folder.name, picture.folder.parent
    if class_index(picture.path.parent.name, names) is not None:  # such as dev/angry/1.png
        if outside == path:
            return f"is in a class folder of {folder!r}, no split's folder; expected train, val or test"
        return f"is in a class folder within {outside.name}/{folder}; move the class folders up into {outside.name}"
    return (
        f"is in {folder!r}, no emotion's folder; expected names such as angry, disgust, fear, happy, sad, or "
        f"{naming({**names, folder: 'happy'})} where it means happy"
    )


def _notes(listing: Listing, path: Path) -> list[str]:
    notes = []
    if listing.ignored:
        names = (file.name for file in listing.ignored)
        notes.append(f"{len(listing.ignored):,} ignored, neither pictures nor folders of pictures: {some(names)}")
    if listing.loose:
        count, names = plural(len(listing.loose), "picture"), (file.name for file in listing.loose)
        notes.append(f"{count} ignored, outside the class folders: {some(names)}")
    if listing.nested:
        count = plural(len(listing.nested), "picture")
        folders = dict.fromkeys(str(file.parent.relative_to(path)) for file in listing.nested)
        notes.append(f"{count} ignored, in folders inside class folders: {some(folders)}; move them up")
    if added := [picture.path.name for picture in listing.pictures if picture.added]:
        notes.append(
            f"{plural(len(added), 'file')} with an addition to an official name, as changed copies have: "
            f"{some(added, 2)}; without an official split"
        )
    return [*notes, *reshuffled_notes(np.array([picture.given for picture in listing.pictures], np.int8))]


def unused_names(path: Path, names: Names) -> list[str]:
    """Return a note on names of ``data.class_names`` that no class folder in a data folder has, if there are any."""
    found = {folder_key(folder.name) for _, folder in class_folders(path)}
    return unused_note("class folder is named", set(names) - found)


def unused_note(what: str, unused: Collection[str]) -> list[str]:
    """Return a note on names of ``data.class_names`` that nothing has, if there are any; ``what`` could have them."""
    option = setting("data.class_names").removesuffix("=")
    return [f"no {what} {some(sorted(unused))}, as {option} says"] if unused else []


def official_split(stem: str) -> tuple[int, bool]:
    """Return the split of FER2013 by a file's name without its ending, and whether the name has an addition.

    With an addition, or another name, the split is ``UNKNOWN``.
    """
    name = OFFICIAL_NAME.fullmatch(stem)
    added = name is not None and name["addition"] is not None
    return USAGES[name[1].lower()] if name and not added else UNKNOWN, added


def reshuffled_notes(given: NDArray[np.int8]) -> list[str]:
    """Return a note if splits (N,) have the sizes of a copy of FER2013 with official test images in train."""
    if tuple(size for size in split_sizes(given) if size) != RESHUFFLED:
        return []
    return ["28,821 + 7,066 is not the official split: its train folder holds official test images"]


def _size_notes(pictures: list[Picture], sizes: list[tuple[int, int]]) -> list[str]:
    """Return notes on the pictures that were stretched, and on those so large that they may be whole photographs."""
    notes = []
    if stretched := sum(width != height for width, height in sizes):
        notes.append(f"{plural(stretched, 'picture')} stretched, not square")
    large = [picture.path for picture, size in zip(pictures, sizes, strict=True) if min(size) >= LARGE]
    return [*notes, *photograph_notes(large, len(pictures))]


def class_folders(path: Path) -> Iterator[tuple[int, Path]]:
    """Yield (split, class folder); the split is ``UNKNOWN`` without split folders."""
    for folder in subfolders(path):
        split = SPLIT_FOLDERS.get(folder.name.lower())
        if split is None:
            yield UNKNOWN, folder
        else:
            yield from ((split, inner) for inner in subfolders(folder))


def subfolders(path: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, sorted."""
    return sorted(entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_dir())


def _list(path: Path, names: Names) -> Listing:
    """List all files by kind."""
    listing = Listing()
    parents = [path, *(folder for folder in subfolders(path) if folder.name.lower() in SPLIT_FOLDERS)]
    for outside in sorted(entry for parent in parents for entry in parent.iterdir()):
        if outside.name.startswith("."):
            continue
        if _is_broken_link(outside):
            listing.links.append(outside)
        elif named_as_picture(outside.name) and outside.is_file():
            listing.loose.append(outside)
    with ThreadPoolExecutor(FOLDERS) as pool:
        for part in pool.map(lambda folder: _of_class(folder[0], folder[1], names), class_folders(path)):
            listing.add(part)
    return listing


def _of_class(split: int, folder: Path, names: Names) -> Listing:
    """List one class folder."""
    listing, target = Listing(), class_index(folder.name, names)
    if target is None and (split == UNKNOWN or folder.is_symlink()):
        # no deeper: it may be a folder of anything, such as results, that lies beside the class folders, or a loop
        inside = (entry for inner in (folder, *subfolders(folder)) for entry in sorted(inner.iterdir()))
        listing.unknown += [Unknown(entry, folder) for entry in inside if named_as_picture(entry.name)]
        return listing
    if target is None:
        pictures = _pictures_in(folder)
        listing.unknown += [Unknown(entry, folder) for entry in pictures]
        if not pictures and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            listing.ignored.append(folder)  # such as one of pictures in a format that is not read
        return listing
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        _add(entry, target, split, listing)
    return listing


def _pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder and below it, but for hidden folders and those that may not be read.

    Links to folders are not followed, so that a loop of them cannot trap the search.
    """
    pictures: list[Path] = []
    for here, inside, files in os.walk(folder):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        pictures += (Path(here, name) for name in sorted(files) if named_as_picture(name))
    return pictures


def _is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _add(entry: os.DirEntry[str], target: int, split: int, listing: Listing) -> None:
    path = Path(entry.path)
    if entry.name.startswith("."):
        return
    if _is_broken_link(path):
        listing.links.append(path)
    elif entry.is_dir() and (inside := _pictures_in(path)):
        listing.nested += inside
    elif not named_as_picture(entry.name) or not entry.is_file():
        listing.ignored.append(path)
    else:
        listing.pictures.append(Picture(path, target, split, *official_split(path.stem)))
