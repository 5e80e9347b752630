"""Which faces of a video are the same, on boxes that are drawn; and the smoothing of their predictions."""

import math

import numpy as np
import pytest

from fer.data.crop import Box
from fer.inference.detect import Detection
from fer.inference.tracking import Smoother, Tracker

STEP = 0.1  # seconds between detections


def face(x, y=100.0, side=50.0, tilt=0.0):
    return Detection(Box(x - side / 2, y - side / 2, side, side), 56.0, tilt)


def tracked(scenes):
    """Return, for each detection, track -> middle of its face as it is shown live, rounded."""
    tracker, frames = Tracker(), []
    for number, faces in enumerate(scenes):
        tracker.update(number * STEP, faces)
        frames.append({track: round(one.box.centre[0]) for track, one in tracker.shown(number * STEP, live=True)})
    return frames


def test_two_faces_that_cross_keep_their_numbers():
    scenes = [[face(100 + 10 * step), face(400 - 10 * step)] for step in range(31)]
    for step in (14, 15, 16):  # one hides the other
        scenes[step] = scenes[step][:1]
    frames = tracked(scenes)
    assert frames[2] == {1: 120, 2: 380}
    assert frames[-1] == {1: 400, 2: 100}
    assert set().union(*frames) == {1, 2}
    assert all(len(shown) == 2 for shown in frames[2:16])  # the hidden one is carried on for two detections


def test_a_face_that_returns_within_a_second_keeps_its_number():
    frames = tracked([[face(100)]] * 5 + [[]] * 9 + [[face(100)]] * 3)
    assert frames[4] == frames[6] == frames[14] == {1: 100}
    assert frames[7] == frames[13] == {}  # a gap, in place of guesses


def test_a_face_that_leaves_and_returns_has_a_new_number():
    frames = tracked([[face(100), face(300)]] * 5 + [[face(300)]] * 11 + [[face(100), face(300)]] * 3)
    assert frames[4] == {1: 100, 2: 300}
    assert frames[-1] == {2: 300, 3: 100}


def test_a_face_is_shown_from_its_third_detection_on():
    frames = tracked([[face(100)], [face(101)], [face(102)], [face(103)]])
    assert frames == [{}, {}, {1: 102}, {1: 103}]
    assert tracked([[face(100)], [face(500)], [face(100)], []]) == [{}] * 4


def test_one_missed_detection_is_bridged_with_the_same_velocity():
    frames = tracked([[face(100 + 20 * step)] for step in range(5)] + [[]] + [[face(220)]])
    assert frames[5:] == [{1: 200}, {1: 220}]


def test_a_fast_face_is_followed_by_its_velocity():
    """40 pixels a step: boxes of 50 pixels that follow each other overlap by a ninth."""
    scenes = [[face(100 + 10 * step * step)] for step in range(5)] + [[face(260 + 40 * step)] for step in range(2, 9)]
    assert face(100).box.overlap(face(140).box) < 0.3
    assert set().union(*tracked(scenes)) == {1}


def test_a_video_without_faces_has_no_track():
    assert tracked([[]] * 20) == [{}] * 20


def test_frames_more_than_a_second_apart_are_followed_too():
    tracker = Tracker()
    for number in range(4):
        tracker.update(2.0 * number, [face(100)])
    assert [track for track, _ in tracker.shown(6.0, live=False)] == [1]


def test_boxes_between_two_detections_are_interpolated():
    tracker = Tracker(hits=1)
    tracker.update(0.0, [face(100, side=40)])
    tracker.update(0.1, [face(110, side=48, tilt=15.0)])
    ((track, middle),) = tracker.shown(0.025, live=False)
    assert (track, middle.box.centre, middle.box.side, middle.tilt) == (1, (102.5, 100.0), 42.0, 3.75)
    assert tracker.expected(0.15)[0].box.centre == pytest.approx((115, 100))


def test_a_frame_waits_while_a_missed_face_may_be_found_again():
    tracker = Tracker(hits=1)
    for number in range(3):
        tracker.update(number * STEP, [face(100 + 10 * number)])
    tracker.update(0.3, [])
    assert (tracker.settled(0.2, 0.3), tracker.settled(0.25, 0.3)) == (True, False)
    tracker.update(0.4, [face(140)])
    assert tracker.settled(0.25, 0.4)
    ((_, at),) = tracker.shown(0.25, live=False)
    assert at.box.centre == pytest.approx((125, 100))  # between the detections around it
    tracker.update(0.5, [face(160)])
    ((_, at),) = tracker.shown(0.25, live=False)
    assert at.box.centre == pytest.approx((125, 100))  # although there are later ones
    for number in (6, 7, 8):
        tracker.update(number * STEP, [])
        assert tracker.settled(0.55, number * STEP) == (number == 8)
    assert (tracker.shown(0.55, live=False), len(tracker.shown(0.55, live=True))) == ([], 1)


def test_faces_that_are_not_shown_yet_are_counted():
    tracker = Tracker()
    tracker.update(0.0, [face(100), face(300)])
    assert (tracker.shown(0.0, live=True), tracker.unconfirmed(0.05)) == ([], 2)
    tracker.update(0.1, [face(100)])
    tracker.update(0.2, [face(100)])
    assert [tracker.unconfirmed(time) for time in (0.0, 0.1, 0.2, 0.3)] == [2, 2, 1, 0]


def test_smoothing_is_an_exponential_mean_of_logits():
    rng, half_life, temperature = np.random.default_rng(0), 0.5, 1.3
    logits, times = rng.normal(size=(20, 7)) * 3, np.cumsum(rng.uniform(0.02, 0.3, 20))
    smoother = Smoother(half_life)
    rows = [np.float32(_softmax(row / temperature)) for row in logits]
    smoothed = [smoother(4, time, row) for time, row in zip(times, rows, strict=True)]
    mean = logits[0]
    for before, after, row in zip(times, times[1:], logits[1:], strict=False):
        old = math.exp(-math.log(2) * (after - before) / half_life)
        mean = old * mean + (1 - old) * row
    assert smoothed[-1] == pytest.approx(_softmax(mean / temperature), abs=1e-5)
    assert smoothed[0] == pytest.approx(rows[0], abs=1e-6)


def test_after_a_half_life_a_frame_counts_half_and_tracks_are_apart():
    one, other = np.float32([0.8, 0.2]), np.float32([0.2, 0.8])
    smoother = Smoother(2.0)
    smoother(1, 0.0, one)
    smoother(2, 0.5, other)
    assert smoother(1, 0.9, one) == pytest.approx(one, abs=1e-6)
    smoother = Smoother(0.5)
    smoother(1, 0.0, one)
    assert smoother(1, 0.5, other) == pytest.approx([0.5, 0.5], abs=1e-6)
    assert Smoother(0.0)(1, 0.5, other) is other


def test_every_face_is_smoothed_where_frames_are_seconds_apart():
    faces = [np.float32([0.9, 0.1]), np.float32([0.1, 0.9])]
    alone, together = Smoother(10.0), Smoother(10.0)
    for time in (0.0, 2.0, 4.0, 6.0):
        expected = alone(1, time, faces[int(time) // 2 % 2])
        for track in (1, 2, 3):
            assert together(track, time, faces[int(time) // 2 % 2]) == pytest.approx(expected, abs=1e-6)
    assert expected[0] > 0.6  # and not the last frame's 0.1


def test_smoothing_forgets_a_track_of_long_ago():
    smoother = Smoother(0.5)
    smoother(1, 0.0, np.float32([0.9, 0.1]))
    smoother(2, 6.0, np.float32([0.9, 0.1]))
    assert list(smoother._means) == [2]


def test_smoothing_survives_a_probability_of_zero():
    smoother = Smoother(0.5)
    smoother(1, 0.0, np.float32([1, 0]))
    assert np.isfinite(smoother(1, 0.1, np.float32([0.5, 0.5]))).all()


def _softmax(values):
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()
