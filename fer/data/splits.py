"""Assignment of faces to train, val and test.

The rules: the official split, the source's folders, an 80/20 holdout, or folds.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.config.settings import DataSettings
from fer.data.audit import near_duplicates
from fer.data.duplicates import conflicts, exact_duplicates
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import SPLITS
from fer.data.rows import chunks, outside, taken
from fer.system.text import plural

Rule = Literal["official", "as_given", "holdout", "folds"]
HOLDOUT_FRACTION = 0.2  # 80/20, as in the study that this project began with


def assigned(faces: Faces, data: DataSettings) -> NDArray[np.int8]:
    """Return each face's split by the data settings, see ``assign``."""
    return assigned_with_notes(faces, data)[0]


def assigned_with_notes(faces: Faces, data: DataSettings) -> tuple[NDArray[np.int8], list[str]]:
    """Return the splits, and a note on the near duplicates that were kept together, if any were searched for.

    Raises:
        FerError: as ``assign`` and ``near_groups`` do.
    """
    notes: list[str] = []
    if data.keep_duplicates_together and data.split != "official":
        near = near_groups(faces)
        faces = replace(faces, group=together(faces, near).astype(np.int32))
        count = sum(map(len, near))
        words = plural(len(near), "group")
        notes = [f"{count:,} faces in {words} of near duplicates: each group is in one split, where splits are drawn"]
    splits = assign(
        faces, data.split, seed=data.split_seed, val_fraction=data.val_fraction, folds=data.folds, fold=data.fold
    )
    return splits, notes


def near_groups(faces: Faces) -> list[NDArray[np.int64]]:
    """Return the indices of each group of near duplicates, exact copies included, as ``fer.audit`` finds them.

    Raises:
        FerError: the faces are outside memory.
    """
    if outside(faces.images) is not None:
        raise FerError(
            f"{setting('data.keep_duplicates_together', 'true')}: needs the pixels of all faces in memory; leave "
            "data.memory_limit_gb out"
        )
    images, least = faces.images, near_duplicates.FLAT
    flat = np.concatenate([np.empty(0, np.bool_), *(part.std(axis=(1, 2)) < least for part in chunks(images))])
    return near_duplicates.find_groups(images, exact_duplicates(images), flat).groups


def assign(
    faces: Faces, rule: Rule, *, seed: int, val_fraction: float, folds: int = 5, fold: int = 0
) -> NDArray[np.int8]:
    """Return each face's split, (N,) int8 index in ``SPLITS``, ``UNKNOWN`` for faces in no split.

    Args:
        faces: N faces.
        rule: "official" is the column Usage. "as_given" is the source's folders; without a val folder, val is drawn
            from train. "holdout" is a stratified 80/20 of all faces, without test. "folds" makes stratified parts of
            all faces: one is val, the others are train, and there is no test. What is drawn keeps groups of faces
            whole, where there are any.
        seed: of the random draw of "as_given", "holdout" and "folds".
        val_fraction: share of train that "as_given" draws for val.
        folds: number of parts of "folds".
        fold: the part, from 0, that is val.

    Raises:
        FerError: the source lacks the information that the rule needs, or the faces have no labels.
    """
    if not (faces.targets != UNKNOWN).any():
        raise FerError(
            f"{faces.source.path}: has no labels (no column 'emotion'), so that nothing can be trained or scored on it"
        )
    if rule == "official":
        return _official(faces)
    if rule == "holdout":
        splits = np.zeros(len(faces), np.int8)
        splits[_drawn(faces, np.arange(len(faces)), HOLDOUT_FRACTION, seed, rule)] = 1
        return splits
    if rule == "folds":
        return _folds(faces, folds, fold, seed)
    return _as_given(faces, seed, val_fraction)


def _official(faces: Faces) -> NDArray[np.int8]:
    unknown = int((faces.official == UNKNOWN).sum())
    if unknown:
        folders = f"{setting('data.split', 'as_given')} (its own folders) or " if (faces.given == 0).any() else ""
        raise FerError(
            f"{setting('data.split', 'official')}: {faces.source.path} has no official split (Usage) for "
            f"{unknown:,} of {len(faces):,} faces; use {folders}{setting('data.split', 'holdout')} (80/20)"
        )
    _require(faces.official, "official", faces)
    return faces.official.copy()


def _as_given(faces: Faces, seed: int, val_fraction: float) -> NDArray[np.int8]:
    splits = faces.given.copy()
    if (splits == UNKNOWN).all():
        raise FerError(
            f"{setting('data.split', 'as_given')}: {faces.source.path} has no train folder or file of its own; use "
            f"{setting('data.split', 'holdout')}"
        )
    if not (splits == 1).any():
        train = np.flatnonzero(splits == 0)
        splits[_drawn(faces, train, val_fraction, seed, "as_given")] = 1
    _require(splits, "as_given", faces)
    return splits


def _drawn(faces: Faces, members: NDArray[np.int64], fraction: float, seed: int, rule: Rule) -> NDArray[np.int64]:
    """Return the indices of a seeded draw of a share of some faces, of every class alike; groups are drawn whole.

    Raises:
        FerError: the faces are of a single group.
    """
    if faces.group is None:
        return members[stratified(faces.targets[members], fraction, seed)]
    units = together(faces)[members]
    if members.size and (units == units[0]).all():
        raise FerError(
            f"{setting('data.split', rule)}: all faces of {faces.source.path} are of one person, video or picture, "
            f"which stays together: nothing can be drawn; {setting('data.split', 'as_given')} takes the folders' own "
            "splits"
        )
    drawn = whole_units(units, faces.targets[members], [fraction, 1 - fraction], seed) == 0
    return np.sort(members[drawn])


def _folds(faces: Faces, folds: int, fold: int, seed: int) -> NDArray[np.int8]:
    numbers = fold_numbers(faces, folds, seed)
    splits = np.full(len(faces), UNKNOWN, np.int8)
    splits[numbers != UNKNOWN] = 0
    splits[numbers == fold] = 1
    for index in (0, 1):
        if not (splits == index).any():
            raise FerError(
                f"data.folds={folds}: {len(faces)} faces of {faces.source.path} are too few for this number of folds"
            )
    return splits


def fold_numbers(faces: Faces, folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold, from 0, of each face, (N,); ``UNKNOWN`` for unlabelled faces.

    Every labelled face is in exactly one fold. All folds hold nearly equal numbers of each class. Exact duplicates stay
    in one fold, since a network would remember the label of a copy in train. They count for the class of the first.
    Faces of one person, video or picture stay in one fold too, where the source names these.

    Args:
        faces: N faces.
        folds: number of folds.
        seed: of the random draw.
    """
    if faces.group is not None:
        numbers = whole_units(together(faces), faces.targets, [1 / folds] * folds, seed)
        numbers[faces.targets == UNKNOWN] = UNKNOWN
        return numbers
    first_of = np.arange(len(faces))  # index of the first duplicate of each face
    for group in exact_duplicates(faces.images):
        first_of[group] = group[0]
    firsts, sizes = np.unique(first_of, return_counts=True)
    generator = np.random.default_rng(seed)
    numbers = np.full(len(faces), UNKNOWN, np.int64)
    for label in range(int(faces.targets.max(initial=0)) + 1):
        groups = generator.permutation(np.flatnonzero(faces.targets[firsts] == label))
        groups = groups[np.argsort(-sizes[groups], kind="stable")]  # large groups first: single faces then balance them
        numbers[firsts[groups]] = dealt(sizes[groups], generator.permutation(folds))
    numbers = numbers[first_of]
    numbers[faces.targets == UNKNOWN] = UNKNOWN
    return numbers


def together(faces: Faces, near: Sequence[NDArray[np.int64]] = ()) -> NDArray[np.int64]:
    """Return (N,) a number that faces share which must be in one split: of one group, or duplicates.

    It is the index of the first of them, duplicates of members of a group and their groups included.

    Args:
        faces: N faces.
        near: indices of the faces of each group of near duplicates.
    """
    rows = np.arange(len(faces), dtype=np.int64)
    named = np.full(len(faces), UNKNOWN) if faces.group is None else faces.group
    groups = np.where(named == UNKNOWN, named.max(initial=0) + 1 + rows, named)
    duplicates = [*exact_duplicates(faces.images), *near]
    first, before = rows, None
    while before is None or (first != before).any():
        before, least = first, np.full(int(groups.max(initial=0)) + 1, len(faces))
        np.minimum.at(least, groups, first)
        first = least[groups]
        for copies in duplicates:
            first[copies] = first[copies].min()
    return first


def whole_units(
    units: NDArray[np.int64], targets: NDArray[np.int8], shares: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Assign units of faces to parts so that each part has nearly its share of every class; return (N,) the part.

    The largest units come first, equal ones in a seeded order. Each goes where a sum over parts and classes grows
    least: that of faces ** 2 / (share * faces of the class). The sum's minimum is the exact share of every class.

    Args:
        units: (N,) number of the unit of each face.
        targets: (N,) class, ``UNKNOWN`` for unlabelled faces, which count for none.
        shares: of the parts, which sum to 1.
        seed: of the random order.
    """
    _, unit_of = np.unique(units, return_inverse=True)
    faces = np.zeros((int(unit_of.max(initial=-1)) + 1, int(targets.max(initial=0)) + 1))
    labelled = targets != UNKNOWN
    np.add.at(faces, (unit_of[labelled], targets[labelled]), 1)
    of_class = np.maximum(faces.sum(0), 1)
    generator = np.random.default_rng(seed)
    units_in_order = generator.permutation(len(faces))
    units_in_order = units_in_order[np.argsort(-faces[units_in_order].sum(1), kind="stable")]
    parts = generator.permutation(len(shares))  # ties go to the first of them
    filled, share = np.zeros((len(shares), faces.shape[1])), np.array(shares)
    part_of = np.empty(len(faces), np.int64)
    for unit in units_in_order:
        growth = ((2 * filled + faces[unit]) * faces[unit] / of_class).sum(1) / share
        part_of[unit] = parts[growth[parts].argmin()]
        filled[part_of[unit]] += faces[unit]
    return part_of[unit_of]


def dealt(sizes: NDArray[np.int64], order: NDArray[np.int64]) -> list[int]:
    """Assign each group to the fold with the fewest faces so far; ties go to the first fold in ``order``.

    Args:
        sizes: number of faces of each group.
        order: the folds.
    """
    faces = dict.fromkeys(order.tolist(), 0)  # fold -> faces so far
    assigned_folds = []
    for size in sizes.tolist():
        fold = min(faces, key=faces.__getitem__)
        faces[fold] += size
        assigned_folds.append(fold)
    return assigned_folds


def _require(splits: NDArray[np.int8], rule: str, faces: Faces) -> None:
    for index in (0, 1):
        if not (splits == index).any():
            raise FerError(
                f"{setting('data.split', rule)}: {faces.source.path} has no face for {SPLITS[index]}; use "
                f"{setting('data.split', 'holdout')}"
            )


def stratified(targets: NDArray[np.int8], fraction: float, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of a seeded random draw of ``fraction`` of every class, rounded to whole faces."""
    generator = np.random.default_rng(seed)
    drawn = []
    for label in range(int(targets.max(initial=0)) + 1):
        members = np.flatnonzero(targets == label)
        drawn.append(generator.permutation(members)[: round(len(members) * fraction)])
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def without_conflicts(faces: Faces, splits: NDArray[np.int8]) -> tuple[NDArray[np.int8], int]:
    """Remove faces of train that have an exact duplicate in train with another label; return splits and their number.

    Duplicates in val and test are not compared, since a training must not use their labels.

    Args:
        faces: N faces.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.

    Raises:
        FerError: no face of train would remain.
    """
    train = np.flatnonzero(splits == 0)
    groups = [train[group] for group in exact_duplicates(taken(faces.images, train))]
    conflicting = conflicts(groups, faces.targets)
    removed = np.concatenate([group for group, bad in zip(groups, conflicting, strict=True) if bad] or [train[:0]])
    if len(removed) == len(train):
        raise FerError("data.conflicts=drop: leaves no face in train; use data.conflicts=keep")
    kept = splits.copy()
    kept[removed] = UNKNOWN
    return kept, len(removed)
