"""Notes on the splits of faces: their sizes, shared groups and duplicates, and the classes that they lack."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.config.settings import DataSettings, SplitRule
from fer.data.duplicates import across, exact_duplicates
from fer.data.faces import UNKNOWN, Faces, split_sizes
from fer.data.labels import OFFICIAL_SIZES, SPLITS
from fer.data.load import assigned
from fer.metrics.results import MissingClasses
from fer.system.text import plural

RULES: tuple[SplitRule, ...] = ("official", "as_given", "holdout")  # that may replace another one
OWN_LABELS = ("fer2013", "folder names")  # values of ``Source.labels`` for labels of the data themselves
NOT_OFFICIAL = "not FER2013's official split"  # part of a note


def official_notes(faces: Faces, rule: str) -> list[str]:
    """Return a note if the official split by name has other sizes than FER2013's; it concerns FER2013's labels alone.

    Args:
        faces: N faces.
        rule: of the split.
    """
    sizes = split_sizes(faces.official)
    if rule != "official" or faces.source.labels not in OWN_LABELS or sizes == OFFICIAL_SIZES:
        return []
    here, there = (" + ".join(f"{size:,}" for size in each) for each in (sizes, OFFICIAL_SIZES))
    return [f"{here} faces are {NOT_OFFICIAL} ({there}): no result on them is one on PrivateTest"]


def group_notes(faces: Faces, splits: NDArray[np.int8]) -> list[str]:
    """Return a note on the groups of the faces: whether train shares one with val or test.

    Args:
        faces: N faces.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
    """
    if faces.group is None:
        return []
    named = faces.group != UNKNOWN
    in_train, besides = (set(faces.group[named & part].tolist()) for part in (splits == 0, splits > 0))
    shared, count = len(in_train & besides), plural(len(in_train | besides), "group")
    count += " of faces (a person, a video or a picture each)"
    if not shared:
        return [f"{count}: none is in train and in another split"]
    return [f"{shared:,} of {count} are in train and in another split: metrics there flatter the network"]


def duplicate_notes(faces: Faces, splits: NDArray[np.int8]) -> list[str]:
    """Return a note for each split with the number of its faces that have an exact duplicate in train, if any.

    288 of the 3,589 PrivateTest images of FER2013 are in Training too, pixel for pixel.

    Args:
        faces: N faces.
        splits: (N,) index in ``SPLITS``.
    """
    counted = across(exact_duplicates(faces.images), splits)[:, 0]
    return [
        f"{counted[index]:,} of {int((splits == index).sum()):,} {name} faces have an exact duplicate in train"
        for index, name in enumerate(SPLITS)
        if index and counted[index]
    ]


def missing_classes(
    faces: Faces, splits: NDArray[np.int8], data: DataSettings, others: Sequence[SplitRule] = RULES
) -> MissingClasses | None:
    """Return the classes without a face in a split that has faces; None where every split has all classes.

    Args:
        faces: N faces.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
        data: settings of the data, for the other rules.
        others: rules that may have all classes.
    """
    by_split = _missing(faces, splits)
    if not by_split:
        return None
    everywhere = _absent(faces, faces.targets)
    others = [rule for rule in others if rule != data.split]
    complete = None if everywhere else next((rule for rule in others if _is_complete(faces, data, rule)), None)
    return MissingClasses(splits=by_split, everywhere=everywhere, complete=complete)


def _missing(faces: Faces, splits: NDArray[np.int8]) -> dict[str, tuple[str, ...]]:
    members = {name: faces.targets[splits == index] for index, name in enumerate(SPLITS)}
    classes = {name: _absent(faces, targets) for name, targets in members.items() if (targets != UNKNOWN).any()}
    return {name: absent for name, absent in classes.items() if absent}


def _absent(faces: Faces, targets: NDArray[np.int8]) -> tuple[str, ...]:
    return tuple(name for label, name in enumerate(faces.classes) if not (targets == label).any())


def _is_complete(faces: Faces, data: DataSettings, rule: SplitRule) -> bool:
    """Return whether a rule applies to the faces and each of its splits has all classes."""
    try:
        splits = assigned(faces, replace(data, split=rule))
    except FerError:
        return False
    return not _missing(faces, splits)
