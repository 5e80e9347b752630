"""Calibration of confidences, temperature scaling, and selective classification.

Calibration errors in bins and temperature scaling: Guo et al. 2017, "On Calibration of Modern Neural Networks".
Predictions above a confidence threshold alone: Geifman & El-Yaniv 2017, "Selective Classification for Deep Neural
Networks". Temperatures and thresholds are fitted on val. Tables of accuracy and calibration hold the network's own
probabilities; ``model.probabilities`` and every later use divide the logits by the temperature.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.metrics.statistics import share_bound

BINS = 15  # as in Guo et al. 2017
COLDEST, HOTTEST = 0.05, 20.0  # limits of the temperature: beyond, confidences are all near 1 or all near 1 / C
BOUND_ALPHA = 0.05  # probability that the error rate on other faces exceeds the bound of a threshold


def valid_temperature(value: Any) -> bool:
    """Return whether a value is a temperature that a fit on val can give; the ends may be rounded."""
    return isinstance(value, float) and 0.99 * COLDEST <= value <= 1.01 * HOTTEST


class Bins(NamedTuple):
    """Faces, confidence and accuracy in each of B bins of confidence.

    Args:
        edges: (B + 1,) from 0 to 1.
        faces: (B,) number of faces.
        confidence: (B,) mean probability of the predicted class; 0 in an empty bin.
        accuracy: (B,) share of correct predictions; 0 in an empty bin.
    """

    edges: NDArray[np.float64]
    faces: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def bins_of(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], bins: int = BINS) -> Bins:
    """Return confidence and accuracy of N predictions in bins of equal width.

    Args:
        probabilities: (N, C).
        targets: (N,) class indices.
        bins: number of bins, B.
    """
    confidence = probabilities.max(1)
    correct = (probabilities.argmax(1) == targets).astype(np.float64)
    indices = bin_indices(confidence, bins)
    count = np.bincount(indices, minlength=bins)
    means = [np.bincount(indices, values, minlength=bins) / count.clip(min=1) for values in (confidence, correct)]
    return Bins(np.linspace(0, 1, bins + 1), count, means[0], means[1])


def bin_indices(confidence: NDArray[np.floating[Any]], bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each confidence (N,), as (N,); a bin includes its lower edge, the last one both edges."""
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)


def bin_indices_by_rank(confidence: NDArray[np.floating[Any]], bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each confidence (N,), as (N,), in bins whose numbers of faces differ by at most one.

    Faces of equal confidence are dealt in a seeded random order: tables list faces by class, and a bin of one class
    alone would have a gap of its own.
    """
    count = len(confidence)
    shuffled = np.random.default_rng(0).permutation(count)
    indices = np.empty(count, np.int64)
    indices[shuffled[np.argsort(confidence[shuffled], kind="stable")]] = np.arange(count) * bins // max(1, count)
    return indices


def adaptive_error(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> float:
    """Return the expected calibration error in bins of equal numbers (Nguyen & O'Connor 2015).

    With bins of equal width those of low confidence are nearly empty, and most faces of a confident network share one.

    Args:
        probabilities: (N, C).
        targets: (N,) class indices.
    """
    confidence = probabilities.max(1)
    gaps = confidence.astype(np.float64) - (probabilities.argmax(1) == targets)
    return float(np.abs(np.bincount(bin_indices_by_rank(confidence), gaps, minlength=BINS)).sum() / max(1, len(gaps)))


def expected_error(bins: Bins) -> float:
    """Return the expected calibration error: the mean absolute gap between confidence and accuracy, over faces."""
    return float((bins.faces * np.abs(bins.confidence - bins.accuracy)).sum() / max(1, bins.faces.sum()))


def debiased_error(gaps: NDArray[np.floating[Any]], indices: NDArray[np.integer[Any]]) -> float:
    """Return the root mean square, over faces, of the gaps between confidence and accuracy in bins, debiased.

    The square of a bin's mean gap is too large by the variance of that mean. The mean product of the gaps of two
    different faces is an unbiased estimate of the square. Its expectation for a calibrated network is 0 (Bröcker 2012;
    Ferro & Fricker 2012; Kumar, Liang & Ma 2019, "Verified Uncertainty Calibration"). The mean absolute gap, the ECE,
    has no unbiased estimate. The estimate of the square may be negative, often so for calibrated networks. The root
    keeps its sign, so that the mean over networks stays near the true value.

    Args:
        gaps: (N,) confidence minus 1 for a correct prediction, minus 0 for a wrong one.
        indices: (N,) bin of each face; a single face in a bin has no pair and counts as 0.
    """
    faces = np.bincount(indices)
    total, squares = np.bincount(indices, gaps), np.bincount(indices, np.square(gaps))
    square = ((total**2 - squares) / (faces - 1).clip(min=1)).sum() / max(1, len(gaps))
    return math.copysign(math.sqrt(abs(square)), square)


# --- temperature ----------------------------------------------------------------------------------------------------


def tempered(probabilities: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """Return the probabilities of the logits divided by a temperature, (N, C); predicted classes stay the same.

    Args:
        probabilities: (N, C).
        temperature: above 1 lowers confidences, below 1 raises them.
    """
    return _softmax(_logits(probabilities) / temperature)


def fitted_temperature(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> float:
    """Return the temperature that minimises the NLL of the labels, between ``COLDEST`` and ``HOTTEST``.

    The NLL is convex in the inverse temperature: bisection finds the point where its slope is 0. Without an error, as
    among few faces, the labels say only that confidences may be larger; where all classes are equally probable, they
    say nothing. The temperature is 1 then.

    Args:
        probabilities: (N, C), of faces outside the training data, such as val.
        targets: (N,) class indices.
    """
    logits = _logits(probabilities)
    chosen = logits[np.arange(len(targets)), targets]

    def slope(inverse: float) -> float:
        return float(((_softmax(inverse * logits) * logits).sum(1) - chosen).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    if (chosen == 0).all() or not logits.any():  # no error, or equal probabilities
        return 1.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def _logits(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return logits (N, C) of probabilities, shifted so that the largest of each face is 0."""
    logs = np.log(probabilities.astype(np.float64).clip(min=np.finfo(np.float32).tiny))
    logits: NDArray[np.float64] = logs - logs.max(1, keepdims=True)
    return logits


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(1, keepdims=True)
    return probabilities


# --- selective classification ---------------------------------------------------------------------------------------


class Threshold(NamedTuple):
    """A confidence threshold, with coverage and error rate of the predictions that reach it.

    Args:
        confidence: the threshold: a face is covered if the probability of its predicted class is at least this.
        coverage: share of the faces that are covered.
        error: share of wrong predictions among them.
        bound: upper bound of the error rate on other faces, with probability 1 - ``BOUND_ALPHA``.
    """

    confidence: float
    coverage: float
    error: float
    bound: float


def risk_by_coverage(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coverage (N,), rising to 1, and the error rate (N,) of the most confident predictions at each coverage.

    Faces of equal confidence are added together, so that the order of a table does not change the result.

    Args:
        probabilities: (N, C).
        targets: (N,) class indices.
    """
    confidence = probabilities.max(1)
    order = np.argsort(-confidence, kind="stable")
    wrong = (probabilities.argmax(1) != targets)[order].cumsum()
    last = np.append(confidence[order][1:] != confidence[order][:-1], True).nonzero()[0]
    ends = last[np.searchsorted(last, np.arange(len(order)))]  # last face of equal confidence, for each face
    return (np.arange(len(order)) + 1) / len(order), wrong[ends] / (ends + 1)


def area_under_risk(risk: NDArray[np.float64]) -> float:
    """Return the mean error rate over all coverages (AURC, Geifman et al. 2019); lower is better.

    Args:
        risk: (N,), the error rates of ``risk_by_coverage``.
    """
    return float(risk.mean())


def threshold_for(
    error_rate: float, probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> Threshold | None:
    """Return the lowest threshold whose error rate on other faces is at most ``error_rate``, with probability 95 %.

    Selective guaranteed risk (Geifman & El-Yaniv 2017): a bisection over the observed confidences. Each step is tested
    at an equal part of ``BOUND_ALPHA``, so that all together fail with at most that probability. None if no threshold
    meets the error rate.

    Args:
        error_rate: largest accepted share of wrong predictions.
        probabilities: (N, C), of faces outside the training data: val. Val has also chosen the network's epoch and
            temperature, so that the bound is slightly optimistic.
        targets: (N,) class indices.
    """
    confidence = probabilities.max(1)
    levels, counts = np.unique(-confidence, return_counts=True)
    covered = counts.cumsum()  # faces at or above each level, the highest first
    order = np.argsort(-confidence, kind="stable")
    wrong = (probabilities.argmax(1) != targets)[order].cumsum()[covered - 1]
    steps = max(1, math.ceil(math.log2(len(levels) + 1)))
    threshold, low, high = None, 0, len(levels) - 1
    while low <= high:
        middle = (low + high) // 2
        errors, count = int(wrong[middle]), int(covered[middle])
        bound = share_bound(errors, count, BOUND_ALPHA / steps)
        if bound <= error_rate:
            threshold = Threshold(float(-levels[middle]), count / len(confidence), errors / count, bound)
            low = middle + 1
        else:
            high = middle - 1
    return threshold


def at_threshold(
    confidence: float, probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which of N faces are at or above a confidence threshold, (N,), and which of these are wrong, (covered,).

    Args:
        confidence: the threshold.
        probabilities: (N, C).
        targets: (N,) class indices.
    """
    covered = probabilities.max(1) >= confidence
    return covered, (probabilities.argmax(1) != targets)[covered]
