"""Splits that are drawn at random: a share of the faces, or folds.

A draw is a function of its seed, and takes every class alike. Faces that belong together are drawn whole.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.config.settings import SplitRule
from fer.data.duplicates import exact_duplicates, together
from fer.data.faces import UNKNOWN, Faces


def drawn_share(
    faces: Faces, members: NDArray[np.int64], fraction: float, seed: int, rule: SplitRule
) -> NDArray[np.int64]:
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


def stratified(targets: NDArray[np.int8], fraction: float, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of a seeded random draw of ``fraction`` of every class, rounded to whole faces."""
    generator = np.random.default_rng(seed)
    drawn = []
    for label in range(int(targets.max(initial=0)) + 1):
        members = np.flatnonzero(targets == label)
        drawn.append(generator.permutation(members)[: round(len(members) * fraction)])
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def drawn_folds(faces: Faces, folds: int, fold: int, seed: int) -> NDArray[np.int8]:
    """Return each face's split, (N,): val is one fold, train the others; ``UNKNOWN`` for unlabelled faces.

    Args:
        faces: N faces.
        folds: number of folds.
        fold: the one, from 0, that is val.
        seed: of the random draw.

    Raises:
        FerError: the faces are too few.
    """
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
    in one fold, since a network would remember the label of a copy in train. They count for the class of the first
    labelled one. Faces of one person, video or picture stay in one fold too, where the source names these.

    Args:
        faces: N faces.
        folds: number of folds.
        seed: of the random draw.
    """
    if faces.group is not None:
        numbers = whole_units(together(faces), faces.targets, [1 / folds] * folds, seed)
        numbers[faces.targets == UNKNOWN] = UNKNOWN
        return numbers
    labelled = faces.targets != UNKNOWN
    first_of = np.arange(len(faces))  # index of the first labelled duplicate of each face
    for group in exact_duplicates(faces.images):
        if (known := group[labelled[group]]).size:
            first_of[known] = known[0]
    firsts, sizes = np.unique(first_of[labelled], return_counts=True)
    generator = np.random.default_rng(seed)
    numbers = np.full(len(faces), UNKNOWN, np.int64)
    for label in range(int(faces.targets.max(initial=0)) + 1):
        groups = generator.permutation(np.flatnonzero(faces.targets[firsts] == label))
        groups = groups[np.argsort(-sizes[groups], kind="stable")]  # large groups first: single faces then balance them
        numbers[firsts[groups]] = dealt(sizes[groups], generator.permutation(folds))
    return numbers[first_of]


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


def whole_units(
    units: NDArray[np.int64], targets: NDArray[np.int8], shares: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Assign units of faces to parts so that each part has nearly its share of every class; return (N,) the part.

    The largest units come first, equal ones in a seeded order. Each goes where a sum over parts and classes grows
    least: that of faces ** 2 / (share * faces of the class). The sum's minimum is the exact share of every class. Few
    units of one class each fill the same part first, class after class. Where a part gets less than half its share of
    all faces so, these count as a further class.

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
    part_of = _filled(faces, shares, seed)
    whole = faces.sum(1, keepdims=True)
    of_parts = np.bincount(part_of, whole[:, 0], minlength=len(shares))
    if (of_parts < np.array(shares) * whole.sum() / 2).any():
        part_of = _filled(np.concatenate([faces, whole], 1), shares, seed)
    return part_of[unit_of]


def _filled(faces: NDArray[np.float64], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Return the part of each of U units, (U,), by their faces of each class (U, C), see ``whole_units``."""
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
    return part_of
