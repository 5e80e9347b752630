"""Progressive resizing: a training that begins with smaller faces, whose epochs cost less."""

import itertools
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def stage_size(stages: Sequence[Sequence[int]], epoch: int) -> int:
    """Return the size of faces in an epoch, from 0.

    Args:
        stages: [size, epochs] one after the other.
        epoch: one after the last stage counts as its last.
    """
    ends = itertools.accumulate(epochs for _, epochs in stages)
    return next((size for (size, _), end in zip(stages, ends, strict=True) if epoch < end), stages[-1][0])


def reduced(images: Tensor, size: int) -> Tensor:
    """Return (B, 1, S, S) float faces as (B, 1, size, size), each pixel the mean of what it covers."""
    return images if images.shape[-1] == size else functional.interpolate(images, size=(size, size), mode="area")
