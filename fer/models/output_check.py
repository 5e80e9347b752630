"""The check that a network takes faces of a size and returns a logit for each class."""

import torch
from torch import Tensor

from fer.config.errors import FerError
from fer.models.trainable import Trainable


@torch.no_grad()
def check_output(model: Trainable, size: int) -> None:
    """Raise before a training begins if a network cannot take faces of a size, or returns other than one logit a class.

    The shapes are computed on the device "meta", without values. A network that reads values is computed instead.

    Raises:
        FerError: naming both shapes.
    """
    faces, expected = torch.zeros(2, model.in_channels, size, size), (2, model.num_classes)
    model.eval()
    try:
        shape = _shape(model, _by_shapes(model, faces))
    except (RuntimeError, ValueError, TypeError, AssertionError):  # the network reads values
        try:
            shape = _shape(model, model.logits_of_crops(faces))
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # the last is timm's
            reason = " ".join(str(error).split())[:200]
            raise FerError(
                f"model={model.architecture}: cannot take faces of shape {tuple(faces.shape)}: {reason}"
            ) from error
    if shape != expected:
        raise FerError(f"model={model.architecture}: returns {shape} for 2 faces; expected {expected}, a logit a class")
    model.train()


def _shape(model: Trainable, logits: object) -> tuple[int, ...]:
    """Return the shape of what a network returns.

    Raises:
        FerError: it is no tensor.
    """
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        raise FerError(f"model={model.architecture}: returns a {kind}; expected a tensor of logits (B, C)")
    return tuple(logits.shape)


def _by_shapes(model: Trainable, faces: Tensor) -> Tensor:
    """Return logits without values; computing them would take a fifth of a second of a run's start."""
    module = _OfCrops(model)
    weights = {name: tensor.to("meta") for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    logits: Tensor = torch.func.functional_call(module, weights, faces.to("meta"))
    return logits


class _OfCrops(torch.nn.Module):
    """A network whose ``forward`` is ``logits_of_crops``, for ``functional_call``."""

    def __init__(self, model: Trainable) -> None:
        super().__init__()
        self.model = model

    def forward(self, faces: Tensor) -> Tensor:
        """Return the network's logits."""
        return self.model.logits_of_crops(faces)
