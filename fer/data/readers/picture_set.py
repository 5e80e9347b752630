"""Data sets of pictures with labels of their own.

A layout lists ``Sample``s: a picture, the word of its label, a box, a split, a person. Labels map by word alone; a
number has a meaning in the table of its data set only. All that is left out is counted. The face of a box is cut out by
the contract of ``fer.data.crop``. A picture without a box gives its middle square, so that no face is stretched.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import tee
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.data.crop import Box
from fer.data.faces import UNKNOWN, BadRows, Faces, OnBad, Source, some
from fer.data.labels import EMOTIONS, FERPLUS_EMOTIONS, emotion_index, folder_key
from fer.data.readers import pixel_memory
from fer.data.readers.decoding import Cut
from fer.data.readers.image_folder import Names, unused_names
from fer.data.readers.images import LARGE, named_as_picture, photograph_notes
from fer.system.files import opened_text
from fer.system.text import plural


@dataclass(frozen=True)
class Sample:
    """One labelled face.

    Args:
        picture: its file, or the bytes of one.
        label: the data set's word for the emotion; other words are left out and counted.
        split: index in ``SPLITS`` by the data set, or ``UNKNOWN``.
        group: name of the person, video or picture; empty where none is named.
        box: of the face in the picture; None is the middle square.
        official: index in ``SPLITS`` by FER2013's own names, or ``UNKNOWN``.
        where: file and row of the face, for messages; by default the file.
        row: in the source, counted from 0; None is the number of samples before it.
    """

    picture: Path | bytes
    label: str
    split: int = UNKNOWN
    group: str = ""
    box: Box | None = None
    official: int = UNKNOWN
    where: str = ""
    row: int | None = None


@dataclass
class Listing:
    """What a layout holds.

    Args:
        samples: the labelled faces.
        tables: files with labels, on which the result depends as well.
        notes: on what was left out, and on published counts.
        bad: (file or line, problem) of bad rows.
    """

    samples: list[Sample] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bad: list[tuple[object, str]] = field(default_factory=list)

    def add(self, where: object, sample: Sample | str) -> None:
        """Append the face of the next row, or the problem of a bad row."""
        row = len(self.samples) + len(self.bad)
        if isinstance(sample, str):
            self.bad.append((where, sample))
        else:
            self.samples.append(replace(sample, row=row))


@dataclass(frozen=True)
class PictureSet:
    """The reader of one data set.

    Args:
        name: of the data set, and of its labels.
        layout: in words.
        recognises: whether a path has this layout; quick, since every folder is asked.
        listed: returns the contents.
        in_class_folders: whether the name of a picture's folder is its label, where there are class folders.
        names: class folder -> emotion, of ``data.class_names``; they replace the labels of the pictures in it.
    """

    name: str
    layout: str
    recognises: Callable[[Path], bool]
    listed: Callable[[Path], Listing]
    in_class_folders: bool = False
    names: Names = field(default_factory=dict)
    in_colour = True  # ``read`` takes ``channels``

    def named(self, names: Names) -> "PictureSet":
        """Return the reader for these names of class folders."""
        return replace(self, names=names)

    def has_named(self, path: Path) -> bool:
        """Return whether some of its pictures are in class folders that ``names`` has."""
        return any(_class_folder(sample) in self.names for sample in self.listed(path).samples)

    def _listing(self, path: Path) -> Listing:
        listing = self.listed(path)
        if self.names:
            listing.notes += unused_names(path, self.names)
            listing.samples = [
                replace(sample, label=self.names.get(_class_folder(sample), sample.label)) for sample in listing.samples
            ]
        return listing

    def files(self, path: Path) -> list[Path]:
        """Return the files that ``read`` would open."""
        return self.inputs(path)[0]

    def inputs(self, path: Path) -> tuple[list[Path], list[str]]:
        """Return the files that ``read`` would open, and its notes on others."""
        listing = self._listing(path)
        pictures = dict.fromkeys(sample.picture for sample in listing.samples)
        files = [file for file in (*listing.tables, *pictures) if isinstance(file, Path) and file.is_file()]
        return files, listing.notes

    def read(self, path: Path, *, image_size: int = 48, on_bad: OnBad = "error", channels: int = 1) -> Faces:
        """Read every face with an emotion as (image_size, image_size) grey; contempt is an eighth class.

        With three ``channels`` the colours are kept too.

        Raises:
            FerError: no usable face; with ``on_bad="error"`` a bad row or picture.
        """
        listing, bad = self._listing(path), BadRows(on_bad)
        for where, problem in listing.bad:
            bad.add(where, problem)
        source = Source(self.name, self.layout, str(path), labels=self.name, notes=tuple(listing.notes))
        return read_samples(listing.samples, len(listing.samples), source, image_size, bad, channels)


@dataclass
class _Table:
    """The columns read so far, and what is to be reported."""

    targets: list[int] = field(default_factory=list)
    given: list[int] = field(default_factory=list)
    official: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    cut: int = 0  # pictures without a box that are not square
    boxes: int = 0
    large: list[object] = field(default_factory=list)  # pictures that may be whole photographs

    def add(self, row: int, target: int, sample: Sample, size: tuple[int, int]) -> None:
        """Add a face whose picture has this width and height."""
        self.targets.append(target)
        self.given.append(sample.split)
        self.official.append(sample.official)
        self.rows.append(row)
        self.groups.append(sample.group)
        if sample.box is not None:
            self.boxes += 1
            return
        self.cut += size[0] != size[1]
        if min(size) >= LARGE:
            self.large.append(_where(sample))

    def notes(self) -> list[str]:
        """Return what was left out and cut."""
        notes = []
        if self.left_out:
            words = ", ".join(f"{count:,} {word!r}" for word, count in sorted(self.left_out.items()))
            notes.append(f"left out, since no emotion of these classes: {words}")
        if self.boxes:
            notes.append(f"{plural(self.boxes, 'face')} cut out by the boxes of the data set")
        if self.cut:
            notes.append(f"{plural(self.cut, 'picture')} not square: the middle square was taken")
        return [*notes, *photograph_notes(self.large, len(self.rows))]


def read_samples(
    samples: Iterable[Sample], most: int, source: Source, image_size: int, bad: BadRows, channels: int = 1
) -> Faces:
    """Return the faces of samples, which may be made one after the other.

    Args:
        samples: at most ``most``.
        most: upper limit of their number.
        source: origin; notes and bad rows are added.
        image_size: side of the faces, in pixels.
        bad: rows that are bad already.
        channels: 3 keeps the colours too.

    Raises:
        FerError: no usable face; with ``on_bad="error"`` a bad picture.
    """
    pixels, table = pixel_memory.current().pixels(most, image_size), _Table()
    colours = pixel_memory.Colours(most, image_size, channels)
    usable, again = tee(_usable(samples, table))
    cuts = (Cut(sample.picture, sample.box, colour=channels == 3) for _, _, sample in again)
    for (row, target, sample), face in zip(
        usable, pixels.decoded(cuts, listed=isinstance(samples, Sequence)), strict=True
    ):
        if face.pixels is None:
            bad.add(_where(sample), face.problem)
            continue
        pixels.add(face.pixels, Cut(sample.picture, sample.box))
        colours.add(face)
        table.add(row, target, sample, face.size)
    if not table.rows:
        problems = [*bad.messages[:1], *table.notes()[:1]]
        raise FerError(f"{source.path}: holds no usable face{f'; {problems[0]}' if problems else ''}")
    targets = np.array(table.targets, np.int8)
    return Faces(
        images=pixels.images(),
        targets=targets,
        official=np.array(table.official, np.int8),
        given=np.array(table.given, np.int8),
        rows=np.array(table.rows, np.int64),
        classes=FERPLUS_EMOTIONS if (targets >= len(EMOTIONS)).any() else EMOTIONS,
        group=numbered(table.groups),
        colour=colours.images(),
        source=Source(
            source.name, source.layout, source.path, source.labels, (*source.notes, *table.notes()), tuple(bad.messages)
        ),
    )


def _usable(samples: Iterable[Sample], table: _Table) -> Iterator[tuple[int, int, Sample]]:
    """Yield row, class and sample of the samples with an emotion; count the others."""
    for index, sample in enumerate(samples):
        row = index if sample.row is None else sample.row
        target = emotion_index(sample.label, FERPLUS_EMOTIONS)
        if target is None:
            table.left_out[sample.label] += 1
        else:
            yield row, target, sample


def _class_folder(sample: Sample) -> str:
    """Return the folder of a picture as ``data.class_names`` knows it; empty for a picture that is no file."""
    return folder_key(sample.picture.parent.name) if isinstance(sample.picture, Path) else ""


def _where(sample: Sample) -> object:
    return sample.where or sample.picture


def lines_of(table: Path) -> Iterator[tuple[str, str]]:
    """Yield file and number, for messages, and text of each line of a table that is not empty.

    Raises:
        FerError: it is no text in UTF-8.
    """
    try:
        with opened_text(table) as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield f"{table}, line {number}", line.strip()
    except UnicodeDecodeError as error:
        raise FerError(f"{table}: is no text in UTF-8 ({error}); expected the table of the data set") from error


def numbered(groups: list[str]) -> NDArray[np.int32] | None:
    """Return (N,) a number for each name of a group, ``UNKNOWN`` for an empty one; None where all are empty."""
    if not any(groups):
        return None
    names = {name: number for number, name in enumerate(sorted(set(groups) - {""}))}
    return np.array([names.get(name, UNKNOWN) for name in groups], np.int32)


def published_note(found: int, published: int, noun: str) -> str:
    """Return a note on a number of faces, and the one that is published for the data set."""
    if found == published:
        return f"{found:,} {noun}, as published"
    return f"{found:,} {noun}; published: {published:,}, so this is a part of the data set or a changed copy"


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures directly in a folder, sorted; none where it is missing."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if named_as_picture(entry.name))


def a_picture(folder: Path) -> str:
    """Return the name of any picture directly in a folder, without listing the others; empty where there is none."""
    with os.scandir(folder) as entries:
        return next((entry.name for entry in entries if named_as_picture(entry.name)), "")


def first_of(*paths: Path) -> Path | None:
    """Return the first path that exists, or None."""
    return next((path for path in paths if path.exists()), None)


def ignored_note(files: Iterable[Path]) -> Iterator[str]:
    """Yield a note on pictures whose names are not the data set's, if there are any."""
    if names := [file.name for file in files]:
        yield f"{plural(len(names), 'picture')} with other names than the data set's ignored: {some(names, 2)}"


def unlisted_note(folder: Path, listed: Iterable[Path | bytes], table: str) -> Iterator[str]:
    """Yield a note on the pictures in a folder that its table does not name, if there are any.

    Args:
        folder: of the pictures.
        listed: pictures that the table names.
        table: the table in words.
    """
    if more := sorted(set(pictures_in(folder)) - set(listed)):
        names = (picture.name for picture in more)
        yield f"{plural(len(more), 'picture')} of {folder.name} ignored, not in {table}: {some(names, 2)}"
