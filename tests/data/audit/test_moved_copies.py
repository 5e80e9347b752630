"""Moved copies: found with their turn, shift and size, and no other faces in their place."""

import math

import numpy as np
import pytest
from PIL import Image

from fer.data.audit import moved_copies
from fer.data.labels import SPLITS

TRAIN, VAL, TEST = range(3)


def blotches(count, side, seed):
    """Return pictures (N, S, S) with details of several sizes, each another."""
    draws = np.random.default_rng(seed)
    layers = []
    for size, weight in ((6, 40.0), (12, 30.0), (24, 15.0)):
        rough = draws.normal(0, weight, (count, size, size)).astype(np.float32)
        layers.append(
            [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in rough]
        )
    return np.uint8(np.clip(128 + np.sum(layers, 0), 0, 255))


def changed(image, turn=0.0, across=0.0, down=0.0, zoom=1.0, beyond="edge"):
    """Return a picture after a turn in degrees clockwise, a shift in pixels and a zoom, by Pillow.

    ``beyond`` is numpy.pad's mode for what lies beyond the frame: "edge" repeats the edge, "constant" leaves it black.
    """
    side, border = len(image), len(image) // 2
    wide = Image.fromarray(np.pad(image, border, mode=beyond))
    cosine, sine = (f(math.radians(turn)) / zoom for f in (math.cos, math.sin))
    middle = wide.width / 2
    x, y = middle + across, middle + down
    transform = (cosine, sine, middle - cosine * x - sine * y, -sine, cosine, middle + sine * x - cosine * y)
    moved = wide.transform(wide.size, Image.Transform.AFFINE, transform, Image.Resampling.BICUBIC)
    return np.asarray(moved)[border : border + side, border : border + side]


@pytest.mark.parametrize(("side", "beyond"), [(48, "edge"), (100, "edge"), (48, "constant")])
def test_copies_are_found_with_what_was_done_to_them(side, beyond):
    draws, originals = np.random.default_rng(0), blotches(40, side, 1)
    pixel = side / 48
    done = [
        {"turn": turn, "across": pixel * across, "down": pixel * down, "zoom": zoom}
        for turn, across, down, zoom in draws.uniform((-15, -4, -4, 0.9), (15, 4, 4, 1.1), (40, 4)).tolist()
    ]
    copies = np.stack([changed(image, **how, beyond=beyond) for image, how in zip(originals, done, strict=True)])
    found = moved_copies.moved_copies(np.concatenate([copies, originals]), np.arange(40), np.arange(40, 80))
    assert len(found.first) >= 38
    assert (found.second - 40 == found.first).all()
    for index, turn, across, down, zoom in zip(found.first, *found[3:], strict=True):
        how, slack = done[index], {"edge": 1, "constant": 2}[beyond]  # filled edges pull the fit towards them
        assert turn == pytest.approx(how["turn"], abs=0.7 * slack)
        assert zoom == pytest.approx(how["zoom"], abs=0.02 * slack)
        assert (side * across, side * down) == pytest.approx((how["across"], how["down"]), abs=0.4 * slack * pixel)


def test_other_pictures_and_large_changes_are_no_copies():
    originals = blotches(30, 48, 2)
    far = np.stack([changed(image, turn=40, across=12) for image in originals])
    images = np.concatenate([originals, far, blotches(30, 48, 3)])
    found = moved_copies.moved_copies(images, np.arange(30), np.arange(30, 90))
    assert not len(found.first)


@pytest.mark.parametrize("how", [{"turn": 10}, {"turn": -17}, {"across": -4, "down": -4}, {"zoom": 1.2}, {"zoom": 0.9}])
def test_black_edges_and_other_sizes_hide_no_copy(how):
    originals = blotches(40, 48, 5)
    copies = np.stack([changed(image, **how, beyond="constant") for image in originals])
    found = moved_copies.moved_copies(np.concatenate([copies, originals]), np.arange(40), np.arange(40, 80))
    pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs) >= 39
    assert all(second == first + 40 for first, second in pairs)


def test_pictures_that_are_mostly_black_are_compared_as_they_are():
    """What is left of two of them would be stretched over the frame, and its bands would be alike."""
    images = blotches(20, 48, 6)
    images[:, :, 24:] = 0
    found = moved_copies.moved_copies(images, np.arange(10), np.arange(10, 20))
    assert not len(found.first)


def test_faces_with_another_duplicate_in_train_and_flat_ones_are_not_searched():
    originals = blotches(4, 48, 4)
    copies = np.stack([changed(image, turn=8) for image in originals])
    images = np.concatenate([copies, originals, originals[:1]])
    splits = np.array([TRAIN] * 4 + [TEST, VAL, TEST, TEST, TRAIN], np.int8)
    flat = np.zeros(9, bool)
    flat[7] = True
    found = moved_copies.of_train(images, splits, [[np.array([4, 8])], []], flat)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(5, 1), (6, 2)]
    assert found.turn == pytest.approx(-8, abs=0.5)
    assert moved_copies.of_train(images, np.full(9, SPLITS.index("train"), np.int8), [[], []], flat) is None
