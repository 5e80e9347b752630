"""Progressive resizing: training starts with smaller faces, whose epochs are faster.

Val is evaluated at the size of each stage, and the best epoch is one of the last stage.
"""

import itertools
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def stage_size(stages: Sequence[Sequence[int]], epoch: int) -> int:
    """Return the size of faces in an epoch, from 0.

    Args:
        stages: [size, epochs] of each stage.
        epoch: an epoch after the last stage has the size of the last one.
    """
    ends = itertools.accumulate(epochs for _, epochs in stages)
    return next((size for (size, _), end in zip(stages, ends, strict=True) if epoch < end), stages[-1][0])


def reduced(images: Tensor, size: int) -> Tensor:
    """Return (B, 1, S, S) float faces reduced to (B, 1, size, size); each pixel is the mean of the area it covers."""
    return images if images.shape[-1] == size else functional.interpolate(images, size=(size, size), mode="area")
