"""Near duplicates: altered copies of one photograph.

The copies differ in crop, compression, light or a watermark, or are mirrored. A 64-bit perceptual hash of each face
proposes pairs (C. Zauner, *Implementation and Benchmarking of Perceptual Image Hash Functions*, 2010). It compares the
lowest frequencies of the cosine transform with their median. A pair has to meet two conditions. Its pixels correlate,
which ignores brightness and contrast. Its details correlate at the best small shift.

The limits were chosen on FER2013 by viewing pairs side by side.

- Correlation, just accepted: of 48 pairs at distances 8 and 10 with 0.88 to 0.90, all showed the same photograph.
- Correlation, just rejected: of 48 pairs with 0.85 to 0.88, 43 showed the same photograph.
- Details: the 96 of 2,277 pairs with the lowest correlation of details were viewed. A dozen showed different people
  before a dark background, or the same person with another expression. Nearly all of these were below 0.56. So were
  about fifteen copies.
- Groups: the 72 faces with the lowest correlation of details to any other face of their group were viewed. At most two
  showed another moment of the same sitting.
- Mirrored copies are rare, so that chance matches have a larger share. At distance 10 some showed different people, at
  8 and below none.
- Misses: all pairs of FER2013 were compared one by one. Of those with a correlation of 0.90 or more the hash proposes
  90 %, of those with 0.95 or more 98 %. Copies with very different crops do not correlate and are not found.
- Changes: 300 faces of PrivateTest stood each beside a changed copy, and the copies found were counted.
  Mirrored, darker by 30 %, or turned by 1 degree: all. JPEG of quality 20: 299.
  Turned by 2, 3, 5 and 10 degrees: 219, 135, 29 and 0.
  Moved along a row by 1, 2 and 3 pixels: 110, 4 and 0.
  Enlarged by 4, 8 and 12 %: 276, 30 and 1. ``LIMIT`` states it beside a result.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 8  # frequencies along each axis: 64 bits
RADIUS, MIRRORED_RADIUS = 10, 8  # largest number of differing bits, of 64, between the hashes of a pair
LEAST = 0.88  # least correlation of a pair's pixels
LEAST_DETAIL = 0.56  # least correlation of its details: pixels minus the mean of the surrounding square, at best shift
SURROUNDING, SHIFT = 3 / 48, 2 / 48  # half side of that square, and largest shift, as fractions of the side
LIMIT = (
    "not found are most copies that were turned by 5 degrees, moved by 2 of 48 pixels or enlarged by 8 % (of 300 faces "
    "of FER2013 each, 29, 4 and 30 were found)"
)
# Standard deviation of the pixels, in grey levels, below which a picture shows no face. Two images of FER2013 that are
# not of one colour are below, with 0.7 and 4.1, and show no face. The next, with 9.1, is a dim portrait.
FLAT = 5.0
SMALLEST = 48  # pixels; pictures with twice this side or more are averaged in squares first
COMPARED = 2**21  # hashes compared at once, 16 MB
PIXELS = 2**21  # pixels converted to float at once, 8 MB
CHECKED = 512  # pairs compared by pixels before groups are joined again


class NearDuplicates(NamedTuple):
    """Groups of faces that show the same photograph, of N faces.

    Args:
        groups: indices of the faces of each of G groups, exact copies included; groups and indices in table order.
        likeness: (N,) correlation with the first face of the group, mirrored if that is larger; 1 for the first face,
            NaN for faces without near duplicates.
        distance: (N,) bits between the hashes of the face and the first face; 0 for faces without near duplicates.
        mirrored: (N,) whether the mirrored face correlates better.
    """

    groups: list[NDArray[np.int64]]
    likeness: NDArray[np.float32]
    distance: NDArray[np.uint8]
    mirrored: NDArray[np.bool_]


def find_groups(
    images: NDArray[np.uint8], exact: Sequence[NDArray[np.int64]], leave_out: NDArray[np.bool_]
) -> NearDuplicates:
    """Return the groups of near duplicates; a group of nothing but exact duplicates is none.

    Args:
        images: (N, S, S).
        exact: indices of the faces of each group of exact duplicates.
        leave_out: (N,) whether a face is left out, since it shows too little to be compared.
    """
    single = ~leave_out  # one face represents each group of exact duplicates
    for group in exact:
        single[group[1:]] = False
    indices = np.flatnonzero(single)
    waves = frequencies(images, indices)
    hashes, mirrored = hashed(waves), hashed(waves * (-1.0) ** np.arange(1, SIDE + 1, dtype=np.float32))
    related = joined(images, indices, hashes, mirrored)
    copies = {int(group[0]): group for group in exact}
    groups = [np.sort(np.concatenate([copies.get(i, np.array([i])) for i in members.tolist()])) for members in related]
    groups.sort(key=lambda group: int(group[0]))
    return measured(images, groups)


def frequencies(images: NDArray[np.uint8], indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the lowest frequencies of the faces' two-dimensional cosine transform (DCT-II), (K, SIDE, SIDE).

    Frequency 0 along either axis is left out, as by Zauner. The transform is of the picture itself, not of one reduced
    to 32 pixels: the frequencies are the same up to a factor.

    Args:
        images: (N, S, S).
        indices: (K,) faces to transform.
    """
    size = small(images[:1]).shape[-1]
    angles = np.pi * np.arange(1, SIDE + 1)[:, None] * (2 * np.arange(size) + 1)[None] / (2 * size)
    waves = np.cos(angles).astype(np.float32)  # (SIDE, s)
    transformed = np.empty((len(indices), SIDE, SIDE), np.float32)
    for part in parts(len(indices), images.shape[-1]):
        transformed[part] = waves @ small(images[indices[part]]) @ waves.T
    return transformed


def small(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return faces (K, S, S) as floats; large ones are averaged in squares to a side below twice ``SMALLEST``."""
    step = max(1, images.shape[-1] // SMALLEST)
    side = images.shape[-1] // step
    border = (images.shape[-1] - side * step) // 2
    kept = images[:, border : border + side * step, border : border + side * step].astype(np.float32)
    return kept.reshape(-1, side, step, side, step).mean((2, 4)) if step > 1 else kept


def hashed(waves: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return hashes (K,) whose bits state which of the frequencies (K, SIDE, SIDE) are above their median."""
    flat = waves.reshape(len(waves), SIDE**2)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def joined(
    images: NDArray[np.uint8], indices: NDArray[np.int64], hashes: NDArray[np.uint64], mirrored: NDArray[np.uint64]
) -> list[NDArray[np.int64]]:
    """Return the indices of the faces of each connected group of two or more near duplicates.

    Pairs within one group are not compared again. So a thousand copies of a face take a thousand comparisons of pixels,
    not half a million.

    Args:
        images: (N, S, S).
        indices: (K,) different faces.
        hashes: (K,) their hashes.
        mirrored: (K,) hashes of the mirrored faces.
    """
    group = np.arange(len(indices))  # of each face, numbered by one of its members
    for second_hashes, radius, turned in ((hashes, RADIUS, False), (mirrored, MIRRORED_RADIUS, True)):
        for all_first, all_second in proposed(hashes, second_hashes, radius):
            for start in range(0, len(all_first), CHECKED):
                first, second = all_first[start : start + CHECKED], all_second[start : start + CHECKED]
                apart = group[first] != group[second]
                first, second = first[apart], second[apart]
                same = alike(images, indices[first], indices[second], turned)
                for a, b in zip(first[same].tolist(), second[same].tolist(), strict=True):
                    group[group == group[b]] = group[a]
    numbers, sizes = np.unique(group, return_counts=True)
    return [indices[group == number] for number in numbers[sizes > 1].tolist()]


def proposed(
    hashes: NDArray[np.uint64], second_hashes: NDArray[np.uint64], radius: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield, block by block, the pairs with first < second whose hashes differ in at most ``radius`` bits.

    Args:
        hashes: (K,) hashes of the first faces.
        second_hashes: (K,) hashes of the second faces.
        radius: in bits.
    """
    count = len(hashes)
    step = max(1, COMPARED // max(1, count))
    for start in range(0, count, step):
        bits = np.bitwise_count(hashes[start : start + step, None] ^ second_hashes[None, start:])
        first, second = np.nonzero(bits <= radius)
        later = second > first  # both are relative to start
        yield first[later] + start, second[later] + start


def alike(
    images: NDArray[np.uint8], left: NDArray[np.int64], right: NDArray[np.int64], turned: bool
) -> NDArray[np.bool_]:
    """Return (K,) whether the faces of each of K pairs show the same photograph.

    Args:
        images: (N, S, S).
        left: (K,) indices of the first of each pair.
        right: (K,) indices of the second.
        turned: whether the second is mirrored.
    """
    same = correlation(images, left, right, turned) >= LEAST
    same[same] = detail_correlation(images, left[same], right[same], turned) >= LEAST_DETAIL
    return same


def correlation(
    images: NDArray[np.uint8], left: NDArray[np.int64], right: NDArray[np.int64], turned: bool
) -> NDArray[np.float32]:
    """Return Pearson's correlation of the pixels of K pairs, (K,), see ``alike``; 0 for faces of one colour."""
    values = np.empty(len(left), np.float32)
    for part in parts(len(left), images.shape[-1]):
        first, second = pair(images, left[part], right[part], turned)
        values[part] = (standardised(first) * standardised(second)).sum(1)
    return values


def detail_correlation(
    images: NDArray[np.uint8], left: NDArray[np.int64], right: NDArray[np.int64], turned: bool
) -> NDArray[np.float32]:
    """Return the correlation of the details of K pairs, (K,), at the best shift, see ``alike``.

    Outlines of different people before the same dark background correlate; their details do not.
    """
    values = np.empty(len(left), np.float32)
    for part in parts(len(left), images.shape[-1]):
        first, second = (detail(faces) for faces in pair(images, left[part], right[part], turned))
        side = first.shape[-1]
        reach = round(SHIFT * side)
        middle = standardised(first[:, reach : side - reach, reach : side - reach])
        shifted = [
            (middle * standardised(second[:, y : side - 2 * reach + y, x : side - 2 * reach + x])).sum(1)
            for y in range(2 * reach + 1)
            for x in range(2 * reach + 1)
        ]
        values[part] = np.max(shifted, axis=0)
    return values


def pair(
    images: NDArray[np.uint8], left: NDArray[np.int64], right: NDArray[np.int64], turned: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return both faces of each pair as floats; the second is mirrored if ``turned``."""
    second = small(images[right])
    return small(images[left]), second[..., ::-1] if turned else second


def detail(faces: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return faces (K, s, s) minus the mean of the square around each pixel, which is cut off at the border."""
    position = np.arange(faces.shape[-1])
    near = np.abs(position[:, None] - position[None]) <= max(1, round(SURROUNDING * len(position)))
    mean = (near / near.sum(1, keepdims=True)).astype(np.float32)
    smooth: NDArray[np.float32] = mean @ faces @ mean.T
    return faces - smooth


def standardised(faces: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each face of (K, s, s) as a vector with mean 0 and norm 1, (K, s * s)."""
    values = np.array(faces, np.float32).reshape(len(faces), -1)
    values -= values.mean(1, keepdims=True)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    return values


def parts(count: int, size: int) -> Iterator[slice]:
    """Yield slices of ``count`` faces of ``size`` x ``size`` pixels, with at most ``PIXELS`` pixels each."""
    step = max(1, PIXELS // size**2)
    return (slice(start, start + step) for start in range(0, count, step))


def measured(images: NDArray[np.uint8], groups: list[NDArray[np.int64]]) -> NearDuplicates:
    """Return the groups with likeness and distance of each face to the first of its group."""
    count = len(images)
    likeness, turned = np.full(count, np.nan, np.float32), np.zeros(count, np.bool_)
    distance = np.zeros(count, np.uint8)
    if groups:
        members = np.concatenate(groups)
        first = np.concatenate([np.full(len(group), group[0]) for group in groups])
        plain, mirrored = (correlation(images, first, members, flip) for flip in (False, True))
        turned[members] = mirrored > plain
        likeness[members] = np.maximum(plain, mirrored)
        waves = frequencies(images, members)
        signs = np.where(turned[members, None], (-1.0) ** np.arange(1, SIDE + 1), 1.0).astype(np.float32)
        distance[members] = np.bitwise_count(hashed(waves * signs[:, None, :]) ^ hashed(frequencies(images, first)))
    return NearDuplicates(groups, likeness, distance, turned)
