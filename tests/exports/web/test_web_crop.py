import numpy as np
from exports.web import node
from inference.portraits import astronaut
from PIL import Image

from fer.data.crop import Box, Crop

CROP = """
import { cropped } from "./crop.js";
import { resized } from "./resample.js";
const crops = given.crops.map(([x, y, width, height, size, margin, shift, tilt]) =>
  [...cropped(grey("astronaut"), { x, y, width, height }, size, { margin, shift }, tilt).pixels]);
const copies = given.sizes_of_copies.map(([width, height]) => [...resized(grey("astronaut"), width, height).pixels]);
console.log(JSON.stringify({ crops, copies }));
"""
COPIES = ((100, 61), (300, 256), (256, 256), (77, 300))


def drawn_boxes():
    """Boxes inside, across every edge and wholly outside of a picture of 256 pixels, of all sizes and tilts."""
    draws = np.random.default_rng(0)
    sizes, shapes, tilts = (48, 44, 64), ((1.0, 0.0), (1.05, 0.05)), (0, 0, 15, -30, 30, 7.25)
    for number in range(60):
        x, y = map(float, draws.uniform(-60, 256, 2))
        side = float(draws.uniform(10, 200))
        height = side * float(draws.uniform(0.8, 1.25))
        yield x, y, side, height, sizes[number % 3], *shapes[number % 2], tilts[number % 6]
    yield 0.0, 0.0, 256.0, 256.0, 48, 1.0, 0.0, 0
    yield 0.0, 0.0, 256.0, 256.0, 256, 1.0, 0.0, 0  # cut out already


def test_crops_and_copies_are_pillows_to_one_grey(tmp_path):
    picture = astronaut().convert("L").reduce(2)
    cases = list(drawn_boxes())
    found = node.run(tmp_path, CROP, {"astronaut": picture}, crops=cases, sizes_of_copies=COPIES)
    differences = []
    for (x, y, width, height, size, margin, shift, tilt), pixels in zip(cases, found["crops"], strict=True):
        expected = Crop(margin, shift)(picture, Box(x, y, width, height), size, tilt)
        differences.append(np.abs(expected.ravel().astype(int) - pixels))
    assert max(one.max() for one in differences) <= 1
    assert np.concatenate(differences).mean() < 1e-3  # nearly all are equal
    for size, pixels in zip(COPIES, found["copies"], strict=True):
        assert np.abs(np.asarray(picture.resize(size, Image.Resampling.BILINEAR), int).ravel() - pixels).max() <= 1
