"""Metrics of a running epoch, accumulated on the device: one confusion matrix and one sum of losses.

Both are read once an epoch, so that no step waits for the device. All metrics but the loss come from the confusion
matrix; its rows are the true classes, its columns the predicted classes.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

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


def from_confusion(confusion: Tensor) -> dict[str, Tensor]:
    """Return accuracy, macro-F1, balanced accuracy (...) and precision, recall, F1 (..., C) of matrices (..., C, C).

    All in float64. A class that was never predicted has precision 0. A class without faces has recall and F1 0, and
    both means leave it out, predicted or not: a face predicted as absent lowers the recall of its own class.
    Macro-F1 is scikit-learn's ``f1_score(labels=present, average="macro")``.
    """
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()  # (..., C)
    support, predicted = confusion.sum(-1).double(), confusion.sum(-2).double()
    recall = hits / support.clamp(min=1)
    precision = hits / predicted.clamp(min=1)
    f1 = 2 * hits / (support + predicted).clamp(min=1)
    present = (support > 0).double()
    classes = present.sum(-1).clamp(min=1)  # classes with faces
    return {
        "accuracy": hits.sum(-1) / support.sum(-1).clamp(min=1),
        "macro_f1": (f1 * present).sum(-1) / classes,
        "balanced_accuracy": (recall * present).sum(-1) / classes,
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }
