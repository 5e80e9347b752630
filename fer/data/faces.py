"""Faces: the one table that every reader returns, whatever the layout it came from."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS, SPLITS

UNKNOWN = -1  # an unlabelled face's target; the split of a face whose source names none
OnBad = Literal["error", "skip"]


@dataclass(frozen=True)
class Source:
    """Where a table came from, and what was decided while reading it.

    Args:
        name: the data set's short name, such as "fer2013".
        layout: the layout that was recognised, in words.
        path: the file or folder; empty for drawn faces.
        labels: whose labels these are ("fer2013", "ferplus argmax", "drawn").
        notes: what a user should know: which file was taken, which columns were ignored.
        skipped: one line for each bad row or file that ``data.on_bad=skip`` left out.
    """

    name: str
    layout: str
    path: str = ""
    labels: str = "fer2013"
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Faces:
    """N grey faces with what is known of each.

    Args:
        images: (N, S, S) uint8.
        targets: (N,) int8, index in ``classes``, ``UNKNOWN`` where unlabelled.
        official: (N,) int8, index in ``SPLITS`` by FER2013's column Usage, ``UNKNOWN`` where the source does not say.
        given: (N,) int8, index in ``SPLITS`` by the source's own folders or file, ``UNKNOWN`` where it has none.
        rows: (N,) int64, row in the source counted from 0 (a tree: place in its sorted listing).
        source: where it came from.
        votes: (N, 10) uint8 FER+ votes in the order of ``FERPLUS_COLUMNS``, or None.
        classes: C names of what ``targets`` index.
        soft: (N, C) float32 soft targets, rows that sum to 1, or None.
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

    def __post_init__(self) -> None:
        """Raise if a reader, a user's own perhaps, returned something else than promised.

        Raises:
            FerError: naming the column, what it is and what it must be.
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

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> int:
        """Side of the images, in pixels."""
        return int(self.images.shape[-1])

    def fingerprint(self) -> str:
        """Return a sha256 over pixels, targets and splits: equal tables have equal fingerprints.

        Votes count by the targets that were made of them.
        """
        digest = hashlib.sha256(str(self.images.shape).encode())
        if self.classes != EMOTIONS:
            digest.update(repr(self.classes).encode())
        for column in (self.images, self.targets, self.official, self.given, self.soft):
            if column is not None:
                digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def noted(self, *notes: str) -> "Faces":
        """Return the same table with further notes on its source."""
        return replace(self, source=replace(self.source, notes=self.source.notes + notes))


def _shape(column: NDArray[np.generic]) -> str:
    return f"{column.shape} {column.dtype}"


def counts(
    targets: NDArray[np.int8], splits: NDArray[np.int8], classes: Sequence[str] = EMOTIONS
) -> dict[str, dict[str, int]]:
    """Return split -> emotion -> number of faces, splits without faces left out.

    Args:
        targets: (N,) index in ``classes`` or ``UNKNOWN``.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
        classes: of the targets.
    """
    table = {}
    for index, split in enumerate(SPLITS):
        own = targets[splits == index]
        if own.size:
            table[split] = {emotion: int((own == label).sum()) for label, emotion in enumerate(classes)}
    return table


@dataclass
class BadRows:
    """Collects rows or files that cannot be used, or raises on the first, as ``data.on_bad`` says."""

    on_bad: OnBad = "error"
    found: list[str] = field(default_factory=list)

    def add(self, where: object, problem: str) -> None:
        """Record one bad row or file.

        Raises:
            FerError: ``on_bad`` is "error".
        """
        if self.on_bad == "error":
            raise FerError(
                f"{where}: {problem}; {setting('data.on_bad', 'skip')} leaves such rows out, counted and listed"
            )
        self.found.append(f"{where}: {problem}")


def some(items: Iterable[object], most: int = 5) -> str:
    """Return the first few items in words, and how many more there are."""
    listed = [str(item) for item in items]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
