"""Metrics of one network, or of the difference between two, with 95 % intervals, from probabilities and labels.

Each metric but the calibration errors is a function of weights of the faces. All weights are 1 for the metric itself;
for a bootstrap sample a weight counts how often the face was drawn. One definition therefore serves the metric, its
interval and paired differences. Metrics by rank are sums over sorted scores, so that 1,000 samples of 3,589 faces take
0.8 s. Tests compare all with scikit-learn to 1e-6.

Probabilities and labels are arrays of NumPy or tensors of torch (``arrays``), both of one kind.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.metrics.arrays import TINY, Array, doubled, drawn_counts, drawn_shares, generator, largest_two, library
from fer.metrics.calibration import (
    BINS,
    adaptive_error,
    bin_indices,
    bin_indices_by_rank,
    bins_of,
    debiased_error,
    expected_error,
)
from fer.metrics.confusion import from_confusion
from fer.metrics.groups import Groups, mcnemar_of, number_in_all, number_of, of_part, share_interval
from fer.metrics.results import Calibrated, Difference, Paired, PerClass, Scores, Value
from fer.metrics.statistics import Interval
from fer.metrics.table import SAMPLED

DRAWS = 1000  # bootstrap samples of the faces
CHUNK = 50  # samples computed at once: 50 x 28,709 counts are 6 MB
LEAST = 10  # least number of correct and of wrong faces for a bootstrap interval; of faces of a class for those of it
OVER_CLASSES = ("macro_f1", "balanced_accuracy", "roc_auc", "average_precision")  # means over the classes
CLASS_SAMPLED = ("f1", "roc_auc", "average_precision")  # metrics of a class with a bootstrap interval


class Weighted:
    """The metrics of N predictions as a function of weights of the faces.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
    """

    def __init__(self, predicted: Array, targets: Array) -> None:
        self.classes = predicted.shape[1]
        self.sums = sums_of(doubled(predicted), targets)  # (N, C * C + 3)
        self.ranked = [_Ranked(predicted[:, label], targets == label) for label in range(self.classes)]

    def __call__(self, weights: Array) -> dict[str, Array]:
        """Return each metric of ``SAMPLED``, (K,), and of the classes, (K, C), for K sets of weights (K, N).

        A class that holds no face or every face has no ROC curve: its ROC AUC is NaN and is left out of the mean.
        """
        lib = library(weights)
        sums = weights @ lib.asarray(self.sums, dtype=weights.dtype)
        confusion = sums[:, : self.classes**2].reshape(-1, self.classes, self.classes)
        total = weights.sum(1)
        nll, brier, top2 = (sums[:, self.classes**2 :] / total[:, None]).T
        curves = [ranked(weights) for ranked in self.ranked]
        roc_auc, precision = (lib.stack(values, 1) for values in zip(*curves, strict=True))
        counted = from_confusion(confusion)
        return {
            **{name: counted[name] for name in ("accuracy", "macro_f1", "balanced_accuracy")},
            "top2": top2,
            "nll": nll,
            "brier": brier,
            "kappa": kappa(confusion),
            "roc_auc": mean_of_known(roc_auc),
            "average_precision": mean_of_known(precision),
            **{f"class_{name}": counted[name] for name in ("precision", "recall", "f1")},
            "class_roc_auc": roc_auc,
            "class_average_precision": precision,
        }


class _Ranked:
    """One-vs-rest: N faces sorted by the probability of the class, in groups of equal probability.

    Values are computed at the faces of the class alone; a cumulative sum holds the weights of all faces before them.

    Args:
        scores: (N,) probability of the class.
        positive: (N,) whether a face is of the class.
    """

    def __init__(self, scores: Array, positive: Array) -> None:
        lib = library(scores)
        self.order = lib.argsort(scores, stable=True)
        ordered = scores[self.order]
        group = with_zero((ordered[1:] != ordered[:-1]).cumsum(0), 0)  # (N,) of equal scores
        sizes = lib.bincount(group)
        ends = sizes.cumsum(0)  # faces up to the end of each group
        sorted_positive = positive[self.order]
        counted = lib.bincount(group, doubled(sorted_positive), len(sizes))
        positive_ends = lib.asarray(counted.cumsum(0), dtype=lib.int64)
        self.positives = lib.argwhere(sorted_positive)[:, 0]
        groups = group[self.positives]  # (P,) of each positive
        self.end, self.start = ends[groups], (ends - sizes)[groups]  # of that group, among all faces
        self.positive_end = positive_ends[groups]  # and among the positives
        self.positive_start = with_zero(positive_ends, 0)[groups]

    def __call__(self, weights: Array) -> tuple[Array, Array]:
        """Return ROC AUC and average precision, (K,) each, for weights (K, N); NaN if there is no curve.

        ROC AUC is the probability that a face of the class has a higher score than another face. A tie counts as a half
        (Mann & Whitney 1947). Average precision is the sum of the precisions at each threshold, weighted by the gain in
        recall, without interpolation.
        """
        ordered = weights[:, self.order]  # (K, N), the least probable first
        faces = with_zero(ordered.cumsum(1), 1)  # before each position
        positive = ordered[:, self.positives]  # (K, P)
        hits = with_zero(positive.cumsum(1), 1)
        before, after = hits[:, self.positive_start], hits[:, self.positive_end]
        below = faces[:, self.start] - before  # negatives with a lower score than each positive
        tied = faces[:, self.end] - faces[:, self.start] - (after - before)
        total, positives = faces[:, -1:], hits[:, -1:]
        above = (total - faces[:, self.start]).clip(1e-9)  # 0 for a group that was not drawn
        with np.errstate(divide="ignore", invalid="ignore"):  # NaN where there is no curve
            area = (positive * (below + tied / 2)).sum(1) / (positives * (total - positives))[:, 0]
            precision = (positive * (positives - before) / above).sum(1) / positives[:, 0]
        return area, library(weights).where(total[:, 0] > positives[:, 0], precision, np.nan)


def with_zero(sums: Array, axis: int) -> Array:
    """Return running sums along an axis with a 0 before the first."""
    lib = library(sums)
    shape = list(sums.shape)
    shape[axis] = 1
    return lib.concat([lib.zeros(shape, dtype=sums.dtype), sums], axis)


def mean_of_known(values: Array) -> Array:
    """Return the mean (K,) of the values (K, C) of each row that are not NaN; NaN where all are."""
    lib = library(values)
    known = lib.asarray((~lib.isnan(values)).sum(1), dtype=values.dtype)
    with np.errstate(invalid="ignore"):
        return lib.nansum(values, 1) / known


def sums_of(predicted: Array, targets: Array) -> Array:
    """Return the terms of each face in the sums behind the metrics, (N, C * C + 3).

    The columns are the cells of the confusion matrix, the loss and the Brier score. The last column is 1 if the true
    class is among the two most probable.
    """
    count, classes = predicted.shape
    lib = library(predicted)
    cells = lib.zeros((count, classes**2), dtype=predicted.dtype)
    cells[lib.arange(count), targets * classes + predicted.argmax(1)] = 1
    one_hot = lib.asarray(targets[:, None] == lib.arange(classes), dtype=predicted.dtype)
    squares = lib.square(predicted - one_hot).sum(1)
    second = lib.asarray((largest_two(predicted) == targets[:, None]).any(1), dtype=predicted.dtype)
    return lib.concat([cells, losses(predicted, targets)[:, None], squares[:, None], second[:, None]], 1)


def losses(predicted: Array, targets: Array) -> Array:
    """Return the negative logarithm of the probability of each face's class, (N,)."""
    lib = library(predicted)
    chosen = predicted[lib.arange(len(targets)), targets]
    return -lib.log(chosen.clip(TINY))


def kappa(confusion: Array) -> Array:
    """Return Cohen's kappa (1960), (K,), of matrices (K, C, C): agreement beyond the agreement by chance.

    It is NaN where chance alone agrees always, as on faces of one class that are all predicted so.
    """
    total = confusion.sum((1, 2))
    lib = library(confusion)
    agreement = lib.diagonal(confusion, 0, 1, 2).sum(1) / total
    chance = (confusion.sum(1) * confusion.sum(2)).sum(1) / total**2
    return lib.where(chance < 1, (agreement - chance) / (1 - chance).clip(1e-12), np.nan)


# --- one network ----------------------------------------------------------------------------------------------------


def score(predicted: Array, targets: Array, classes: Sequence[str], groups: Groups | None = None) -> Scores:
    """Return the metrics of N predictions with their 95 % intervals.

    Intervals of shares are Wilson's, the others come from a bootstrap. Means over classes have none where a class
    has fewer than ``LEAST`` faces. Calibration errors come with the values of
    a calibrated network instead (``calibration``). A metric that is undefined for these faces is None.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        classes: C names.
        groups: of the faces; intervals are for other groups then.
    """
    count = len(targets)
    metrics = Weighted(predicted, targets)
    whole = {name: values[0] for name, values in metrics(_once(predicted)).items()}
    labels, answers = np.asarray(targets), np.asarray(predicted.argmax(1))
    bootstrap = intervals(metrics, targets, answers == labels, groups)
    cells = np.asarray(metrics.sums[:, : metrics.classes**2].sum(0))
    confusion = cells.astype(np.int64).reshape(metrics.classes, -1)
    hits = {"accuracy": answers == labels, "top2": np.asarray(metrics.sums[:, -1]) > 0}
    ends = {**bootstrap.overall, **{name: share_interval(each, groups) for name, each in hits.items()}}
    overall = {name: Value(none_for_nan(float(whole[name])), ends[name]) for name in SAMPLED}
    return Scores(
        count,
        {**overall, **calibration(predicted, targets)},
        per_class(whole, bootstrap, answers, labels, classes, groups),
        tuple(map(tuple, confusion.tolist())),
        None if groups is None else int(groups.max()) + 1,
    )


def per_class(
    whole: Mapping[str, Array],
    bootstrap: "Intervals",
    answers: NDArray[np.integer[Any]],
    labels: NDArray[np.integer[Any]],
    classes: Sequence[str],
    groups: Groups | None,
) -> dict[str, PerClass]:
    """Return class -> its metrics with intervals; those of recall and precision are of shares."""

    def measured(metric: str, label: int, interval: Interval | None) -> Value:
        return Value(none_for_nan(float(whole[f"class_{metric}"][label])), interval)

    table = {}
    for label, name in enumerate(classes):
        own, predicted = labels == label, answers == label
        recall, precision = (
            share_interval((own & predicted)[faces], of_part(groups, faces)) for faces in (own, predicted)
        )
        sampled = {
            metric: measured(
                metric, label, bootstrap.classes[metric][label] if number_of(groups, own) >= LEAST else None
            )
            for metric in CLASS_SAMPLED
        }
        table[name] = PerClass(
            precision=measured("precision", label, precision),
            recall=measured("recall", label, recall),
            **sampled,
            support=int(own.sum()),
        )
    return table


def tempered_metrics(predicted: Array, targets: Array, groups: Groups | None = None) -> Calibrated:
    """Return the metrics that a temperature changes: NLL and Brier score with intervals, and the calibration errors.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        groups: of the faces; intervals are for other groups then.
    """
    classes = predicted.shape[1]
    sums = sums_of(doubled(predicted), targets)[:, classes**2 : classes**2 + 2]  # (N, 2)

    def means(weights: Array) -> dict[str, Array]:
        typed = library(weights).asarray(sums, dtype=weights.dtype)
        return dict(zip(("nll", "brier"), (weights @ typed / weights.sum(1)[:, None]).T, strict=True))

    whole = {name: float(values[0]) for name, values in means(_once(predicted)).items()}
    right = np.asarray(predicted.argmax(1) == targets)
    samples = _bootstrapped(predicted, means, groups) if _enough(right, groups) else None
    metrics = {name: Value(value, _percentiles(samples[name]) if samples else None) for name, value in whole.items()}
    return Calibrated({**metrics, **calibration(predicted, targets)})


def calibration(predicted: Array, targets: Array) -> dict[str, Value]:
    """Return the expected calibration error in bins of equal width and in bins of equal numbers of faces.

    Each has the 95th percentile of the error that a calibrated network with these confidences has on as many faces. The
    mean of that error comes as ``..._if_calibrated_mean``, and ``debiased_error`` as ``..._rms_debiased``.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
    """
    probabilities, labels = np.asarray(predicted), np.asarray(targets)
    confidence = probabilities.max(1)
    gaps = confidence.astype(np.float64) - (probabilities.argmax(1) == labels)
    errors: dict[str, Value] = {}
    for name, error, indices in (
        ("ece", expected_error(bins_of(probabilities, labels)), bin_indices(confidence)),
        ("ece_adaptive", adaptive_error(probabilities, labels), bin_indices_by_rank(confidence)),
    ):
        mean, high = errors_if_calibrated(predicted, indices)
        errors |= {
            name: Value(error, if_calibrated=high),
            f"{name}_if_calibrated_mean": Value(mean),
            f"{name}_rms_debiased": Value(debiased_error(gaps, indices)),
        }
    return errors


def _once(predicted: Array) -> Array:
    """Return weights (1, N) with which each of N faces counts once."""
    lib = library(predicted)
    return lib.ones((1, len(predicted)), dtype=lib.float64)


def none_for_nan(value: float) -> float | None:
    """Return a value, or None for NaN, which JSON cannot hold."""
    return None if value != value else value


# --- bootstrap ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Intervals:
    """The bootstrap's 95 % intervals: metric -> its own, metric of the classes -> one for each of C classes."""

    overall: Mapping[str, Interval | None]
    classes: Mapping[str, Sequence[Interval | None]]


def intervals(metrics: Weighted, targets: Array, right: NDArray[np.bool_], groups: Groups | None = None) -> Intervals:
    """Return the 95 % intervals of the metrics of ``SAMPLED``, and of ``CLASS_SAMPLED`` for each class.

    Percentiles of a seeded bootstrap over the faces (Efron 1979), or over their groups. An interval is None if fewer
    than ``LEAST`` faces are classified correctly, fewer are wrong, or there are fewer groups: the bootstrap is
    unreliable then. Those of means over the classes are None too if one of the classes is rare.

    Args:
        metrics: of N predictions.
        targets: (N,) true classes.
        right: (N,) whether a prediction is correct.
        groups: of the faces.
    """
    if not _enough(right, groups):
        return Intervals(dict.fromkeys(SAMPLED), dict.fromkeys(CLASS_SAMPLED, [None] * metrics.classes))
    samples = _bootstrapped(targets, metrics, groups)
    rare = has_rare_class(targets, groups)
    return Intervals(
        {name: None if rare and name in OVER_CLASSES else _percentiles(samples[name]) for name in SAMPLED},
        {name: [_percentiles(values) for values in samples[f"class_{name}"].T] for name in CLASS_SAMPLED},
    )


def has_rare_class(targets: Array, groups: Groups | None) -> bool:
    """Return whether a class has faces, but fewer than ``LEAST``, or of fewer groups.

    Bootstrap samples without it are means over fewer classes, which is another metric.

    Args:
        targets: (N,) true classes.
        groups: of the faces.
    """
    labels = np.asarray(targets)
    return any(number_of(groups, labels == label) < LEAST for label in np.unique(labels))


def _enough(telling: NDArray[np.bool_], groups: Groups | None) -> bool:
    """Return whether N faces, True and False (N,), are enough of both, and of enough groups, for a bootstrap."""
    count = int(telling.sum())
    return min(count, len(telling) - count, number_in_all(groups, len(telling))) >= LEAST


def _bootstrapped(
    faces: Array, metrics: Callable[[Array], dict[str, Array]], groups: Groups | None
) -> dict[str, Array]:
    """Return the metrics of ``DRAWS`` samples of N faces with replacement, (DRAWS,) or (DRAWS, C) each.

    Args:
        faces: an array (N, ...) of them, whose library computes.
        metrics: a function of weights (K, N).
        groups: of the faces, drawn whole; None if each is drawn alone.
    """
    lib, source = library(faces), generator()

    def drawn() -> NDArray[np.float32]:
        counts = drawn_counts(source, CHUNK, number_in_all(groups, len(faces)))
        return counts if groups is None else counts[:, groups]

    parts = [metrics(lib.asarray(drawn())) for _ in range(DRAWS // CHUNK)]
    return {name: lib.concat([part[name] for part in parts]) for name in parts[0]}


def _percentiles(samples: Array) -> Interval | None:
    """Return the 2.5th and the 97.5th percentile of samples (DRAWS,); None if a sample is NaN."""
    lib = library(samples)
    if lib.isnan(samples).any():
        return None
    return Interval(*lib.quantile(samples, lib.asarray([0.025, 0.975], dtype=samples.dtype)).tolist())


def errors_if_calibrated(predicted: Array, indices: NDArray[np.int64]) -> tuple[float, float]:
    """Return mean and 95th percentile of the calibration error of a perfectly calibrated network of these confidences.

    A binned error is above 0 in every sample, and a bootstrap interval near 0 contains the true value half the time.
    The error of a calibrated network is shown instead: a measured error above it is more than chance.

    Args:
        predicted: (N, C) probabilities.
        indices: (N,) bin of each face.
    """
    lib, source = library(predicted), generator()
    confidence = np.asarray(predicted).max(1).astype(np.float32)
    cells = indices + BINS * np.arange(CHUNK)[:, None]
    parts = []
    for _ in range(DRAWS // CHUNK):
        correct = drawn_shares(source, CHUNK, len(confidence)) < confidence
        bins = np.zeros(CHUNK * BINS, np.float32)
        np.add.at(bins, cells.ravel(), (confidence - correct.astype(np.float32)).ravel())  # face after face
        parts.append(lib.abs(lib.asarray(bins.reshape(CHUNK, BINS))).sum(1) / len(confidence))
    errors = lib.concat(parts)
    return float(errors.mean()), float(lib.quantile(errors, 0.95))


# --- two networks ---------------------------------------------------------------------------------------------------


def paired(first: Array, second: Array, targets: Array, groups: Groups | None = None) -> Paired:
    """Return the difference, first minus second, in each metric on the same faces, with intervals for other faces.

    Both networks are evaluated on the same bootstrap samples, so that faces that are hard for both do not widen the
    interval. The intervals are of these two networks and do not cover other seeds.

    Args:
        first: (N, C) probabilities.
        second: (N, C) probabilities.
        targets: (N,) true classes.
        groups: of the faces; intervals and test are for other groups then.
    """
    count = len(targets)
    networks = [Weighted(predicted, targets) for predicted in (first, second)]

    def gaps(weights: Array) -> dict[str, Array]:
        minuend, subtrahend = (metrics(weights) for metrics in networks)
        return {name: minuend[name] - subtrahend[name] for name in SAMPLED}

    whole = gaps(_once(first))
    right, other = (np.asarray(predicted.argmax(1) == targets) for predicted in (first, second))
    test = mcnemar_of(right, other, groups)
    different = test.first + test.second >= LEAST and number_in_all(groups, len(right)) >= LEAST
    samples = _bootstrapped(first, gaps, groups) if different else {}
    if has_rare_class(targets, groups):
        samples = {name: values for name, values in samples.items() if name not in OVER_CLASSES}
    differences = {
        name: Difference(none_for_nan(float(whole[name][0])), _percentiles(samples[name]) if name in samples else None)
        for name in SAMPLED
    }
    return Paired(count, differences, test)
