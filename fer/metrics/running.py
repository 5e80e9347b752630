"""Scores accumulated on the device: one confusion matrix and one sum of losses, read once an epoch.

Every figure comes from the confusion matrix: rows are the true classes, columns the predicted ones.
"""

import torch
from torch import Tensor
from torchmetrics import Metric


class Scores(Metric):
    """Mean loss, accuracy, macro-F1, balanced accuracy and recall per class, over all batches since the last reset.

    Args:
        classes: number of classes, C.
    """

    full_state_update = False
    confusion: Tensor
    loss_sum: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("confusion", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("loss_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a batch: logits (B, C), targets (B,), and its mean loss, a scalar."""
        self.confusion += confusion_of(logits, targets)
        self.loss_sum += loss.double() * len(targets)

    def compute(self) -> dict[str, Tensor]:
        """Return name -> scalar, "precision", "recall" and "f1" (C,), and "confusion" (C, C)."""
        loss = (self.loss_sum / self.confusion.sum()).float()
        figures = {name: value.float() for name, value in from_confusion(self.confusion).items()}
        return {"loss": loss, "confusion": self.confusion.clone(), **figures}


def confusion_of(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the (C, C) counts of N faces, rows labelled, columns predicted, from scores (N, C) and targets (N,).

    By comparison with every cell: a count by value, as torchmetrics has it, lets the host wait for a GPU.
    """
    classes = scores.shape[1]
    cells = targets * classes + scores.argmax(1)
    every = torch.arange(classes * classes, device=scores.device)
    return (cells[:, None] == every).sum(0).view(classes, classes)


def from_confusion(confusion: Tensor) -> dict[str, Tensor]:
    """Return accuracy, macro-F1, balanced accuracy (...) and precision, recall, F1 (..., C) of matrices (..., C, C).

    In float64. A class that was never predicted has precision 0, one without faces has recall 0 and stays out of both
    means (scikit-learn's balanced accuracy does the same; its macro-F1 over the labels present too).
    """
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()  # (..., C)
    support, predicted = confusion.sum(-1).double(), confusion.sum(-2).double()
    recall = hits / support.clamp(min=1)
    precision = hits / predicted.clamp(min=1)
    f1 = 2 * hits / (support + predicted).clamp(min=1)
    counted, present = ((support + predicted) > 0).double(), (support > 0).double()
    return {
        "accuracy": hits.sum(-1) / support.sum(-1).clamp(min=1),
        "macro_f1": (f1 * counted).sum(-1) / counted.sum(-1).clamp(min=1),
        "balanced_accuracy": (recall * present).sum(-1) / present.sum(-1).clamp(min=1),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }
