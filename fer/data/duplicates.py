"""Exact twins: faces that are the same pixel for pixel.

FER2013 repeats itself: 1,514 of its images occur more than once, with 1,850 copies beyond the first, and 56 of them
carry different labels. A copy of a test image in train makes a score on test look better than it is.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fer.data.faces import UNKNOWN
from fer.data.labels import SPLITS

SAMPLED = 16  # pixels of a face by which most faces are told apart
DIGEST = 16  # bytes, with which two different images meet by chance once in 10^29 data sets of FER2013's size


def exact_twins(images: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Return the places of the faces of each group of two or more that are alike, groups and places in table order.

    Args:
        images: (N, S, S).
    """
    pixels = images.reshape(len(images), math.prod(images.shape[1:]))
    few = np.linspace(0, pixels.shape[1] - 1, SAMPLED).astype(np.int64)
    likely, _ = _shared(np.ascontiguousarray(pixels[:, few]))  # FER2013: 0.3 s of hashing become 0.04
    shared, alike = _shared(
        np.frombuffer(b"".join(digests(images[place] for place in likely)), np.uint8).reshape(-1, DIGEST)
    )
    order = np.argsort(alike, kind="stable")
    places = likely[shared[order]]
    groups = np.split(places, np.flatnonzero(np.diff(alike[order])) + 1)
    return sorted((group for group in groups if len(group)), key=lambda group: int(group[0]))


def _shared(keys: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of (N, K) keys that occur more than once, and for each a number that equal ones share."""
    table = keys.view(np.dtype((np.void, keys.shape[1])))[:, 0]
    _, alike, counts = np.unique(table, return_inverse=True, return_counts=True)
    places = np.flatnonzero(counts[alike] > 1)
    return places, alike[places]


def digests(images: Iterable[NDArray[np.uint8]]) -> list[bytes]:
    """Return a hash of each face's pixels, ``DIGEST`` bytes long.

    Args:
        images: (N, S, S), or N of (S, S).
    """
    return [hashlib.blake2b(image.tobytes(), digest_size=DIGEST).digest() for image in images]


def without_twin(images: NDArray[np.uint8], known: set[bytes]) -> NDArray[np.bool_]:
    """Return (N,) whether a face is none of those known.

    Args:
        images: (N, S, S).
        known: hashes of pixels, as of ``digests``.
    """
    return np.array([name not in known for name in digests(images)], np.bool_)


def conflicts(groups: Sequence[NDArray[np.int64]], targets: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return (G,) whether the labels within each group differ; a face without a label contradicts none.

    Args:
        groups: places of the faces of each of G groups.
        targets: (N,) index in ``EMOTIONS`` or ``UNKNOWN``.
    """
    return np.array([len(set(targets[group].tolist()) - {UNKNOWN}) > 1 for group in groups], np.bool_)


def across(groups: Sequence[NDArray[np.int64]], splits: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return how many faces of each split (rows) have a twin in each split (columns), no face being its own twin.

    Args:
        groups: places of the faces of each group.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``, which stands last: -1 counts from the end.

    Returns:
        (len(SPLITS) + 1, len(SPLITS) + 1).
    """
    size = len(SPLITS) + 1
    table = np.zeros((size, size), np.int64)
    for group in groups:
        held = np.zeros(size, np.int64)  # faces of the group in each split
        np.add.at(held, splits[group], 1)
        table += held[:, None] * (held[None, :] > np.eye(size, dtype=np.int64))
    return table


def one_colour(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return (N,) whether all pixels of a face are the same, as in the black images of which FER2013 has eleven.

    Args:
        images: (N, S, S).
    """
    same: NDArray[np.bool_] = images.min(axis=(1, 2)) == images.max(axis=(1, 2))
    return same
