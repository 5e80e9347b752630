"""Test-time augmentation: views of each face, over which a network's probabilities are averaged.

The views are the same for every face and draw nothing. What they help is measured on val like everything else; a figure
with them is a row of its own.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

CROP = 11 / 12  # of the side: 44 of 48 pixels, as the recipes of FER2013's literature have it
SHIFT = 1 / 24  # of the side: 2 of 48 pixels


def as_they_are(faces: Tensor) -> list[Tensor]:
    """Return the faces (B, 1, S, S) alone."""
    return [faces]


def mirrored(faces: Tensor) -> list[Tensor]:
    """Return the faces (B, 1, S, S) and their mirror images."""
    return [faces, faces.flip(-1)]


def ten_crop(faces: Tensor) -> list[Tensor]:
    """Return the corners and the middle of the faces (B, 1, S, S), at their size again, and their mirror images.

    Krizhevsky et al. 2012. They feed crops as they are to a network that was trained on crops; these networks were
    trained on whole faces, so that crops of 44 pixels become 48 again.
    """
    side = faces.shape[-1]
    size = round(side * CROP)
    far, middle = side - size, (side - size) // 2
    corners = ((0, 0), (0, far), (far, 0), (far, far), (middle, middle))
    crops = [faces[..., top : top + size, left : left + size] for top, left in corners]
    whole = [v2.functional.resize(crop, [side, side], antialias=True) for crop in crops]
    return [view for crop in whole for view in mirrored(crop)]


def shifts(faces: Tensor) -> list[Tensor]:
    """Return the faces (B, 1, S, S) shifted by 0 or 2 of 48 pixels each way, borders reflected, and mirror images: 18.

    The counterpart of training with ``augment.crop_padding``.
    """
    side = faces.shape[-1]
    step = max(1, round(side * SHIFT))
    wide = functional.pad(faces, [step] * 4, mode="reflect")
    places = [(top, left) for top in (0, step, 2 * step) for left in (0, step, 2 * step)]
    return [view for top, left in places for view in mirrored(wide[..., top : top + side, left : left + side])]


VIEWS: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "none": as_they_are,
    "flip": mirrored,
    "ten_crop": ten_crop,
    "shifts": shifts,
}
