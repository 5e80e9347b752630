"""Confidence against accuracy, and what to do about it.

Reliability in bins and the temperature that mends it (Guo et al. 2017, "On Calibration of Modern Neural Networks");
answering only where confident (Geifman & El-Yaniv 2017, "Selective Classification for Deep Neural Networks").
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.metrics.statistics import share_bound

BINS = 15  # theirs
COLDEST, HOTTEST = 0.05, 20.0  # temperatures: beyond, a network is sure of everything or of nothing
SURE = 0.05  # probability with which a threshold's promise may fail


class Bins(NamedTuple):
    """What falls into each of B bins of confidence.

    Args:
        edges: (B + 1,) from 0 to 1.
        faces: (B,) how many.
        confidence: (B,) mean probability of the predicted class; 0 in an empty bin.
        accuracy: (B,) share of right predictions; 0 in an empty bin.
    """

    edges: NDArray[np.float64]
    faces: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def bins_of(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], bins: int = BINS) -> Bins:
    """Return confidence and accuracy of N predictions by bins.

    Args:
        probabilities: (N, C).
        targets: (N,) class indices.
        bins: number of bins, B.
    """
    confidence = probabilities.max(1)
    right = (probabilities.argmax(1) == targets).astype(np.float64)
    place = place_of(confidence, bins)
    count = np.bincount(place, minlength=bins)
    means = [np.bincount(place, values, minlength=bins) / count.clip(min=1) for values in (confidence, right)]
    return Bins(np.linspace(0, 1, bins + 1), count, means[0], means[1])


def place_of(confidence: NDArray[np.floating[Any]], bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each confidence, (N,) to (N,); a bin holds its lower edge, the last both."""
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)


def place_by_rank(confidence: NDArray[np.floating[Any]], bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each confidence where all bins hold as many faces, give or take one, (N,) to (N,)."""
    place = np.empty(len(confidence), np.int64)
    place[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * bins // max(1, len(confidence))
    return place


def adaptive_error(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> float:
    """Return the expected calibration error in bins of equal numbers (Nguyen & O'Connor 2015).

    Bins of equal width leave those of low confidence nearly empty and put most faces of a sure network into one.

    Args:
        probabilities: (N, C).
        targets: (N,) class indices.
    """
    confidence = probabilities.max(1)
    gaps = confidence.astype(np.float64) - (probabilities.argmax(1) == targets)
    return float(np.abs(np.bincount(place_by_rank(confidence), gaps, minlength=BINS)).sum() / max(1, len(gaps)))


def expected_error(bins: Bins) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy, over faces."""
    return float((bins.faces * np.abs(bins.confidence - bins.accuracy)).sum() / max(1, bins.faces.sum()))


def debiased_error(gaps: NDArray[np.floating[Any]], place: NDArray[np.integer[Any]]) -> float:
    """Return the root mean square, over faces, of the bins' gaps between confidence and accuracy, debiased.

    A bin's squared mean gap is too large by the variance of that mean. Products of two different faces are not, so that
    their mean estimates the square without bias, of a calibrated network 0 (Bröcker 2012; Ferro & Fricker 2012; Kumar,
    Liang & Ma 2019, "Verified Uncertainty Calibration"). The mean absolute gap, the ECE, has no unbiased estimate. A
    square may be estimated below 0, of calibrated networks often; its root keeps the sign, so that the mean over
    networks stays near the true value.

    Args:
        gaps: (N,) confidence minus whether the prediction is right, 0 or 1.
        place: (N,) bin of each face; a face that is alone in its bin has no pair and counts as 0.
    """
    faces = np.bincount(place)
    total, squares = np.bincount(place, gaps), np.bincount(place, np.square(gaps))
    square = ((total**2 - squares) / (faces - 1).clip(min=1)).sum() / max(1, len(gaps))
    return math.copysign(math.sqrt(abs(square)), square)


# --- temperature ----------------------------------------------------------------------------------------------------


def tempered(probabilities: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """Return the probabilities that logits divided by a temperature give, (N, C); which class leads stays.

    Args:
        probabilities: (N, C).
        temperature: above 1 makes less sure, below 1 surer.
    """
    return _softmax(_logits(probabilities) / temperature)


def fitted_temperature(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> float:
    """Return the temperature under which the NLL of the labels is smallest, within ``COLDEST`` and ``HOTTEST``.

    The NLL is convex in the inverse temperature: where its slope is 0 it is smallest, and bisection finds that.

    Args:
        probabilities: (N, C), of faces that were not trained on: val.
        targets: (N,) class indices.
    """
    logits = _logits(probabilities)
    chosen = logits[np.arange(len(targets)), targets]

    def slope(inverse: float) -> float:
        return float(((_softmax(inverse * logits) * logits).sum(1) - chosen).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def _logits(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return logits (N, C) of probabilities, the largest of each face 0."""
    logs = np.log(probabilities.astype(np.float64).clip(min=np.finfo(np.float32).tiny))
    logits: NDArray[np.float64] = logs - logs.max(1, keepdims=True)
    return logits


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    shares: NDArray[np.float64] = raised / raised.sum(1, keepdims=True)
    return shares


# --- answering only where confident ---------------------------------------------------------------------------------


class Threshold(NamedTuple):
    """A least confidence, and what answering above it does.

    Args:
        confidence: answered where the probability of the predicted class is at least this.
        coverage: share of the faces that are answered.
        error: share of wrong answers among them.
        bound: what the error on other faces stays below, with probability 1 - ``SURE``.
    """

    confidence: float
    coverage: float
    error: float
    bound: float


def risk_by_coverage(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coverage (N,), rising to 1, and the error among the faces answered, the most confident being first.

    Faces of the same confidence are answered together, so that the order of a table changes nothing.

    Args:
        probabilities: (N, C).
        targets: (N,) class indices.
    """
    confidence = probabilities.max(1)
    order = np.argsort(-confidence, kind="stable")
    wrong = (probabilities.argmax(1) != targets)[order].cumsum()
    last = np.append(confidence[order][1:] != confidence[order][:-1], True).nonzero()[0]
    place = last[np.searchsorted(last, np.arange(len(order)))]
    return (np.arange(len(order)) + 1) / len(order), wrong[place] / (place + 1)


def area_under_risk(risk: NDArray[np.float64]) -> float:
    """Return the mean error over all coverages (AURC, Geifman et al. 2019); lower is better.

    Args:
        risk: (N,), of ``risk_by_coverage``.
    """
    return float(risk.mean())


def threshold_for(
    wanted: float, probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> Threshold | None:
    """Return the least confidence whose answers err on other faces in at most ``wanted``, with probability 95 %.

    Selective guaranteed risk (Geifman & El-Yaniv 2017): a bisection over the confidences met, each of its steps tested
    at a part of ``SURE``, so that all together fail in at most that. None where no confidence allows the promise.

    Args:
        wanted: largest share of wrong answers.
        probabilities: (N, C), of faces that were not trained on: val, which has chosen the network's epoch and fits
            its temperature, so that the promise is a little bolder than it says.
        targets: (N,) class indices.
    """
    confidence = probabilities.max(1)
    levels, held = np.unique(-confidence, return_counts=True)
    answered = held.cumsum()  # faces at or above each level, the highest first
    order = np.argsort(-confidence, kind="stable")
    wrong = (probabilities.argmax(1) != targets)[order].cumsum()[answered - 1]
    steps = max(1, math.ceil(math.log2(len(levels) + 1)))
    found, low, high = None, 0, len(levels) - 1
    while low <= high:
        middle = (low + high) // 2
        errors, count = int(wrong[middle]), int(answered[middle])
        bound = share_bound(errors, count, SURE / steps)
        if bound <= wanted:
            found = Threshold(float(-levels[middle]), count / len(confidence), errors / count, bound)
            low = middle + 1
        else:
            high = middle - 1
    return found


def at_threshold(
    confidence: float, probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> tuple[int, int]:
    """Return how many faces are answered at or above a confidence, and how many of these answers are wrong.

    Args:
        confidence: the least.
        probabilities: (N, C).
        targets: (N,) class indices.
    """
    answered = probabilities.max(1) >= confidence
    return int(answered.sum()), int((answered & (probabilities.argmax(1) != targets)).sum())
