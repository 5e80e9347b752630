"""The square around a face's box that a network is given: one contract for every use.

The square has the side ``margin * sqrt(width * height)`` and lies around the middle of the box. Its corners are real
numbers. It is cut from the grey picture and resized by Pillow's bilinear filter, which antialiases. The readers of data
sets use the same filter. What lies outside the picture repeats its edge. A face is never clipped, stretched or rounded
to whole pixels. FER2013's own frame is the box of OpenCV's cascade, hence a margin of 1 for it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SPARE = 2  # pixels around a region, for the filter


@dataclass(frozen=True)
class Box:
    """A rectangle in an upright picture, in pixels from its upper left corner; real numbers.

    Args:
        x: of the left side.
        y: of the upper side.
        width: of the rectangle.
        height: of the rectangle.
    """

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """The middle, (x, y)."""
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def side(self) -> float:
        """The side of a square of the same area, in pixels."""
        return math.sqrt(self.width * self.height)

    def overlap(self, other: "Box") -> float:
        """Return the area of the intersection with another box, as a share of the union."""
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        shared = max(across, 0.0) * max(down, 0.0)
        whole = self.width * self.height + other.width * other.height - shared
        return shared / whole if whole > 0 else 0.0


@dataclass(frozen=True)
class Crop:
    """How a face is cut out.

    Args:
        margin: side of the square, as a multiple of that of the box.
        shift: by which share of the box's height the square lies lower than the box.
    """

    margin: float = 1.0
    shift: float = 0.0

    def contract(self, size: int) -> dict[str, object]:
        """Return the contract in words and numbers, as records and exports state it."""
        return {
            "side": "margin * sqrt(width * height)",
            "margin": self.margin,
            "shift": self.shift,
            "size": size,
            "colour": "grey, ITU-R 601",
            "filter": "bilinear, antialiased",
            "outside": "edge repeated",
        }

    def __call__(self, grey: Image.Image, box: Box, size: int, tilt: float = 0.0) -> NDArray[np.uint8]:
        """Return a face, (size, size) uint8.

        Args:
            grey: the upright picture, mode "L".
            box: of the face.
            size: of the result, in pixels.
            tilt: by how many degrees the face is turned clockwise; it is turned back.
        """
        side = self.margin * box.side
        x, y = box.centre
        y += self.shift * box.height
        if grey.size == (size, size) and not tilt and (x, y, side) == (size / 2, size / 2, size):
            return np.asarray(grey)  # cut out already, at this size: nothing below would change a pixel
        reach = side / 2 * (math.sqrt(2) if tilt else 1.0)
        region, left, top = _region(grey, x - reach, y - reach, x + reach, y + reach)
        x, y = x - left, y - top
        if tilt:
            region = region.rotate(tilt, Image.Resampling.BILINEAR, center=(x, y))
        corners = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
        return np.asarray(region.resize((size, size), Image.Resampling.BILINEAR, box=corners))


def _region(grey: Image.Image, left: float, top: float, right: float, bottom: float) -> tuple[Image.Image, int, int]:
    """Return the part of a picture around a rectangle, its edges repeated where the picture ends, and its corner."""
    x0, y0 = math.floor(left) - SPARE, math.floor(top) - SPARE
    x1, y1 = math.ceil(right) + SPARE, math.ceil(bottom) + SPARE
    inner = (min(max(x0, 0), grey.width - 1), min(max(y0, 0), grey.height - 1))
    outer = (min(max(x1, 1), grey.width), min(max(y1, 1), grey.height))
    outer = (max(outer[0], inner[0] + 1), max(outer[1], inner[1] + 1))
    part = grey.crop((*inner, *outer))
    if (*inner, *outer) == (x0, y0, x1, y1):
        return part, x0, y0
    pixels = np.asarray(part)
    padded = np.pad(
        pixels,
        ((max(inner[1] - y0, 0), max(y1 - outer[1], 0)), (max(inner[0] - x0, 0), max(x1 - outer[0], 0))),
        mode="edge",
    )
    return Image.fromarray(padded), x0, y0
