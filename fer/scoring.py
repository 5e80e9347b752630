"""From a network and faces to probabilities, figures and files: one path for training's end and ``fer.evaluate``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor, nn

from fer import measures
from fer.calibration import area_under_risk, risk_by_coverage, tempered
from fer.data.datamodule import FaceDataset, FERDataModule, to_unit
from fer.models import EmotionClassifier
from fer.predictions import Scored
from fer.views import VIEWS

SCHEMA = 1  # of metrics.json; raise it when a field changes its meaning
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # at which the error of answering only where confident is told


@torch.inference_mode()
def probabilities(
    model: EmotionClassifier, faces: FaceDataset, *, batch_size: int, device: torch.device, views: str = "none"
) -> Tensor:
    """Return (N, C) float32 probabilities on the CPU, in full precision whatever the training's was.

    Args:
        model: the network; it is moved to ``device`` and left there, in evaluation mode.
        faces: N of them; where their features are known, the layers before them are not run again.
        batch_size: faces at a time.
        device: to compute on.
        views: of each face, over which probabilities are averaged: a name of ``fer.views.VIEWS``.
    """
    model = model.to(device, memory_format=torch.channels_last).eval()
    places = list(range(len(faces)))
    parts = []
    for start in places[::batch_size]:
        batch = move_data_to_device(faces.__getitems__(places[start : start + batch_size]), device)
        if batch.features is not None and views == "none":
            chances = model.logits(batch).float().softmax(1)
        else:
            seen = VIEWS[views](to_unit(batch.images), model.crop)
            chances = torch.stack([model.look(view).float().softmax(1) for view in seen]).mean(0)
        parts.append(chances.cpu())
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


def scored_faces(predicted: Tensor, data: FERDataModule, split: str, classes: Sequence[str]) -> Scored:
    """Return a split's faces with what was predicted of them.

    Args:
        predicted: (N, C) probabilities.
        data: set up for the split.
        split: its name.
        classes: C names.
    """
    dataset, rows = data.datasets[split], data.faces.rows[data.places(split)]
    return Scored(dataset.images[:, 0].numpy(), dataset.targets.numpy(), predicted.numpy(), rows, classes)


def split_figures(scored: Scored, data: FERDataModule, split: str, temperature: float | None) -> dict[str, Any]:
    """Return the figures of a split, as ``metrics.json`` opens.

    Args:
        scored: its faces.
        data: set up for it.
        split: its name.
        temperature: fitted on val; None where there is none.
    """
    results = {"schema": SCHEMA, "split": split, **figures(scored, temperature)}
    soft = data.datasets[split].soft
    if soft is not None:
        results["soft"] = soft_figures(torch.from_numpy(scored.probabilities[:, : soft.shape[1]]), soft)
    return results


def soft_figures(predicted: Tensor, soft: Tensor) -> dict[str, float]:
    """Return the cross-entropy with soft targets, and the part of it that is their own: no network can do better.

    Args:
        predicted: (N, C) probabilities.
        soft: (N, C) soft targets.
    """
    tiny = torch.finfo(torch.float32).tiny
    crosses = [-(soft * chances.clamp(min=tiny).log()).sum(1).mean() for chances in (predicted, soft)]
    return {"cross_entropy": float(crosses[0]), "entropy": float(crosses[1])}


def figures(scored: Scored, temperature: float | None) -> dict[str, Any]:
    """Return the figures of predictions, those that a temperature changes also with it.

    Args:
        scored: the faces.
        temperature: None where there is none.
    """
    predicted, targets = torch.from_numpy(scored.probabilities), torch.from_numpy(scored.targets)
    calibrated = None
    if temperature is not None:
        calibrated = measures.proper(torch.from_numpy(tempered(scored.probabilities, temperature)), targets)
    return {
        **measures.score(predicted, targets, scored.classes),
        "temperature": temperature,
        "calibrated": calibrated,
        "selective": selective(scored, temperature or 1.0),
    }


def clean(predicted: Tensor, targets: Tensor, kept: NDArray[np.bool_], classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the figures over the faces without an exact twin among those trained on; None where there is none.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        kept: (N,), whether a face has no such twin.
        classes: C names.
    """
    places = torch.from_numpy(kept)
    return measures.score(predicted[places], targets[places], classes) if kept.any() else None


def selective(scored: Scored, temperature: float) -> dict[str, Any]:
    """Return what answering only where confident does: the area under risk and coverage, and the error at some.

    Args:
        scored: the faces.
        temperature: of the confidences.
    """
    _, risk = risk_by_coverage(tempered(scored.probabilities, temperature), scored.targets)
    places = [max(1, round(coverage * len(risk))) - 1 for coverage in COVERAGES]
    return {
        "aurc": area_under_risk(risk),
        "error_at_coverage": {f"{coverage:g}": float(risk[p]) for coverage, p in zip(COVERAGES, places, strict=True)},
    }
