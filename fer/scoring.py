"""From a network and faces to probabilities, figures and files: one path for training's end and ``fer.evaluate``."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from fer.metrics import from_confusion
from fer.models import EmotionClassifier
from fer.results import written_whole

CALIBRATION_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"
Z95 = 1.959963984540054  # normal quantile of a two-sided 95 % interval


@torch.inference_mode()
def probabilities(model: EmotionClassifier, images: Tensor, *, batch_size: int, device: torch.device) -> Tensor:
    """Return (N, C) float32 probabilities on the CPU, in full precision whatever the training's was.

    Args:
        model: the network; it is moved to ``device`` and left there, in evaluation mode.
        images: (N, 1, S, S) uint8.
        batch_size: faces at a time.
        device: to compute on.
    """
    model = model.to(device, memory_format=torch.channels_last).eval()
    starts = range(0, len(images), batch_size)
    parts = [model(images[start : start + batch_size].to(device)).float().softmax(1).cpu() for start in starts]
    return torch.cat(parts)


def score(predicted: Tensor, targets: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return the figures of N predictions, as plain values.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        classes: C names.
    """
    count = len(targets)
    confusion = multiclass_confusion_matrix(predicted, targets, len(classes))  # (C, C)
    values = from_confusion(confusion)
    hits = int(confusion.diagonal().sum())
    chosen = predicted.gather(1, targets[:, None]).clamp(min=torch.finfo(predicted.dtype).tiny)
    return {
        "n": count,
        "accuracy": hits / count,
        "accuracy_ci95": wilson(hits, count),
        "macro_f1": float(values["macro_f1"]),
        "balanced_accuracy": float(values["balanced_accuracy"]),
        "nll": float(-chosen.log().mean()),
        "ece": float(multiclass_calibration_error(predicted, targets, len(classes), n_bins=CALIBRATION_BINS)),
        "per_class": {
            name: {
                **{figure: float(values[figure][index]) for figure in ("precision", "recall", "f1")},
                "support": int(confusion[index].sum()),
            }
            for index, name in enumerate(classes)
        },
        "confusion": confusion.tolist(),
    }


def wilson(hits: int, count: int) -> list[float]:
    """Return the 95 % interval of a proportion, [low, high] (Wilson 1927)."""
    share, z2 = hits / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def write_predictions(
    file: Path, rows: NDArray[np.int64], split: str, targets: Tensor, predicted: Tensor, classes: Sequence[str]
) -> None:
    """Write one line a face: row,split,target,predicted,p_<class>...

    Args:
        file: to write.
        rows: (N,) rows in the source.
        split: their split's name.
        targets: (N,) true classes.
        predicted: (N, C) probabilities.
        classes: C names.
    """
    with written_whole(file) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["row", "split", "target", "predicted", *(f"p_{name}" for name in classes)])
        best = predicted.argmax(1).tolist()
        for row, target, guess, values in zip(rows.tolist(), targets.tolist(), best, predicted.tolist(), strict=True):
            writer.writerow([row, split, classes[target], classes[guess], *(f"{value:.6g}" for value in values)])
