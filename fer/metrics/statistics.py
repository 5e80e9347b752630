"""What differences between runs are worth: intervals and tests of figures that vary with the faces and with the seed.

Two kinds of chance are in a val accuracy. Other faces of the same kind would have given another one, and so would
another seed. Each function says which of the two its answer covers. No torch here, no configuration, no files.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054  # normal quantile of a two-sided 95 % interval
ALPHA = 0.05  # of a two-sided 95 % interval
TINY = 1e-300  # stands for 0 where Lentz's method divides
CONVERGED = 1e-14  # relative, of continued fractions and of Newton's method


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class Seeds(NamedTuple):
    """A figure over the seeds of one configuration.

    Args:
        number: of seeds, K.
        mean: over them.
        sd: their standard deviation (K - 1 in the denominator); None for one seed.
        interval: 95 %, of the mean over all seeds there could be, the faces being these; None for one seed.
    """

    number: int
    mean: float
    sd: float | None
    interval: Interval | None


class Difference(NamedTuple):
    """How much more often one configuration is right than another, on the same faces.

    Args:
        value: first minus second, of the shares of right answers.
        interval: 95 %, for other faces, and for other seeds where ``seeds`` says so.
        p: of no difference, two-sided; below 0.05 exactly where the interval leaves out 0.
        seeds: whether the noise of the seeds is covered: both have at least two.
    """

    value: float
    interval: Interval
    p: float
    seeds: bool


class McNemar(NamedTuple):
    """The faces on which two networks part.

    Args:
        first: only the first is right, b.
        second: only the second is right, c.
        p: exact, two-sided, of b and c coming from a fair coin.
    """

    first: int
    second: int
    p: float


# --- one configuration ----------------------------------------------------------------------------------------------


def wilson(hits: int, count: int) -> list[float]:
    """Return the 95 % interval of a proportion (Wilson 1927), which covers well at the ends too.

    It covers the sampling of the faces, not the seed.
    """
    if count == 0:
        return [0.0, 1.0]
    return list(_wilson(hits / count, count))


def _wilson(share: float, count: float) -> Interval:
    z2 = Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def share_bound(hits: int, count: int, alpha: float) -> float:
    """Return what a share stays below with probability 1 - alpha, ``hits`` of ``count`` being seen.

    Exact (Clopper & Pearson 1934): the share under which so few hits have the probability alpha, by bisection.
    """
    low, high = hits / count, 1.0
    if hits == count:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        at_most = incomplete_beta(count - hits, hits + 1, 1 - middle)  # P(hits or fewer)
        low, high = (middle, high) if at_most > alpha else (low, middle)
    return high


def of_seeds(values: Sequence[float], least: float = 0.0) -> Seeds:
    """Return mean and standard deviation of a figure over K seeds, and Student's interval of the mean.

    The interval covers the noise of the seeds, on these very faces, and not the sampling of the faces. With few seeds
    it is wide, and has to be: two know little of how much they vary.

    Args:
        values: of the figure, one a seed.
        least: standard deviation that the interval counts on at least, such as ``by_chance``: two seeds that happen to
            meet would give it no width.
    """
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Seeds(count, mean, None, None)
    sd = float(np.std(values, ddof=1))
    half = student_quantile(count - 1) * max(sd, least) / math.sqrt(count)
    return Seeds(count, mean, sd, Interval(mean - half, mean + half))


def of_a_share(interval: Interval) -> Interval:
    """Return an interval of a share without what lies below 0 or above 1."""
    return Interval(max(0.0, interval.low), min(1.0, interval.high))


def by_chance(correct: NDArray[np.bool_]) -> float:
    """Return the standard deviation that accuracies of K seeds have at the least, since each errs on other faces.

    With most networks it is nearly all of it (Jordan 2023, "On the variance of neural network training with respect to
    test sets and distributions").

    Args:
        correct: (K, N), whether each of K > 1 networks is right on each of N faces.
    """
    between = float(correct.mean(1).var(ddof=1))  # of the accuracies
    within = float(correct.var(0, ddof=1).mean())  # of the answers to a face, over the networks
    return math.sqrt(max(0.0, within - between) / max(1, correct.shape[1] - 1))


def of_faces(correct: NDArray[np.bool_]) -> Interval:
    """Return the 95 % interval of the mean accuracy of these networks over other faces.

    Wilson's for one network. Several do not all err on the same faces, so that their mean varies less: as that of one
    on so many more faces (Korn & Graubard 1998, "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data").

    Args:
        correct: (K, N), whether each of K networks is right on each of N faces.
    """
    networks, faces = correct.shape
    shares = correct.mean(0)  # of the networks, face by face
    mean, spread = float(shares.mean()), float(shares.var())
    gained = mean * (1 - mean) / spread if spread > 0 else 1.0
    return _wilson(mean, faces * min(gained, networks))


# --- two of them ----------------------------------------------------------------------------------------------------


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """Return by how much the first configuration is more often right than the second, on the same N faces.

    Networks and faces are both samples: the variance is that of a face's mean difference over N, plus what the seeds
    add beyond it, as where several readers read the same cases (Obuchowski & Rockette 1995, "Hypothesis testing of
    diagnostic accuracy for multiple readers and multiple tests"). Degrees of freedom are Satterthwaite's (Hillis 2007,
    "A comparison of denominator degrees of freedom methods for multiple observer ROC analysis"). Two faces are added,
    one won by each, which keeps the interval honest where the two hardly part (Bonett & Price 2012, "Adjusted Wald
    confidence interval for a difference of binomial proportions based on paired data"). A bootstrap of two or three
    seeds would be too narrow where seeds vary much. ``tests/metrics/test_statistics.py`` simulates how often the
    interval holds the truth.


    Args:
        first: (K, N), whether each of K networks, a seed each, is right on each face.
        second: (M, N) of the other's, trained apart from the first.
    """
    faces = first.shape[1]
    gaps = first.mean(0) - second.mean(0)
    middle = float(gaps.sum()) / (faces + 2)
    of_gaps = (float((gaps**2).sum()) + 2) / (faces + 2) - middle**2
    parts = [(of_gaps / (faces + 2), of_gaps / (faces + 2), max(1, faces - 1))]
    parts += [_of_training(correct) for correct in (first, second) if len(correct) > 1]
    variance = sum(added for added, _, _ in parts)
    freedom = variance**2 / sum(seen**2 / degrees for _, seen, degrees in parts)
    freedom = max(freedom, min(degrees for _, _, degrees in parts))
    error = math.sqrt(variance)
    half = student_quantile(freedom) * error
    interval = Interval(max(-1.0, middle - half), min(1.0, middle + half))
    p = student_p(middle / error, freedom)
    return Difference(float(gaps.mean()), interval, p, min(len(first), len(second)) > 1)


def _of_training(correct: NDArray[np.bool_]) -> tuple[float, float, int]:
    """Return what K seeds add to the variance of their mean accuracy, what is seen of it, and its degrees of freedom.

    The part of the accuracies' spread that comes ``by_chance``, the faces being few, is in the variance over the faces
    already, and is taken off.
    """
    networks = len(correct)
    between = float(correct.mean(1).var(ddof=1))
    return max(0.0, between - by_chance(correct) ** 2) / networks, between / networks, networks - 1


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Return McNemar's exact test (1947) of two networks on the same N faces.

    It asks whether these two networks would part the same way on other faces; of their seeds it knows nothing, and so
    says nothing of two configurations.

    Args:
        first: (N,), whether the first is right on each face.
        second: (N,) of the second.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(only_first, only_second, _fair_coin(min(only_first, only_second), only_first + only_second))


def _fair_coin(fewer: int, tosses: int) -> float:
    """Return the two-sided probability of at most ``fewer`` heads or tails, in whole numbers until the end."""
    term = ways = 1
    for heads in range(1, fewer + 1):
        term = term * (tosses - heads + 1) // heads
        ways += term
    return min(1.0, 2 * ways / (1 << tosses))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for there being several (Holm 1979), in the order given.

    Whoever takes those below 0.05 as differences errs on any of them in at most 5 % of such tables.
    """
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted


# --- Student's distribution -----------------------------------------------------------------------------------------


def student_p(value: float, freedom: float) -> float:
    """Return the probability that Student's t is at least as far from 0 as ``value``.

    Args:
        value: of t.
        freedom: its degrees, above 0; may be a fraction.
    """
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + value**2))


def student_quantile(freedom: float) -> float:
    """Return the t that is exceeded in size with probability 0.05, by Newton's method.

    Beyond 0 the probability falls ever less steeply, and the normal quantile lies below the t sought: from there each
    step comes nearer without going past.
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
    if x > (a + 1) / (a + b + 2):  # there the fraction of the other end converges faster
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
