"""From a network and faces to probabilities, figures and files: one path for training's end and ``fer.evaluate``."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fer.calibration import BINS, bins_of, expected_error, place_of
from fer.data.datamodule import FERDataModule
from fer.metrics import confusion_of, from_confusion
from fer.models import EmotionClassifier
from fer.reports.run import Scored
from fer.results import written_whole

SCHEMA = 1  # of metrics.json; raise it when a field changes its meaning
Z95 = 1.959963984540054  # normal quantile of a two-sided 95 % interval
DRAWS = 1000  # bootstrap samples of the faces
CHUNK = 50  # of them at a time: 50 x 28,709 counts are 6 MB


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


@torch.inference_mode()
def embeddings(model: EmotionClassifier, images: Tensor, *, batch_size: int, device: torch.device) -> Tensor:
    """Return what the network's last linear layer is given, (N, D) float32 on the CPU; without one, its logits.

    Args:
        model: the network; moved to ``device`` and left there, in evaluation mode.
        images: (N, 1, S, S) uint8.
        batch_size: faces at a time.
        device: to compute on.
    """
    kept: list[Tensor] = []
    linear = [module for module in model.net.modules() if isinstance(module, nn.Linear)]
    hook = (
        linear[-1].register_forward_pre_hook(lambda _, given: kept.append(given[0].float().cpu())) if linear else None
    )
    try:
        logits = probabilities(model, images, batch_size=batch_size, device=device).log()
    finally:
        if hook is not None:
            hook.remove()
    return torch.cat(kept) if kept else logits


def evaluate_split(
    model: EmotionClassifier, data: FERDataModule, split: str, folder: Path, on_gpu: bool
) -> tuple[dict[str, Any], Scored]:
    """Score a split, write its ``predictions.csv`` to ``folder``, and return the figures and the faces behind them.

    Args:
        model: the network.
        data: set up for the split.
        split: "val" or "test".
        folder: to write to.
        on_gpu: compute there.
    """
    dataset = data.datasets[split]
    device = torch.device("cuda" if on_gpu else "cpu")
    predicted = probabilities(model, dataset.images, batch_size=data.data.batch_size, device=device)
    classes = list(model.hparams["classes"])
    rows = data.faces.rows[data.places(split)]
    write_predictions(folder / "predictions.csv", rows, split, dataset.targets, predicted, classes)
    scored = Scored(dataset.images[:, 0].numpy(), dataset.targets.numpy(), predicted.numpy(), rows, classes)
    return {"schema": SCHEMA, "split": split, **score(predicted, dataset.targets, classes)}, scored


def score(predicted: Tensor, targets: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return the figures of N predictions, as plain values, with their 95 % intervals.

    Those of proportions are Wilson's, the others from a bootstrap over the faces (Efron 1979).

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        classes: C names.
    """
    count = len(targets)
    confusion = confusion_of(predicted, targets)  # (C, C)
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
        "ece": expected_error(bins_of(predicted.numpy(), targets.numpy())),
        **bootstrap(predicted, targets),
        "per_class": {
            name: {
                **{figure: float(values[figure][index]) for figure in ("precision", "recall", "f1")},
                "recall_ci95": wilson(int(confusion[index, index]), int(confusion[index].sum())),
                "support": int(confusion[index].sum()),
            }
            for index, name in enumerate(classes)
        },
        "confusion": confusion.tolist(),
    }


def wilson(hits: int, count: int) -> list[float]:
    """Return the 95 % interval of a proportion, [low, high] (Wilson 1927)."""
    if not count:
        return [0.0, 1.0]  # nothing is known
    share, z2 = hits / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def bootstrap(predicted: Tensor, targets: Tensor) -> dict[str, list[float]]:
    """Return 95 % intervals, name_ci95 -> [low, high], of macro-F1, balanced accuracy, NLL and ECE.

    Percentiles of a seeded bootstrap over the faces. The ECE of a sample drawn from a sample is too large by about what
    a sample's is beside the truth's, so that its percentiles are mirrored about the figure ("basic" bootstrap); for a
    network that is all but calibrated it stays too large, as every binned ECE does.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
    """
    values, count = _sums_of(predicted, targets), len(targets)  # (N, C * C + 1 + BINS)
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(DRAWS // CHUNK):
        drawn = torch.randint(count, (CHUNK, count), generator=generator)
        weights = torch.zeros(CHUNK, count).scatter_add_(1, drawn, torch.ones(CHUNK, count))
        parts.append(weights @ values)
    sums = torch.cat(parts)  # (DRAWS, C * C + 1 + BINS)
    classes = predicted.shape[1]
    figures = from_confusion(sums[:, : classes**2].view(-1, classes, classes))
    samples = {name: figures[name] for name in ("macro_f1", "balanced_accuracy")}
    samples["nll"] = sums[:, classes**2] / count
    samples["ece"] = sums[:, classes**2 + 1 :].abs().sum(1) / count
    found = {name: sample.quantile(torch.tensor([0.025, 0.975])).tolist() for name, sample in samples.items()}
    ece = float(values[:, classes**2 + 1 :].sum(0).abs().sum() / count)
    found["ece"] = [max(0.0, 2 * ece - found["ece"][1]), max(0.0, 2 * ece - found["ece"][0])]
    return {f"{name}_ci95": interval for name, interval in found.items()}


def _sums_of(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return what each face adds to the sums behind the figures: a cell of the confusion matrix, its loss, its gap."""
    count, classes = predicted.shape
    confidence, guess = predicted.max(1)
    cells = torch.zeros(count, classes**2)
    cells[torch.arange(count), targets * classes + guess] = 1
    nll = -predicted.gather(1, targets[:, None]).clamp(min=torch.finfo(predicted.dtype).tiny).log()
    gaps = torch.zeros(count, BINS)
    gaps[torch.arange(count), torch.from_numpy(place_of(confidence.numpy()))] = confidence - (guess == targets).float()
    return torch.cat([cells, nll, gaps], 1)


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
