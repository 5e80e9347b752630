"""From a box to the square that a network is given."""

import numpy as np
import pytest
from PIL import Image

from fer.data.crop import Box, Crop


@pytest.fixture
def ramp():
    """Return a picture whose pixels are 2 x + y."""
    down, across = np.mgrid[:60, :90]
    return Image.fromarray(np.uint8(2 * across + down))


def value(x, y):
    """Return what the ramp has at a point; the middle of the first pixel is at (0.5, 0.5)."""
    return 2 * (x - 0.5) + (y - 0.5)


def test_a_crop_is_what_the_contract_says(ramp):
    face = Crop(margin=0.5, shift=0.1)(ramp, Box(20.3, 10.7, 40, 22.5), 10)
    side, x, y = 0.5 * 30, 20.3 + 20, 10.7 + 11.25 + 2.25
    for row, column in ((2, 2), (5, 5), (7, 3)):  # away from the rim, where the filter sees one side alone
        at = x - side / 2 + (column + 0.5) * side / 10, y - side / 2 + (row + 0.5) * side / 10
        assert face[row, column] == pytest.approx(value(*at), abs=0.8)


@pytest.mark.parametrize("corner", [(-10, 20), (70, 20), (30, -10), (30, 45), (-25, -25), (85, 55)])
def test_what_lies_outside_repeats_the_edge(ramp, corner):
    box = Box(*corner, 30, 30)
    x = np.clip(corner[0] + np.arange(30) + 0.5, 0.5, 89.5)
    y = np.clip(corner[1] + np.arange(30) + 0.5, 0.5, 59.5)
    expected = 2 * (x[None, :] - 0.5) + (y[:, None] - 0.5)
    assert np.abs(Crop()(ramp, box, 30) - expected).max() <= 1


def test_a_box_far_outside_is_an_even_square(ramp):
    assert set(Crop()(ramp, Box(500, 500, 20, 20), 12).ravel().tolist()) == {2 * 89 + 59}


def test_a_tilted_face_is_turned_back(ramp):
    picture = Image.fromarray(np.uint8(np.hypot(*(np.mgrid[:200, :200] - 100.0)) < 40) * 200)
    marked = np.asarray(picture).copy()
    marked[65:95, 85:115] = 90  # a mark above the middle
    turned = Image.fromarray(marked).rotate(-25, Image.Resampling.BILINEAR)
    upright = Crop()(Image.fromarray(marked), Box(50, 50, 100, 100), 48)
    assert np.abs(Crop()(turned, Box(50, 50, 100, 100), 48, tilt=25).astype(int) - upright).mean() < 3
    assert np.abs(Crop()(turned, Box(50, 50, 100, 100), 48).astype(int) - upright).mean() > 3


def test_overlaps():
    assert Box(0, 0, 10, 10).overlap(Box(0, 0, 10, 10)) == 1
    assert Box(0, 0, 10, 10).overlap(Box(5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert Box(0, 0, 10, 10).overlap(Box(20, 0, 10, 10)) == 0


def test_the_contract_is_stated():
    assert Crop(1.05, 0.05).contract(48) | {"colour": 0, "filter": 0, "outside": 0} == {
        "side": "margin * sqrt(width * height)", "margin": 1.05, "shift": 0.05, "size": 48, "colour": 0, "filter": 0,
        "outside": 0,
    }  # fmt: skip
