"""The size of the faces that a network gets: the central crop, and progressive resizing.

A network that was trained on crops (``data.crop``) classifies crops: its ``forward`` takes whole faces and uses their
centre. Training, val and multi-crop views crop the faces themselves and call the network with the crops. Every other
use of a network passes whole faces, whatever it was trained on.

With ``stages`` training starts with smaller faces, whose epochs are faster. Val is evaluated at the size of each stage,
and the best epoch is one of the last stage.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fer.metrics.arrays import Array

if TYPE_CHECKING:
    from torch import Tensor


def middle(faces: Array, crop: int | None) -> Array:
    """Return the central square of T = ``crop`` pixels of faces (B, 1, S, S), (B, 1, T, T); None for whole faces."""
    if crop is None or crop == faces.shape[-1]:
        return faces
    start = (faces.shape[-1] - crop) // 2
    return faces[..., start : start + crop, start : start + crop]


def stage_size(stages: Sequence[Sequence[int]], epoch: int) -> int:
    """Return the size of faces in an epoch, from 0.

    Args:
        stages: [size, epochs] of each stage.
        epoch: an epoch after the last stage has the size of the last one.
    """
    ends = itertools.accumulate(epochs for _, epochs in stages)
    return next((size for (size, _), end in zip(stages, ends, strict=True) if epoch < end), stages[-1][0])


def reduced(images: "Tensor", size: int) -> "Tensor":
    """Return (B, 1, S, S) float faces reduced to (B, 1, size, size); each pixel is the mean of the area it covers."""
    from torch.nn import functional  # here alone: exported files need ``middle`` without torch

    return images if images.shape[-1] == size else functional.interpolate(images, size=(size, size), mode="area")
