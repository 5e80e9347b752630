"""Which faces of a split are explained, and what is counted over their maps."""

import numpy as np
import pytest

from fer.evaluation.explained_split import evenly_drawn
from fer.evaluation.explanation import Maps, confusions, left_shares, of_emotions
from fer.metrics.explanation import OfFace


def test_a_draw_has_equal_numbers_of_each_emotion_while_they_last():
    targets = np.repeat([0, 1, 2], [100, 4, 50])
    drawn = evenly_drawn(targets, 40)
    assert np.bincount(targets[drawn]).tolist() == [18, 4, 18]
    assert (np.diff(drawn) > 0).all()
    assert np.array_equal(drawn, evenly_drawn(targets, 40))
    assert len(evenly_drawn(targets, 1000)) == 154
    assert drawn[-1] > 110  # not the first of each


def face(label, predicted):
    return OfFace("x", predicted, "sad", {"happy": 0.5, "sad": 0.5}, None, label)


def test_what_is_counted_over_the_maps_of_an_emotion():
    """Two happy faces are supported in the left half alone; their mean map is far from its mirror image."""
    maps = np.zeros((4, 6, 6), np.float32)
    maps[:2, :, :3] = 1 + np.arange(6)[:, None]
    maps[2:] = np.arange(6)[:, None] - 2.0
    images = np.zeros((4, 6, 6), np.uint8)
    faces = [face("happy", "happy"), face("happy", "sad"), face("sad", "sad"), face("sad", "sad")]
    happy, sad = of_emotions(faces, Maps(images, maps, maps, maps))
    assert (happy.right, happy.wrong, sad.right, sad.wrong) == (1, 1, 2, 0)
    assert (happy.left_share.value, sad.left_share.value) == (1, 0.5)
    assert happy.mirror < 0
    assert sad.mirror == pytest.approx(1)
    assert left_shares(-np.ones((1, 4, 4), np.float32)).tolist() == [0.5]


def test_confusions_of_three_faces_are_listed_the_largest_first():
    faces = (
        [face("sad", "happy")] * 3 + [face("happy", "sad")] * 4 + [face("sad", "fear")] * 2 + [face("sad", "sad")] * 9
    )
    assert [(one.label, one.predicted, one.faces) for one in confusions(faces)] == [
        ("happy", "sad", 4),
        ("sad", "happy", 3),
    ]
