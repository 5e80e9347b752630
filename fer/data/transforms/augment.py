"""Augmentation: torchvision v2 transforms that draw their parameters for each face of a whole batch, on its device.

torchvision's own transforms draw one set of parameters a call, so that a batch would turn by one angle; drawing for
each face in a loop is ten times slower. Here a batch is one call: all geometry (flip, rotation, zoom, shift) is a
single ``grid_sample``, whole-pixel crops are a single ``gather``. Random numbers come from torch's global generator,
which the data module keys by seed, epoch and batch. Images are (B, 1, S, S) float in [0, 1], and stay so.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from fer.config.settings import AugmentSettings

ERASED = 0.5  # grey, near FER2013's mean of 0.508
ASPECT = (0.3, 3.3)  # of erased rectangles, Zhong et al. 2017, "Random Erasing Data Augmentation"


def build(settings: AugmentSettings, crop: int | None = None) -> v2.Transform:
    """Return the transform that ``settings`` describe; with everything off it changes nothing.

    Args:
        settings: what is changed, and how much.
        crop: side of the crop that is taken of each face, in pixels; None takes the whole.
    """
    steps: list[v2.Transform] = []
    flip, padding = settings.flip, settings.crop_padding
    if settings.rotate_degrees or settings.zoom or settings.shift:
        steps.append(RandomAffine(flip, settings.rotate_degrees, settings.zoom, settings.shift))
        flip = 0.0
    if flip or padding or crop is not None:
        steps.append(RandomCropFlip(padding, flip, crop))
    if settings.brightness or settings.contrast:
        steps.append(RandomLight(settings.brightness, settings.contrast))
    if settings.erase:
        steps.append(RandomErase(settings.erase, settings.erase_area))
    return v2.Compose(steps) if steps else v2.Identity()


def uniform(count: int, low: float, high: float, like: Tensor) -> Tensor:
    """Return (count,) float numbers between ``low`` and ``high`` on the device of ``like``."""
    return torch.empty(count, device=like.device).uniform_(low, high)


class RandomAffine(v2.Transform):
    """Flip, turn, zoom and shift each face, in one bilinear resampling; beyond the edge its pixels repeat.

    Args:
        flip: probability.
        rotate_degrees: largest turn either way.
        zoom: largest relative change of size.
        shift: largest shift along each axis, as a fraction of the side.
    """

    def __init__(self, flip: float, rotate_degrees: float, zoom: float, shift: float) -> None:
        super().__init__()
        self.flip, self.rotate_degrees, self.zoom, self.shift = flip, rotate_degrees, zoom, shift

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Tensor]:
        """Draw angle (radians, counter-clockwise), scale, shift (fractions of the side) and mirror (±1), each (B,)."""
        images = flat_inputs[0]
        count = len(images)
        return {
            "angle": uniform(count, -self.rotate_degrees, self.rotate_degrees, images) * (math.pi / 180),
            "scale": uniform(count, 1 - self.zoom, 1 + self.zoom, images),
            "right": uniform(count, -self.shift, self.shift, images),
            "down": uniform(count, -self.shift, self.shift, images),
            "mirror": 1 - 2 * (uniform(count, 0, 1, images) < self.flip).float(),
        }

    def transform(self, inpt: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Return (B, 1, S, S) images, resampled."""
        return affine(inpt, **params)


def affine(images: Tensor, angle: Tensor, scale: Tensor, right: Tensor, down: Tensor, mirror: Tensor) -> Tensor:
    """Mirror, scale and turn each image about its centre, then shift it.

    Args:
        images: (B, C, S, S) float.
        angle: (B,) radians, counter-clockwise as seen.
        scale: (B,) factor; above 1 enlarges.
        right: (B,) shift to the right, as a fraction of the side.
        down: (B,) shift down.
        mirror: (B,) -1 mirrors left and right, 1 does not.
    """
    # output -> input in grid_sample's coordinates, -1 to 1 over the side with y downwards: undo shift, turn, scale
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    across, along = 2 * right, 2 * down
    per_column = torch.stack([mirror * cosine, sine], -1)  # (B, 2): how the input's x and y change along a row
    per_row = torch.stack([-mirror * sine, cosine], -1)  # (B, 2): and down a column
    origin = -(per_column * across[:, None] + per_row * along[:, None])  # (B, 2)
    side = images.shape[-1]
    place = (torch.arange(side, device=images.device) * 2 + 1) / side - 1  # (S,) centres of pixels
    columns = place[:, None] * per_column[:, None]  # (B, S, 2)
    rows = place[:, None] * per_row[:, None] + origin[:, None]  # (B, S, 2)
    # one broadcast sum; affine_grid's matrix product takes four times as long as grid_sample itself
    grid = rows[:, :, None] + columns[:, None]  # (B, S, S, 2)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


class RandomCropFlip(v2.Transform):
    """Cut a square out of each face, which may reach over a reflected border, and flip it, by index alone.

    Args:
        padding: pixels of border.
        flip: probability.
        crop: side of the square, in pixels; None is the face's.
    """

    def __init__(self, padding: int, flip: float, crop: int | None = None) -> None:
        super().__init__()
        self.padding, self.flip, self.crop = padding, flip, crop

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Tensor]:
        """Draw the crop's place in pixels and whether to mirror, each (B,)."""
        images = flat_inputs[0]
        count, side = len(images), images.shape[-1]
        places = side + 2 * self.padding - (self.crop or side) + 1
        return {
            "left": torch.randint(places, (count,), device=images.device),
            "top": torch.randint(places, (count,), device=images.device),
            "mirror": uniform(count, 0, 1, images) < self.flip,
        }

    def transform(self, inpt: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Return (B, 1, T, T) images, T the side of the crop."""
        return crop_flip(inpt, self.padding, self.crop or inpt.shape[-1], **params)


def crop_flip(images: Tensor, padding: int, crop: int, left: Tensor, top: Tensor, mirror: Tensor) -> Tensor:
    """Crop each image out of itself with a reflected border of ``padding`` pixels, then mirror where told.

    Args:
        images: (B, 1, S, S).
        padding: pixels.
        crop: side of the result, T.
        left: (B,) 0 to S + 2 * padding - T.
        top: (B,) the same.
        mirror: (B,) bool.
    """
    count = len(images)
    place = torch.arange(crop, device=images.device)
    columns = torch.where(mirror[:, None], crop - 1 - place, place) + left[:, None]  # (B, T) in the padded image
    source = functional.pad(images, (padding,) * 4, mode="reflect") if padding else images
    rows = place + top[:, None]  # (B, T)
    flat = (rows[:, :, None] * source.shape[-1] + columns[:, None, :]).view(count, -1)  # (B, T * T)
    return source.reshape(count, -1).gather(1, flat).view(count, 1, crop, crop)


class RandomLight(v2.Transform):
    """Change the brightness and the contrast of each face.

    Args:
        brightness: largest relative change.
        contrast: largest relative change about the face's mean.
    """

    def __init__(self, brightness: float, contrast: float) -> None:
        super().__init__()
        self.brightness, self.contrast = brightness, contrast

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Tensor]:
        """Draw one factor each, (B,)."""
        images = flat_inputs[0]
        return {
            "brightness": uniform(len(images), 1 - self.brightness, 1 + self.brightness, images),
            "contrast": uniform(len(images), 1 - self.contrast, 1 + self.contrast, images),
        }

    def transform(self, inpt: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Return (B, 1, S, S) images, cut to [0, 1]."""
        brightness, contrast = (params[name].view(-1, 1, 1, 1) for name in ("brightness", "contrast"))
        mean = inpt.mean((1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        return torch.addcmul(mean * brightness * (1 - contrast), inpt, brightness * contrast).clamp_(0, 1)


class RandomErase(v2.Transform):
    """Replace a rectangle of some faces by grey (Zhong et al. 2017).

    Args:
        probability: that a face loses a rectangle.
        area: largest part of the face, from 0.02.
    """

    def __init__(self, probability: float, area: float) -> None:
        super().__init__()
        self.probability, self.area = probability, area

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Tensor]:
        """Draw the rectangles' sides and corners in pixels, (B,) each; a face that is spared has height 0."""
        images = flat_inputs[0]
        count, side = len(images), images.shape[-1]
        area = uniform(count, 0.02, self.area, images) * side * side
        aspect = torch.exp(uniform(count, math.log(ASPECT[0]), math.log(ASPECT[1]), images))
        height = torch.sqrt(area * aspect).clamp_(1, side)
        width = torch.sqrt(area / aspect).clamp_(1, side)
        erased = uniform(count, 0, 1, images) < self.probability
        return {
            "top": uniform(count, 0, 1, images) * (side - height),
            "left": uniform(count, 0, 1, images) * (side - width),
            "height": height * erased,
            "width": width,
        }

    def transform(self, inpt: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Return (B, 1, S, S) images."""
        place = torch.arange(inpt.shape[-1], device=inpt.device) + 0.5  # centres of pixels
        top, left, height, width = (params[name][:, None] for name in ("top", "left", "height", "width"))
        rows = (place >= top) & (place < top + height)  # (B, S)
        columns = (place >= left) & (place < left + width)
        return inpt.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], ERASED)
