"""Intervals and tests for metrics that vary with the faces and with the seed of the training.

A val accuracy has two kinds of chance: other faces of the same kind would have given another value, and so would
another seed. Each function states which of the two it covers. A difference between configurations covers both, with
networks as readers and faces as cases, since a bootstrap over two or three seeds is too narrow. p-values of a ranking
are adjusted by Holm's method over all its pairs, since the best of many is chosen after seeing the results. This module
needs no torch, no configuration and no files.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054  # normal quantile of a two-sided 95 % interval
ALPHA = 0.05  # of a two-sided 95 % interval
DRAWS = 2000  # bootstrap samples of the faces
TINY = 1e-300  # replaces 0 as a divisor in Lentz's method
CONVERGED = 1e-14  # relative, of continued fractions and of Newton's method


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class Seeds(NamedTuple):
    """A metric over the seeds of one configuration.

    Args:
        number: of seeds, K.
        mean: over them.
        sd: their standard deviation (K - 1 in the denominator); None for one seed.
        interval: 95 %, of the mean over all possible seeds on these very faces; None for one seed.
    """

    number: int
    mean: float
    sd: float | None
    interval: Interval | None


class Difference(NamedTuple):
    """The difference in accuracy between two configurations on the same faces.

    Args:
        value: accuracy of the first minus accuracy of the second.
        interval: 95 %, for other faces, and for other seeds if ``seeds`` is set.
        p: two-sided p-value of no difference; below 0.05 exactly if the interval leaves out 0.
        seeds: whether interval and p-value cover the seeds: both configurations have at least two.
    """

    value: float
    interval: Interval
    p: float
    seeds: bool


class McNemar(NamedTuple):
    """McNemar's test: the faces that only one of two networks classifies correctly.

    Args:
        first: faces that only the first classifies correctly, b.
        second: faces that only the second classifies correctly, c.
        p: exact two-sided p-value of b and c being equally likely.
    """

    first: int
    second: int
    p: float


# --- one configuration ----------------------------------------------------------------------------------------------


def wilson(hits: int, count: int) -> list[float]:
    """Return the 95 % interval of a proportion (Wilson 1927), which keeps its coverage near 0 and 1.

    It covers the sampling of the faces, not the seed.
    """
    if count == 0:
        return [0.0, 1.0]
    return list(wilson_of_share(hits / count, count))


def wilson_of_share(share: float, count: float) -> Interval:
    """Return Wilson's 95 % interval of a share of ``count`` faces, which need not be a whole number."""
    z2 = Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def share_bound(hits: int, count: int, alpha: float) -> float:
    """Return the upper bound of a proportion, with confidence 1 - alpha, after ``hits`` in ``count`` trials.

    Exact (Clopper & Pearson 1934): the proportion at which ``hits`` or fewer have probability alpha, by bisection.
    """
    low, high = hits / count, 1.0
    if hits == count:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        at_most = incomplete_beta(count - hits, hits + 1, 1 - middle)  # P(hits or fewer)
        low, high = (middle, high) if at_most > alpha else (low, middle)
    return high


def summarise_seeds(values: Sequence[float], least: float = 0.0) -> Seeds:
    """Return mean and standard deviation of a metric over K seeds, and Student's interval of the mean.

    The interval covers the seeds on these very faces, not the sampling of the faces. It is wide for few seeds, since
    two values estimate a spread poorly.

    Args:
        values: of the metric, one for each seed.
        least: lower limit of the standard deviation in the interval, such as ``sampling_sd``. Two seeds with equal
            values would otherwise give an interval of width 0.
    """
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Seeds(count, mean, None, None)
    sd = float(np.std(values, ddof=1))
    return Seeds(count, mean, sd, _of_mean(mean, max(sd, least), count))


def mean_interval(values: NDArray[np.floating[Any] | np.integer[Any]]) -> Interval | None:
    """Return Student's 95 % interval of the mean of N values of different faces; None for fewer than two."""
    if len(values) < 2:
        return None
    return _of_mean(float(values.mean()), float(values.std(ddof=1)), len(values))


def _of_mean(mean: float, sd: float, count: int) -> Interval:
    half = student_quantile(count - 1) * sd / math.sqrt(count)
    return Interval(mean - half, mean + half)


def clipped_to_share(interval: Interval) -> Interval:
    """Return the interval of a proportion, limited to 0 and 1."""
    return Interval(max(0.0, interval.low), min(1.0, interval.high))


def sampling_sd(correct: NDArray[np.bool_]) -> float:
    """Return the part of the accuracies' standard deviation over K seeds that comes from the limited number of faces.

    Networks of different seeds err on different faces, so that their accuracies differ even if the networks are equally
    good. For most networks this is nearly the whole spread (Jordan 2023, "On the variance of neural network training
    with respect to test sets and distributions").

    Args:
        correct: (K, N), whether each of K > 1 networks is right on each of N faces.
    """
    between = float(correct.mean(1).var(ddof=1))  # of the accuracies
    within = float(correct.var(0, ddof=1).mean())  # of the predictions for one face, over the networks
    return math.sqrt(max(0.0, within - between) / max(1, correct.shape[1] - 1))


def accuracy_interval(correct: NDArray[np.bool_]) -> Interval:
    """Return the 95 % interval of the mean accuracy of these networks over other faces.

    One network: Wilson's interval. Several networks err on different faces, so that their mean varies less, as if there
    were more faces. That effective number enters Wilson's interval (Korn & Graubard 1998, "Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data").

    Args:
        correct: (K, N), whether each of K networks is right on each of N faces.
    """
    networks, faces = correct.shape
    shares = correct.mean(0)  # (N,) share of the networks that classify each face correctly
    mean, spread = float(shares.mean()), float(shares.var())
    largest = networks if 0 < mean < 1 else 1.0  # shares that are all equal, but not all 0 or 1
    gain = mean * (1 - mean) / spread if spread > 0 else largest  # effective faces for each real one
    return wilson_of_share(mean, faces * min(gain, networks))


def accuracy_interval_with_seeds(correct: NDArray[np.bool_]) -> Interval:
    """Return the 95 % interval of the accuracy over other faces and, with several networks, over other seeds.

    The variance is that of ``accuracy_interval``, plus the part that the seeds add to it, as in ``paired_difference``.
    Adding the whole spread of the seeds would count the sampling of the faces twice.

    Args:
        correct: (K, N), whether each of K networks, one for each seed, is right on each of N faces.
    """
    faces = accuracy_interval(correct)
    if len(correct) < 2:
        return faces
    mean = float(correct.mean())
    of_faces = ((faces.high - faces.low) / (2 * Z95)) ** 2
    variance, freedom = _sum([(of_faces, of_faces, max(1, correct.shape[1] - 1)), _of_training(correct)])
    wider = student_quantile(freedom) * math.sqrt(variance / of_faces) / Z95
    return clipped_to_share(Interval(mean - wider * (mean - faces.low), mean + wider * (faces.high - mean)))


def bootstrapped_means(values: NDArray[np.floating[Any]]) -> list[Interval]:
    """Return the 95 % intervals of K means over N faces: percentiles of a seeded bootstrap of the faces (Efron 1979).

    It covers the sampling of the faces. All means share their samples. With few faces the intervals are too narrow.
    With 20 values of a normal distribution they contain the mean in 93 % of cases, with 64 in 94 %.

    Args:
        values: (N, K), of each face.
    """
    count = len(values)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=DRAWS)  # how often each face
    low, high = np.quantile(drawn @ values / count, (ALPHA / 2, 1 - ALPHA / 2), axis=0)
    return [Interval(float(a), float(b)) for a, b in zip(low, high, strict=True)]


# --- two configurations ---------------------------------------------------------------------------------------------


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """Return the difference in accuracy of two configurations on the same N faces, with interval and p-value.

    Networks and faces are both samples. The variance is that of the mean difference over the faces, plus the part that
    the seeds add to it. Studies do so where several readers judge the same cases (Obuchowski & Rockette 1995,
    "Hypothesis testing of diagnostic accuracy for multiple readers and multiple tests"). Degrees of freedom are
    Satterthwaite's (Hillis 2007, "A comparison of denominator degrees of freedom methods for multiple observer ROC
    analysis"). One face is added for each configuration, which only that one classifies correctly. So the interval
    keeps its coverage if the two hardly differ. The addition is that of Bonett & Price (2012, "Adjusted Wald confidence
    interval for a difference of binomial proportions based on paired data"). In simulations where seeds vary much, this
    interval contained the true difference in 95 to 96 % of cases (``tests/metrics/test_statistics.py`` repeats them). A
    bootstrap over two or three seeds contained it in 88 to 90 %.

    Args:
        first: (K, N), whether each of K networks, one for each seed, is right on each face.
        second: (M, N), the same of the second configuration, whose networks were trained independently.
    """
    faces = first.shape[1]
    gaps = first.mean(0) - second.mean(0)
    middle = float(gaps.sum()) / (faces + 2)
    of_gaps = (float((gaps**2).sum()) + 2) / (faces + 2) - middle**2
    parts = [(of_gaps / (faces + 2), of_gaps / (faces + 2), max(1, faces - 1))]
    parts += [_of_training(correct) for correct in (first, second) if len(correct) > 1]
    variance, freedom = _sum(parts)
    error = math.sqrt(variance)
    half = student_quantile(freedom) * error
    interval = Interval(max(-1.0, middle - half), min(1.0, middle + half))
    p = student_p(middle / error, freedom)
    return Difference(float(gaps.mean()), interval, p, min(len(first), len(second)) > 1)


def _sum(parts: Sequence[tuple[float, float, int]]) -> tuple[float, float]:
    """Return the sum of independent variances, and its degrees of freedom by Satterthwaite's formula.

    Args:
        parts: variance, its observed value, and its degrees of freedom, of each.
    """
    variance = sum(added for added, _, _ in parts)
    freedom = variance**2 / sum(observed**2 / degrees for _, observed, degrees in parts)
    return variance, max(freedom, min(degrees for _, _, degrees in parts))


def _of_training(correct: NDArray[np.bool_]) -> tuple[float, float, int]:
    """Return the variance that K seeds add to their mean accuracy, its observed value, and its degrees of freedom.

    The added variance leaves out ``sampling_sd``, which is part of the variance over the faces already.
    """
    networks = len(correct)
    between = float(correct.mean(1).var(ddof=1))
    return max(0.0, between - sampling_sd(correct) ** 2) / networks, between / networks, networks - 1


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Return McNemar's exact test (1947) of two networks on the same N faces.

    It tests these two networks on other faces. It does not cover other seeds, so that it makes no statement about two
    configurations.

    Args:
        first: (N,), whether the first network is right on each face.
        second: (N,), the same of the second.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(only_first, only_second, _fair_coin(min(only_first, only_second), only_first + only_second))


def _fair_coin(fewer: int, tosses: int) -> float:
    """Return the two-sided probability of at most ``fewer`` heads or tails; exact integers until the last division."""
    term = ways = 1
    for heads in range(1, fewer + 1):
        term = term * (tosses - heads + 1) // heads
        ways += term
    return min(1.0, 2 * ways / (1 << tosses))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple comparisons (Holm 1979), in the order given.

    If all adjusted values below 0.05 are called differences, at most 5 % of such tables contain a false one.
    """
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


# --- Student's distribution -----------------------------------------------------------------------------------------


def student_p(value: float, freedom: float) -> float:
    """Return the probability that Student's t is at least as far from 0 as ``value``.

    Args:
        value: of t.
        freedom: degrees of freedom, above 0; may be a fraction.
    """
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + value**2))


def student_quantile(freedom: float) -> float:
    """Return the value that the absolute value of Student's t exceeds with probability 0.05, by Newton's method.

    The probability is convex in t > 0, and the normal quantile is below the solution: steps from there approach the
    solution and never pass it.
    """
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    t = Z95
    for _ in range(200):
        density = math.exp(scale - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (student_p(t, freedom) - ALPHA) / (2 * density)
        t += step
        if abs(step) < CONVERGED * t:
            break
    return t


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction of 1 - x converges faster there
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) / a / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """Return 1 + d1 / (1 + d2 / (1 + ...)) of DLMF 8.17.22, by Lentz's method as Thompson & Barnett (1986) have it."""
    value, numerator, denominator = 1.0, 1.0, 0.0
    for step in range(1, 100_000):
        half, odd = divmod(step, 2)
        if odd:
            term = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        denominator = 1 / ((1 + term * denominator) or TINY)
        numerator = (1 + term / numerator) or TINY
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < CONVERGED:
            break
    return value
