"""Exact duplicates, which are faces with equal pixels, and what splits do with them.

1,514 images of FER2013 occur more than once, with 1,850 copies beyond the first; 56 of them have different labels. A
copy of a test image in train makes a test score too high. Overlap with training data is found by pixels, not by names.
Another split of the same data, or a copy under another name, cannot pass for new faces.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.data.audit import near_duplicates
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import SPLITS
from fer.data.rows import Rows, chunks, outside, taken

SAMPLED = 16  # pixels of a face that are compared first; they differ for most faces
DIGEST = 16  # bytes of a hash: two different images collide once in 10^29 data sets of FER2013's size


def exact_duplicates(images: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Return the groups of two or more equal faces, as rising indices; groups are in the order of their first faces.

    Args:
        images: (N, S, S).
    """
    rows = outside(images)
    if rows is not None:
        return _groups(np.arange(len(rows)), _hashes(rows))
    pixels = images.reshape(len(images), math.prod(images.shape[1:]))
    sampled = np.linspace(0, pixels.shape[1] - 1, SAMPLED).astype(np.int64)
    candidates, _ = _repeated(np.ascontiguousarray(pixels[:, sampled]))  # FER2013: 0.3 s of hashing become 0.04
    return _groups(candidates, np.frombuffer(b"".join(digests(images[index] for index in candidates)), np.uint8))


def _groups(candidates: NDArray[np.int64], hashes: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Return the groups of equal faces among candidates (K,) with hashes of ``DIGEST`` bytes each."""
    repeated, values = _repeated(hashes.reshape(-1, DIGEST))
    order = np.argsort(values, kind="stable")
    indices = candidates[repeated[order]]
    groups = np.split(indices, np.flatnonzero(np.diff(values[order])) + 1)
    return sorted((group for group in groups if len(group)), key=lambda group: int(group[0]))


def _repeated(keys: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the keys (N, K) that occur more than once, and for each a number that equal keys share."""
    table = keys.view(np.dtype((np.void, keys.shape[1])))[:, 0]
    _, values, counts = np.unique(table, return_inverse=True, return_counts=True)
    indices = np.flatnonzero(counts[values] > 1)
    return indices, values[indices]


def digests(images: Iterable[NDArray[np.uint8]]) -> list[bytes]:
    """Return a hash of each face's pixels, ``DIGEST`` bytes long.

    Args:
        images: (N, S, S), or N of (S, S).
    """
    rows = outside(images)
    if rows is not None:
        return [row.tobytes() for row in _hashes(rows)]
    return [hashlib.blake2b(image.tobytes(), digest_size=DIGEST).digest() for image in images]


def _hashes(rows: Rows) -> NDArray[np.uint8]:
    """Return the hashes (N, DIGEST) of faces outside memory; a first pass over all makes them known."""
    if rows.digests is None:
        every = b"".join(digests(iter(Rows(rows.source))))
        rows.source.digests = np.frombuffer(every, np.uint8).reshape(-1, DIGEST)
    assert rows.digests is not None
    return np.ascontiguousarray(rows.digests)


def without_duplicate(images: NDArray[np.uint8], known: set[bytes]) -> NDArray[np.bool_]:
    """Return (N,) whether each face differs from all known faces.

    Args:
        images: (N, S, S).
        known: hashes of the known faces, by ``digests``.
    """
    return np.array([name not in known for name in digests(images)], np.bool_)


def conflicts(groups: Sequence[NDArray[np.int64]], targets: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return (G,) whether the labels within each group differ; unlabelled faces conflict with none.

    Args:
        groups: indices of the faces of each of G groups.
        targets: (N,) index in ``EMOTIONS`` or ``UNKNOWN``.
    """
    return np.array([len(set(targets[group].tolist()) - {UNKNOWN}) > 1 for group in groups], np.bool_)


def across(groups: Sequence[NDArray[np.int64]], splits: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return the number of faces of each split (rows) that have a duplicate in each split (columns).

    Args:
        groups: indices of the faces of each group of duplicates.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``; -1 is the last row and column.

    Returns:
        (len(SPLITS) + 1, len(SPLITS) + 1).
    """
    size = len(SPLITS) + 1
    table = np.zeros((size, size), np.int64)
    for group in groups:
        faces = np.zeros(size, np.int64)  # of the group in each split
        np.add.at(faces, splits[group], 1)
        table += faces[:, None] * (faces[None, :] > np.eye(size, dtype=np.int64))
    return table


def one_colour(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return (N,) whether all pixels of a face are equal, as in the eleven black images of FER2013.

    Args:
        images: (N, S, S).
    """
    same: NDArray[np.bool_] = images.min(axis=(1, 2)) == images.max(axis=(1, 2))
    return same


# --- splits -----------------------------------------------------------------------------------------------------------


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
