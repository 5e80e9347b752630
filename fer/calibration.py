"""Confidence against accuracy, in bins of equal width (Guo et al. 2017, "On Calibration of Modern Neural Networks")."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 15  # theirs


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


def expected_error(bins: Bins) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy, over faces."""
    return float((bins.faces * np.abs(bins.confidence - bins.accuracy)).sum() / max(1, bins.faces.sum()))
