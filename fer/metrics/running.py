"""Metrics of a running epoch, accumulated on the device: one confusion matrix and one sum of losses.

Both are read once an epoch, so that no step waits for the device. All metrics but the loss come from the confusion
matrix; its rows are the true classes, its columns the predicted classes.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

from fer.metrics.confusion import from_confusion
from fer.system import ranks


class Scores(Metric):
    """Mean loss, accuracy, macro-F1, balanced accuracy and recall per class, over all batches since the last reset.

    Args:
        classes: number of classes, C.
    """

    full_state_update = False
    confusion: Tensor
    loss_sum: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__(sync_on_compute=False)  # the live line reads the metrics of its own rank
        self.classes = classes
        self.add_state("confusion", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("loss_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a batch: logits (B, C), targets (B,), and its mean loss, a scalar."""
        self.confusion += confusion_of(logits, targets)
        self.loss_sum += loss.double() * len(targets)

    def add_ranks(self) -> None:
        """Add the faces of the other ranks; every rank calls this, before ``compute`` and ``reset``."""
        ranks.add_up(self.confusion, self.loss_sum)

    def compute(self) -> dict[str, Tensor]:
        """Return name -> scalar, "precision", "recall" and "f1" (C,), and "confusion" (C, C)."""
        loss = (self.loss_sum / self.confusion.sum()).float()
        metrics = {name: value.float() for name, value in from_confusion(self.confusion).items()}
        return {"loss": loss, "confusion": self.confusion.clone(), **metrics}


def confusion_of(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the (C, C) confusion matrix of N faces from scores (N, C) and targets (N,): rows true, columns predicted.

    Each face is compared with every cell. Counting by value (``bincount``), as torchmetrics does, makes the host wait
    for a GPU.
    """
    classes = scores.shape[1]
    cells = targets * classes + scores.argmax(1)
    every = torch.arange(classes * classes, device=scores.device)
    return (cells[:, None] == every).sum(0).view(classes, classes)
