"""Exact twins: faces that are the same pixel for pixel.

FER2013 repeats itself: 1,514 of its images occur more than once, with 1,850 copies beyond the first, and 56 of them carry
different labels. A copy of a test image in train makes a score on test look better than it is.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fer.data.faces import UNKNOWN
from fer.labels import SPLITS

DIGEST = 16  # bytes, with which two different images meet by chance once in 10^29 data sets of FER2013's size


def first_alike(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return (N,) the place of the first face with the same pixels; that of a face without an earlier twin is its own.

    Args:
        images: (N, S, S).
    """
    digests = b"".join([hashlib.blake2b(image.tobytes(), digest_size=DIGEST).digest() for image in images])
    table = np.frombuffer(digests, np.dtype((np.void, DIGEST)))
    _, first, group = np.unique(table, return_index=True, return_inverse=True)
    return first[group].astype(np.int64)


def twin_groups(first: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the places of the faces of each group of two or more, groups and places in the table's order.

    Args:
        first: (N,) as of ``first_alike``.
    """
    order = np.argsort(first, kind="stable")
    cuts = np.flatnonzero(np.diff(first[order])) + 1
    return [group for group in np.split(order, cuts) if len(group) > 1]


def conflicts(groups: Sequence[NDArray[np.int64]], targets: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return (G,) whether the labels within each group differ; a face without a label contradicts none.

    Args:
        groups: places of the faces of each of G groups.
        targets: (N,) index in ``EMOTIONS`` or ``UNKNOWN``.
    """
    return np.array([len(set(targets[group].tolist()) - {UNKNOWN}) > 1 for group in groups], np.bool_)


def across(first: NDArray[np.int64], splits: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return how many faces of each split (rows) have a twin in each split (columns), no face being its own twin.

    Args:
        first: (N,) as of ``first_alike``.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``, which stands last: -1 counts from the end.

    Returns:
        (len(SPLITS) + 1, len(SPLITS) + 1).
    """
    held = np.zeros((len(first), len(SPLITS) + 1), np.int64)  # of each group, at its first face: faces in each split
    np.add.at(held, (first, splits), 1)
    others = held[first]
    others[np.arange(len(first)), splits] -= 1
    table = np.zeros((len(SPLITS) + 1, len(SPLITS) + 1), np.int64)
    np.add.at(table, splits, others > 0)
    return table


def one_colour(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return (N,) whether all pixels of a face are the same, as in the black images of which FER2013 has eleven.

    Args:
        images: (N, S, S).
    """
    same: NDArray[np.bool_] = images.min(axis=(1, 2)) == images.max(axis=(1, 2))
    return same
