"""From a network and faces to probabilities, figures and files: one path for training's end and ``fer.evaluate``."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor, nn

from fer.calibration import BINS, bins_of, expected_error, place_of
from fer.data.datamodule import FaceDataset, FERDataModule
from fer.metrics import confusion_of, from_confusion
from fer.models import EmotionClassifier
from fer.reports.run import Scored
from fer.results import written_whole
from fer.significance import wilson

SCHEMA = 1  # of metrics.json; raise it when a field changes its meaning
DRAWS = 1000  # bootstrap samples of the faces
CHUNK = 50  # of them at a time: 50 x 28,709 counts are 6 MB
LEAST = 10  # right and wrong faces for a bootstrap interval


@torch.inference_mode()
def probabilities(model: EmotionClassifier, faces: FaceDataset, *, batch_size: int, device: torch.device) -> Tensor:
    """Return (N, C) float32 probabilities on the CPU, in full precision whatever the training's was.

    Args:
        model: the network; it is moved to ``device`` and left there, in evaluation mode.
        faces: N of them; where their features are known, the layers before them are not run again.
        batch_size: faces at a time.
        device: to compute on.
    """
    model = model.to(device, memory_format=torch.channels_last).eval()
    places = list(range(len(faces)))
    batches = (faces.__getitems__(places[start : start + batch_size]) for start in places[::batch_size])
    parts = [model.logits(move_data_to_device(batch, device)).float().softmax(1).cpu() for batch in batches]
    return torch.cat(parts)


@torch.inference_mode()
def embeddings(model: EmotionClassifier, images: Tensor, *, batch_size: int, device: torch.device) -> Tensor:
    """Return what the linear layer that runs last is given, (N, D) float32 on the CPU; without one, the logits.

    Args:
        model: the network; moved to ``device`` and left there, in evaluation mode.
        images: (N, 1, S, S) uint8.
        batch_size: faces at a time.
        device: to compute on.
    """
    given: list[Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0])) for layer in layers]
    model = model.to(device, memory_format=torch.channels_last).eval()
    parts = []
    try:
        for start in range(0, len(images), batch_size):
            given.clear()
            logits = model(images[start : start + batch_size].to(device))
            last = given[-1] if given and len(given[-1]) == len(logits) else logits  # not a row a face: of no use
            parts.append(last.flatten(1).float().cpu())
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(parts)


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
    predicted = probabilities(model, dataset, batch_size=data.data.batch_size, device=device)
    classes = list(model.hparams["classes"])
    rows = data.faces.rows[data.places(split)]
    write_predictions(folder / "predictions.csv", rows, split, dataset.targets, predicted, classes)
    scored = Scored(dataset.images[:, 0].numpy(), dataset.targets.numpy(), predicted.numpy(), rows, classes)
    return {"schema": SCHEMA, "split": split, **score(predicted, dataset.targets, classes)}, scored


def score(predicted: Tensor, targets: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return the figures of N predictions, as plain values, with their 95 % intervals.

    Those of proportions are Wilson's, the others from ``bootstrap``; the ECE has ``ece_if_calibrated`` beside it.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        classes: C names.
    """
    count = len(targets)
    confusion = confusion_of(predicted, targets)  # (C, C)
    values = from_confusion(confusion)
    hits = int(confusion.diagonal().sum())
    return {
        "n": count,
        "accuracy": hits / count,
        "accuracy_ci95": wilson(hits, count),
        "macro_f1": float(values["macro_f1"]),
        "balanced_accuracy": float(values["balanced_accuracy"]),
        "nll": float(losses(predicted, targets).mean()),
        "ece": expected_error(bins_of(predicted.numpy(), targets.numpy())),
        "ece_if_calibrated": ece_if_calibrated(predicted),
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


def bootstrap(predicted: Tensor, targets: Tensor) -> dict[str, list[float] | None]:
    """Return 95 % intervals, name_ci95 -> [low, high], of macro-F1, balanced accuracy and NLL.

    Percentiles of a seeded bootstrap over the faces (Efron 1979). Where fewer than ``LEAST`` faces are right, or wrong,
    samples of the sample say too little of other samples: None.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
    """
    names = ("macro_f1", "balanced_accuracy", "nll")
    right = int((predicted.argmax(1) == targets).sum())
    if min(right, len(targets) - right) < LEAST:
        return {f"{name}_ci95": None for name in names}
    sums = _resampled(_sums_of(predicted, targets))  # (DRAWS, C * C + 1)
    classes = predicted.shape[1]
    figures = from_confusion(sums[:, :-1].view(-1, classes, classes))
    samples = {"macro_f1": figures["macro_f1"], "balanced_accuracy": figures["balanced_accuracy"]}
    samples["nll"] = sums[:, -1] / len(targets)
    ends = torch.tensor([0.025, 0.975])
    return {f"{name}_ci95": samples[name].quantile(ends).tolist() for name in names}


def _resampled(values: Tensor) -> Tensor:
    """Return the column sums of ``DRAWS`` samples, with replacement, of the rows of values (N, D): (DRAWS, D)."""
    count = len(values)
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(DRAWS // CHUNK):
        drawn = torch.randint(count, (CHUNK, count), generator=generator)
        weights = torch.zeros(CHUNK, count).scatter_add_(1, drawn, torch.ones(CHUNK, count))
        parts.append(weights @ values)
    return torch.cat(parts)


def _sums_of(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return what each face adds to the sums behind the figures, (N, C * C + 1): its cell of the matrix, its loss."""
    count, classes = predicted.shape
    cells = torch.zeros(count, classes**2)
    cells[torch.arange(count), targets * classes + predicted.argmax(1)] = 1
    return torch.cat([cells, losses(predicted, targets)[:, None]], 1)


def losses(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return the negative logarithm of the probability of each face's class, (N,)."""
    chosen = predicted.gather(1, targets[:, None])[:, 0]
    return -chosen.clamp(min=torch.finfo(predicted.dtype).tiny).log()


def ece_if_calibrated(predicted: Tensor) -> float:
    """Return the ECE that a perfectly calibrated network of these confidences stays below in 95 % of samples.

    A binned ECE is never 0 in a sample, and has no honest interval near 0 (a bootstrap's holds the truth half the
    time): what can be said is whether the measured one is larger than chance makes it.

    Args:
        predicted: (N, C) probabilities.
    """
    confidence = predicted.max(1).values
    place = torch.from_numpy(place_of(confidence.numpy()))
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(DRAWS // CHUNK):
        right = torch.rand(CHUNK, len(confidence), generator=generator) < confidence
        bins = torch.zeros(CHUNK, BINS).index_add_(1, place, confidence - right.float())
        found.append(bins.abs().sum(1) / len(confidence))
    return float(torch.cat(found).quantile(0.95))


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
