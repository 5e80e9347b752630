"""Maps as pictures.

A grey face is tinted where it speaks for an emotion, and where it speaks against it.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer.reports.theme import PAPER

SIDE = 96  # pixels of a picture, which then takes 15 kB
MOST_TINT = 0.72  # of the colour: the face stays visible below it
FOR, AGAINST = "train", "val"  # roles of the theme's colours: orange and blue, which colour-blind readers tell apart


def overlay(face: NDArray[np.uint8], values: NDArray[np.floating], largest: float) -> NDArray[np.uint8]:
    """Return a tinted face (SIDE, SIDE, 3).

    Args:
        face: (S, S) grey.
        values: (S, S) map.
        largest: absolute value with the strongest tint.
    """
    size = (SIDE, SIDE)
    grey = np.asarray(Image.fromarray(face).resize(size, Image.Resampling.BICUBIC), np.float32)[..., None]
    enlarged = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(enlarged) / (largest or 1.0), -1, 1)[..., None]
    colour = np.where(strength > 0, _rgb(FOR), _rgb(AGAINST))
    tint = MOST_TINT * np.abs(strength)
    return np.uint8((1 - tint) * grey + tint * colour)  # type: ignore[return-value]


def enlarged(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a grey face (S, S) at the side of the tinted ones."""
    return np.asarray(Image.fromarray(face).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _rgb(role: str) -> NDArray[np.float32]:
    return np.array([int(PAPER[role][start : start + 2], 16) for start in (1, 3, 5)], np.float32)
