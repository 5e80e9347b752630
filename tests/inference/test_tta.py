"""Views of a face: what they hold, and that a network's probabilities are averaged over them."""

import numpy as np
import pytest
import torch

from fer.data.dataset import FaceDataset
from fer.inference.tta import VIEWS
from fer.models.base import predicted_probabilities

FACES = torch.rand(3, 1, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "count"), [("none", 1), ("flip", 2), ("ten_crop", 10), ("shifts", 18)])
def test_views_are_as_many_as_promised_at_the_faces_size(name, count):
    views = VIEWS[name](FACES, None)
    assert len(views) == count
    assert all(view.shape == FACES.shape for view in views)
    assert len({view.numpy().tobytes() for view in views}) == count  # no two alike
    mirrored = {view.flip(-1).numpy().tobytes() for view in VIEWS[name](FACES.flip(-1), None)}
    if name in ("flip", "shifts"):  # crops are resampled, which rounds differently from left and right
        assert {view.numpy().tobytes() for view in views} == mirrored


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_arrays_are_those_of_tensors(name):
    pairs = zip(VIEWS[name](FACES.numpy(), None), VIEWS[name](FACES, None), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-5)  # a byte is 4e-3


def test_a_crop_of_the_whole_face_is_none():
    """Else all ten would be the same two."""
    views = VIEWS["ten_crop"](FACES, FACES.shape[-1])
    assert all(torch.equal(one, other) for one, other in zip(views, VIEWS["ten_crop"](FACES, None), strict=True))


def test_a_ten_crop_shows_the_corners():
    """A bright corner of 2 pixels is in two of the ten views: its own corner's, and that one's mirror image."""
    face = torch.zeros(1, 1, 48, 48)
    face[..., :2, :2] = 1
    bright = [float(view.max()) > 0.5 for view in VIEWS["ten_crop"](face, None)]
    assert sum(bright) == 2


def test_shifts_move_by_two_pixels_and_reflect_the_border():
    columns = torch.arange(48.0).expand(1, 1, 48, 48)
    rows = [tuple(view[0, 0, 0].tolist()) for view in VIEWS["shifts"](columns, None)]
    assert tuple(range(48)) in rows
    assert (2.0, 1.0, *map(float, range(46))) in rows
    assert (*map(float, range(2, 48)), 46.0, 45.0) in rows


@pytest.mark.parametrize(("name", "count"), [("none", 1), ("flip", 2), ("ten_crop", 10), ("shifts", 18)])
def test_a_network_that_was_trained_on_crops_is_given_crops(name, count):
    """Of the pixels as they are: nothing is enlarged."""
    views = VIEWS[name](FACES, 40)
    assert [view.shape for view in views] == [(3, 1, 40, 40)] * count
    assert torch.equal(views[0] if name != "ten_crop" else views[8], FACES[..., 4:44, 4:44]) or name == "shifts"
    if name == "ten_crop":
        corners = [FACES[..., top : top + 40, left : left + 40] for top in (0, 8) for left in (0, 8)]
        assert all(torch.equal(view, corner) for view, corner in zip(views[:8:2], corners, strict=True))
    if name == "shifts":  # by two pixels each way, which the crop's border of four allows
        assert torch.equal(views[0], FACES[..., 2:42, 2:42])
        assert torch.equal(views[8], FACES[..., 4:44, 4:44])


def test_probabilities_are_averaged_over_the_views(small_run):
    import fer

    model = fer.load(small_run)
    images = torch.randint(256, (5, 24, 24), dtype=torch.uint8).numpy()
    faces = FaceDataset(images, torch.zeros(5).numpy())
    with torch.inference_mode():
        batch = faces.images.float() / 255
        expected = (model(batch).softmax(1) + model(batch.flip(-1)).softmax(1)) / 2
    device = torch.device("cpu")
    actual = predicted_probabilities(model, faces, batch_size=2, device=device, views=VIEWS["flip"])
    assert torch.allclose(actual, expected, atol=1e-6)
