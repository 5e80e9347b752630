"""Which face belongs to train, val and test: the official split, the source's own, or the founding study's 80/20."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fer.data.faces import UNKNOWN, Faces
from fer.data.twins import across, exact_twins
from fer.errors import FerError
from fer.labels import SPLITS

Rule = Literal["official", "as_given", "holdout"]
HOLDOUT_FRACTION = 0.2  # the founding study's 80/20


def assign(faces: Faces, rule: Rule, *, seed: int, val_fraction: float) -> NDArray[np.int8]:
    """Return (N,) int8, each face's index in ``SPLITS``, ``UNKNOWN`` where it belongs to none.

    Args:
        faces: N faces.
        rule: "official" (Usage), "as_given" (own folders; val held out of train where there is none) or "holdout"
            (stratified 80/20 of everything, no test).
        seed: of the draw for "as_given" and "holdout".
        val_fraction: the part of train that "as_given" holds out.

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
    return _as_given(faces, seed, val_fraction)


def _official(faces: Faces) -> NDArray[np.int8]:
    unknown = int((faces.official == UNKNOWN).sum())
    if unknown:
        raise FerError(
            f"data.split=official: {faces.source.path} does not tell the official split of {unknown:,} of "
            f"{len(faces):,} faces (no Usage); use data.split=as_given (its own folders) or data.split=holdout (80/20)"
        )
    _require(faces.official, "official", faces)
    return faces.official.copy()


def _as_given(faces: Faces, seed: int, val_fraction: float) -> NDArray[np.int8]:
    splits = faces.given.copy()
    if (splits == UNKNOWN).all():
        raise FerError(
            f"data.split=as_given: {faces.source.path} has no train folder or file of its own; use data.split=holdout"
        )
    if not (splits == 1).any():
        train = np.flatnonzero(splits == 0)
        splits[train[stratified(faces.targets[train], val_fraction, seed)]] = 1
    _require(splits, "as_given", faces)
    return splits


def _require(splits: NDArray[np.int8], rule: str, faces: Faces) -> None:
    for index in (0, 1):
        if not (splits == index).any():
            raise FerError(
                f"data.split={rule}: {faces.source.path} has no face for {SPLITS[index]}; use data.split=holdout"
            )


def stratified(targets: NDArray[np.int8], fraction: float, seed: int) -> NDArray[np.int64]:
    """Return sorted places of a seeded draw of ``fraction`` of every class, rounded to the nearest whole face."""
    generator = np.random.default_rng(seed)
    chosen = []
    for label in range(int(targets.max(initial=0)) + 1):
        places = np.flatnonzero(targets == label)
        chosen.append(generator.permutation(places)[: round(len(places) * fraction)])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


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
