"""Metrics of one network, or of the difference between two, with 95 % intervals, from probabilities and labels.

Each metric but the calibration errors is a function of weights of the faces. All weights are 1 for the metric itself;
for a bootstrap sample a weight counts how often the face was drawn. One definition therefore serves the metric, its
interval and paired differences. Metrics by rank are sums over sorted scores, so that 1,000 samples of 3,589 faces take
0.8 s. Tests compare all with scikit-learn to 1e-6.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fer.metrics.calibration import (
    BINS,
    adaptive_error,
    bin_indices,
    bin_indices_by_rank,
    bins_of,
    debiased_error,
    expected_error,
)
from fer.metrics.results import Calibrated, Difference, Paired, PerClass, Scores, Value
from fer.metrics.running import from_confusion
from fer.metrics.statistics import Interval, mcnemar, wilson
from fer.metrics.table import METRICS, SAMPLED

DRAWS = 1000  # bootstrap samples of the faces
CHUNK = 50  # samples computed at once: 50 x 28,709 counts are 6 MB
LEAST = 10  # least number of correct and of wrong faces for a bootstrap interval; of faces of a class for the class's
CLASS_SAMPLED = ("f1", "roc_auc", "average_precision")  # metrics of a class with a bootstrap interval


class Weighted:
    """The metrics of N predictions as a function of weights of the faces.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
    """

    def __init__(self, predicted: Tensor, targets: Tensor) -> None:
        self.classes = predicted.shape[1]
        self.sums = sums_of(predicted.double(), targets)  # (N, C * C + 3)
        self.ranked = [_Ranked(predicted[:, label], targets == label) for label in range(self.classes)]

    def __call__(self, weights: Tensor) -> dict[str, Tensor]:
        """Return each metric of ``SAMPLED``, (K,), and of the classes, (K, C), for K sets of weights (K, N).

        A class that holds no face or every face has no ROC curve: its ROC AUC is NaN and is left out of the mean.
        """
        sums = weights @ self.sums.to(weights.dtype)
        confusion = sums[:, : self.classes**2].view(-1, self.classes, self.classes)
        total = weights.sum(1)
        nll, brier, top2 = (sums[:, self.classes**2 :] / total[:, None]).unbind(1)
        curves = [ranked(weights) for ranked in self.ranked]
        roc_auc, precision = (torch.stack(values, 1) for values in zip(*curves, strict=True))
        counted = from_confusion(confusion)
        return {
            **{name: counted[name] for name in ("accuracy", "macro_f1", "balanced_accuracy")},
            "top2": top2,
            "nll": nll,
            "brier": brier,
            "kappa": kappa(confusion),
            "roc_auc": roc_auc.nanmean(1),
            "average_precision": precision.nanmean(1),
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

    def __init__(self, scores: Tensor, positive: Tensor) -> None:
        ordered, self.order = scores.sort(stable=True)
        steps = ordered[1:] != ordered[:-1]
        group = torch.cat([torch.zeros(1, dtype=torch.long), steps.long().cumsum(0)])  # (N,) of equal scores
        sizes = torch.bincount(group)
        ends = sizes.cumsum(0)  # faces up to the end of each group
        sorted_positive = positive[self.order]
        positive_ends = torch.bincount(group, sorted_positive.double(), minlength=len(sizes)).cumsum(0).long()
        self.positives = sorted_positive.nonzero()[:, 0]
        groups = group[self.positives]  # (P,) of each positive
        self.end, self.start = ends[groups], (ends - sizes)[groups]  # of that group, among all faces
        self.positive_end = positive_ends[groups]  # and among the positives
        self.positive_start = torch.cat([torch.zeros(1, dtype=torch.long), positive_ends])[groups]

    def __call__(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return ROC AUC and average precision, (K,) each, for weights (K, N); NaN if there is no curve.

        ROC AUC is the probability that a face of the class has a higher score than another face, with a half for ties
        (Mann & Whitney 1947). Average precision is the sum of the precisions at each threshold, weighted by the gain in
        recall, without interpolation.
        """
        ordered = weights[:, self.order]  # (K, N), the least probable first
        faces = functional.pad(ordered.cumsum(1), (1, 0))  # before each position
        positive = ordered[:, self.positives]  # (K, P)
        hits = functional.pad(positive.cumsum(1), (1, 0))
        before, after = hits[:, self.positive_start], hits[:, self.positive_end]
        below = faces[:, self.start] - before  # negatives with a lower score than each positive
        tied = faces[:, self.end] - faces[:, self.start] - (after - before)
        total, positives = faces[:, -1:], hits[:, -1:]
        area = (positive * (below + tied / 2)).sum(1) / (positives * (total - positives))[:, 0]
        above = (total - faces[:, self.start]).clamp(min=1e-9)  # 0 for a group that was not drawn
        precision = (positive * (positives - before) / above).sum(1) / positives[:, 0]
        return area, torch.where(total[:, 0] > positives[:, 0], precision, torch.nan)


def sums_of(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return the terms of each face in the sums behind the metrics, (N, C * C + 3).

    The columns are the cells of the confusion matrix, the loss, the Brier score, and 1 if the true class is among the
    two most probable.
    """
    count, classes = predicted.shape
    cells = predicted.new_zeros(count, classes**2)
    cells[torch.arange(count), targets * classes + predicted.argmax(1)] = 1
    squares = (predicted - functional.one_hot(targets, classes)).square().sum(1)
    second = (predicted.topk(2, 1).indices == targets[:, None]).any(1).to(predicted)
    return torch.cat([cells, losses(predicted, targets)[:, None], squares[:, None], second[:, None]], 1)


def losses(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return the negative logarithm of the probability of each face's class, (N,)."""
    chosen = predicted.gather(1, targets[:, None])[:, 0]
    return -chosen.clamp(min=torch.finfo(torch.float32).tiny).log()


def kappa(confusion: Tensor) -> Tensor:
    """Return Cohen's kappa (1960), (K,), of matrices (K, C, C): agreement beyond the agreement by chance."""
    total = confusion.sum((1, 2))
    agreement = confusion.diagonal(dim1=1, dim2=2).sum(1) / total
    chance = (confusion.sum(1) * confusion.sum(2)).sum(1) / total**2
    return torch.where(chance < 1, (agreement - chance) / (1 - chance).clamp(min=1e-12), 0.0)


# --- one network ----------------------------------------------------------------------------------------------------


def score(predicted: Tensor, targets: Tensor, classes: Sequence[str]) -> Scores:
    """Return the metrics of N predictions with their 95 % intervals.

    Intervals of proportions are Wilson's, the others come from a bootstrap. Calibration errors come with the values of
    a calibrated network instead (``calibration``). A metric that is undefined for these faces is None.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        classes: C names.
    """
    count = len(targets)
    metrics = Weighted(predicted, targets)
    whole = {name: values[0] for name, values in metrics(torch.ones(1, count, dtype=torch.float64)).items()}
    bootstrap = intervals(metrics, targets, int((predicted.argmax(1) == targets).sum()))
    confusion = metrics.sums[:, : metrics.classes**2].sum(0).long().view(metrics.classes, -1)
    overall = {}
    for name in SAMPLED:
        value = float(whole[name])
        ends = _wilson(round(value * count), count) if METRICS[name].binomial else bootstrap.overall[name]
        overall[name] = Value(none_for_nan(value), ends)
    return Scores(
        count,
        {**overall, **calibration(predicted, targets)},
        per_class(whole, bootstrap, confusion, classes),
        tuple(map(tuple, confusion.tolist())),
    )


def per_class(
    whole: Mapping[str, Tensor], bootstrap: "Intervals", confusion: Tensor, classes: Sequence[str]
) -> dict[str, PerClass]:
    """Return class -> its metrics with intervals; those of recall and precision are Wilson's."""

    def measured(metric: str, label: int, interval: Interval | None) -> Value:
        return Value(none_for_nan(float(whole[f"class_{metric}"][label])), interval)

    table = {}
    for label, name in enumerate(classes):
        hits, support, predicted = (
            int(n) for n in (confusion[label, label], confusion[label].sum(), confusion[:, label].sum())
        )
        sampled = {
            metric: measured(metric, label, bootstrap.classes[metric][label] if support >= LEAST else None)
            for metric in CLASS_SAMPLED
        }
        precision = measured("precision", label, _wilson(hits, predicted))
        recall = measured("recall", label, _wilson(hits, support))
        table[name] = PerClass(precision=precision, recall=recall, **sampled, support=support)
    return table


def tempered_metrics(predicted: Tensor, targets: Tensor) -> Calibrated:
    """Return the metrics that a temperature changes: NLL and Brier score with intervals, and the calibration errors.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
    """
    count, classes = predicted.shape
    sums = sums_of(predicted.double(), targets)[:, classes**2 : classes**2 + 2]  # (N, 2)

    def means(weights: Tensor) -> dict[str, Tensor]:
        return dict(zip(("nll", "brier"), (weights @ sums.to(weights.dtype) / count).unbind(1), strict=True))

    whole = {name: float(values[0]) for name, values in means(torch.ones(1, count, dtype=torch.float64)).items()}
    correct = int((predicted.argmax(1) == targets).sum())
    samples = _bootstrapped(count, means) if min(correct, count - correct) >= LEAST else None
    found = {name: Value(value, _percentiles(samples[name]) if samples else None) for name, value in whole.items()}
    return Calibrated({**found, **calibration(predicted, targets)})


def calibration(predicted: Tensor, targets: Tensor) -> dict[str, Value]:
    """Return the expected calibration error in bins of equal width and in bins of equal numbers of faces.

    Each has the 95th percentile of the error that a calibrated network with these confidences has on as many faces. The
    mean of that error comes as ``..._if_calibrated_mean``, and ``debiased_error`` as ``..._rms_debiased``.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
    """
    probabilities, labels = predicted.numpy(), targets.numpy()
    confidence = probabilities.max(1)
    gaps = confidence.astype(np.float64) - (probabilities.argmax(1) == labels)
    errors: dict[str, Value] = {}
    for name, error, indices in (
        ("ece", expected_error(bins_of(probabilities, labels)), bin_indices(confidence)),
        ("ece_adaptive", adaptive_error(probabilities, labels), bin_indices_by_rank(confidence)),
    ):
        mean, high = errors_if_calibrated(predicted, torch.from_numpy(indices))
        errors |= {
            name: Value(error, if_calibrated=high),
            f"{name}_if_calibrated_mean": Value(mean),
            f"{name}_rms_debiased": Value(debiased_error(gaps, indices)),
        }
    return errors


def _wilson(hits: int, count: int) -> Interval:
    return Interval(*wilson(hits, count))


def none_for_nan(value: float) -> float | None:
    """Return a value, or None for NaN, which JSON cannot hold."""
    return None if value != value else value


# --- bootstrap ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Intervals:
    """The bootstrap's 95 % intervals: metric -> its own, metric of the classes -> one for each of C classes."""

    overall: Mapping[str, Interval | None]
    classes: Mapping[str, Sequence[Interval | None]]


def intervals(metrics: Weighted, targets: Tensor, correct: int) -> Intervals:
    """Return the 95 % intervals of the metrics of ``SAMPLED``, and of ``CLASS_SAMPLED`` for each class.

    Percentiles of a seeded bootstrap over the faces (Efron 1979). An interval is None if fewer than ``LEAST`` faces are
    classified correctly, or fewer are wrong: the bootstrap is unreliable then.
    """
    if min(correct, len(targets) - correct) < LEAST:
        return Intervals(dict.fromkeys(SAMPLED), dict.fromkeys(CLASS_SAMPLED, [None] * metrics.classes))
    samples = _bootstrapped(len(targets), metrics)
    return Intervals(
        {name: _percentiles(samples[name]) for name in SAMPLED},
        {name: [_percentiles(one) for one in samples[f"class_{name}"].unbind(1)] for name in CLASS_SAMPLED},
    )


def _bootstrapped(count: int, metrics: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the metrics of ``DRAWS`` samples of N faces with replacement, (DRAWS,) or (DRAWS, C) each."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(DRAWS // CHUNK):
        drawn = torch.randint(count, (CHUNK, count), generator=generator)
        parts.append(metrics(torch.zeros(CHUNK, count).scatter_add_(1, drawn, torch.ones(CHUNK, count))))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _percentiles(samples: Tensor) -> Interval | None:
    """Return the 2.5th and the 97.5th percentile of samples (DRAWS,); None if a sample is NaN."""
    if samples.isnan().any():
        return None
    return Interval(*samples.quantile(torch.tensor([0.025, 0.975], dtype=samples.dtype)).tolist())


def errors_if_calibrated(predicted: Tensor, indices: Tensor) -> tuple[float, float]:
    """Return mean and 95th percentile of the calibration error of a perfectly calibrated network of these confidences.

    A binned error is above 0 in every sample, and a bootstrap interval near 0 contains the true value half the time.
    The error of a calibrated network is shown instead: a measured error above it is more than chance.

    Args:
        predicted: (N, C) probabilities.
        indices: (N,) bin of each face.
    """
    confidence = predicted.max(1).values.float()
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(DRAWS // CHUNK):
        correct = torch.rand(CHUNK, len(confidence), generator=generator) < confidence
        bins = torch.zeros(CHUNK, BINS).index_add_(1, indices, confidence - correct.float())
        parts.append(bins.abs().sum(1) / len(confidence))
    errors = torch.cat(parts)
    return float(errors.mean()), float(errors.quantile(0.95))


# --- two networks ---------------------------------------------------------------------------------------------------


def paired(first: Tensor, second: Tensor, targets: Tensor) -> Paired:
    """Return the difference, first minus second, in each metric on the same faces, with intervals for other faces.

    Both networks are evaluated on the same bootstrap samples, so that faces that are hard for both do not widen the
    interval. The intervals are of these two networks and do not cover other seeds.

    Args:
        first: (N, C) probabilities.
        second: (N, C) probabilities.
        targets: (N,) true classes.
    """
    count = len(targets)
    networks = [Weighted(predicted, targets) for predicted in (first, second)]

    def gaps(weights: Tensor) -> dict[str, Tensor]:
        minuend, subtrahend = (metrics(weights) for metrics in networks)
        return {name: minuend[name] - subtrahend[name] for name in SAMPLED}

    whole = gaps(torch.ones(1, count, dtype=torch.float64))
    correct = [(predicted.argmax(1) == targets).numpy() for predicted in (first, second)]
    test = mcnemar(*correct)
    samples = _bootstrapped(count, gaps) if test.first + test.second >= LEAST else None
    differences = {
        name: Difference(none_for_nan(float(whole[name])), _percentiles(samples[name]) if samples else None)
        for name in SAMPLED
    }
    return Paired(count, differences, test)
