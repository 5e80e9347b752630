"""Faces resampled to another size, to the byte as torchvision does on processors with AVX2, without torch.

The bilinear filter with antialiasing is that of Pillow. Each axis is filtered on its own, the rows first. The shares
are rounded to 16 bits, and each result is rounded to a byte. Sums of such shares and bytes are exact in float32.
"""

import functools
import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fer.data.faces import Faces
from fer.data.rows import outside

log = logging.getLogger(__name__)

PART = 1024  # faces that are converted to float at once
MOST_BITS = 15  # of a share, which is a signed number of 16 bits


def resized(faces: Faces, side: int) -> Faces:
    """Return the faces resampled to ``side`` x ``side`` pixels, with antialiasing."""

    def smaller(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        made = np.empty((len(images), *images.shape[1:-2], side, side), np.uint8)
        for start in range(0, len(images), PART):
            made[start : start + PART] = resampled(np.array(images[start : start + PART]), side)
        return made

    if outside(faces.images) is not None:
        size = len(faces) * side**2 / 1e9
        log.info("  resized from %d to %d px: %.2f GB in memory", faces.image_size, side, size)
    return replace(faces, images=smaller(faces.images), colour=None if faces.colour is None else smaller(faces.colour))


def resampled(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return images (..., S, S) as (..., side, side)."""
    shares, bits = _shares(images.shape[-1], side)
    rows = _filtered(images.astype(np.float32), shares, bits)
    return _filtered(rows.swapaxes(-1, -2), shares, bits).swapaxes(-1, -2).astype(np.uint8)


def _filtered(values: NDArray[np.float32], shares: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Return whole numbers (..., T) in place of (..., S) by shares (T, S) in units of 2 to the power of -bits."""
    unit = np.float32(1 << bits)
    rounded: NDArray[np.float32] = np.floor((values @ shares.T + unit / 2) / unit).clip(0, 255)
    return rounded


@functools.cache
def _shares(before: int, after: int) -> tuple[NDArray[np.float32], int]:
    """Return the shares (T, S) of S pixels in each of T pixels as whole numbers, and the bits of their unit."""
    scale = before / after
    widened = max(scale, 1.0)
    centres = scale * (np.arange(after) + 0.5)[:, None]
    first = np.maximum((centres - widened + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + widened + 0.5).astype(np.int64), before)
    pixels = np.arange(before)[None]
    weights = np.maximum(0, 1 - np.abs((pixels - centres + 0.5) * (1 / widened)))
    weights *= (pixels >= first) & (pixels < last)
    weights /= weights.cumsum(1)[:, -1:]  # summed one by one, as there
    bits = next(bits for bits in range(22) if int(0.5 + weights.max() * (1 << (bits + 1))) >= 1 << MOST_BITS)
    return np.floor(weights * (1 << bits) + 0.5).astype(np.float32), bits
