"""Several data sets that one network is trained on.

Each is read and split by itself, then all are joined. A set is read by its own reader, split by its own split and
mapped by word onto the same emotions. A training face whose picture is in val or test of another set leaves train.
Otherwise joining would put copies of the scored faces into it. Copies within one set stay, as where it is trained on
alone.

Val and test are those of all sets together: DomainBed (Gulrajani and Lopez-Paz 2021) calls this training-domain
validation. ``data.val_of=first`` keeps those of ``data.path``, so that metrics stay comparable with a training on it
alone.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.config.conf import spelled
from fer.config.errors import PLACE, FerError, with_settings
from fer.config.paths import expand_home
from fer.config.settings import DataSettings, FurtherSet, SplitRule
from fer.data.audit.near_duplicates import FLAT, alike, frequencies, hashed
from fer.data.duplicates import digests
from fer.data.exclude import leave_out, notes
from fer.data.faces import UNKNOWN, Faces, Source, counts
from fer.data.known_faces import near
from fer.data.labels import folder_names, in_braces
from fer.data.load import assigned_with_notes, read_faces
from fer.data.split_notes import group_notes, missing_classes, official_notes
from fer.metrics.results import DatasetRecord, Excluded
from fer.system.text import plural

OWN: tuple[SplitRule, ...] = ("official", "as_given")  # splits that a data set comes with
DRAWN: tuple[SplitRule, ...] = ("holdout", "folds")


@dataclass(frozen=True)
class DataSet:
    """A data set that is read and split.

    Args:
        data: settings of it alone.
        faces: N faces.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
        excluded: record of the faces left out by ``data.exclude``.
        on_splits: notes on how the splits were drawn.
    """

    data: DataSettings
    faces: Faces
    splits: NDArray[np.int8]
    excluded: Excluded | None = None
    on_splits: Sequence[str] = ()

    @property
    def notes(self) -> list[str]:
        """Notes of the source, on the split, and on faces that were left out."""
        return [
            *self.faces.source.notes, *official_notes(self.faces, self.data.split),
            *group_notes(self.faces, self.splits), *notes(self.excluded, self.data.split), *self.on_splits,
        ]  # fmt: skip


@dataclass(frozen=True)
class DataSets:
    """Several data sets, joined.

    Args:
        each: the sets with their own faces and splits, in the order of the settings, without pixels.
        names: of the sets, all different.
        fingerprints: of the sets.
        faces: of all sets, set after set; the rows of a set follow those of the sets before.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``, without the faces that ``notes`` counts.
        numbers: (N,) index in ``each`` of each face.
        notes: on the sets and the faces that were left out, with the set's name.
        shares: of each set in an epoch's training faces; None where each face is taken once.
    """

    each: Sequence[DataSet]
    names: Sequence[str]
    fingerprints: Sequence[str]
    faces: Faces
    splits: NDArray[np.int8]
    numbers: NDArray[np.int8]
    notes: Sequence[str]
    shares: Sequence[float] | None

    @property
    def rules(self) -> str:
        """The split rules of the sets, each once."""
        return " + ".join(dict.fromkeys(part.data.split for part in self.each))

    def in_an_epoch(self, splits: NDArray[np.int8]) -> list[int]:
        """Return how many faces of each set an epoch has.

        Args:
            splits: (N,) final split of each face of all sets.

        Raises:
            FerError: a set has none, since its weight is too small.
        """
        faces: list[int] = np.bincount(self.numbers[splits == 0], minlength=len(self.each)).tolist()
        if self.shares is None:
            return faces
        counts = divided(sum(faces), self.shares)
        if 0 in counts:
            path = self.each[counts.index(0)].faces.source.path
            raise FerError(
                f"data.weights: gives {path} none of the {sum(faces):,} faces of an epoch; raise its weight, or leave "
                "the data set out"
            )
        return counts

    def require_train(self, splits: NDArray[np.int8], remedy: str) -> None:
        """Raise unless each set has a face for train.

        Args:
            splits: (N,) split of each face of all sets.
            remedy: why there may be none, and what to do.
        """
        for number, one in enumerate(self.each):
            if not (splits[self.numbers == number] == 0).any():
                raise FerError(f"data.more: {one.faces.source.path} has no face for train {remedy}")

    def records(self, splits: NDArray[np.int8]) -> tuple[DatasetRecord, ...]:
        """Return the description of each set.

        Args:
            splits: (N,) final split of each face of all sets.
        """
        return tuple(self._record(number, splits) for number in range(len(self.each)))

    def _record(self, number: int, splits: NDArray[np.int8]) -> DatasetRecord:
        one, mine = self.each[number], splits[self.numbers == number]
        described = record(one.faces, one.data, mine, self.fingerprints[number])
        return replace(
            described,
            name=self.names[number],
            missing=missing_classes(one.faces, mine, self.each[number].data, others=()),
            excluded=one.excluded,
            notes=tuple(one.notes),
            share=None if self.shares is None else self.shares[number],
        )


def record(faces: Faces, data: DataSettings, splits: NDArray[np.int8], fingerprint: str) -> DatasetRecord:
    """Return what every result stores of a data set, but notes and what is missing or left out.

    Args:
        faces: N faces.
        data: their settings.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
        fingerprint: of the faces.
    """
    source, in_folds = faces.source, data.split == "folds"
    return DatasetRecord(
        name=source.name,
        path=source.path,
        layout=source.layout,
        labels=source.labels,
        split=data.split,
        split_seed=data.split_seed,
        folds=data.folds if in_folds else None,
        fold=data.fold if in_folds else None,
        fingerprint=fingerprint,
        counts=counts(faces.targets, splits, faces.classes),
        skipped=tuple(source.skipped),
    )


# --- reading --------------------------------------------------------------------------------------------------------


def read_sets(data: DataSettings) -> DataSets:
    """Return the data sets of ``data.path`` and ``data.more``, joined.

    Raises:
        FerError: a set is missing, bad, or given twice, or its split rule does not apply to it.
    """
    alone = replace(data, more=None, weights=None, val_of="all", conflicts="keep")
    _refuse_twice([str(data.path), *(part.path for part in data.further)])
    each = [_read(alone), *(_further(alone, data.further, index) for index in range(len(data.further)))]
    fingerprints = [part.faces.fingerprint() for part in each]
    names = _names([part.faces.source.name for part in each])
    for number, fingerprint in enumerate(fingerprints):
        if (first := fingerprints.index(fingerprint)) < number:
            paths = each[first].faces.source.path, each[number].faces.source.path
            raise FerError(f"data.more: {paths[1]} holds the same faces as {paths[0]}; name each data set once")
    faces = joined([part.faces for part in each], names)
    numbers = np.repeat(np.arange(len(each), dtype=np.int8), [len(part.faces) for part in each])
    splits = np.concatenate([part.splits for part in each])
    copies = copies_across(faces.images, splits, numbers)
    said = [f"{name}: {note}" for name, part in zip(names, each, strict=True) for note in part.notes]
    said += [*_of_first_alone(data, names[0]), *_left_out(copies, splits, numbers, names)]
    splits = np.where(copies, np.int8(UNKNOWN), splits)
    if data.val_of == "first":
        splits, note = _val_of_first(splits, numbers, names[0])
        said.append(note)
    each = [replace(part, faces=_without_pixels(part.faces)) for part in each]
    shares = None if data.weights is None else in_shares(data.weights)
    sets = DataSets(each, names, fingerprints, faces, splits, numbers, said, shares)
    sets.require_train(splits, "that is not a copy of one in val or test of another data set; leave it out")
    return sets


def _of_first_alone(data: DataSettings, name: str) -> list[str]:
    """Return a note on the settings that concern the first data set alone, if there are any."""
    given = {"votes": data.votes is not None, "labels": data.labels != "fer2013", "exclude": data.exclude is not None}
    keys = ", ".join(f"data.{key}" for key, is_set in given.items() if is_set)
    votes = "; agreement with the annotators is not computed" if data.votes is not None else ""
    return [f"{keys}: of {name} alone; the others keep their own labels and all faces{votes}"] if keys else []


def in_shares(weights: Sequence[float]) -> list[float]:
    """Return weights in any unit as shares, which sum to 1."""
    exponent = math.frexp(max(weights))[1]  # the sum of large weights would be infinite; powers of 2 change no bit
    scaled = [math.ldexp(weight, -exponent) for weight in weights]
    return [weight / sum(scaled) for weight in scaled]


def _refuse_twice(paths: Sequence[str]) -> None:
    resolved = [expand_home(path).resolve() for path in paths]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise FerError(f"data.more: {paths[index]} is given twice; name each data set once")


def _read(data: DataSettings) -> DataSet:
    """Return the first data set, by the settings' own rule."""
    faces = read_faces(data)
    drawn, said = assigned_with_notes(faces, data)
    splits, excluded = leave_out(faces, drawn, data)
    return DataSet(data, faces, splits, excluded, said)


def _further(alone: DataSettings, sets: Sequence[FurtherSet], index: int) -> DataSet:
    """Return a further data set, by its own split where it names none.

    Args:
        alone: settings of the first data set.
        sets: entries of ``data.more``.
        index: of the one to read.

    Raises:
        FerError: it is missing or bad, or its split rule does not apply to it.
    """
    one = sets[index]
    data = replace(alone, path=one.path, class_names=one.class_names, votes=None, labels="fer2013", exclude=None)
    with with_settings({f"data.{key}": _with_place(sets, index, key) for key in ("split", "class_names")}):
        faces = read_faces(data)
        data = replace(data, split=one.split or own_rule(faces, alone.split))
        splits, said = assigned_with_notes(faces, data)
    return DataSet(data, faces, splits, on_splits=said)


def _with_place(sets: Sequence[FurtherSet], index: int, key: str) -> str:
    """Return the setting ``data.more`` with ``PLACE`` for the value of a key of one of its entries."""
    entries = []
    for number, one in enumerate(sets):
        values: dict[str, str] = {} if one.split is None else {"split": one.split}
        if names := folder_names(one.class_names):
            values["class_names"] = in_braces(names)
        if number == index:
            values[key] = PLACE
        pairs = ",".join(f"{name}:{value}" for name, value in values.items())
        entries.append(f"{{path:{spelled(one.path)},{pairs}}}" if pairs else spelled(one.path))
    return f"data.more=[{','.join(entries)}]"


def own_rule(faces: Faces, rule: SplitRule) -> SplitRule:
    """Return the rule of a further data set: its official split, that of its folders, else a drawn one.

    Args:
        faces: of the set.
        rule: of the first data set, which is taken where it draws, and the set has no split of its own.
    """
    known = faces.targets != UNKNOWN
    for column, own in zip((faces.official, faces.given), OWN, strict=True):
        whole = own == "as_given" or ((column[known] != UNKNOWN).all() and (column[known] == 1).any())
        if (column[known] == 0).any() and whole:
            return own
    return rule if rule in DRAWN else "holdout"


def _names(names: Sequence[str]) -> list[str]:
    """Return different names; a name that occurs again is numbered."""
    unique: list[str] = []
    for name in names:
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        unique.append(name if name not in unique else next(other for other in numbered if other not in unique))
    return unique


def _without_pixels(faces: Faces) -> Faces:
    """Return faces that hold no pixels, which the joined table has."""
    none = np.broadcast_to(np.uint8(0), faces.images.shape)
    colour = None if faces.colour is None else np.broadcast_to(np.uint8(0), faces.colour.shape)
    return replace(faces, images=none, colour=colour)


def _val_of_first(splits: NDArray[np.int8], numbers: NDArray[np.int8], name: str) -> tuple[NDArray[np.int8], str]:
    """Return splits without val and test of the further data sets, and a note that counts these faces."""
    of_others = (splits > 0) & (numbers > 0)
    left_out = f"{plural(int(of_others.sum()), 'face')} of val and test of the others left out"
    return np.where(
        of_others, np.int8(UNKNOWN), splits
    ), f"val and test are those of {name} (data.val_of=first): {left_out}"


# --- joining --------------------------------------------------------------------------------------------------------


def joined(each: Sequence[Faces], names: Sequence[str]) -> Faces:
    """Return the faces of several data sets, of one size, as one table.

    Rows and groups are numbered on. A set without soft targets is given its labels where another has some.

    Args:
        each: faces of the sets.
        names: of the sets.
    """
    classes = max((faces.classes for faces in each), key=len)
    source = Source(
        name=" + ".join(names),
        layout=f"{len(each)} data sets",
        path=" + ".join(faces.source.path or faces.source.name for faces in each),
        labels=" + ".join(dict.fromkeys(faces.source.labels for faces in each)),
        skipped=tuple(line for faces in each for line in faces.source.skipped),
    )
    grouped = any(faces.group is not None for faces in each)
    return Faces(
        images=np.concatenate([faces.images for faces in each]),
        targets=np.concatenate([faces.targets for faces in each]),
        official=np.concatenate([faces.official for faces in each]),
        given=np.concatenate([faces.given for faces in each]),
        rows=_numbered_on([faces.rows for faces in each]),
        source=source,
        classes=classes,
        soft=_soft(each, len(classes)) if any(faces.soft is not None for faces in each) else None,
        group=_numbered_on([_groups(faces) for faces in each]).astype(np.int32) if grouped else None,
        colour=_colour(each),
    )


def _numbered_on(columns: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Return numbers of several sets, those of each set after the ones before; ``UNKNOWN`` stays."""
    first, moved = 0, []
    for column in columns:
        moved.append(np.where(column == UNKNOWN, UNKNOWN, column.astype(np.int64) + first))
        first += int(column.max(initial=-1)) + 1
    return np.concatenate(moved)


def _groups(faces: Faces) -> NDArray[np.int32]:
    return np.full(len(faces), UNKNOWN, np.int32) if faces.group is None else faces.group


def _soft(each: Sequence[Faces], classes: int) -> NDArray[np.float32]:
    parts = [np.zeros((len(faces), classes), np.float32) for faces in each]
    for faces, part in zip(each, parts, strict=True):
        if faces.soft is not None:
            part[:, : faces.soft.shape[1]] = faces.soft
        else:
            labelled = np.flatnonzero(faces.targets != UNKNOWN)
            part[labelled, faces.targets[labelled]] = 1
    return np.concatenate(parts)


def _colour(each: Sequence[Faces]) -> NDArray[np.uint8] | None:
    colours = [faces.colour for faces in each if faces.colour is not None]
    return np.concatenate(colours) if len(colours) == len(each) else None


# --- copies across sets ---------------------------------------------------------------------------------------------


def copies_across(images: NDArray[np.uint8], splits: NDArray[np.int8], numbers: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return (N,) the training faces whose picture is in val or test of another data set.

    Found are equal pixels, and copies in another size or compression: hashes as in ``known_faces``, and pixels that
    correlate as those of near duplicates do.

    Args:
        images: (N, S, S).
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
        numbers: (N,) number of the data set.
    """
    copied = np.zeros(len(images), np.bool_)
    names = np.array(digests(images))
    shown = images.std(axis=(1, 2)) >= FLAT
    hashes = np.zeros(len(images), np.uint64)
    hashes[shown] = hashed(frequencies(images, np.flatnonzero(shown)))
    for number in np.unique(numbers).tolist():
        train = np.flatnonzero((splits == 0) & (numbers == number))
        scored = np.flatnonzero((splits > 0) & (numbers != number))
        copied[train] = np.isin(names[train], names[scored])
        train, scored = train[shown[train] & ~copied[train]], scored[shown[scored]]
        first, second = near(hashes[train], hashes[scored])
        same = alike(images, train[first], scored[second], turned=False)
        copied[train[first[same]]] = True
    return copied


def _left_out(
    copies: NDArray[np.bool_], splits: NDArray[np.int8], numbers: NDArray[np.int8], names: Sequence[str]
) -> list[str]:
    """Return a note for each data set that loses training faces to val or test of another one."""
    lost = np.bincount(numbers[copies], minlength=len(names)).tolist()
    return [
        f"{name}: {plural(count, 'face')} left out of train: copies of faces in val or test of another data set"
        for name, count in zip(names, lost, strict=True)
        if count
    ]


def divided(count: int, shares: Sequence[float]) -> list[int]:
    """Return whole numbers that sum to ``count``, in these shares by the largest remainder; ties go to the first."""
    exact = [count * share for share in shares]
    counts = [math.floor(each) for each in exact]
    order = sorted(range(len(shares)), key=lambda index: counts[index] - exact[index])
    for index in order[: count - sum(counts)]:
        counts[index] += 1
    return counts
