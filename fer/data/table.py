"""The table of the faces that data settings name: read, split and described, without torch.

``FERDataModule`` adds to it what a training needs; evaluations use the table alone.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.config.settings import DataSettings
from fer.data.data_sets import DataSets, read_sets, record
from fer.data.duplicates import digests, without_conflicts
from fer.data.exclude import leave_out, notes
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import SPLITS
from fer.data.load import assigned_with_notes, read_faces
from fer.data.rows import gathered, taken
from fer.data.split_notes import RULES, duplicate_notes, group_notes, missing_classes, official_notes
from fer.metrics.groups import numbered
from fer.metrics.results import DatasetRecord, Excluded, MissingClasses

EVERY = "all"  # name for all labelled faces, used like the name of a split


@dataclass(frozen=True)
class Split:
    """The faces of one split.

    Args:
        grey: (N, S, S) uint8, ``Rows`` where they stay outside memory.
        targets: (N,) class indices.
        soft: (N, C) soft targets, or None.
        colour: (N, 3, S, S) of the same faces, or None where they are grey.
        groups: (N,) number, from 0, of the person, video or picture that a face is of; None where no two faces share
            one.
    """

    grey: NDArray[np.uint8]
    targets: NDArray[np.int64]
    soft: NDArray[np.float32] | None = None
    colour: NDArray[np.uint8] | None = None
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def pixels(self, indices: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """Return faces as networks take them, (K, 1, S, S), in colour (K, 3, S, S).

        Args:
            indices: of the split.
        """
        return self.grey[indices][:, None] if self.colour is None else self.colour[indices]


class Table:
    """Reads faces and splits them; everything is read once, where it is first needed.

    Args:
        data: the data settings; ``data.path`` must be set ("synthetic" for drawn faces).
    """

    def __init__(self, data: DataSettings) -> None:
        self.data = data
        self._of_split: dict[str, Split] = {}

    @cached_property
    def sets(self) -> DataSets | None:
        """The data sets, where ``data.more`` names further ones; None where there is one alone."""
        return read_sets(self.data) if self.data.more else None

    @cached_property
    def faces(self) -> Faces:
        """All faces of the source, or of all data sets."""
        return read_faces(self.data) if self.sets is None else self.sets.faces

    @cached_property
    def splits(self) -> NDArray[np.int8]:
        """(N,) index in ``SPLITS`` of each face; ``UNKNOWN`` for faces left out by ``data.exclude``."""
        return self._splits[0]

    @property
    def excluded(self) -> Excluded | None:
        """Record of the faces left out by ``data.exclude``, see ``leave_out``."""
        return self._splits[1]

    @property
    def notes(self) -> list[str]:
        """Notes on the data: those of the source, and on faces that were left out."""
        if self.sets is not None:
            return [*self.sets.notes, *self._splits[2]]
        left_out = notes(self.excluded, self.data.split)
        return [
            *self.faces.source.notes, *official_notes(self.faces, self.data.split),
            *group_notes(self.faces, self.splits), *left_out, *self._splits[2],
        ]  # fmt: skip

    @property
    def missing(self) -> MissingClasses | None:
        """The classes without a face in a split; None where every split has all."""
        others = RULES if self.sets is None else ()
        return missing_classes(self.faces, self.splits, self.data, others)

    @cached_property
    def _splits(self) -> tuple[NDArray[np.int8], Excluded | None, list[str]]:
        said: list[str] = []
        if self.sets is None:
            drawn, said = assigned_with_notes(self.faces, self.data)
            splits, excluded = leave_out(self.faces, drawn, self.data)
        else:
            splits, excluded = self.sets.splits, self.sets.each[0].excluded
        if self.data.conflicts == "keep":
            return splits, excluded, said
        kept, count = without_conflicts(self.faces, splits)
        if self.sets is not None:
            self.sets.require_train(kept, "that data.conflicts=drop keeps; leave it out, or set data.conflicts=keep")
        note = f"{count:,} faces left out of train by data.conflicts: exact duplicates with other labels"
        return kept, excluded, [*said, note]

    def split(self, split: str) -> Split:
        """Return the faces of a split in memory, gathered at the first call.

        Args:
            split: name in ``SPLITS``, or ``EVERY`` for all labelled faces.

        Raises:
            FerError: the data are missing or bad, or have no such split.
        """
        if split not in self._of_split:
            indices = self.indices(split)
            soft = None if self.faces.soft is None else np.ascontiguousarray(self.faces.soft[indices])
            colour = None if self.faces.colour is None else gathered(self.faces.colour, indices)
            targets = self.faces.targets[indices].astype(np.int64)
            groups = None if self.faces.group is None else numbered(self.faces.group[indices], UNKNOWN)
            self._of_split[split] = Split(gathered(self.faces.images, indices), targets, soft, colour, groups)
        return self._of_split[split]

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the indices of a split's faces in ``faces``, rising.

        Raises:
            FerError: the split is empty.
        """
        if split == EVERY:
            labelled = np.flatnonzero(self.faces.targets != UNKNOWN)
            if not labelled.size:
                raise FerError(f"{self.data.path}: has no labels, so that nothing can be scored on it")
            return labelled
        indices = np.flatnonzero(self.splits == SPLITS.index(split))
        if not indices.size:
            existing = [name for index, name in enumerate(SPLITS) if (self.splits == index).any()]
            path, rule = self.data.path, f" under {setting('data.split', self.data.split)}"
            if self.sets is not None:
                path, rule = self.faces.source.path, ""
            raise FerError(f"{path}: no {split} split{rule}; it has {', '.join(existing)}")
        return indices

    def hashes(self, split: str) -> set[bytes]:
        """Return the hashes of the pixels of a split's faces.

        Raises:
            FerError: the split is empty.
        """
        return set[bytes]().union(*self.hashes_of_sets(split))

    def hashes_of_sets(self, split: str) -> list[set[bytes]]:
        """Return the hashes of the pixels of a split's faces, of each data set that has some.

        Raises:
            FerError: the split is empty.
        """
        indices = self.indices(split)
        numbers = np.zeros(len(indices), np.int8) if self.sets is None else self.sets.numbers[indices]
        names = digests(taken(self.faces.images, indices))
        hashes: dict[int, set[bytes]] = {}
        for number, name in zip(numbers.tolist(), names, strict=True):
            hashes.setdefault(number, set()).add(name)
        return list(hashes.values())

    def describe(self, split: str | None = None) -> DatasetRecord:
        """Return the description of the data that every result stores.

        Args:
            split: split of the result; with ``EVERY`` the data are not split.
        """
        whole = split == EVERY
        splits = np.zeros(len(self.faces), np.int8) if whole else self.splits
        entry = record(self.faces, self.data, splits, self.faces.fingerprint())
        if whole:
            return replace(entry, split=EVERY, counts={EVERY: entry.counts["train"]}, notes=self.faces.source.notes)
        return replace(
            entry,
            missing=self.missing,
            excluded=self.excluded,
            notes=(*self.notes, *duplicate_notes(self.faces, self.splits)),
            split=self.data.split if self.sets is None else self.sets.rules,
            sets=None if self.sets is None else self.sets.records(self.splits),
        )
