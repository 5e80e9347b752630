"""Test-time augmentation: views of each face, over which a network's probabilities are averaged.

The views are the same for every face, without random numbers. Whether they help is measured on val; a metric with views
has a row of its own. A network that was trained on crops gets crops: T of the S pixels of a side. T is S where it was
trained on whole faces. Faces are tensors of torch; for exported files they are arrays of NumPy, without torch.
"""

from collections.abc import Callable, Sequence

import numpy as np

from fer.data.transforms.size import middle
from fer.metrics.arrays import Array, library

CROP = 11 / 12  # of the side: 44 of 48 pixels, as usual for FER2013
SHIFT = 1 / 24  # of the side: 2 of 48 pixels


def both_ways(views: Sequence[Array]) -> list[Array]:
    """Return views (B, 1, T, T), each followed by its mirror image."""
    return [each for view in views for each in (view, library(view).flip(view, (-1,)))]


def as_they_are(faces: Array, crop: int | None) -> list[Array]:
    """Return the faces (B, 1, S, S), or their middle, (B, 1, T, T), as the only view."""
    return [middle(faces, crop)]


def mirrored(faces: Array, crop: int | None) -> list[Array]:
    """Return the faces (B, 1, S, S), or their middle, (B, 1, T, T), and the mirror image."""
    return both_ways([middle(faces, crop)])


def ten_crop(faces: Array, crop: int | None) -> list[Array]:
    """Return the corners and the middle of the faces (B, 1, S, S), and their mirror images, each (B, 1, T, T).

    Krizhevsky et al. 2012. A network that was trained on whole faces gets corners of 44 of 48 pixels, resized to the
    size of the faces.
    """
    side = faces.shape[-1]
    crop = None if crop == side else crop
    size = crop or round(side * CROP)
    far, centre = side - size, (side - size) // 2
    corners = ((0, 0), (0, far), (far, 0), (far, far), (centre, centre))
    crops = [faces[..., top : top + size, left : left + size] for top, left in corners]
    if crop is None:
        crops = [enlarged(view, side) for view in crops]
    return both_ways(crops)


def shifts(faces: Array, crop: int | None) -> list[Array]:
    """Return the faces (B, 1, S, S) shifted by 0 or 2 of 48 pixels each way, borders reflected, and mirror images: 18.

    The counterpart of training with ``augment.crop_padding``. A network that was trained on crops gets the middle of a
    shifted face, (B, 1, T, T).
    """
    side = faces.shape[-1]
    step = max(1, round(side * SHIFT))
    wide = reflected(faces, step)
    corners = [(top, left) for top in (0, step, 2 * step) for left in (0, step, 2 * step)]
    return both_ways([middle(wide[..., top : top + side, left : left + side], crop) for top, left in corners])


def enlarged(faces: Array, side: int) -> Array:
    """Return faces (B, 1, T, T), float, resized to (B, 1, side, side), larger than before, bilinearly."""
    if not isinstance(faces, np.ndarray):
        from torchvision.transforms import v2

        return v2.functional.resize(faces, [side, side], antialias=True)
    at = ((np.arange(side) + 0.5) * faces.shape[-1] / side - 0.5).clip(0, faces.shape[-1] - 1)  # centres of pixels
    shares = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(faces.shape[-1]))).astype(faces.dtype)  # (side, T)
    return shares @ faces @ shares.T


def reflected(faces: Array, border: int) -> Array:
    """Return faces (B, 1, S, S) with a border of some pixels, in which they are reflected."""
    if isinstance(faces, np.ndarray):
        return np.pad(faces, [(0, 0), (0, 0), (border, border), (border, border)], mode="reflect")
    from torch.nn import functional

    return functional.pad(faces, [border] * 4, mode="reflect")


VIEWS: dict[str, Callable[[Array, int | None], list[Array]]] = {
    "none": as_they_are,
    "flip": mirrored,
    "ten_crop": ten_crop,
    "shifts": shifts,
}
