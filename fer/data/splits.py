"""Who belongs to train, val and test: the official split, the source's own, the founding study's 80/20, or folds."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.config.settings import DataSettings
from fer.data.duplicates import across, conflicts, exact_twins
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import SPLITS

Rule = Literal["official", "as_given", "holdout", "folds"]
HOLDOUT_FRACTION = 0.2  # the founding study's 80/20


def assigned(faces: Faces, data: DataSettings) -> NDArray[np.int8]:
    """Return each face's split as the data settings say, see ``assign``."""
    return assign(
        faces, data.split, seed=data.split_seed, val_fraction=data.val_fraction, folds=data.folds, fold=data.fold
    )


def assign(
    faces: Faces, rule: Rule, *, seed: int, val_fraction: float, folds: int = 5, fold: int = 0
) -> NDArray[np.int8]:
    """Return (N,) int8, each face's index in ``SPLITS``, ``UNKNOWN`` where it belongs to none.

    Args:
        faces: N faces.
        rule: "official" (Usage), "as_given" (own folders; val held out of train where there is none), "holdout"
            (stratified 80/20 of everything, no test) or "folds" (val is one of several stratified parts of everything,
            train the others, no test).
        seed: of the draw for "as_given", "holdout" and "folds".
        val_fraction: the part of train that "as_given" holds out.
        folds: how many parts "folds" makes.
        fold: which of them, from 0, is val.

    Raises:
        FerError: the source does not tell what the rule needs, or the faces carry no labels.
    """
    if not (faces.targets != UNKNOWN).any():
        raise FerError(f"{faces.source.path}: has no labels (no column 'emotion'); it serves for prediction only")
    if rule == "official":
        return _official(faces)
    if rule == "holdout":
        splits = np.zeros(len(faces), np.int8)
        splits[stratified(faces.targets, HOLDOUT_FRACTION, seed)] = 1
        return splits
    if rule == "folds":
        return _folds(faces, folds, fold, seed)
    return _as_given(faces, seed, val_fraction)


def _official(faces: Faces) -> NDArray[np.int8]:
    unknown = int((faces.official == UNKNOWN).sum())
    if unknown:
        raise FerError(
            f"{setting('data.split', 'official')}: {faces.source.path} does not tell the official split of "
            f"{unknown:,} of {len(faces):,} faces (no Usage); use {setting('data.split', 'as_given')} (its own "
            f"folders) or {setting('data.split', 'holdout')} (80/20)"
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
        splits[train[stratified(faces.targets[train], val_fraction, seed)]] = 1
    _require(splits, "as_given", faces)
    return splits


def _folds(faces: Faces, folds: int, fold: int, seed: int) -> NDArray[np.int8]:
    numbers = fold_numbers(faces, folds, seed)
    splits = np.full(len(faces), UNKNOWN, np.int8)
    splits[numbers != UNKNOWN] = 0
    splits[numbers == fold] = 1
    for index in (0, 1):
        if not (splits == index).any():
            raise FerError(
                f"data.folds={folds}: {len(faces)} faces of {faces.source.path} are too few for so many folds"
            )
    return splits


def fold_numbers(faces: Faces, folds: int, seed: int) -> NDArray[np.int64]:
    """Return (N,) the fold, from 0, of each face; ``UNKNOWN`` for one without a label.

    Every face is val of exactly one fold, and every fold holds as many of each class as the others, but for what exact
    twins cost: they stay together, since a prediction of a face whose twin is in train is remembered, not made. A group
    counts as its first face's class.

    Args:
        faces: N faces.
        folds: how many.
        seed: of the draw.
    """
    together = np.arange(len(faces))  # the first of a face's twins
    for group in exact_twins(faces.images):
        together[group] = group[0]
    firsts, sizes = np.unique(together, return_counts=True)
    generator = np.random.default_rng(seed)
    numbers = np.full(len(faces), UNKNOWN, np.int64)
    for label in range(int(faces.targets.max(initial=0)) + 1):
        own = generator.permutation(np.flatnonzero(faces.targets[firsts] == label))
        own = own[np.argsort(-sizes[own], kind="stable")]  # the large groups first, so that single faces even them out
        numbers[firsts[own]] = dealt(sizes[own], generator.permutation(folds))
    numbers = numbers[together]
    numbers[faces.targets == UNKNOWN] = UNKNOWN
    return numbers


def dealt(sizes: NDArray[np.int64], order: NDArray[np.int64]) -> list[int]:
    """Return for each group, in turn, the number that holds the fewest faces so far; of equals the first in order.

    Args:
        sizes: faces of each group.
        order: the numbers.
    """
    held = dict.fromkeys(order.tolist(), 0)
    chosen = []
    for size in sizes.tolist():
        number = min(held, key=held.__getitem__)
        held[number] += size
        chosen.append(number)
    return chosen


def _require(splits: NDArray[np.int8], rule: str, faces: Faces) -> None:
    for index in (0, 1):
        if not (splits == index).any():
            raise FerError(
                f"{setting('data.split', rule)}: {faces.source.path} has no face for {SPLITS[index]}; use "
                f"{setting('data.split', 'holdout')}"
            )


def stratified(targets: NDArray[np.int8], fraction: float, seed: int) -> NDArray[np.int64]:
    """Return sorted places of a seeded draw of ``fraction`` of every class, rounded to the nearest whole face."""
    generator = np.random.default_rng(seed)
    chosen = []
    for label in range(int(targets.max(initial=0)) + 1):
        places = np.flatnonzero(targets == label)
        chosen.append(generator.permutation(places)[: round(len(places) * fraction)])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def without_conflicts(faces: Faces, splits: NDArray[np.int8]) -> tuple[NDArray[np.int8], int]:
    """Return the splits without those faces of train that have an exact twin there with another label; and how many.

    Twins in val and test say nothing here: their labels are not known to a training.

    Args:
        faces: N faces.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.

    Raises:
        FerError: no face would be left.
    """
    train = np.flatnonzero(splits == 0)
    groups = [train[group] for group in exact_twins(faces.images[train])]
    contrary = conflicts(groups, faces.targets)
    out = np.concatenate([group for group, bad in zip(groups, contrary, strict=True) if bad] or [train[:0]])
    if len(out) == len(train):
        raise FerError("data.conflicts=drop: leaves no face in train")
    kept = splits.copy()
    kept[out] = UNKNOWN
    return kept, len(out)


def twin_notes(faces: Faces, splits: NDArray[np.int8]) -> list[str]:
    """Return a line for each split but train that says how many of its faces have an exact twin in train.

    FER2013 repeats itself: of its 3,589 PrivateTest images 288 are in Training too, pixel for pixel.

    Args:
        faces: N faces.
        splits: (N,) index in ``SPLITS``.
    """
    counted = across(exact_twins(faces.images), splits)[:, 0]
    return [
        f"{counted[index]:,} of {int((splits == index).sum()):,} {name} faces have an exact twin in train"
        for index, name in enumerate(SPLITS)
        if index and counted[index]
    ]
