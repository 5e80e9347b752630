"""Drawn faces: the same bytes every time, each class alike, refused where they make no sense."""

import hashlib

import numpy as np
import pytest

from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.load import assign, read_faces
from fer.data.readers import synthetic
from fer.data.readers.drawing import draw_faces


def test_the_same_arguments_give_the_same_bytes(drawn, equal):
    equal(synthetic.read(70, seed=3, image_size=48), drawn)


def test_another_seed_gives_other_faces(drawn):
    other = synthetic.read(70, seed=4, image_size=48)
    assert (other.images != drawn.images).any((1, 2)).all()


def test_drawing_leaves_the_global_noise_alone():
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    draw_faces(3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_no_two_faces_are_the_same(drawn):
    assert len({hashlib.sha256(image.tobytes()).digest() for image in drawn.images}) == 70


@pytest.mark.parametrize("count", [7, 10, 144])
def test_classes_are_balanced_up_to_one_face(count):
    images, targets = draw_faces(count, image_size=16)
    assert images.shape == (count, 16, 16)
    assert images.dtype == np.uint8
    counts = np.bincount(targets, minlength=7)
    assert counts.max() - counts.min() <= 1
    assert counts.sum() == count


@pytest.mark.parametrize("image_size", [16, 48, 64])
def test_faces_use_the_range_of_greys(image_size):
    images, _ = draw_faces(21, image_size=image_size)
    assert (images.std((1, 2)) > 10).all()
    assert 60 < images.mean() < 190


def test_labels_match_the_drawn_expressions():
    """Least squares on 1,120 faces names the class of 280 others far above a seventh (0.38 when written)."""
    images, targets = draw_faces(1400, image_size=16, ambiguity=0)
    pixels = images.reshape(1400, -1) / 255
    pixels -= pixels.mean(1, keepdims=True)
    seen, unseen = pixels[:1120], pixels[1120:]
    weights = np.linalg.solve(seen.T @ seen + np.eye(256), seen.T @ np.eye(7)[targets[:1120]])
    assert ((unseen @ weights).argmax(1) == targets[1120:]).mean() > 0.28


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"count": -3}, "count must be at least 1, got -3"),
        ({"count": 5, "image_size": 15}, "image_size must be at least 16, got 15"),
        ({"count": 5, "ambiguity": 1.1}, "ambiguity must lie between 0 and 1, got 1.1"),
        ({"count": 5, "ambiguity": -0.1}, "ambiguity must lie between 0 and 1, got -0.1"),
        ({"count": 5, "ambiguity": float("nan")}, "ambiguity must lie between 0 and 1, got nan"),
    ],
)
def test_bad_arguments_are_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        draw_faces(**arguments)


def test_the_official_split_is_80_10_10_of_every_class():
    faces = synthetic.read(210, seed=0, image_size=16)
    splits = assign(faces, "official", seed=0, val_fraction=0.1)
    for label in range(7):
        assert np.bincount(splits[faces.targets == label]).tolist() == [24, 3, 3]
    np.testing.assert_array_equal(splits, assign(faces, "as_given", seed=9, val_fraction=0.5))


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ({"votes": "fer2013new.csv"}, "data.votes=fer2013new.csv"),
        ({"labels": "ferplus"}, "data.labels=ferplus"),
        ({"class_names": {"froh": "happy"}}, "data.class_names={froh:happy}"),
        ({"channels": 3}, "data.channels=3"),
    ],
)
def test_what_drawn_faces_do_not_have_is_refused(given, spelled):
    with pytest.raises(FerError) as refused:
        read_faces(DataSettings(path=synthetic.NAME, **given))
    assert spelled in str(refused.value)
    assert "leave it out" in str(refused.value)
