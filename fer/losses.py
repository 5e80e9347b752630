"""Losses by name: ``loss.name`` and the arguments of the function registered under it.

A builder gets the number of training faces of each class first. Weights are non-persistent buffers: they follow the
network to its device and never enter a checkpoint.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from fer.arguments import PartialFraction
from fer.registry import Registry

LOSSES: Registry = Registry("loss")  # type: ignore[type-arg]
ClassWeights = Literal["none", "balanced", "sqrt"]


class CrossEntropy(nn.Module):
    """Cross-entropy of logits (B, C) with targets (B,), in float32 whatever the network's precision."""

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


def weights(counts: Tensor, rule: ClassWeights) -> Tensor | None:
    """Return (C,) class weights whose mean over the training faces is 1, or None for equal ones."""
    if rule == "none":
        return None
    inverse = counts.clamp(min=1).float() ** (-1.0 if rule == "balanced" else -0.5)
    return inverse * counts.sum() / (inverse * counts).sum()
