"""Augmentation of whole batches on their device.

Transforms of torchvision v2 get parameters that are drawn for each face. Those of torchvision itself draw one set of
parameters for each call, so that all faces of a batch would turn by one angle. A loop over the faces is ten times
slower. Here a batch takes one call: all geometry (flip, rotation, zoom, shift) is a single ``grid_sample``, crops by
whole pixels are a single ``gather``. Random numbers come from torch's global generator, which the data module seeds by
seed, epoch and batch. Images are (B, C, S, S) float in [0, 1], before and after. C is 1, or 3 in colour; all channels
of a face change alike.
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
    """Return the transform for these settings; with everything off it is the identity.

    Args:
        settings: the kinds and strengths of augmentation.
        crop: side of the random crop of each face, in pixels; None for whole faces.
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
    """Return (count,) uniform random floats between ``low`` and ``high`` on the device of ``like``."""
    return torch.empty(count, device=like.device).uniform_(low, high)


class RandomAffine(v2.Transform):
    """Flip, rotate, zoom and shift each face in one bilinear resampling; edge pixels repeat beyond the edge.

    Args:
        flip: probability.
        rotate_degrees: largest rotation in either direction.
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
        """Return the resampled images, (B, C, S, S)."""
        return affine(inpt, **params)


def affine(images: Tensor, angle: Tensor, scale: Tensor, right: Tensor, down: Tensor, mirror: Tensor) -> Tensor:
    """Mirror, scale and rotate each image about its centre, then shift it.

    Args:
        images: (B, C, S, S) float.
        angle: (B,) radians, counter-clockwise in the image.
        scale: (B,) factor; above 1 enlarges.
        right: (B,) shift to the right, as a fraction of the side.
        down: (B,) shift down.
        mirror: (B,) -1 mirrors left and right, 1 does not.
    """
    # output -> input in grid_sample's coordinates, -1 to 1 over the side with y downwards: undo shift, rotation, scale
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    across, along = 2 * right, 2 * down
    per_column = torch.stack([mirror * cosine, sine], -1)  # (B, 2): how the input's x and y change along a row
    per_row = torch.stack([-mirror * sine, cosine], -1)  # (B, 2): and down a column
    origin = -(per_column * across[:, None] + per_row * along[:, None])  # (B, 2)
    side = images.shape[-1]
    centres = (torch.arange(side, device=images.device) * 2 + 1) / side - 1  # (S,) of pixels
    columns = centres[:, None] * per_column[:, None]  # (B, S, 2)
    rows = centres[:, None] * per_row[:, None] + origin[:, None]  # (B, S, 2)
    # one broadcast sum; affine_grid's matrix product takes four times as long as grid_sample itself
    grid = rows[:, :, None] + columns[:, None]  # (B, S, S, 2)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


class RandomCropFlip(v2.Transform):
    """Crop a random square from each face with a reflected border, and flip it, by indexing alone.

    Args:
        padding: width of the border, in pixels.
        flip: probability.
        crop: side of the square, in pixels; None for the side of the face.
    """

    def __init__(self, padding: int, flip: float, crop: int | None = None) -> None:
        super().__init__()
        self.padding, self.flip, self.crop = padding, flip, crop

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Tensor]:
        """Draw the crop's corner in pixels and whether to mirror, each (B,)."""
        images = flat_inputs[0]
        count, side = len(images), images.shape[-1]
        positions = side + 2 * self.padding - (self.crop or side) + 1
        return {
            "left": torch.randint(positions, (count,), device=images.device),
            "top": torch.randint(positions, (count,), device=images.device),
            "mirror": uniform(count, 0, 1, images) < self.flip,
        }

    def transform(self, inpt: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Return the crops, (B, C, T, T)."""
        return crop_flip(inpt, self.padding, self.crop or inpt.shape[-1], **params)


def crop_flip(images: Tensor, padding: int, crop: int, left: Tensor, top: Tensor, mirror: Tensor) -> Tensor:
    """Add a reflected border to each image, crop a square from it, and mirror the square if ``mirror`` is set.

    Args:
        images: (B, C, S, S).
        padding: width of the border, in pixels.
        crop: side of the square, T.
        left: (B,) 0 to S + 2 * padding - T.
        top: (B,) the same.
        mirror: (B,) bool.
    """
    count, channels = images.shape[:2]
    position = torch.arange(crop, device=images.device)
    columns = torch.where(mirror[:, None], crop - 1 - position, position) + left[:, None]  # (B, T) in the padded image
    source = functional.pad(images, (padding,) * 4, mode="reflect") if padding else images
    rows = position + top[:, None]  # (B, T)
    flat = (rows[:, :, None] * source.shape[-1] + columns[:, None, :]).view(count, 1, -1)  # (B, 1, T * T)
    return source.flatten(2).gather(2, flat.expand(-1, channels, -1)).view(count, channels, crop, crop)


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
        """Draw a factor of brightness and of contrast, each (B,)."""
        images = flat_inputs[0]
        return {
            "brightness": uniform(len(images), 1 - self.brightness, 1 + self.brightness, images),
            "contrast": uniform(len(images), 1 - self.contrast, 1 + self.contrast, images),
        }

    def transform(self, inpt: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Return the changed images, (B, C, S, S), limited to [0, 1]."""
        brightness, contrast = (params[name].view(-1, 1, 1, 1) for name in ("brightness", "contrast"))
        mean = inpt.mean((1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        return torch.addcmul(mean * brightness * (1 - contrast), inpt, brightness * contrast).clamp_(0, 1)


class RandomErase(v2.Transform):
    """Replace a random rectangle of some faces by grey (Zhong et al. 2017).

    Args:
        probability: share of faces with a rectangle.
        area: largest area of the rectangle as a share of the face; the smallest is 0.02.
    """

    def __init__(self, probability: float, area: float) -> None:
        super().__init__()
        self.probability, self.area = probability, area

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Tensor]:
        """Draw sides and corners of the rectangles in pixels, (B,) each; the height is 0 for faces without one."""
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
        """Return the images with rectangles, (B, C, S, S)."""
        centres = torch.arange(inpt.shape[-1], device=inpt.device) + 0.5  # of pixels
        top, left, height, width = (params[name][:, None] for name in ("top", "left", "height", "width"))
        rows = (centres >= top) & (centres < top + height)  # (B, S)
        columns = (centres >= left) & (centres < left + width)
        return inpt.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], ERASED)
