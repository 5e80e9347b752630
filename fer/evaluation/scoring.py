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
from fer.metrics.groups import Groups, mean_interval_of, of_part, share_interval
from fer.metrics.results import Measured, OfDataSet, Scores, Selective, SetScores, SetsRecord, Soft
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
    return Scored(faces.grey, faces.targets, np.asarray(predicted), rows, classes, faces.colour, faces.groups)


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
    scores = measured(predicted, faces.targets, classes, temperature, faces.groups)
    if faces.soft is None:
        return scores
    return replace(scores, soft=soft_metrics(predicted[:, : faces.soft.shape[1]], like(predicted, faces.soft)))


def measured(
    predicted: Array,
    targets: NDArray[np.int64],
    classes: Sequence[str],
    temperature: float | None,
    groups: Groups | None = None,
) -> Measured:
    """Return the metrics of predictions, and with a temperature those that it changes.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        classes: C names.
        temperature: None where there is none.
        groups: of the faces.
    """
    chances, labels, calibrated = np.asarray(predicted), like(predicted, targets), None
    if temperature is not None:
        calibrated = classification.tempered_metrics(like(predicted, tempered(chances, temperature)), labels, groups)
    return Measured(
        scores=classification.score(predicted, labels, classes, groups),
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
    by_set = ((name, numbers == number) for number, name in enumerate(data.sets.names))
    return tuple(
        OfDataSet(
            name,
            int(own.sum()),
            float(right[own].mean()),
            share_interval(right[own], of_part(scored.groups, own)),
        )
        for name, own in by_set
        if own.any()
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


def clean(
    predicted: Array,
    targets: Array,
    kept: NDArray[np.bool_],
    classes: Sequence[str],
    groups: Groups | None = None,
) -> Scores | None:
    """Return the metrics over the faces without an exact duplicate in the training; None without such faces.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        kept: (N,), whether a face has no such duplicate.
        classes: C names.
        groups: of the faces.
    """
    if not kept.any():
        return None
    indices = like(predicted, kept)
    return classification.score(predicted[indices], targets[indices], classes, of_part(groups, kept))


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

    def of_some(chosen: NDArray[np.bool_]) -> SetScores:
        return set_scores(sets[chosen], scored.targets[chosen], of_part(scored.groups, chosen))

    return SetsRecord(
        promised=coverage,
        threshold=thresholds.threshold(coverage),
        calibrated_on=calibration.on,
        kept=calibration.kept,
        thresholds=thresholds,
        scores=set_scores(sets, scored.targets, scored.groups),
        clean=None if unseen is None or not unseen.any() else of_some(unseen),
        per_class={name: of_some(own) for name, own in faces.items()},
        by=by,
        unpromised=() if by == "all" else tuple(scored.classes[label] for label in thresholds.unpromised(coverage)),
    )


def set_scores(sets: NDArray[np.bool_], targets: NDArray[np.integer[Any]], groups: Groups | None = None) -> SetScores:
    """Return coverage and size of the sets (N, C) of N faces with labels (N,), of these groups."""
    count, classes = sets.shape
    covered, size = sets[np.arange(count), targets], sets.sum(1)
    return SetScores(
        n=count,
        coverage=float(covered.mean()) if count else None,
        coverage_ci95=share_interval(covered, groups) if count else None,
        size=float(size.mean()) if count else None,
        size_ci95=mean_interval_of(size, groups, classes),
        sizes=tuple(np.bincount(size, minlength=classes + 1)[1:].tolist()),
    )
