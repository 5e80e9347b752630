"""Metrics of a split: one path for the end of a training and for ``fer.evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.data.table import Table
from fer.metrics import classification, conformal
from fer.metrics.arrays import TINY, Array, library, like
from fer.metrics.calibration import area_under_risk, risk_by_coverage, tempered
from fer.metrics.results import Measured, OfDataSet, Scores, Selective, SetScores, SetsRecord, Soft
from fer.metrics.statistics import Interval, mean_interval, wilson
from fer.runs.predictions import Scored

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # shares of the faces, the most confident first, whose error is reported


def scored_faces(predicted: Array, data: Table, split: str, classes: Sequence[str]) -> Scored:
    """Return a split's faces with their predictions.

    Args:
        predicted: (N, C) probabilities.
        data: read for the split.
        split: its name.
        classes: C names.
    """
    faces, rows = data.split(split), data.faces.rows[data.indices(split)]
    return Scored(faces.grey, faces.targets, np.asarray(predicted), rows, classes, faces.colour)


def measured_split(
    predicted: Array, data: Table, split: str, classes: Sequence[str], temperature: float | None
) -> Measured:
    """Return the metrics of a split, with its soft targets too where it has some.

    Args:
        predicted: (N, C) probabilities.
        data: read for the split.
        split: its name.
        classes: C names.
        temperature: fitted on val; None where there is none.
    """
    faces = data.split(split)
    scores = measured(predicted, faces.targets, classes, temperature)
    if faces.soft is None:
        return scores
    return replace(scores, soft=soft_metrics(predicted[:, : faces.soft.shape[1]], like(predicted, faces.soft)))


def measured(
    predicted: Array, targets: NDArray[np.int64], classes: Sequence[str], temperature: float | None
) -> Measured:
    """Return the metrics of predictions, and with a temperature those that it changes.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        classes: C names.
        temperature: None where there is none.
    """
    chances, labels, calibrated = np.asarray(predicted), like(predicted, targets), None
    if temperature is not None:
        calibrated = classification.tempered_metrics(like(predicted, tempered(chances, temperature)), labels)
    return Measured(
        scores=classification.score(predicted, labels, classes),
        temperature=temperature,
        calibrated=calibrated,
        selective=selective(chances, targets, temperature or 1.0),
    )


def by_data_set(scored: Scored, data: Table, split: str) -> tuple[OfDataSet, ...] | None:
    """Return the accuracy over the faces of each data set that has some in a split; None where there is one alone.

    Args:
        scored: the faces of the split.
        data: they are of.
        split: its name.
    """
    if data.sets is None:
        return None
    numbers, right = data.sets.numbers[data.indices(split)], scored.probabilities.argmax(1) == scored.targets
    by_set = ((name, right[numbers == number]) for number, name in enumerate(data.sets.names))
    return tuple(
        OfDataSet(name, len(each), float(each.mean()), Interval(*wilson(int(each.sum()), len(each))))
        for name, each in by_set
        if len(each)
    )


def soft_metrics(predicted: Array, soft: Array) -> Soft:
    """Return the cross-entropy with soft targets, and their own entropy.

    Args:
        predicted: (N, C) probabilities.
        soft: (N, C) soft targets.
    """
    log = library(soft).log
    crosses = [-(soft * log(chances.clip(TINY))).sum(1).mean() for chances in (predicted, soft)]
    return Soft(float(crosses[0]), float(crosses[1]))


def clean(predicted: Array, targets: Array, kept: NDArray[np.bool_], classes: Sequence[str]) -> Scores | None:
    """Return the metrics over the faces without an exact duplicate in the training; None without such faces.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        kept: (N,), whether a face has no such duplicate.
        classes: C names.
    """
    if not kept.any():
        return None
    indices = like(predicted, kept)
    return classification.score(predicted[indices], targets[indices], classes)


def selective(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.int64], temperature: float) -> Selective:
    """Return the area under risk and coverage, and the error at some coverages.

    Args:
        probabilities: (N, C).
        targets: (N,) true classes.
        temperature: of the confidences.
    """
    _, risk = risk_by_coverage(tempered(probabilities, temperature), targets)
    indices = [max(1, round(coverage * len(risk))) - 1 for coverage in COVERAGES]
    errors = {f"{coverage:g}": float(risk[index]) for coverage, index in zip(COVERAGES, indices, strict=True)}
    return Selective(area_under_risk(risk), errors)


# --- prediction sets ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """Where the thresholds of prediction sets come from.

    Args:
        thresholds: of all coverages.
        on: the faces that gave them, in words.
        kept: whether they are those of the network's file.
    """

    thresholds: conformal.Thresholds
    on: str
    kept: bool


def calibrated_sets(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    unseen: NDArray[np.bool_] | None,
    temperature: float,
) -> conformal.Thresholds:
    """Calibrate the thresholds of prediction sets on the faces of val without a duplicate in train.

    Args:
        probabilities: (N, C) of val, before the temperature.
        targets: (N,) labels.
        unseen: (N,) the faces without such a duplicate; None, for all, where that is not known.
        temperature: fitted on val.
    """
    kept = np.ones(len(targets), np.bool_) if unseen is None else unseen
    return conformal.Thresholds.calibrated(tempered(probabilities[kept], temperature), targets[kept])


def prediction_sets(
    scored: Scored,
    temperature: float,
    unseen: NDArray[np.bool_] | None,
    calibration: Calibration,
    coverage: float,
    by: conformal.By = "all",
) -> SetsRecord:
    """Return coverage and size of the prediction sets of N faces, over all and for each class.

    Args:
        scored: the faces.
        temperature: with which the thresholds were calibrated.
        unseen: (N,) the faces that were not trained on; None where that is not known.
        calibration: the thresholds.
        coverage: that is promised.
        by: whether it is promised over all faces, or for those of each class.
    """
    thresholds = calibration.thresholds
    sets = conformal.sets(tempered(scored.probabilities, temperature), thresholds.limits(coverage, by))
    faces = {name: scored.targets == index for index, name in enumerate(scored.classes)}
    clean = None if unseen is None or not unseen.any() else set_scores(sets[unseen], scored.targets[unseen])
    return SetsRecord(
        promised=coverage,
        threshold=thresholds.threshold(coverage),
        calibrated_on=calibration.on,
        kept=calibration.kept,
        thresholds=thresholds,
        scores=set_scores(sets, scored.targets),
        clean=clean,
        per_class={name: set_scores(sets[mask], scored.targets[mask]) for name, mask in faces.items()},
        by=by,
        unpromised=() if by == "all" else tuple(scored.classes[label] for label in thresholds.unpromised(coverage)),
    )


def set_scores(sets: NDArray[np.bool_], targets: NDArray[np.integer[Any]]) -> SetScores:
    """Return coverage and size of the sets (N, C) of N faces with labels (N,)."""
    count, classes = sets.shape
    covered, size = int(sets[np.arange(count), targets].sum()), sets.sum(1)
    return SetScores(
        n=count,
        coverage=covered / count if count else None,
        coverage_ci95=Interval(*wilson(covered, count)) if count else None,
        size=float(size.mean()) if count else None,
        size_ci95=mean_interval(size),
        sizes=tuple(np.bincount(size, minlength=classes + 1)[1:].tolist()),
    )
