"""From probabilities and labels to figures with their 95 % intervals, of one network or of the difference of two.

Every figure but the calibration errors is a function of weights of the faces: all 1 for the figure itself, how often a
face was drawn for a bootstrap sample. One definition therefore serves the figure, its interval and paired differences;
scikit-learn's agree with it to 1e-6 (tested).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fer.metrics.calibration import (
    BINS,
    adaptive_error,
    bins_of,
    debiased_error,
    expected_error,
    place_by_rank,
    place_of,
)
from fer.metrics.running import from_confusion
from fer.metrics.statistics import mcnemar, wilson
from fer.metrics.table import METRICS, SAMPLED

DRAWS = 1000  # bootstrap samples of the faces
CHUNK = 50  # of them at a time: 50 x 28,709 counts are 6 MB
LEAST = 10  # right and wrong faces for a bootstrap interval, and of a class for one of its own


class Weighted:
    """The figures of N predictions, as a function of weights of the faces.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
    """

    def __init__(self, predicted: Tensor, targets: Tensor) -> None:
        self.classes = predicted.shape[1]
        self.sums = sums_of(predicted.double(), targets)  # (N, C * C + 3)
        self.ranked = [_Ranked(predicted[:, label], targets == label) for label in range(self.classes)]

    def __call__(self, weights: Tensor) -> dict[str, Tensor]:
        """Return each of ``SAMPLED``, (K,), and those of the classes, (K, C), for K sets of weights (K, N).

        What no face or every face belongs to has no curve: its ROC AUC is NaN and stays out of the mean.
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
    """One class against the rest: N faces by its probability, and where the groups of equal ones lie.

    Only the places of the class's own faces are looked at: what comes before them is in one cumulated sum.

    Args:
        scores: (N,) probability of the class.
        positive: (N,), whether a face is of the class.
    """

    def __init__(self, scores: Tensor, positive: Tensor) -> None:
        ordered, self.order = scores.sort(stable=True)
        steps = ordered[1:] != ordered[:-1]
        group = torch.cat([torch.zeros(1, dtype=torch.long), steps.long().cumsum(0)])  # (N,) of equal scores
        sizes = torch.bincount(group)
        ends = sizes.cumsum(0)  # faces up to and with each group
        own = positive[self.order]
        own_ends = torch.bincount(group, own.double(), minlength=len(sizes)).cumsum(0).long()  # of the class
        self.own = own.nonzero()[:, 0]
        mine = group[self.own]
        self.end, self.start = ends[mine], (ends - sizes)[mine]  # of each positive's group, among all faces
        self.own_end = own_ends[mine]
        self.own_start = torch.cat([torch.zeros(1, dtype=torch.long), own_ends])[mine]  # and among the class's

    def __call__(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return ROC AUC and average precision, (K,) each, for weights (K, N); NaN where there is no curve.

        The area is the probability that a face of the class ranks before another one, ties counting a half (Mann &
        Whitney 1947); average precision is the sum of the precisions at each threshold, weighted by the gain in
        recall, without interpolation.
        """
        held = weights[:, self.order]  # (K, N), the least probable first
        faces = functional.pad(held.cumsum(1), (1, 0))  # before each place
        own = held[:, self.own]  # (K, P)
        hits = functional.pad(own.cumsum(1), (1, 0))
        before, after = hits[:, self.own_start], hits[:, self.own_end]
        below = faces[:, self.start] - before  # misses that rank lower than each positive
        tied = faces[:, self.end] - faces[:, self.start] - (after - before)
        total, positives = faces[:, -1:], hits[:, -1:]
        area = (own * (below + tied / 2)).sum(1) / (positives * (total - positives))[:, 0]
        above = (total - faces[:, self.start]).clamp(min=1e-9)  # a group that was not drawn
        precision = (own * (positives - before) / above).sum(1) / positives[:, 0]
        return area, torch.where(total[:, 0] > positives[:, 0], precision, torch.nan)


def sums_of(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return what each face adds to the sums behind the figures, (N, C * C + 3).

    Its cell of the confusion matrix, its loss, its Brier score, whether its class is among the two likeliest.
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
    """Return Cohen's kappa (1960) of matrices (K, C, C): agreement beyond what the margins give, (K,)."""
    total = confusion.sum((1, 2))
    agreed = confusion.diagonal(dim1=1, dim2=2).sum(1) / total
    chance = (confusion.sum(1) * confusion.sum(2)).sum(1) / total**2
    return torch.where(chance < 1, (agreed - chance) / (1 - chance).clamp(min=1e-12), 0.0)


# --- a network ------------------------------------------------------------------------------------------------------


def score(predicted: Tensor, targets: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return the figures of N predictions, as plain values, with their 95 % intervals.

    Those of shares are Wilson's, the others from a bootstrap; calibration errors have what chance makes
    of them beside them (``calibration``). A figure that these faces do not have is None.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        classes: C names.
    """
    count = len(targets)
    figures = Weighted(predicted, targets)
    whole = {name: values[0] for name, values in figures(torch.ones(1, count, dtype=torch.float64)).items()}
    drawn = intervals(figures, targets, int((predicted.argmax(1) == targets).sum()))
    confusion = figures.sums[:, : figures.classes**2].sum(0).long().view(figures.classes, -1)
    overall: dict[str, Any] = {}
    for name in SAMPLED:
        value = float(whole[name])
        share = METRICS[name].of_faces
        overall |= {
            name: plain(value),
            f"{name}_ci95": wilson(round(value * count), count) if share else drawn[name],
        }
    return {
        "n": count,
        **overall,
        **calibration(predicted, targets),
        "per_class": per_class(whole, drawn, confusion, classes),
        "confusion": confusion.tolist(),
    }


def per_class(
    whole: dict[str, Tensor], drawn: dict[str, Any], confusion: Tensor, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return class -> its figures with their intervals; recall's and precision's are Wilson's."""
    found = {}
    for label, name in enumerate(classes):
        hits, support = int(confusion[label, label]), int(confusion[label].sum())
        guessed = int(confusion[:, label].sum())
        found[name] = {
            "precision": plain(float(whole["class_precision"][label])),
            "precision_ci95": wilson(hits, guessed),
            "recall": plain(float(whole["class_recall"][label])),
            "recall_ci95": wilson(hits, support),
            **{
                key: value
                for figure in ("f1", "roc_auc", "average_precision")
                for key, value in (
                    (figure, plain(float(whole[f"class_{figure}"][label]))),
                    (f"{figure}_ci95", drawn[f"class_{figure}"][label] if support >= LEAST else None),
                )
            },
            "support": support,
        }
    return found


def proper(predicted: Tensor, targets: Tensor) -> dict[str, Any]:
    """Return NLL and Brier score with their intervals, and the calibration errors: what a temperature changes.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
    """
    count, classes = predicted.shape
    sums = sums_of(predicted.double(), targets)[:, classes**2 : classes**2 + 2]  # (N, 2)

    def means(weights: Tensor) -> dict[str, Tensor]:
        return dict(zip(("nll", "brier"), (weights @ sums.to(weights.dtype) / count).unbind(1), strict=True))

    found = {name: float(values[0]) for name, values in means(torch.ones(1, count, dtype=torch.float64)).items()}
    right = int((predicted.argmax(1) == targets).sum())
    samples = _drawn(count, means) if min(right, count - right) >= LEAST else None
    ends = {f"{name}_ci95": _percentiles(samples[name]) if samples else None for name in found}
    return {**found, **ends, **calibration(predicted, targets)}


def calibration(predicted: Tensor, targets: Tensor) -> dict[str, float]:
    """Return the expected calibration error in bins of equal width and of equal numbers, and what chance makes them.

    Beside each: ``..._if_calibrated``, the 95th percentile, and ``..._if_calibrated_mean``, the mean, of what a
    calibrated network of these confidences shows on as many faces, and ``..._rms_debiased`` of ``debiased_error``.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
    """
    chances, labels = predicted.numpy(), targets.numpy()
    confidence = chances.max(1)
    gaps = confidence.astype(np.float64) - (chances.argmax(1) == labels)
    found: dict[str, float] = {}
    for name, error, place in (
        ("ece", expected_error(bins_of(chances, labels)), place_of(confidence)),
        ("ece_adaptive", adaptive_error(chances, labels), place_by_rank(confidence)),
    ):
        mean, high = errors_if_calibrated(predicted, torch.from_numpy(place))
        found |= {
            name: error,
            f"{name}_if_calibrated": high,
            f"{name}_if_calibrated_mean": mean,
            f"{name}_rms_debiased": debiased_error(gaps, place),
        }
    return found


def plain(value: float) -> float | None:
    """Return a figure, or None in place of NaN: JSON has none."""
    return None if value != value else value


# --- bootstrap ------------------------------------------------------------------------------------------------------


def intervals(figures: Weighted, targets: Tensor, right: int) -> dict[str, Any]:
    """Return figure -> its 95 % interval [low, high], of the classes' figures a list of them.

    Percentiles of a seeded bootstrap over the faces (Efron 1979). Where fewer than ``LEAST`` faces are right, or wrong,
    samples of the sample say too little of other samples: None.
    """
    names = [*SAMPLED, *(f"class_{figure}" for figure in ("f1", "roc_auc", "average_precision"))]
    if min(right, len(targets) - right) < LEAST:
        return {name: [None] * figures.classes if name.startswith("class_") else None for name in names}
    samples = _drawn(len(targets), figures)
    return {name: _percentiles(samples[name]) for name in names}


def _drawn(count: int, figures: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the figures of ``DRAWS`` samples of N faces, with replacement: (DRAWS,) or (DRAWS, C) each."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(DRAWS // CHUNK):
        drawn = torch.randint(count, (CHUNK, count), generator=generator)
        parts.append(figures(torch.zeros(CHUNK, count).scatter_add_(1, drawn, torch.ones(CHUNK, count))))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _percentiles(samples: Tensor) -> Any:
    """Return [low, high] of (DRAWS,), a list of them of (DRAWS, C); None where a sample has no such figure."""
    if samples.ndim == 2:
        return [_percentiles(column) for column in samples.unbind(1)]
    if samples.isnan().any():
        return None
    return samples.quantile(torch.tensor([0.025, 0.975], dtype=samples.dtype)).tolist()


def errors_if_calibrated(predicted: Tensor, place: Tensor) -> tuple[float, float]:
    """Return mean and 95th percentile of the calibration error of a perfectly calibrated network of these confidences.

    A binned error is never 0 in a sample, and has no honest interval near 0 (a bootstrap's holds the truth half the
    time): what can be said is whether the measured one is larger than chance makes it.

    Args:
        predicted: (N, C) probabilities.
        place: (N,) bin of each face.
    """
    confidence = predicted.max(1).values.float()
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(DRAWS // CHUNK):
        right = torch.rand(CHUNK, len(confidence), generator=generator) < confidence
        bins = torch.zeros(CHUNK, BINS).index_add_(1, place, confidence - right.float())
        found.append(bins.abs().sum(1) / len(confidence))
    errors = torch.cat(found)
    return float(errors.mean()), float(errors.quantile(0.95))


# --- two networks ---------------------------------------------------------------------------------------------------


def paired(first: Tensor, second: Tensor, targets: Tensor) -> dict[str, Any]:
    """Return first minus second in each figure on the same faces, with intervals for other faces.

    Both are drawn together, so that what a face is like for both does not widen the interval. Of seeds the intervals
    know nothing: they are of these two networks.

    Args:
        first: (N, C) probabilities.
        second: (N, C) probabilities.
        targets: (N,) true classes.

    Returns:
        ``n``, figure -> {"difference", "ci95"}, and ``mcnemar`` with what only one of the two has right.
    """
    count = len(targets)
    figures = [Weighted(predicted, targets) for predicted in (first, second)]

    def gaps(weights: Tensor) -> dict[str, Tensor]:
        one, other = (of(weights) for of in figures)
        return {name: one[name] - other[name] for name in SAMPLED}

    whole = gaps(torch.ones(1, count, dtype=torch.float64))
    right = [(predicted.argmax(1) == targets).numpy() for predicted in (first, second)]
    test = mcnemar(*right)
    samples = _drawn(count, gaps) if test.first + test.second >= LEAST else None
    differences = {
        name: {"difference": plain(float(whole[name])), "ci95": _percentiles(samples[name]) if samples else None}
        for name in SAMPLED
    }
    return {"n": count, **differences, "mcnemar": test._asdict()}
