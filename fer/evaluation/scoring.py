"""Predictions and metrics of a split: one path for the end of a training and for ``fer.evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor, nn

from fer.config.errors import NotFinite
from fer.data.datamodule import FERDataModule
from fer.data.dataset import FaceDataset, to_unit
from fer.inference.tta import VIEWS
from fer.metrics import classification, conformal
from fer.metrics.calibration import area_under_risk, risk_by_coverage, tempered
from fer.metrics.results import Measured, OfDataSet, Scores, Selective, SetScores, SetsRecord, Soft
from fer.metrics.statistics import Interval, mean_interval, wilson
from fer.models import EmotionClassifier
from fer.runs.predictions import Scored

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # shares of the faces, the most confident first, whose error is reported


@torch.inference_mode()
def predicted_probabilities(
    model: EmotionClassifier, faces: FaceDataset, *, batch_size: int, device: torch.device, views: str = "none"
) -> Tensor:
    """Return (N, C) float32 probabilities on the CPU, computed in full precision whatever the training's was.

    Args:
        model: the network; it is moved to ``device`` and left there, in evaluation mode.
        faces: N faces; where their features are cached, the layers before them are not run again.
        batch_size: faces at a time.
        device: to compute on.
        views: of each face, over which probabilities are averaged: a name of ``fer.inference.tta.VIEWS``.

    Raises:
        NotFinite: a probability is NaN, so that nothing can be scored.
    """
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    starts = range(0, len(faces), batch_size)
    batches = (faces.on_device(torch.arange(start, min(start + batch_size, len(faces)))) for start in starts)
    parts = []
    for indices in faces.read_ahead(batches):
        batch = move_data_to_device(faces.__getitems__(indices), device)
        if batch.features is not None and views == "none":
            chances = model.logits(batch).float().softmax(1)
        else:
            inputs = VIEWS[views](to_unit(batch.images), model.crop)
            chances = torch.stack([model.logits_of_crops(view).float().softmax(1) for view in inputs]).mean(0)
        parts.append(chances.cpu())
    predicted = torch.cat(parts)
    if bad := int(predicted.isnan().any(1).sum()):
        raise NotFinite(f"the network predicts NaN for {bad:,} of {len(predicted):,} faces; nothing is scored")
    return predicted


@torch.inference_mode()
def embeddings(model: EmotionClassifier, images: Tensor, *, batch_size: int, device: torch.device) -> Tensor:
    """Return the inputs of the last linear layer, (N, D) float32 on the CPU; without such a layer, the logits.

    Args:
        model: the network; moved to ``device`` and left there, in evaluation mode.
        images: (N, 1, S, S) uint8.
        batch_size: faces at a time.
        device: to compute on.
    """
    given: list[Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0])) for layer in layers]
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    parts = []
    try:
        for start in range(0, len(images), batch_size):
            given.clear()
            logits = model(images[start : start + batch_size].to(device))
            last = (
                given[-1] if given and len(given[-1]) == len(logits) else logits
            )  # logits where it has not a row a face
            parts.append(last.flatten(1).float().cpu())
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(parts)


# --- metrics -------------------------------------------------------------------------------------------------------


def scored_faces(predicted: Tensor, data: FERDataModule, split: str, classes: Sequence[str]) -> Scored:
    """Return a split's faces with their predictions.

    Args:
        predicted: (N, C) probabilities.
        data: set up for the split.
        split: its name.
        classes: C names.
    """
    dataset, rows = data.datasets[split], data.faces.rows[data.indices(split)]
    return Scored(dataset.grey, dataset.targets.numpy(), predicted.numpy(), rows, classes, dataset.colour)


def measured_split(scored: Scored, data: FERDataModule, split: str, temperature: float | None) -> Measured:
    """Return the metrics of a split, with its soft targets too where it has some.

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
        calibrated = classification.tempered_metrics(warm, targets)
    return Measured(
        scores=classification.score(predicted, targets, scored.classes),
        temperature=temperature,
        calibrated=calibrated,
        selective=selective(scored, temperature or 1.0),
    )


def by_data_set(scored: Scored, data: FERDataModule, split: str) -> tuple[OfDataSet, ...] | None:
    """Return the accuracy over the faces of each data set that has some in a split; None where there is one alone.

    Args:
        scored: the faces of the split.
        data: they are of.
        split: its name.
    """
    if data.sets is None:
        return None
    numbers, right = data.sets.numbers[data.indices(split)], scored.probabilities.argmax(1) == scored.targets
    found = ((name, right[numbers == number]) for number, name in enumerate(data.sets.names))
    return tuple(
        OfDataSet(name, len(each), float(each.mean()), Interval(*wilson(int(each.sum()), len(each))))
        for name, each in found
        if len(each)
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


# --- prediction sets ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """Where the thresholds of prediction sets come from.

    Args:
        thresholds: of all coverages.
        on: the faces that gave them, in words.
        kept: whether they are those of the network's file.
    """

    thresholds: conformal.Thresholds
    on: str
    kept: bool


def calibrated_sets(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    unseen: NDArray[np.bool_] | None,
    temperature: float,
) -> conformal.Thresholds:
    """Return the thresholds of prediction sets that val gives, of its faces without a duplicate in train.

    Args:
        probabilities: (N, C) of val, before the temperature.
        targets: (N,) labels.
        unseen: (N,) the faces without such a duplicate; None, for all, where that is not known.
        temperature: fitted on val.
    """
    kept = np.ones(len(targets), np.bool_) if unseen is None else unseen
    return conformal.Thresholds.calibrated(tempered(probabilities[kept], temperature), targets[kept])


def prediction_sets(
    scored: Scored,
    temperature: float,
    unseen: NDArray[np.bool_] | None,
    calibration: Calibration,
    coverage: float,
    by: conformal.By = "all",
) -> SetsRecord:
    """Return coverage and size of the prediction sets of N faces, over all and for each class.

    Args:
        scored: the faces.
        temperature: with which the thresholds were calibrated.
        unseen: (N,) the faces that were not trained on; None where that is not known.
        calibration: the thresholds.
        coverage: that is promised.
        by: whether it is promised over all faces, or for those of each class.
    """
    thresholds = calibration.thresholds
    sets = conformal.sets(tempered(scored.probabilities, temperature), thresholds.limits(coverage, by))
    faces = {name: scored.targets == index for index, name in enumerate(scored.classes)}
    clean = None if unseen is None or not unseen.any() else set_scores(sets[unseen], scored.targets[unseen])
    return SetsRecord(
        promised=coverage,
        threshold=thresholds.threshold(coverage),
        calibrated_on=calibration.on,
        kept=calibration.kept,
        thresholds=thresholds,
        scores=set_scores(sets, scored.targets),
        clean=clean,
        per_class={name: set_scores(sets[mask], scored.targets[mask]) for name, mask in faces.items()},
        by=by,
        unpromised=() if by == "all" else tuple(scored.classes[label] for label in thresholds.unpromised(coverage)),
    )


def set_scores(sets: NDArray[np.bool_], targets: NDArray[np.integer[Any]]) -> SetScores:
    """Return coverage and size of the sets (N, C) of N faces with labels (N,)."""
    count, classes = sets.shape
    covered, size = int(sets[np.arange(count), targets].sum()), sets.sum(1)
    return SetScores(
        n=count,
        coverage=covered / count if count else None,
        coverage_ci95=Interval(*wilson(covered, count)) if count else None,
        size=float(size.mean()) if count else None,
        size_ci95=mean_interval(size),
        sizes=tuple(np.bincount(size, minlength=classes + 1)[1:].tolist()),
    )
