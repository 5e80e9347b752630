"""Losses by name: ``loss.name`` and the arguments of the function registered under it.

A builder gets the number of training faces of each class first. Weights are non-persistent buffers: they follow the
network to its device and never enter a checkpoint.
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
    """Cross-entropy of logits (B, C) with targets (B,) or shares (B, C), in float32 whatever the precision."""

    shares = True
    weight: Tensor | None

    def __init__(self, label_smoothing: float, weight: Tensor | None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the batch, a scalar; weights have mean 1 over train, so that batches stay comparable."""
        logits, smoothing = logits.float(), self.label_smoothing
        if self.weight is None:
            return functional.cross_entropy(logits, targets, label_smoothing=smoothing)
        # torch's own mean divides by the weights of the batch, and would depend on how batches are cut
        weighted = functional.cross_entropy(logits, targets, self.weight, label_smoothing=smoothing, reduction="none")
        return weighted.mean()


class OfFaces(nn.Module):
    """The mean over a batch of a loss of each face, weighted by class, in float32.

    Args:
        function: of log-probabilities (B, C) and targets (B,), gives (B,).
        weight: (C,) of the classes, mean 1 over train, or None.
        arguments: further ones of the function.
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


def _chosen(logs: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability of each face's class, (B,)."""
    return logs.gather(1, targets[:, None])[:, 0]


def _focal(logs: Tensor, targets: Tensor, *, gamma: float) -> Tensor:
    chosen = _chosen(logs, targets)
    missing = -torch.expm1(chosen)  # 1 - p, exact where p is nearly 1
    return -(missing.clamp(min=1e-12) ** gamma) * chosen  # the slope of 0^gamma is infinite below gamma 1


def _generalized(logs: Tensor, targets: Tensor, *, q: float) -> Tensor:
    return -torch.expm1(q * _chosen(logs, targets)) / q


def _bootstrapped(logs: Tensor, targets: Tensor, *, beta: float) -> Tensor:
    own = logs.detach()
    return -beta * _chosen(logs, targets) - (1 - beta) * _chosen(logs, own.argmax(1))


def _symmetric(logs: Tensor, targets: Tensor, *, alpha: float, beta: float, log_zero: float) -> Tensor:
    chosen = _chosen(logs, targets)
    return -alpha * chosen + beta * log_zero * torch.expm1(chosen)  # the reverse: -log_zero * (1 - p)


class LogitAdjusted(nn.Module):
    """Cross-entropy of logits (B, C) plus tau times the logarithm of the classes' shares, with targets (B,)."""

    shares = True
    prior: Tensor

    def __init__(self, counts: Tensor, tau: float, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        shares = counts.clamp(min=1).float() / counts.sum()
        self.register_buffer("prior", tau * shares.log(), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean, a scalar; in validation too, so that train and val losses compare."""
        return functional.cross_entropy(logits.float() + self.prior, targets, label_smoothing=self.label_smoothing)


class SoftCrossEntropy(nn.Module):
    """Cross-entropy of logits (B, C) with soft targets (B, C), in float32."""

    soft = shares = True  # wants soft targets

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the batch, a scalar."""
        return functional.cross_entropy(logits.float(), targets)


class LabelDrawing(SoftCrossEntropy):
    """Cross-entropy of logits (B, C) with labels drawn from soft targets (B, C); in validation with these."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the batch, a scalar; the step's noise is keyed, so that a resumed run draws the same."""
        if not self.training:
            return super().forward(logits, targets)
        return functional.cross_entropy(logits.float(), drawn(targets))


def drawn(shares: Tensor) -> Tensor:
    """Return a class (B,) for each face, drawn from its shares (B, C).

    As ``torch.multinomial`` draws one, which would look at the shares first and let the host wait for a GPU.
    """
    return (shares / torch.empty_like(shares).exponential_()).argmax(1)


@LOSSES.register("cross_entropy")
def cross_entropy(
    counts: Tensor, /, *, label_smoothing: PartialFraction = 0.0, class_weights: ClassWeights = "none"
) -> nn.Module:
    """Return cross-entropy, smoothed and weighted by class as told.

    Args:
        counts: (C,) training faces of each class.
        label_smoothing: probability spread over all classes (Szegedy et al. 2016).
        class_weights: "balanced" weighs by the inverse of a class's count, "sqrt" by the inverse of its root.
    """
    return CrossEntropy(label_smoothing, weights(counts, class_weights))


@LOSSES.register("focal")
def focal(counts: Tensor, /, *, gamma: NonNegative = 2.0, class_weights: ClassWeights = "none") -> nn.Module:
    """Return the focal loss: cross-entropy that falls faster where the network is right already (Lin et al. 2017).

    Args:
        counts: (C,) training faces of each class.
        gamma: of (1 - p)^gamma; 0 is cross-entropy.
        class_weights: as in ``cross_entropy``.
    """
    return OfFaces(_focal, gamma=gamma, weight=weights(counts, class_weights))


@LOSSES.register("generalized_cross_entropy")
def generalized_cross_entropy(
    counts: Tensor, /, *, q: Annotated[float, Range(0, 1, above=True)] = 0.7, class_weights: ClassWeights = "none"
) -> nn.Module:
    """Return (1 - p^q) / q, which a wrong label moves less than cross-entropy (Zhang & Sabuncu 2018).

    Args:
        counts: (C,) training faces of each class.
        q: towards 0 it is cross-entropy, at 1 the mean absolute error.
        class_weights: as in ``cross_entropy``.
    """
    return OfFaces(_generalized, q=q, weight=weights(counts, class_weights))


@LOSSES.register("symmetric_cross_entropy")
def symmetric_cross_entropy(
    counts: Tensor,
    /,
    *,
    alpha: NonNegative = 1.0,
    beta: NonNegative = 1.0,
    log_zero: Annotated[float, Range(-20, -1)] = -4.0,
) -> nn.Module:
    """Return alpha times cross-entropy and beta times the reverse one, which bounds what a wrong label costs.

    Wang et al. 2019. They take alpha 0.1 for ten classes and 6 for a hundred, beta 1, and -4 for the logarithm of 0.

    Args:
        counts: (C,) training faces of each class; not used.
        alpha: of cross-entropy.
        beta: of the reverse.
        log_zero: stands for the logarithm of 0.
    """
    return OfFaces(_symmetric, alpha=alpha, beta=beta, log_zero=log_zero, weight=None)


@LOSSES.register("bootstrapped")
def bootstrapped(
    counts: Tensor, /, *, beta: Annotated[float, Range(0, 1, above=True)] = 0.8, class_weights: ClassWeights = "none"
) -> nn.Module:
    """Return cross-entropy with the label and, for a part, with what the network itself takes for most likely.

    The "hard" bootstrapping of Reed et al. 2015, who take a beta of 0.8: a network that has come to doubt a label is
    held to it the less.

    Args:
        counts: (C,) training faces of each class.
        beta: the label's part; 1 is cross-entropy.
        class_weights: as in ``cross_entropy``.
    """
    return OfFaces(_bootstrapped, beta=beta, weight=weights(counts, class_weights))


@LOSSES.register("logit_adjusted")
def logit_adjusted(counts: Tensor, /, *, tau: NonNegative = 1.0, label_smoothing: PartialFraction = 0.0) -> nn.Module:
    """Return cross-entropy of logits to which the logarithm of each class's share is added in training.

    Menon et al. 2021: what remains in the logits is then for classes of equal size; it raises the recall of rare ones
    at the cost of accuracy.

    Args:
        counts: (C,) training faces of each class.
        tau: how much of it; 0 is cross-entropy.
        label_smoothing: as in ``cross_entropy``.
    """
    return LogitAdjusted(counts, tau, label_smoothing)


@LOSSES.register("soft_cross_entropy")
def soft_cross_entropy(counts: Tensor, /) -> nn.Module:
    """Return cross-entropy with soft targets, the shares of the annotators' votes (``data.ferplus_rule=soft``).

    Args:
        counts: (C,) training faces of each class; not used.
    """
    return SoftCrossEntropy()


@LOSSES.register("label_drawing")
def label_drawing(counts: Tensor, /) -> nn.Module:
    """Return cross-entropy with a label drawn at each step from a face's soft targets.

    "Probabilistic label drawing" of Barsoum et al. 2016. Validation draws nothing: there it is soft cross-entropy.

    Args:
        counts: (C,) training faces of each class; not used.
    """
    return LabelDrawing()


def disagreement(logits: Tensor, views: int) -> Tensor:
    """Return how much the answers to several views of the same faces differ: the mean Jensen-Shannon divergence.

    As in AugMix (Hendrycks et al. 2020). Nothing where all answers agree, log ``views`` at most.

    Args:
        logits: (V * B, C), one view of all faces after the other.
        views: V.
    """
    logs = logits.float().log_softmax(1).view(views, -1, logits.shape[1])  # (V, B, C)
    mean = torch.logsumexp(logs, 0) - math.log(views)  # (B, C): of the mean of the answers
    return (logs.exp() * (logs - mean)).sum(2).mean()


def weights(counts: Tensor, rule: ClassWeights) -> Tensor | None:
    """Return (C,) class weights whose mean over the training faces is 1, or None for equal ones."""
    if rule == "none":
        return None
    inverse = counts.clamp(min=1).float() ** (-1.0 if rule == "balanced" else -0.5)
    return inverse * counts.sum() / (inverse * counts).sum()
