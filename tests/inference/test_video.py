"""Videos of portraits that move: what is read, found, followed and smoothed."""

import os

import cv2
import numpy as np
import pytest
from portraits import video

import fer
from fer.config.errors import FerError
from fer.data.crop import Box
from fer.inference import video as videos
from fer.inference.detect import Detection
from fer.inference.frame_search import Every
from fer.inference.video import Clip, VideoError, watch


@pytest.fixture(scope="module")
def predictor():
    return fer.Predictor()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def moving(folder):
    """Return a video of three seconds: the astronaut moves, Hopper is there in the first second and in the last."""
    frames = [{"astronaut": (70 + step, 100)} for step in range(75)]
    for step in (*range(22), *range(52, 75)):
        frames[step]["hopper"] = (250, 150)
    return video(folder / "moving.mp4", frames)


@pytest.fixture(scope="module")
def watched(predictor, moving):
    return list(watch(predictor, Clip(moving)))


def test_every_frame_has_its_faces(watched):
    assert [frame.number for frame in watched] == list(range(75))
    assert [frame.time for frame in watched] == pytest.approx([number / 25 for number in range(75)], abs=1e-3)
    assert watched[0].size == (320, 240)
    by_frame = [{face.track: face for face in frame.faces} for frame in watched]
    assert set().union(*by_frame) == {1, 2, 3}
    assert all(1 in faces and faces[1].emotion == "happy" for faces in by_frame[6:])
    for number, faces in enumerate(by_frame[6:], start=6):
        assert faces[1].box.overlap(Box(70 + number - 32, 68, 64, 64)) > 0.7, number
    assert [number for number, faces in enumerate(by_frame) if 2 in faces][-1] <= 21  # the last frame that has it
    assert min(number for number, faces in enumerate(by_frame) if 3 in faces) >= 52
    assert {by_frame[20][2].emotion, by_frame[74][3].emotion} == {"neutral"}


def test_a_frame_has_smoothed_and_raw_probabilities(watched, predictor):
    frame = watched[40]
    (face,), (raw,), (crop,) = frame.faces, frame.raw, frame.crops
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert list(raw.values()) == pytest.approx(predictor.probabilities([crop])[0].tolist(), abs=1e-4)
    assert face.probabilities != raw
    (first,), (first_raw,) = (next(given for given in each if given) for each in zip(*_faces(watched), strict=True))
    assert list(first.probabilities.values()) == pytest.approx(list(first_raw.values()), abs=1e-5)


def _faces(frames):
    return [(frame.faces[:1], frame.raw[:1]) for frame in frames]


def test_without_smoothing_both_are_equal_and_frames_may_be_sampled(predictor, moving, watched):
    frames = list(watch(predictor, Clip(moving), fps=5, half_life=0, pixels=True))
    assert [frame.number for frame in frames] == list(range(0, 75, 5))
    for frame in frames:
        assert [list(face.probabilities.values()) for face in frame.faces] == [list(raw.values()) for raw in frame.raw]
        assert frame.pixels.shape == (240, 320, 3)
        boxes = [face.box for face in watched[frame.number].faces]
        assert [face.box for face in frame.faces] == boxes  # detections are the same, ten a second


@pytest.mark.slow
def test_the_largest_alone(moving):
    frames = list(watch(fer.Predictor(largest=True), Clip(moving), fps=5))
    assert {len(frame.faces) for frame in frames} == {0, 1}


def test_frames_that_are_faces_need_no_detector(predictor, folder):
    whole = fer.Predictor(predictor.network, detector="none")
    file = video(folder / "face.avi", [{"astronaut": (32, 32)}] * 4, size=(64, 64))
    frames = list(watch(whole, Clip(file)))
    assert [[face.track for face in frame.faces] for frame in frames] == [[1]] * 4
    assert frames[0].faces[0].box == Box(0, 0, 64, 64)


def test_frames_are_given_while_later_ones_are_unread(predictor, moving, monkeypatch):
    monkeypatch.setattr(videos, "FRAMES_AT_ONCE", 10)
    read = []
    before = Clip._grab
    monkeypatch.setattr(Clip, "_grab", lambda clip: read.append(1) or before(clip))
    ahead = [len(read) - frame.number for frame, _ in zip(watch(predictor, Clip(moving)), range(40), strict=False)]
    assert max(ahead) <= 10 + 4


class Fixed:
    """A detector that finds a face of a given side in each frame."""

    name, crop = "fixed", fer.data.crop.Crop()

    def __init__(self, side):
        self.side, self.asked = side, 0

    def __call__(self, grey):
        self.asked += 1
        return [Detection(Box(10, 10, self.side, self.side), 1.0)]


class Scripted(Fixed):
    """A detector that misses the face in some of its searches."""

    def __init__(self, missed):
        super().__init__(60.0)
        self.missed = missed

    def __call__(self, grey):
        return [face for face in super().__call__(grey) if self.asked - 1 not in self.missed]


def test_frames_without_a_face_have_none_and_short_gaps_are_bridged(predictor, moving):
    """Searches are at frames 0, 3, 5, 8, 10, ...: 10 and 11 of them miss the face, and all from 20 on."""
    detector = Scripted({10, 11, *range(20, 30)})
    given = fer.Predictor(predictor.network, detector=detector)
    frames = list(watch(given, Clip(moving), pixels=True))
    assert [frame.number for frame in frames] == list(range(75))
    last = next(frame.number for frame in reversed(frames) if frame.faces)
    assert 45 <= last <= 48  # that of search 19
    assert all(len(frame.faces) == 1 for frame in frames[5 : last + 1])
    assert not any(frame.faces for frame in frames[last + 1 :])
    assert [frame.number for frame in watch(given, Clip(moving)) if frame.faces][-1] == 74  # it finds all by now


def test_any_detector_is_asked_ten_times_a_second_and_small_faces_are_counted(predictor, moving):
    detector = Fixed(23.0)
    frames = list(watch(fer.Predictor(predictor.network, detector=detector), Clip(moving)))
    assert detector.asked == 30
    assert [frame.too_small for frame in frames[-10:]] == [1] * 10
    assert not any(frame.faces for frame in frames)


def test_a_regular_action_does_not_drift():
    times = [number / 29.97 for number in range(3000)]
    every = Every(0.1)
    assert sum(every.due(time) for time in times) == pytest.approx(10 * times[-1], abs=1.1)
    assert [Every(0.0).due(1.0)] * 2 == [True, True]


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".mov"])
def test_containers(folder, suffix):
    clip = Clip(video(folder / f"two{suffix}", [{}] * 10, rate=20, size=(64, 48)))
    assert [time for _, time in clip] == pytest.approx([number / 20 for number in range(10)], abs=2e-3)
    assert clip.notes() == []


def test_what_is_no_video_is_named(folder, moving, capfd):
    for name, contents, why in (
        ("cut.mp4", moving.read_bytes()[:20_000], "not a readable video"),
        ("text.mp4", b"hello", "not a readable video"),
        ("empty.mp4", b"", "empty"),
    ):
        (folder / name).write_bytes(contents)
        with pytest.raises(VideoError, match=why) as error:
            Clip(folder / name)
        assert str(folder / name) in str(error.value)
    with pytest.raises(VideoError, match="no such file"):
        Clip(folder / "none.mp4")
    with pytest.raises(VideoError, match="camera 97"):
        Clip(97)
    with pytest.raises(VideoError, match="no frame"):
        list(Clip(video(folder / "zero.avi", [])))
    assert capfd.readouterr() == ("", "")  # OpenCV and FFmpeg are silent


def test_a_video_that_is_cut_off_says_so(folder):
    whole = video(folder / "whole.mkv", [{"astronaut": (100 + 2 * step, 100)} for step in range(75)])
    (folder / "part.mkv").write_bytes(whole.read_bytes()[: os.path.getsize(whole) // 2])
    clip = Clip(folder / "part.mkv")
    assert 5 < len(list(clip)) < 70
    (note,) = clip.notes()
    assert "of the 3.0 seconds" in note


def test_a_rate_that_no_video_has_says_nothing_of_its_length(moving, monkeypatch):
    class Stated:
        """A video that states 90,000 frames per second, the clock of its time stamps."""

        def __init__(self, *arguments):
            self.capture = opened(*arguments)

        def __getattr__(self, name):
            return getattr(self.capture, name)

        def get(self, key):
            return 90_000.0 if key == cv2.CAP_PROP_FPS else self.capture.get(key)

    opened = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Stated)
    clip = Clip(moving)
    assert (clip.rate, clip.seconds) == (videos.USUAL_RATE, None)


def test_time_stamps_that_do_not_rise_are_replaced_and_counted(moving, monkeypatch):
    stamps = iter([0.0, 0.04, 0.04, 0.0, 0.2])
    clip = Clip(moving)
    monkeypatch.setattr(clip, "_clock", lambda: next(stamps, 9.0))
    times = [time for _, (_, time) in zip(range(5), clip, strict=False)]
    assert times == pytest.approx([0, 0.04, 0.08, 0.12, 0.2])
    assert clip.guessed == 2


@pytest.mark.slow
def test_a_damaged_frame_is_passed_over_and_counted(predictor, moving, monkeypatch):
    clip = Clip(moving)
    before, calls = clip._capture.retrieve, []

    class Capture:
        def __getattr__(self, name):
            return getattr(original, name)

        def retrieve(self):
            calls.append(1)
            return (False, None) if len(calls) == 5 else before()

    original = clip._capture
    clip._capture = Capture()
    frames = list(watch(predictor, clip, fps=5))
    assert any("cannot be decoded: 1" in note for note in clip.notes())
    assert len(frames) in (14, 15)


def test_a_frame_is_grey_as_a_picture_is(moving, predictor):
    clip = Clip(moving)
    next(iter(clip))
    frame = clip.pixels()
    grey = np.asarray(videos._grey(frame), int)
    picture = np.asarray(fer.inference.predictor.upright_grey(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)), int)
    assert abs(grey - picture).max() <= 1


def test_a_complete_video_of_few_frames_a_second_has_no_note(folder):
    clip = Clip(video(folder / "slow.mp4", [{}] * 4, rate=0.5))
    assert [time for _, time in clip] == pytest.approx([0, 2, 4, 6])
    assert clip.notes() == []


def test_a_clip_takes_a_name_as_text(moving):
    clip = Clip(str(moving))
    assert next(iter(clip)) == (0, 0.0)
    for name, reason in (("nowhere.mp4", "no such file"), ("a\udcff.mp4", "UTF-8")):
        with pytest.raises(VideoError, match=reason):
            Clip(name)


@pytest.mark.parametrize(
    ("keys", "words"),
    [({"fps": -5}, "fps=-5: expected 0.01 to 1000"), ({"half_life": -1}, "half_life=-1: expected 0 to 60 seconds")],
)
def test_rates_and_half_lives_out_of_range_are_refused(predictor, moving, keys, words):
    with pytest.raises(FerError, match=words):
        next(watch(predictor, Clip(moving), **keys))
