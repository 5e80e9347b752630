"""Intervals and tests for faces of groups: several pictures of one person, frames of one video, faces of one picture.

Faces of one group are alike, so that N faces of a few people say less than N faces of as many people. Intervals and
tests here are for other groups. Without groups they are those of ``fer.metrics.statistics``.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.metrics.statistics import (
    Z95,
    Interval,
    McNemar,
    mcnemar,
    mean_interval,
    student_quantile,
    wilson,
    wilson_of_share,
)

LEAST = 10  # groups with a hit, and with a miss, from which the spread between groups is trusted
Groups = NDArray[np.int64]  # (N,) number of the group of each face, from 0 without gaps


def numbered(group: NDArray[np.integer[Any]], unknown: int) -> Groups | None:
    """Return the numbers of the groups of N faces, from 0; None where no two faces are of one group.

    Args:
        group: (N,) numbers of any size.
        unknown: number of faces that are of no named group; each is a group of its own.
    """
    named = group.astype(np.int64)
    alone = named == unknown
    named[alone] = named.max(initial=0) + 1 + np.arange(int(alone.sum()))
    kinds, numbers = np.unique(named, return_inverse=True)
    return None if len(kinds) == len(group) else numbers.astype(np.int64)


def of_part(groups: Groups | None, chosen: NDArray[np.bool_]) -> Groups | None:
    """Return the groups of some of N faces, (N,) True, numbered anew; None where no two of these share one."""
    return None if groups is None else numbered(groups[chosen], unknown=-1)


def share_interval(hits: NDArray[np.bool_], groups: Groups | None) -> Interval:
    """Return the 95 % interval of the share of True among N faces.

    With groups, Wilson's interval has the number of independent faces that would vary as much, in place of N, made
    smaller for few groups by Student's quantile (Korn & Graubard 1998, "Confidence intervals for proportions with small
    expected number of positive counts estimated from survey data"). Where few groups have a hit, or few a miss, that
    number is uncertain, and the groups are its limit.

    Args:
        hits: (N,).
        groups: of the faces; None if each is a group of its own.
    """
    if groups is None or not len(hits):
        return Interval(*wilson(int(hits.sum()), len(hits)))
    share, variance, count = _mean(hits, groups)
    if count < 2:
        return Interval(0.0, 1.0)
    sure = min(number_of(groups, hits), number_of(groups, ~hits)) >= LEAST
    varying = share * (1 - share) / variance if variance > 0 else math.inf
    independent = min(varying, len(hits) if sure else count)
    return wilson_of_share(share, independent * (Z95 / student_quantile(count - 1)) ** 2)


def mean_interval_of(values: NDArray[np.integer[Any]], groups: Groups | None, most: int) -> Interval | None:
    """Return Student's 95 % interval of the mean of N values; None for fewer than two faces or groups.

    Args:
        values: (N,) from 0 to ``most``, which limit the interval.
        groups: of the faces; None if each is a group of its own.
        most: largest possible value.
    """
    if groups is None or not len(values):
        found = mean_interval(values)
    else:
        mean, variance, count = _mean(values, groups)
        half = student_quantile(count - 1) * math.sqrt(variance) if count > 1 else 0.0
        found = Interval(mean - half, mean + half) if count > 1 else None
    return None if found is None else Interval(max(0.0, found.low), min(float(most), found.high))


def _mean(values: NDArray[Any], groups: Groups) -> tuple[float, float, int]:
    """Return the mean of N values, its variance over groups (by linearisation), and the number of groups."""
    mean = float(values.mean())
    totals = np.bincount(groups, values - mean)
    count = len(totals)
    return mean, count / max(1, count - 1) * float((totals**2).sum()) / len(values) ** 2, count


def mcnemar_of(first: NDArray[np.bool_], second: NDArray[np.bool_], groups: Groups | None) -> McNemar:
    """Return McNemar's exact test of two networks on N faces, over other groups.

    With groups the difference of each group keeps its size and has either sign with equal probability, if the networks
    are equally good; p is exact. Groups of one face give McNemar's own test.

    Args:
        first: (N,), whether the first network is right on each face.
        second: (N,), the same of the second.
        groups: of the faces; None if each is a group of its own.
    """
    test = mcnemar(first, second)
    if groups is None:
        return test
    sums = np.bincount(groups, first.astype(np.int64) - second.astype(np.int64)).round().astype(np.int64)
    return test._replace(p=random_signs_p(sums))


def random_signs_p(values: NDArray[np.int64]) -> float:
    """Return the probability that the sum of values with random signs is at least as far from 0 as their sum.

    The probabilities of all sums come from the characteristic function, the product of cosines. They are exact to about
    1e-12.
    """
    sizes, times = np.unique(np.abs(values[values != 0]), return_counts=True)
    most, seen = int(sizes @ times), abs(int(values.sum()))
    if not seen:
        return 1.0
    length = 2 * most + 1
    angles = 2 * np.pi * np.arange(length) / length
    product = np.ones(length)
    for size, count in zip(sizes.tolist(), times.tolist(), strict=True):
        product *= np.cos(size * angles) ** count
    chances = np.fft.fft(product).real.clip(0) / length  # of the sums 0, 1, ... most, -most, ... -1
    return float(min(1.0, 2 * chances[seen : most + 1].sum()))


def number_in_all(groups: Groups | None, count: int) -> int:
    """Return the number of groups of N faces; without groups that of the faces."""
    return count if groups is None else int(groups.max(initial=-1)) + 1


def number_of(groups: Groups | None, positive: NDArray[np.bool_]) -> int:
    """Return the number of groups with a face among those that are True, (N,); without groups that of the faces."""
    return int(positive.sum()) if groups is None else len(np.unique(groups[positive]))
