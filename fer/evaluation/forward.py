"""Predictions and embeddings of a split by networks with weights: what evaluations do with torch."""

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn

from fer.config.errors import NotFinite
from fer.data.dataset import FaceDataset, to_unit
from fer.data.table import Split
from fer.inference.tta import VIEWS
from fer.models import EmotionClassifier


def probabilities_of_split(
    model: EmotionClassifier, faces: Split, *, batch_size: int, on_gpu: bool, views: str
) -> Tensor:
    """Return (N, C) probabilities of the faces of a table's split, see ``predicted_probabilities``."""
    device = torch.device("cuda" if on_gpu else "cpu")
    return predicted_probabilities(model, FaceDataset.of(faces), batch_size=batch_size, device=device, views=views)


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
