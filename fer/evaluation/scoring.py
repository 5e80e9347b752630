"""Metrics of a split: one path for the end of a training and for ``fer.evaluate``."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fer.data.datamodule import FERDataModule
from fer.metrics import classification
from fer.metrics.calibration import area_under_risk, risk_by_coverage, tempered
from fer.metrics.results import Measured, Scores, Selective, Soft
from fer.runs.predictions import Scored

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # shares of the faces, the most confident first, whose error is reported


def scored_faces(predicted: Tensor, data: FERDataModule, split: str, classes: Sequence[str]) -> Scored:
    """Return a split's faces with their predictions.

    Args:
        predicted: (N, C) probabilities.
        data: set up for the split.
        split: its name.
        classes: C names.
    """
    dataset, rows = data.datasets[split], data.faces.rows[data.indices(split)]
    return Scored(dataset.images[:, 0].numpy(), dataset.targets.numpy(), predicted.numpy(), rows, classes)


def measured_split(scored: Scored, data: FERDataModule, split: str, temperature: float | None) -> Measured:
    """Return the metrics of a split, against its soft targets too where it has some.

    Args:
        scored: its faces.
        data: set up for it.
        split: its name.
        temperature: fitted on val; None where there is none.
    """
    found, soft = measured(scored, temperature), data.datasets[split].soft
    if soft is None:
        return found
    return replace(found, soft=soft_metrics(torch.from_numpy(scored.probabilities[:, : soft.shape[1]]), soft))


def measured(scored: Scored, temperature: float | None) -> Measured:
    """Return the metrics of predictions, and with a temperature those that it changes.

    Args:
        scored: the faces.
        temperature: None where there is none.
    """
    predicted, targets = torch.from_numpy(scored.probabilities), torch.from_numpy(scored.targets)
    calibrated = None
    if temperature is not None:
        warm = torch.from_numpy(tempered(scored.probabilities, temperature))
        calibrated = classification.proper(warm, targets)
    return Measured(
        scores=classification.score(predicted, targets, scored.classes),
        temperature=temperature,
        calibrated=calibrated,
        selective=selective(scored, temperature or 1.0),
    )


def soft_metrics(predicted: Tensor, soft: Tensor) -> Soft:
    """Return the cross-entropy with soft targets, and their own entropy.

    Args:
        predicted: (N, C) probabilities.
        soft: (N, C) soft targets.
    """
    tiny = torch.finfo(torch.float32).tiny
    crosses = [-(soft * chances.clamp(min=tiny).log()).sum(1).mean() for chances in (predicted, soft)]
    return Soft(float(crosses[0]), float(crosses[1]))


def clean(predicted: Tensor, targets: Tensor, kept: NDArray[np.bool_], classes: Sequence[str]) -> Scores | None:
    """Return the metrics over the faces without an exact duplicate among those trained on; None where there is none.

    Args:
        predicted: (N, C) probabilities.
        targets: (N,) true classes.
        kept: (N,), whether a face has no such duplicate.
        classes: C names.
    """
    if not kept.any():
        return None
    indices = torch.from_numpy(kept)
    return classification.score(predicted[indices], targets[indices], classes)


def selective(scored: Scored, temperature: float) -> Selective:
    """Return the area under risk and coverage, and the error at some coverages.

    Args:
        scored: the faces.
        temperature: of the confidences.
    """
    _, risk = risk_by_coverage(tempered(scored.probabilities, temperature), scored.targets)
    indices = [max(1, round(coverage * len(risk))) - 1 for coverage in COVERAGES]
    errors = {f"{coverage:g}": float(risk[index]) for coverage, index in zip(COVERAGES, indices, strict=True)}
    return Selective(area_under_risk(risk), errors)
