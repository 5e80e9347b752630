"""FER2013's training faces, found by content where their pixels have changed.

The package carries a 64-bit perceptual hash of each face of Training (``fer2013_training.npy``, sorted uint64, 230 kB),
the hash of ``fer.data.audit.near_duplicates``. A face whose hash differs from one of them in at most ``RADIUS`` bits is
a copy. It may be enlarged, reduced or compressed, but not turned, moved or mirrored.

Measured on FER2013: 600 training faces were changed in eight ways (48 to 224 pixels, JPEG of quality 40 to 80). Of each
way, between 598 and 600 are found. Of the 3,589 faces of PrivateTest, 404 are found: 288 have an exact copy in
Training, most others are other copies of a photograph. The pixels of 12 correlate with the nearest face by less than
0.9, those of 3 by less than 0.8. Of PublicTest these are 374, 6 and 1.

``python -c "from fer.data import known_faces; known_faces.write('fer2013.csv')"`` writes the file anew.
"""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer.data.audit.near_duplicates import COMPARED, FLAT, frequencies, hashed
from fer.data.readers import csv_file
from fer.data.rows import chunks

FILE = Path(__file__).with_name("fer2013_training.npy")
RADIUS = 4  # bits of 64; the largest distance of a copy


def copies_of_training(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return (N,) whether each face is a copy of a face of FER2013's Training; pictures of one colour are none.

    Args:
        images: (N, S, S).
    """
    return np.concatenate([np.empty(0, np.bool_), *(_copies(chunk) for chunk in chunks(images))])


def _copies(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    shown = np.flatnonzero(images.std(axis=(1, 2)) >= FLAT)
    copied = np.zeros(len(images), np.bool_)
    first, _ = near(hashed(frequencies(images, shown)), training_hashes())
    copied[shown[first]] = True
    return copied


def near(hashes: NDArray[np.uint64], known: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs, as indices in both, of hashes that differ in at most ``RADIUS`` bits.

    Args:
        hashes: (K,).
        known: (M,).
    """
    step = max(1, COMPARED // max(1, len(known)))
    firsts, seconds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(hashes), step):
        bits = np.bitwise_count(hashes[start : start + step, None] ^ known[None])
        first, second = np.nonzero(bits <= RADIUS)
        firsts.append(first + start)
        seconds.append(second)
    return np.concatenate(firsts), np.concatenate(seconds)


@functools.cache
def training_hashes() -> NDArray[np.uint64]:
    """Return the hashes of FER2013's training faces, sorted, without repetitions."""
    hashes: NDArray[np.uint64] = np.load(FILE, allow_pickle=False)
    return hashes


def write(table: str) -> None:
    """Write the hashes of the training faces of ``fer2013.csv``."""
    faces = csv_file.read(Path(table))
    training = faces.images[faces.official == 0]
    shown = np.flatnonzero(training.std(axis=(1, 2)) >= FLAT)
    np.save(FILE, np.unique(hashed(frequencies(training, shown))))
