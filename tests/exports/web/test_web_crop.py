import numpy as np
from exports.web import node
from inference.portraits import astronaut
from PIL import Image

from fer.data.crop import Box, Crop
from fer.inference import explain

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
    actual = node.run(tmp_path, CROP, {"astronaut": picture}, crops=cases, sizes_of_copies=COPIES)
    differences = []
    for (x, y, width, height, size, margin, shift, tilt), pixels in zip(cases, actual["crops"], strict=True):
        expected = Crop(margin, shift)(picture, Box(x, y, width, height), size, tilt)
        differences.append(np.abs(expected.ravel().astype(int) - pixels))
    assert max(one.max() for one in differences) <= 1
    assert np.concatenate(differences).mean() < 1e-3  # nearly all are equal
    for size, pixels in zip(COPIES, actual["copies"], strict=True):
        assert np.abs(np.asarray(picture.resize(size, Image.Resampling.BILINEAR), int).ravel() - pixels).max() <= 1


INPUT = """
import { input } from "./crop.js";
const bands = ["red", "green", "blue"].map((name) => grey(name).pixels);
const [x, y, width, height, size, margin, shift, tilt] = given.box;
const picture = { ...grey("red"), bands };
const found = input(new Uint8Array(1), picture, { x, y, width, height }, size, { margin, shift }, tilt);
console.log(JSON.stringify([...found]));
"""


def test_each_colour_is_cut_out_as_by_fer_predict(tmp_path):
    bands = dict(zip(("red", "green", "blue"), astronaut().reduce(2).split(), strict=True))
    actual = np.array(node.run(tmp_path, INPUT, bands, box=(90.5, 20.0, 60.0, 66.0, 48, 1.0, 0.0, 15))).reshape(
        3, 48, 48
    )
    expected = [Crop(1.0, 0.0)(band, Box(90.5, 20.0, 60.0, 66.0), 48, 15) for band in bands.values()]
    assert np.abs(np.stack(expected).astype(int) - actual).max() <= 1


OCCLUSION = """
import { occlusion } from "./maps.js";
const { size, weights } = given;
const network = {
  about: { size, maps: given.maps },
  probabilities: async (inputs) => inputs.map((input) => {
    const sums = weights.map((row) => row.reduce((sum, weight, index) => sum + weight * input[index] / 255, 0));
    const powers = sums.map(Math.exp);
    return powers.map((power) => power / powers.reduce((sum, other) => sum + other));
  }),
};
const face = new Uint8Array(given.face);
const [row] = await network.probabilities([face]);
console.log(JSON.stringify([...await occlusion(network, face, row)]));
"""


def test_maps_are_those_of_fer_explain_in_colour_too(tmp_path):
    """Of a softmax regression; the page's patch is rounded to whole greys."""
    draws = np.random.default_rng(0)
    for channels in (1, 3):
        face = draws.integers(0, 256, (channels, 24, 24), dtype=np.uint8)
        weights = draws.normal(0, 0.3, (3, face.size)).astype(np.float32)
        regression = Regression(weights)
        best = np.array([[int(regression.probabilities(face[None]).argmax())]])
        ((expected,),) = explain.explained(explain.Explained([regression]), explain.OCCLUSION, face[None], best)
        given = {"size": 24, "weights": weights.tolist(), "face": face.ravel().tolist()}
        rules = {"patch": explain.PATCH, "positions": explain.POSITIONS}
        actual = np.array(node.run(tmp_path / str(channels), OCCLUSION, {}, maps=rules, **given)).reshape(24, 24)
        assert np.abs(actual - expected).max() <= 0.02 * np.abs(expected).max()


class Regression:
    """A softmax regression on pixels."""

    image_size, emotions = 24, ("a", "b", "c")

    def __init__(self, weights):
        self.weights = weights
        self.in_channels = weights.shape[1] // 24**2

    def probabilities(self, faces):
        unit = faces.reshape(len(faces), -1) / (255 if faces.dtype == np.uint8 else 1)
        powers = np.exp(unit @ self.weights.T)
        return (powers / powers.sum(1, keepdims=True)).astype(np.float32)
