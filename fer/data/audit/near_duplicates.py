"""Near twins: copies of one photograph that differ in crop, compression, light, a watermark, or are mirrored.

A 64-bit perceptual hash of each face (C. Zauner, *Implementation and Benchmarking of Perceptual Image Hash Functions*,
2010: the lowest frequencies of the cosine transform against their median) proposes pairs. Their pixels decide, by their
correlation, which forgives brightness and contrast, and by that of their details, shifted a little where that fits.

The limits were chosen on FER2013 by looking at pairs side by side. Of 48 drawn at distances 8 and 10 with a
correlation of 0.88 to 0.90, just inside, all showed the same photograph; of 48 with 0.85 to 0.88, just outside, 43 did.
Among the 96 of 2,277 pairs inside whose details fit least a dozen showed strangers before a dark ground or the same
person with another look, nearly all below 0.56; some fifteen copies lie there, too. Of the groups that came out, the 72
faces were looked at whose details fit least with any other of their group: at most two showed another moment of the
sitting. Mirrored copies are rare, so that chance has a larger share of what is alike: at distance 10 strangers were
among them, at 8 and below none. What is missed: of all pairs of FER2013 that correlate by 0.90 or more, compared one by
one, the hash proposes 90 %, by 0.95 or more 98 %; and copies cropped too differently to correlate.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 8  # frequencies along each axis: 64 bits
RADIUS, MIRRORED_RADIUS = 10, 8  # bits of 64 in which the hashes of a pair may differ
LEAST = 0.88  # correlation of a pair's pixels
LEAST_DETAIL = 0.56  # and of their detail: the pixels less the mean of the surrounding square, where it fits best
SURROUNDING, SHIFT = 3 / 48, 2 / 48  # reach of that square and of the fit, as parts of the side
SMALLEST = 48  # pixels a side; pictures of twice that and more are averaged in squares first
COMPARED = 2**21  # hashes at a time, 16 MB
PIXELS = 2**21  # of the faces whose floats are held at a time, 8 MB
CHECKED = 512  # pairs whose pixels are compared before groups are joined anew


class NearTwins(NamedTuple):
    """Groups of faces that show the same photograph, of N faces.

    Args:
        groups: places of the faces of each of G groups, exact copies among them; groups and places in table order.
        likeness: (N,) correlation with the first face of the group, the face mirrored where that fits better; 1 for
            that first one, NaN for a face without near twins.
        distance: (N,) bits in which its hash differs from the first face's; 0 for a face without near twins.
        mirrored: (N,) whether it fits better mirrored.
    """

    groups: list[NDArray[np.int64]]
    likeness: NDArray[np.float32]
    distance: NDArray[np.uint8]
    mirrored: NDArray[np.bool_]


def near_twins(
    images: NDArray[np.uint8], exact: Sequence[NDArray[np.int64]], leave_out: NDArray[np.bool_]
) -> NearTwins:
    """Return the groups of faces that are near twins; those whose faces are all exact twins are not among them.

    Args:
        images: (N, S, S).
        exact: places of the faces of each group of exact twins.
        leave_out: (N,) faces that show too little to be told apart.
    """
    single = ~leave_out  # one face of each group of exact twins stands for all
    for group in exact:
        single[group[1:]] = False
    places = np.flatnonzero(single)
    waves = frequencies(images, places)
    hashes, mirrored = hashed(waves), hashed(waves * (-1.0) ** np.arange(1, SIDE + 1, dtype=np.float32))
    related = joined(images, places, hashes, mirrored)
    copies = {int(group[0]): group for group in exact}
    groups = [np.sort(np.concatenate([copies.get(p, np.array([p])) for p in own.tolist()])) for own in related]
    groups.sort(key=lambda group: int(group[0]))
    return measured(images, groups)


def frequencies(images: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the lowest frequencies of the faces' two-dimensional cosine transform (DCT-II), (K, SIDE, SIDE).

    The mean along either axis is left out, as by Zauner. They are taken of the picture itself, not of one shrunk to 32
    pixels: up to a factor they are the same.

    Args:
        images: (N, S, S).
        places: of the K faces.
    """
    size = small(images[:1]).shape[-1]
    angles = np.pi * np.arange(1, SIDE + 1)[:, None] * (2 * np.arange(size) + 1)[None] / (2 * size)
    waves = np.cos(angles).astype(np.float32)  # (SIDE, s)
    held = np.empty((len(places), SIDE, SIDE), np.float32)
    for part in parts(len(places), images.shape[-1]):
        held[part] = waves @ small(images[places[part]]) @ waves.T
    return held


def small(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return faces (K, S, S) as floats, large ones averaged in squares to a side below twice ``SMALLEST``."""
    step = max(1, images.shape[-1] // SMALLEST)
    side = images.shape[-1] // step
    border = (images.shape[-1] - side * step) // 2
    kept = images[:, border : border + side * step, border : border + side * step].astype(np.float32)
    return kept.reshape(-1, side, step, side, step).mean((2, 4)) if step > 1 else kept


def hashed(waves: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return (K,) the bits that tell which of the frequencies (K, SIDE, SIDE) are above their median."""
    flat = waves.reshape(len(waves), SIDE**2)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def joined(
    images: NDArray[np.uint8], places: NDArray[np.int64], hashes: NDArray[np.uint64], mirrored: NDArray[np.uint64]
) -> list[NDArray[np.int64]]:
    """Return the places of the faces of each group of two or more that hang together by near twins.

    A pair within a group already is not looked at again, so that a thousand copies of a face cost a thousand
    comparisons of pixels and not half a million.

    Args:
        images: (N, S, S).
        places: of K faces, which differ.
        hashes: (K,) theirs.
        mirrored: (K,) those of the mirrored faces.
    """
    group = np.arange(len(places))  # of each face, named by one of its members
    for others, radius, turned in ((hashes, RADIUS, False), (mirrored, MIRRORED_RADIUS, True)):
        for first, second in proposed(hashes, others, radius):
            for start in range(0, len(first), CHECKED):
                one, two = first[start : start + CHECKED], second[start : start + CHECKED]
                apart = group[one] != group[two]
                one, two = one[apart], two[apart]
                same = alike(images, places[one], places[two], turned)
                for here, there in zip(one[same].tolist(), two[same].tolist(), strict=True):
                    group[group == group[there]] = group[here]
    names, sizes = np.unique(group, return_counts=True)
    return [places[group == name] for name in names[sizes > 1].tolist()]


def proposed(
    hashes: NDArray[np.uint64], others: NDArray[np.uint64], radius: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Give the pairs, first < second, whose hashes differ in at most ``radius`` bits, block by block.

    Args:
        hashes: (K,) of the first of a pair.
        others: (K,) of the second.
        radius: in bits.
    """
    count = len(hashes)
    step = max(1, COMPARED // max(1, count))
    for start in range(0, count, step):
        bits = np.bitwise_count(hashes[start : start + step, None] ^ others[None, start:])
        first, second = np.nonzero(bits <= radius)
        later = second > first  # both counted from start
        yield first[later] + start, second[later] + start


def alike(
    images: NDArray[np.uint8], one: NDArray[np.int64], other: NDArray[np.int64], turned: bool
) -> NDArray[np.bool_]:
    """Return (K,) whether the faces of each of K pairs show the same photograph.

    Args:
        images: (N, S, S).
        one: (K,) places of the first of each pair.
        other: (K,) of the second.
        turned: mirror the second.
    """
    same = correlation(images, one, other, turned) >= LEAST
    same[same] = detail_correlation(images, one[same], other[same], turned) >= LEAST_DETAIL
    return same


def correlation(
    images: NDArray[np.uint8], one: NDArray[np.int64], other: NDArray[np.int64], turned: bool
) -> NDArray[np.float32]:
    """Return (K,) Pearson's correlation of the pixels of K pairs, see ``alike``; 0 where a face is of one colour."""
    found = np.empty(len(one), np.float32)
    for part in parts(len(one), images.shape[-1]):
        first, second = pair(images, one[part], other[part], turned)
        found[part] = (standardised(first) * standardised(second)).sum(1)
    return found


def detail_correlation(
    images: NDArray[np.uint8], one: NDArray[np.int64], other: NDArray[np.int64], turned: bool
) -> NDArray[np.float32]:
    """Return (K,) the correlation of the details of K pairs, see ``alike``, at the shift where they fit best.

    Strangers before the same dark ground correlate by their outlines; their features do not.
    """
    found = np.empty(len(one), np.float32)
    for part in parts(len(one), images.shape[-1]):
        first, second = (detail(faces) for faces in pair(images, one[part], other[part], turned))
        side = first.shape[-1]
        reach = round(SHIFT * side)
        middle = standardised(first[:, reach : side - reach, reach : side - reach])
        fits = [
            (middle * standardised(second[:, y : side - 2 * reach + y, x : side - 2 * reach + x])).sum(1)
            for y in range(2 * reach + 1)
            for x in range(2 * reach + 1)
        ]
        found[part] = np.max(fits, axis=0)
    return found


def pair(
    images: NDArray[np.uint8], one: NDArray[np.int64], other: NDArray[np.int64], turned: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return both faces of each pair as floats, the second mirrored if ``turned``."""
    second = small(images[other])
    return small(images[one]), second[..., ::-1] if turned else second


def detail(faces: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return faces (K, s, s) less the mean of the square around each pixel; at the border, of what there is of it."""
    places = np.arange(faces.shape[-1])
    near = np.abs(places[:, None] - places[None]) <= max(1, round(SURROUNDING * len(places)))
    mean = (near / near.sum(1, keepdims=True)).astype(np.float32)
    smooth: NDArray[np.float32] = mean @ faces @ mean.T
    return faces - smooth


def standardised(faces: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the values of each face (K, s, s) with mean 0 and length 1, (K, s * s)."""
    values = np.array(faces, np.float32).reshape(len(faces), -1)
    values -= values.mean(1, keepdims=True)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    return values


def parts(count: int, size: int) -> Iterator[slice]:
    """Give slices of ``count`` faces of ``size`` x ``size`` pixels whose floats are held at a time."""
    step = max(1, PIXELS // size**2)
    return (slice(start, start + step) for start in range(0, count, step))


def measured(images: NDArray[np.uint8], groups: list[NDArray[np.int64]]) -> NearTwins:
    """Return the groups with what their faces have in common with the first of each."""
    count = len(images)
    likeness, turned = np.full(count, np.nan, np.float32), np.zeros(count, np.bool_)
    distance = np.zeros(count, np.uint8)
    if groups:
        own = np.concatenate(groups)
        first = np.concatenate([np.full(len(group), group[0]) for group in groups])
        plain, mirrored = (correlation(images, first, own, turned) for turned in (False, True))
        turned[own] = mirrored > plain
        likeness[own] = np.maximum(plain, mirrored)
        waves = frequencies(images, own)
        signs = np.where(turned[own, None], (-1.0) ** np.arange(1, SIDE + 1), 1.0).astype(np.float32)
        distance[own] = np.bitwise_count(hashed(waves * signs[:, None, :]) ^ hashed(frequencies(images, first)))
    return NearTwins(groups, likeness, distance, turned)
