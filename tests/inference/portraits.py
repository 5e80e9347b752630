"""Public-domain portraits that dependencies ship, and scenes made of them.

The astronaut is Eileen Collins, a NASA photograph (scikit-image); Grace Hopper's is of the US Navy (matplotlib).
"""

import numpy as np
import skimage.data
from matplotlib import cbook
from PIL import Image

from fer.inference.crop import Box

BOXES = {"astronaut": Box(177, 66, 97, 97), "hopper": Box(145, 99, 239, 239)}
GROUND = 360  # pixels, the side of a scene


def astronaut() -> Image.Image:
    return Image.fromarray(skimage.data.astronaut())


def hopper() -> Image.Image:
    return Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")


def scene(name: str, side: int, tilt: float) -> tuple[Image.Image, Box]:
    """Return a head on a wall of bricks, its face ``side`` pixels wide and turned clockwise, and the face's box."""
    picture, box = {"astronaut": astronaut, "hopper": hopper}[name]().convert("L"), BOXES[name]
    scale = side / box.width
    size = (round(picture.width * scale), round(picture.height * scale))
    x, y = (value * scale for value in box.centre)
    turned = picture.resize(size, Image.Resampling.BILINEAR).rotate(-tilt, Image.Resampling.BILINEAR, center=(x, y))
    down, across = np.mgrid[: turned.height, : turned.width]
    head = Image.fromarray(np.uint8(255 * (np.hypot(across - x, down - y) < 0.95 * side)))
    ground = Image.fromarray(skimage.data.brick()).resize((GROUND, GROUND))
    middle = GROUND / 2
    ground.paste(turned, (round(middle - x), round(middle - y)), head)
    return ground, Box(middle - side / 2, middle - side / 2, side, side)
