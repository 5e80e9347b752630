"""Assignment of faces to train, val and test.

The rules: the official split, the source's folders, an 80/20 holdout, or folds.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.config.settings import DataSettings
from fer.data.draws import Rule, drawn_folds, drawn_share
from fer.data.duplicates import near_groups, together
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import SPLITS
from fer.system.text import plural

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
        splits[drawn_share(faces, np.arange(len(faces)), HOLDOUT_FRACTION, seed, rule)] = 1
        return splits
    if rule == "folds":
        return drawn_folds(faces, folds, fold, seed)
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
        splits[drawn_share(faces, train, val_fraction, seed, "as_given")] = 1
    _require(splits, "as_given", faces)
    return splits


def _require(splits: NDArray[np.int8], rule: str, faces: Faces) -> None:
    for index in (0, 1):
        if not (splits == index).any():
            raise FerError(
                f"{setting('data.split', rule)}: {faces.source.path} has no face for {SPLITS[index]}; use "
                f"{setting('data.split', 'holdout')}"
            )
