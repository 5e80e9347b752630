"""Faces: the table that every reader returns, for every layout of the source."""

import hashlib
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, in_one_line, setting
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS, SPLITS
from fer.data.rows import chunks, outside, taken

UNKNOWN = -1  # an unlabelled face's target; the split of a face whose source names none
OnBad = Literal["error", "skip"]


@dataclass(frozen=True)
class Source:
    """The origin of a table, and the reader's decisions.

    Args:
        name: the data set's short name; "fer2013" is FER2013 whole, a file of the challenge, or a table of this name.
        layout: description of the layout that was recognised.
        path: the file or folder; empty for drawn faces.
        labels: origin of the labels ("fer2013", "ferplus argmax", "drawn").
        notes: notes for the user, such as the file that was chosen and the columns that were ignored.
        skipped: one line for each bad row or file left out by ``data.on_bad=skip``.
    """

    name: str
    layout: str
    path: str = ""
    labels: str = "fer2013"
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Faces:
    """N grey faces with labels and splits.

    Args:
        images: (N, S, S) uint8; ``Rows`` stand for them where they stay outside memory.
        targets: (N,) int8, index in ``classes``, ``UNKNOWN`` where unlabelled.
        official: (N,) int8, index in ``SPLITS`` by FER2013's column Usage, ``UNKNOWN`` without it.
        given: (N,) int8, index in ``SPLITS`` by the source's own folders or file, ``UNKNOWN`` without any.
        rows: (N,) int64, row in the source counted from 0 (for folders: position in the sorted listing).
        source: origin of the faces.
        votes: (N, 10) uint8 FER+ votes in the order of ``FERPLUS_COLUMNS``, or None.
        classes: C names of the classes.
        soft: (N, C) float32 soft targets, rows that sum to 1, or None.
        group: (N,) int32 number of the person, video or picture that a face is from, ``UNKNOWN`` where the source names
            none. None where it names none at all. Faces of one group are kept in one split.
        colour: (N, 3, S, S) uint8 red, green and blue of the same faces, or None where they are grey; ``images`` is
            their luma (ITU-R 601).
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.int8]
    official: NDArray[np.int8]
    given: NDArray[np.int8]
    rows: NDArray[np.int64]
    source: Source
    votes: NDArray[np.uint8] | None = None
    classes: tuple[str, ...] = EMOTIONS
    soft: NDArray[np.float32] | None = None
    group: NDArray[np.int32] | None = None
    colour: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        """Check shapes, types and ranges, since readers of plugins make tables too.

        Raises:
            FerError: a bad column; the message names its shape or range and the expected one.
        """
        count = len(self.images)
        square = self.images.ndim == 3 and self.images.shape[1] == self.images.shape[2]
        if self.images.dtype != np.uint8 or not square:
            raise FerError(f"{self.source.name}: images are {_shape(self.images)}; expected (N, S, S) uint8")
        for name in ("targets", "official", "given"):
            column, most = getattr(self, name), len(self.classes if name == "targets" else SPLITS) - 1
            if column.shape != (count,) or column.dtype != np.int8:
                raise FerError(f"{self.source.name}: {name} are {_shape(column)}; expected ({count},) int8")
            if count and not UNKNOWN <= column.min() <= column.max() <= most:
                low, high = column.min(), column.max()
                raise FerError(
                    f"{self.source.name}: {name} go from {low} to {high}; expected {UNKNOWN} (unknown) to {most}"
                )
        if self.rows.shape != (count,) or (
            self.votes is not None and self.votes.shape != (count, len(FERPLUS_COLUMNS))
        ):
            raise FerError(f"{self.source.name}: rows or votes do not fit {count} images")
        if self.soft is not None and self.soft.shape != (count, len(self.classes)):
            raise FerError(f"{self.source.name}: soft targets are {_shape(self.soft)}; expected ({count}, classes)")
        if self.group is not None and (self.group.shape != (count,) or self.group.dtype != np.int32):
            raise FerError(f"{self.source.name}: groups are {_shape(self.group)}; expected ({count},) int32")
        expected = (count, 3, *self.images.shape[1:])
        if self.colour is not None and (self.colour.shape != expected or self.colour.dtype != np.uint8):
            raise FerError(f"{self.source.name}: colours are {_shape(self.colour)}; expected {expected} uint8")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> int:
        """Side of the images, in pixels."""
        return int(self.images.shape[-1])

    def fingerprint(self) -> str:
        """Return a sha256 over pixels, targets and splits: equal tables have equal fingerprints.

        Votes are part of it through the targets that are derived from them.
        """
        rows = outside(self.images)
        if rows is None:
            return self._hashed(self.images)
        rest = self._hashed(np.empty((0, *rows.shape[1:]), np.uint8))  # hash of everything but the pixels
        return rows.remembered(f"fingerprint {rest}", lambda: self._hashed(self.images))

    def _hashed(self, images: NDArray[np.uint8]) -> str:
        digest = hashlib.sha256(str(images.shape).encode())
        if self.classes != EMOTIONS:
            digest.update(repr(self.classes).encode())
        for chunk in chunks(images):
            digest.update(np.ascontiguousarray(chunk).data)
        for column in (self.targets, self.official, self.given, self.soft, self.group, self.colour):
            if column is not None:
                digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def taken(self, indices: NDArray[np.int64]) -> "Faces":
        """Return the faces at rising indices; all of them are returned without a copy of their pixels."""
        return replace(
            self,
            images=self.images if len(indices) == len(self) else taken(self.images, indices),
            targets=self.targets[indices],
            official=self.official[indices],
            given=self.given[indices],
            rows=self.rows[indices],
            votes=None if self.votes is None else self.votes[indices],
            soft=None if self.soft is None else self.soft[indices],
            group=None if self.group is None else self.group[indices],
            colour=self.colour if self.colour is None or len(indices) == len(self) else self.colour[indices],
        )

    def noted(self, *notes: str) -> "Faces":
        """Return the same faces with further notes in ``source``."""
        return replace(self, source=replace(self.source, notes=self.source.notes + notes))


def _shape(column: NDArray[np.generic]) -> str:
    return f"{column.shape} {column.dtype}"


def counts(
    targets: NDArray[np.int8], splits: NDArray[np.int8], classes: Sequence[str] = EMOTIONS
) -> dict[str, dict[str, int]]:
    """Return split -> emotion -> number of faces, without empty splits.

    Args:
        targets: (N,) index in ``classes`` or ``UNKNOWN``.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
        classes: of the targets.
    """
    table = {}
    for index, split in enumerate(SPLITS):
        labels = targets[splits == index]
        if labels.size:
            table[split] = {emotion: int((labels == label).sum()) for label, emotion in enumerate(classes)}
    return table


def split_sizes(splits: NDArray[np.int8]) -> tuple[int, ...]:
    """Return the number of faces of each of ``SPLITS``; ``UNKNOWN`` counts for none.

    Args:
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
    """
    return tuple(int((splits == index).sum()) for index in range(len(SPLITS)))


def bad_rows_in_words(skipped: Sized) -> str:
    """Return the number of rows or files that were skipped, in words: "1 bad row or file"."""
    return f"{len(skipped):,} bad {'row or file' if len(skipped) == 1 else 'rows or files'}"


@dataclass
class BadRows:
    """Collects the messages on bad rows or files, or raises on the first, by ``data.on_bad``."""

    on_bad: OnBad = "error"
    messages: list[str] = field(default_factory=list)

    def add(self, where: object, problem: str) -> None:
        """Record one bad row or file.

        Raises:
            FerError: ``on_bad`` is "error".
        """
        if self.on_bad == "error":
            raise FerError(
                f"{in_one_line(str(where))}: {problem}; {setting('data.on_bad', 'skip')} leaves such rows out, counted "
                "and listed"
            )
        self.messages.append(in_one_line(f"{where}: {problem}"))


def some(items: Iterable[object], most: int = 5) -> str:
    """Return the first items as text, with the number of further ones: "a, b and 3 more"."""
    texts = [in_one_line(str(item)) for item in items]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
