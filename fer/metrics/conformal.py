"""Prediction sets with a promised coverage: split conformal prediction with adaptive sets.

A set holds the most probable emotions of a face, as many as it takes for their probabilities to exceed a threshold. The
threshold is calibrated on val: with probability 0.9, say, the set of a new face then holds its label. The promise needs
new faces that are exchangeable with those of calibration. It asks nothing of the network (Vovk, Gammerman & Shafer
2005; Romano, Sesia & Candès 2020, "Classification with Valid and Adaptive Coverage"). It is a promise over all faces
together: the coverage of a single emotion may be lower. Class-conditional sets promise it for the faces of each
emotion. An emotion is in a set where its score is at most its own threshold, calibrated on the faces of val with this
label. This is Mondrian conformal prediction (Vovk 2012, "Conditional Validity of Inductive Conformal Predictors").
Where val has too few faces of the label for the promise, the threshold over all faces stands in, and nothing is
promised.

The score of a label is the sum of the probabilities above its own, so that emotions of equal probability enter a set
together. Romano et al. add a random part of the label's own probability. Here the score is not randomised:

- A prediction must be reproducible. A number drawn from the pixels would be, but two frames of a video that differ in
  one pixel would get different sets.
- A set is never empty, since the most probable emotion has a score of 0. The price: where the promise is below the
  accuracy, the set is the predicted emotion and covers more than promised.
- Calibration and prediction use the same score, so that the promise holds without a surplus. The usual deterministic
  variant has one: it adds the emotion that crosses the threshold at prediction alone.

On val of FER2013, halved at random 20 times, the sets of the package's network for 90 % had 2.19 emotions on average.
Those of randomised scores had 2.38, some of them none, and the penalised ones of Angelopoulos et al. 2021 (RAPS) 2.20
to 2.36. So there is no penalty here. ``python -m fer.benchmarks.sets docs/results/tiny`` repeats the comparison.

Val has chosen the epoch and fitted the temperature too, so that its faces are not quite exchangeable with new ones. The
choice of one epoch and one number leaves little room for that; ``docs/predict.md`` has the coverage measured on test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, check_number, setting

PER_CENT = range(50, 100)  # the coverages that a network's thresholds serve
COVERAGE = 0.9  # unless asked otherwise
By = Literal["all", "class"]  # a promise over all faces together, or for the faces of each emotion
WAYS: tuple[By, ...] = get_args(By)
CLOSE = 1e-9  # rounding errors of a coverage such as 0.57, which is a little above 57 / 100


@dataclass(frozen=True)
class ClassThresholds:
    """The thresholds that the faces of one emotion give.

    Args:
        faces: number of them.
        at: coverage as text -> threshold; 1 where they are too few for the promise.
    """

    faces: int
    at: Mapping[str, float]

    @classmethod
    def calibrated(cls, of_labels: NDArray[np.float64]) -> "ClassThresholds":
        """Return the thresholds that the scores (N,) of the labels of N faces give."""
        ordered = np.sort(of_labels)
        return cls(len(ordered), {_text(percent): quantile(ordered, percent) for percent in PER_CENT})


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of a network's prediction sets.

    Args:
        faces: number of faces that they were calibrated on.
        at: coverage as text, "0.50" to "0.99" -> threshold; 1 is every emotion.
        by_class: (C,) of the faces of each class; none in files of earlier versions.
    """

    faces: int
    at: Mapping[str, float]
    by_class: tuple[ClassThresholds, ...] = ()

    @classmethod
    def calibrated(cls, probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> "Thresholds":
        """Return the thresholds that N faces give.

        Args:
            probabilities: (N, C), calibrated, of faces outside the training data.
            targets: (N,) class indices.
        """
        of_labels = scores(probabilities)[np.arange(len(targets)), targets]
        together = ClassThresholds.calibrated(of_labels)
        classes = range(probabilities.shape[1])
        apart = tuple(ClassThresholds.calibrated(of_labels[targets == label]) for label in classes)
        return cls(together.faces, together.at, apart)

    def threshold(self, coverage: float) -> float:
        """Return the threshold of a coverage; between two steps that of the higher one, which keeps the promise.

        Raises:
            FerError: the coverage is outside the range.
        """
        return self.at[_text(_percent(coverage))]

    def limits(self, coverage: float, by: By) -> NDArray[np.float64] | float:
        """Return the threshold of a coverage, or (C,) one for each class; ``unpromised`` names those without a promise.

        Raises:
            FerError: the coverage is outside the range, or there are no thresholds by class.
        """
        if by == "all":
            return self.threshold(coverage)
        percent, together = _percent(coverage), self.threshold(coverage)
        self._require_classes()
        return np.array([one.at[_text(percent)] if _enough(one.faces, percent) else together for one in self.by_class])

    def unpromised(self, coverage: float) -> list[int]:
        """Return the indices of the classes with too few faces for the promise.

        Raises:
            FerError: the coverage is outside the range, or there are no thresholds by class.
        """
        percent = _percent(coverage)
        self._require_classes()
        return [label for label, thresholds in enumerate(self.by_class) if not _enough(thresholds.faces, percent)]

    def _require_classes(self) -> None:
        if not self.by_class:
            raise FerError(
                f"{setting('coverage_by', 'class')}: the file of this network has thresholds over all faces alone; "
                "python -m fer.evaluate NETWORK --coverage-by class calibrates those of each emotion on val, and "
                "python -m fer.share EVALUATION NAME.safetensors writes a file with them"
            )


def _percent(coverage: float) -> int:
    check(coverage)
    return int(np.ceil(100 * coverage - CLOSE))


def _rank(faces: int, percent: int) -> int:
    return -(-(faces + 1) * percent // 100)  # rounded up, in whole numbers


def _enough(faces: int, percent: int) -> bool:
    return _rank(faces, percent) <= faces


def _text(percent: int) -> str:
    return f"{percent / 100:.2f}"


def without_promise(classes: Sequence[str]) -> str:
    """Return in words that nothing is promised for some classes; an empty text where there are none."""
    return f"Val has too few faces of {', '.join(classes)}: nothing is promised for these." if classes else ""


def check(coverage: float) -> None:
    """Raise unless a coverage can be promised.

    Raises:
        FerError: naming the range.
    """
    check_number("coverage", coverage, PER_CENT[0] / 100, PER_CENT[-1] / 100, "a share of the faces from {} to {}")


def valid(entry: object, classes: int | None) -> bool:
    """Return whether an entry of a checkpoint holds the thresholds of prediction sets.

    Args:
        entry: the values of ``Thresholds``.
        classes: number of the network's classes; None where that is not known.
    """
    by_class = entry.get("by_class", ()) if isinstance(entry, dict) else None
    if not isinstance(by_class, list | tuple) or (by_class and classes not in (None, len(by_class))):
        return False
    return all(map(_valid, [entry, *by_class]))


def _valid(entry: object) -> bool:
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
    rank = _rank(len(ordered), percent)
    return float(ordered[rank - 1]) if rank <= len(ordered) else 1.0


def sets(probabilities: NDArray[np.floating[Any]], threshold: NDArray[np.float64] | float) -> NDArray[np.bool_]:
    """Return (N, C) whether each class is in the prediction set of each face.

    Args:
        probabilities: (N, C), calibrated as those that gave the threshold.
        threshold: of ``Thresholds``; (C,) one for each class.
    """
    inside: NDArray[np.bool_] = scores(probabilities) <= threshold
    return inside


def named_sets(
    probabilities: NDArray[np.floating[Any]], classes: Sequence[str], threshold: NDArray[np.float64] | float
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
