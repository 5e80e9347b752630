"""From a network and faces to probabilities, figures and files: one path for training's end and ``fer.evaluate``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fer.data.datamodule import FERDataModule
from fer.metrics import classification
from fer.metrics.calibration import area_under_risk, risk_by_coverage, tempered
from fer.runs.predictions import Scored

SCHEMA = 1  # of metrics.json; raise it when a field changes its meaning
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # at which the error of answering only where confident is told


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
        calibrated = classification.proper(torch.from_numpy(tempered(scored.probabilities, temperature)), targets)
    return {
        **classification.score(predicted, targets, scored.classes),
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
    return classification.score(predicted[places], targets[places], classes) if kept.any() else None


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
