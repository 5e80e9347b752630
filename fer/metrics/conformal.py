"""Prediction sets with a promised coverage: split conformal prediction with adaptive sets.

A set holds the most probable emotions of a face, as many as it takes for their probabilities to exceed a threshold. The
threshold is calibrated on val: with probability 0.9, say, the set of a new face then holds its label. The promise needs
new faces that are exchangeable with those of calibration, and nothing of the network (Vovk, Gammerman & Shafer 2005;
Romano, Sesia & Candès 2020, "Classification with Valid and Adaptive Coverage"). It is a promise over all faces
together: the coverage of a single emotion may be lower.

The score of a label is the sum of the probabilities above its own, so that emotions of equal probability enter a set
together. Romano et al. add a random part of the label's own probability. Here the score is not randomised:

- A prediction must be reproducible. A number drawn from the pixels would be, but two frames of a video that differ in
  one pixel would get different sets.
- A set is never empty, since the most probable emotion has a score of 0. The price: where the promise is below the
  accuracy, the set is the predicted emotion and covers more than promised.
- Calibration and prediction use the same score, so that the promise holds without the surplus of the usual
  deterministic variant, which adds the emotion that crosses the threshold at prediction alone.

On val of FER2013, halved at random 20 times, the sets of the package's network for 90 % held 2.19 emotions on average;
those of randomised scores 2.38, some of them none, and the penalised ones of Angelopoulos et al. 2021 (RAPS) 2.20 to
2.36. So there is no penalty here. ``python -m fer.benchmarks.sets docs/results/tiny`` repeats the comparison.

Val has chosen the epoch and fitted the temperature too, so that its faces are not quite exchangeable with new ones. The
choice of one epoch and one number leaves little room for that; ``docs/predict.md`` has the coverage measured on test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting

PER_CENT = range(50, 100)  # the coverages that a network's thresholds serve
COVERAGE = 0.9  # unless asked otherwise
CLOSE = 1e-9  # rounding errors of a coverage such as 0.57, which is a little above 57 / 100


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of a network's prediction sets.

    Args:
        faces: number of faces that they were calibrated on.
        at: coverage as text, "0.50" to "0.99" -> threshold; 1 is every emotion.
    """

    faces: int
    at: Mapping[str, float]

    @classmethod
    def calibrated(cls, probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> "Thresholds":
        """Return the thresholds that N faces give.

        Args:
            probabilities: (N, C), calibrated, of faces outside the training data.
            targets: (N,) class indices.
        """
        of_labels = np.sort(scores(probabilities)[np.arange(len(targets)), targets])
        return cls(len(targets), {_text(percent): quantile(of_labels, percent) for percent in PER_CENT})

    def threshold(self, coverage: float) -> float:
        """Return the threshold of a coverage; between two steps that of the higher one, which keeps the promise.

        Raises:
            FerError: the coverage is outside the range.
        """
        check(coverage)
        return self.at[_text(int(np.ceil(100 * coverage - CLOSE)))]


def _text(percent: int) -> str:
    return f"{percent / 100:.2f}"


def check(coverage: float) -> None:
    """Raise unless a coverage can be promised.

    Raises:
        FerError: naming the range.
    """
    low, high = PER_CENT[0] / 100, PER_CENT[-1] / 100
    if not low <= coverage <= high:
        raise FerError(
            f"{setting('coverage', f'{coverage:g}')}: expected a share of the faces from {low:g} to {high:g}"
        )


def valid(entry: object) -> bool:
    """Return whether an entry of a checkpoint holds the thresholds of prediction sets."""
    if not isinstance(entry, dict) or not isinstance(entry.get("faces"), int) or not isinstance(entry.get("at"), dict):
        return False
    values = [entry["at"].get(_text(percent)) for percent in PER_CENT]
    numbers = all(isinstance(value, float | int) and 0 <= value <= 1 for value in values)
    return numbers and values == sorted(values)


# --- scores and sets ------------------------------------------------------------------------------------------------


def scores(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the score (N, C) of each class: the sum of the probabilities that are higher than its own.

    Args:
        probabilities: (N, C).
    """
    values = probabilities.astype(np.float64)
    higher = values[:, None, :] > values[:, :, None]  # (N, class, class with a higher probability)
    summed: NDArray[np.float64] = np.where(higher, values[:, None, :], 0.0).sum(2)
    return summed.clip(max=1.0)


def quantile(ordered: NDArray[np.float64], percent: int) -> float:
    """Return the ⌈(n + 1) · coverage⌉-th smallest of n scores; 1, the highest score, where n is too small for it.

    Args:
        ordered: (n,) scores of the labels, rising.
        percent: the coverage.
    """
    rank = -(-(len(ordered) + 1) * percent // 100)  # rounded up, in whole numbers
    return float(ordered[rank - 1]) if rank <= len(ordered) else 1.0


def sets(probabilities: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.bool_]:
    """Return (N, C) whether each class is in the prediction set of each face.

    Args:
        probabilities: (N, C), calibrated as those that gave the threshold.
        threshold: of ``Thresholds``.
    """
    inside: NDArray[np.bool_] = scores(probabilities) <= threshold
    return inside


def named_sets(
    probabilities: NDArray[np.floating[Any]], classes: Sequence[str], threshold: float
) -> list[tuple[str, ...]]:
    """Return the names of the prediction set of each face, the most probable first.

    Args:
        probabilities: (N, C).
        classes: C names.
        threshold: of ``Thresholds``.
    """
    orders = np.argsort(-probabilities, axis=1, kind="stable").tolist()
    inside = sets(probabilities, threshold).tolist()
    return [
        tuple(classes[index] for index in order if within[index]) for order, within in zip(orders, inside, strict=True)
    ]
