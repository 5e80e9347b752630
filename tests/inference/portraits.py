"""Public-domain portraits that dependencies ship, and scenes made of them.

The astronaut is Eileen Collins, a NASA photograph (scikit-image); Grace Hopper's is of the US Navy (matplotlib).
"""

import numpy as np
import skimage.data
from matplotlib import cbook
from PIL import Image

from fer.data.crop import Box

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


def video(file, middles, rate=25, size=(320, 240), side=64):
    """Write a video of heads that move over a wall of bricks, and return the file.

    Args:
        file: to write; its ending names the container.
        middles: of each frame, name of a portrait -> middle of its face.
        rate: frames per second.
        size: of a frame, (width, height).
        side: of the faces, in pixels.
    """
    import cv2

    from fer.inference.video import quiet

    heads = {name: _head(name, side) for name in BOXES}
    ground = Image.fromarray(skimage.data.brick()).convert("RGB").resize(size)
    with quiet(cv2):  # FFmpeg asks once in a process how loud it may be
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
    assert writer.isOpened()
    for frame in middles:
        picture = ground.copy()
        for name, (x, y) in frame.items():
            head, mask, (left, top) = heads[name]
            picture.paste(head, (round(x - left), round(y - top)), mask)
        writer.write(np.asarray(picture)[..., ::-1])
    writer.release()
    return file


def _head(name, side):
    """Return a portrait whose face is ``side`` pixels wide, the mask of its head, and the middle of the face."""
    picture, box = {"astronaut": astronaut, "hopper": hopper}[name](), BOXES[name]
    scale = side / box.width
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR)
    x, y = (value * scale for value in box.centre)
    down, across = np.mgrid[: picture.height, : picture.width]
    return picture, Image.fromarray(np.uint8(255 * (np.hypot(across - x, down - y) < 0.95 * side))), (x, y)
