"""Losses by name: ``loss.name`` and the arguments of the function registered under it.

The first argument of each function is the number of training faces of each class. Class weights are non-persistent
buffers: they move to the network's device with it and are not part of a checkpoint.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fer.config.registry import Registry
from fer.config.schema import NonNegative, PartialFraction, Range

LOSSES: Registry = Registry("loss")  # type: ignore[type-arg]
ClassWeights = Literal["none", "balanced", "sqrt"]


class CrossEntropy(nn.Module):
    """Cross-entropy of logits (B, C) with targets (B,) or soft targets (B, C), in float32 at any precision."""

    shares = True
    weight: Tensor | None

    def __init__(self, label_smoothing: float, weight: Tensor | None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the batch, a scalar; the weights have mean 1 over train, so batches are comparable."""
        logits, smoothing = logits.float(), self.label_smoothing
        if self.weight is None:
            return functional.cross_entropy(logits, targets, label_smoothing=smoothing)
        # torch's weighted mean divides by the sum of the batch's weights, and so depends on how batches are formed
        weighted = functional.cross_entropy(logits, targets, self.weight, label_smoothing=smoothing, reduction="none")
        return weighted.mean()


class PerFaceLoss(nn.Module):
    """The mean over a batch of a loss that is computed for each face, weighted by class, in float32.

    Args:
        function: maps log-probabilities (B, C) and targets (B,) to losses (B,).
        weight: (C,) class weights with mean 1 over train, or None.
        arguments: further arguments of the function.
    """

    weight: Tensor | None

    def __init__(self, function: Callable[..., Tensor], *, weight: Tensor | None, **arguments: float) -> None:
        super().__init__()
        self.function, self.arguments = function, arguments
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean for logits (B, C) and targets (B,), a scalar."""
        values = self.function(logits.float().log_softmax(1), targets, **self.arguments)
        return values.mean() if self.weight is None else (values * self.weight[targets]).mean()


def _log_likelihood(logs: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability of each face's target class, (B,)."""
    return logs.gather(1, targets[:, None])[:, 0]


def _focal(logs: Tensor, targets: Tensor, *, gamma: float) -> Tensor:
    log_p = _log_likelihood(logs, targets)
    complement = -torch.expm1(log_p)  # 1 - p, exact for p near 1
    return -(complement.clamp(min=1e-12) ** gamma) * log_p  # the slope of 0^gamma is infinite for gamma below 1


def _generalized(logs: Tensor, targets: Tensor, *, q: float) -> Tensor:
    return -torch.expm1(q * _log_likelihood(logs, targets)) / q


def _bootstrapped(logs: Tensor, targets: Tensor, *, beta: float) -> Tensor:
    predicted = logs.detach().argmax(1)
    return -beta * _log_likelihood(logs, targets) - (1 - beta) * _log_likelihood(logs, predicted)


def _symmetric(logs: Tensor, targets: Tensor, *, alpha: float, beta: float, log_zero: float) -> Tensor:
    log_p = _log_likelihood(logs, targets)
    return -alpha * log_p + beta * log_zero * torch.expm1(log_p)  # reverse cross-entropy: -log_zero * (1 - p)


class LogitAdjusted(nn.Module):
    """Cross-entropy of logits (B, C), plus tau times the logarithm of the class frequencies, with targets (B,)."""

    shares = True
    prior: Tensor

    def __init__(self, counts: Tensor, tau: float, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        frequencies = counts.clamp(min=1).float() / counts.sum()
        self.register_buffer("prior", tau * frequencies.log(), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the batch, a scalar; in validation too, so that train and val losses are comparable."""
        return functional.cross_entropy(logits.float() + self.prior, targets, label_smoothing=self.label_smoothing)


class SoftCrossEntropy(nn.Module):
    """Cross-entropy of logits (B, C) with soft targets (B, C), in float32."""

    soft = shares = True  # soft: requires soft targets; shares: accepts mixed labels

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the batch, a scalar."""
        return functional.cross_entropy(logits.float(), targets)


class LabelDrawing(SoftCrossEntropy):
    """Cross-entropy of logits (B, C) with labels drawn from soft targets (B, C); in validation, with these targets."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the batch, a scalar; the noise is keyed by step: a resumed run draws the same."""
        if not self.training:
            return super().forward(logits, targets)
        return functional.cross_entropy(logits.float(), drawn(targets))


def drawn(shares: Tensor) -> Tensor:
    """Return a class (B,) for each face, drawn from its soft targets (B, C).

    The method is that of ``torch.multinomial``, which also checks its input and so makes the host wait for a GPU.
    """
    return (shares / torch.empty_like(shares).exponential_()).argmax(1)


@LOSSES.register("cross_entropy")
def cross_entropy(
    counts: Tensor, /, *, label_smoothing: PartialFraction = 0.0, class_weights: ClassWeights = "none"
) -> nn.Module:
    """Return cross-entropy with label smoothing and class weights.

    Args:
        counts: (C,) training faces of each class.
        label_smoothing: probability spread over all classes (Szegedy et al. 2016).
        class_weights: "balanced" weights a class by the inverse of its count, "sqrt" by the inverse of its square root.
    """
    return CrossEntropy(label_smoothing, weights(counts, class_weights))


@LOSSES.register("focal")
def focal(counts: Tensor, /, *, gamma: NonNegative = 2.0, class_weights: ClassWeights = "none") -> nn.Module:
    """Return the focal loss: cross-entropy with a lower weight for faces that are classified well (Lin et al. 2017).

    Args:
        counts: (C,) training faces of each class.
        gamma: exponent of the weight (1 - p)^gamma; 0 is cross-entropy.
        class_weights: as in ``cross_entropy``.
    """
    return PerFaceLoss(_focal, gamma=gamma, weight=weights(counts, class_weights))


@LOSSES.register("generalized_cross_entropy")
def generalized_cross_entropy(
    counts: Tensor, /, *, q: Annotated[float, Range(0, 1, above=True)] = 0.7, class_weights: ClassWeights = "none"
) -> nn.Module:
    """Return (1 - p^q) / q, which is more robust to wrong labels than cross-entropy (Zhang & Sabuncu 2018).

    Args:
        counts: (C,) training faces of each class.
        q: exponent; towards 0 the loss approaches cross-entropy, at 1 it is the mean absolute error.
        class_weights: as in ``cross_entropy``.
    """
    return PerFaceLoss(_generalized, q=q, weight=weights(counts, class_weights))


@LOSSES.register("symmetric_cross_entropy")
def symmetric_cross_entropy(
    counts: Tensor,
    /,
    *,
    alpha: NonNegative = 1.0,
    beta: NonNegative = 1.0,
    log_zero: Annotated[float, Range(-20, -1)] = -4.0,
) -> nn.Module:
    """Return alpha times cross-entropy plus beta times reverse cross-entropy, whose value for a wrong label is bounded.

    Wang et al. 2019. Their values: alpha 0.1 for ten classes and 6 for a hundred, beta 1, log_zero -4.

    Args:
        counts: (C,) training faces of each class; not used.
        alpha: factor of cross-entropy.
        beta: factor of reverse cross-entropy.
        log_zero: value used for the logarithm of 0.
    """
    return PerFaceLoss(_symmetric, alpha=alpha, beta=beta, log_zero=log_zero, weight=None)


@LOSSES.register("bootstrapped")
def bootstrapped(
    counts: Tensor, /, *, beta: Annotated[float, Range(0, 1, above=True)] = 0.8, class_weights: ClassWeights = "none"
) -> nn.Module:
    """Return cross-entropy with a mix of the label and the network's own prediction.

    The "hard" bootstrapping of Reed et al. 2015, whose beta is 0.8: a wrong label has less weight if the network
    predicts another class.

    Args:
        counts: (C,) training faces of each class.
        beta: weight of the label; 1 is cross-entropy.
        class_weights: as in ``cross_entropy``.
    """
    return PerFaceLoss(_bootstrapped, beta=beta, weight=weights(counts, class_weights))


@LOSSES.register("logit_adjusted")
def logit_adjusted(counts: Tensor, /, *, tau: NonNegative = 1.0, label_smoothing: PartialFraction = 0.0) -> nn.Module:
    """Return cross-entropy of logits to which the logarithm of each class's frequency is added.

    Menon et al. 2021: the network's logits then predict for classes of equal size. This raises the recall of rare
    classes and lowers accuracy.

    Args:
        counts: (C,) training faces of each class.
        tau: factor of the logarithm; 0 is cross-entropy.
        label_smoothing: as in ``cross_entropy``.
    """
    return LogitAdjusted(counts, tau, label_smoothing)


@LOSSES.register("soft_cross_entropy")
def soft_cross_entropy(counts: Tensor, /) -> nn.Module:
    """Return cross-entropy with soft targets: the distribution of the annotators' votes (``data.ferplus_rule=soft``).

    Args:
        counts: (C,) training faces of each class; not used.
    """
    return SoftCrossEntropy()


@LOSSES.register("label_drawing")
def label_drawing(counts: Tensor, /) -> nn.Module:
    """Return cross-entropy with a label that is drawn at each step from a face's soft targets.

    "Probabilistic label drawing" of Barsoum et al. 2016. In validation the loss is soft cross-entropy.

    Args:
        counts: (C,) training faces of each class; not used.
    """
    return LabelDrawing()


def disagreement(logits: Tensor, views: int) -> Tensor:
    """Return the mean Jensen-Shannon divergence between the predictions for several views of the same faces.

    As in AugMix (Hendrycks et al. 2020). The value is 0 if all predictions are equal, and log ``views`` at most.

    Args:
        logits: (V * B, C), the first view of all faces, then the second, and so on.
        views: number of views, V.
    """
    logs = logits.float().log_softmax(1).view(views, -1, logits.shape[1])  # (V, B, C)
    mean = torch.logsumexp(logs, 0) - math.log(views)  # (B, C) logarithm of the mean prediction
    return (logs.exp() * (logs - mean)).sum(2).mean()


def weights(counts: Tensor, rule: ClassWeights) -> Tensor | None:
    """Return (C,) class weights whose mean over the training faces is 1, or None for equal weights.

    A class without training faces weighs 1, as without weights. Label smoothing also moves probability to such a class;
    the inverse of its count would make this part the larger one of the loss.
    """
    if rule == "none":
        return None
    inverse = counts.clamp(min=1).float() ** (-1.0 if rule == "balanced" else -0.5)
    return torch.where(counts > 0, inverse * counts.sum() / (inverse * counts).sum(), 1.0)
