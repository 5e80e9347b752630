"""Emotions over a video.

Frames are read one after the other, faces are followed, and predictions are smoothed. Faces are searched for ten times
a second. In between, boxes are interpolated, so that every frame has its predictions. Nothing grows with the length of
the video: ``watch`` yields frame after frame.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer.config.errors import FerError, check_number
from fer.data.crop import Box
from fer.inference.detect import Detection, opencv
from fer.inference.frame_search import PER_SECOND, Every, FrameSearch
from fer.inference.predictor import LEAST_SIDE, Face, Predictor
from fer.inference.tracking import HITS, Smoother, Tracker

HALF_LIFE = 0.5  # seconds, of the smoothing
CROPS_AT_ONCE = 32  # through the network; more are not faster on a CPU
FRAMES_AT_ONCE = 64
BYTES_AT_ONCE = 100_000_000  # of frames that wait for the network
RATES = 0.01, 240  # frames per second that a container may state; some state 90,000
PREDICTED = 0.01, 1000  # frames per second that may be asked for
HALF_LIVES = 0, 60  # seconds
USUAL_RATE = 25.0  # frames per second, where the container states none
MISSING = 1.0, 0.05  # seconds, and share of the stated length, that may be missing at the end without a note


class VideoError(FerError):
    """A video that cannot be read: its ``name`` and the ``reason``."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


class Clip:
    """The frames of a video file or a camera, one after the other.

    Rotation that the container states is applied. The number of frames that it states is not trusted.

    Args:
        source: a file, or the number of a camera.

    Raises:
        VideoError: it is missing or cannot be opened.
        FerError: OpenCV is missing.
    """

    def __init__(self, source: str | Path | int) -> None:
        source = source if isinstance(source, int) else Path(source)
        self.name, self.live = (f"camera {source}", True) if isinstance(source, int) else (str(source), False)
        self._cv2 = opencv()
        if not isinstance(source, int):
            _check(source)
        with quiet(self._cv2):
            self._capture = self._cv2.VideoCapture(
                source if isinstance(source, int) else str(source),
                self._cv2.CAP_ANY if self.live else self._cv2.CAP_FFMPEG,
            )
        if not self._capture.isOpened():
            raise VideoError(self.name, "no such camera, or it is in use" if self.live else "not a readable video")
        rate = self._capture.get(self._cv2.CAP_PROP_FPS)
        credible = RATES[0] <= rate <= RATES[1]
        self.rate = float(rate) if credible else USUAL_RATE
        frames = 0 if self.live else self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT)
        self.seconds = frames / rate if frames > 0 and credible else None  # as the container states
        self.guessed = 0  # frames whose time stamp was missing or not later than the one before
        self.damaged = 0  # frames that could not be decoded

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """Give number, from 0, and time in seconds of each frame; ``pixels`` returns the frame itself.

        Raises:
            VideoError: there is no frame.
        """
        number, time, first, lasted = 0, float("-inf"), 0.0, 0.0
        while self._grab():
            clock = self._clock()
            if number == 0:
                first = clock if self.live else 0.0
            if clock - first <= time:
                self.guessed += 1
                clock = first + time + 1 / self.rate
            lasted = clock - first - time if number else 1 / self.rate
            time = clock - first
            yield number, time
            number += 1
        if not number:
            raise VideoError(self.name, "has no frame that can be read")
        self._ended = time + lasted  # the last frame is taken to last as long as the one before

    def _grab(self) -> bool:
        with quiet(self._cv2):
            return bool(self._capture.grab())

    def _clock(self) -> float:
        if self.live:
            return monotonic()  # what a camera states differs between drivers
        return float(self._capture.get(self._cv2.CAP_PROP_POS_MSEC)) / 1000

    def pixels(self) -> NDArray[np.uint8] | None:
        """Return the current frame, (H, W, 3) BGR, or None where it is damaged."""
        with quiet(self._cv2):
            good, pixels = self._capture.retrieve()
        self.damaged += not good
        return pixels if good else None

    def notes(self) -> list[str]:
        """Return what was missing or replaced, after the last frame."""
        parts = []
        if self.seconds is not None and self.seconds - self._ended > max(MISSING[0], MISSING[1] * self.seconds):
            parts.append(
                f"its frames end after {self._ended:.1f} of the {self.seconds:.1f} seconds that it states: it may be "
                "cut short, begin late or have longer sound"
            )
        if self.damaged:
            parts.append(f"frames that cannot be decoded: {self.damaged:,}")
        if self.guessed:
            parts.append(f"frames without a time stamp, which the frame rate replaces: {self.guessed:,}")
        return parts

    def close(self) -> None:
        """Close the file or the camera."""
        self._capture.release()


def check_name(file: Path) -> None:
    """Raise where a path has bytes that are no UTF-8: OpenCV would end the process.

    Raises:
        VideoError: naming the file.
    """
    try:
        str(file).encode()
    except UnicodeEncodeError as error:
        raise VideoError(str(file), "OpenCV takes only names in UTF-8; rename it") from error


def _check(file: Path) -> None:
    check_name(file)
    if not file.is_file():
        raise VideoError(str(file), "no such file")
    if not file.stat().st_size:
        raise VideoError(str(file), "is empty (0 bytes)")


@contextmanager
def quiet(cv2: Any) -> Iterator[None]:
    """Keep OpenCV and its FFmpeg from printing; what fails is reported in our words."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read when the first video is opened
    logging = cv2.utils.logging
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)


@dataclass(frozen=True)
class Frame:
    """What is predicted for one frame of a video.

    Args:
        number: of the frame in the video, from 0.
        time: seconds from the start.
        faces: largest first, each with its track and its smoothed probabilities.
        raw: emotion -> probability of the frame alone, of each face.
        crops: of each face, (S, S) uint8, as the network saw it.
        too_small: faces that are followed and are below 24 pixels; they are not predicted.
        unconfirmed: faces that were detected fewer than three times so far; they are not predicted.
        size: of the frame, (width, height) in pixels.
        pixels: (H, W, 3) BGR, where ``watch`` was asked to keep them.
    """

    number: int
    time: float
    faces: Sequence[Face]
    raw: Sequence[Mapping[str, float]]
    crops: Sequence[NDArray[np.uint8]]
    too_small: int
    unconfirmed: int
    size: tuple[int, int]
    pixels: NDArray[np.uint8] | None = None


def watch(
    predictor: Predictor, clip: Clip, *, fps: float | None = None, half_life: float = HALF_LIFE, pixels: bool = False
) -> Iterator[Frame]:
    """Give the predictions of a video's frames, in their order.

    Args:
        predictor: that finds, cuts out and classifies faces.
        clip: the video; it is read to its end.
        fps: frames per second that are predicted, 0.01 to 1000; default: all.
        half_life: seconds after which a frame counts half in the smoothed logits of its track, 0 to 60; 0 smooths
            nothing.
        pixels: keep the frames themselves.

    Raises:
        VideoError: the video has no frame.
        FerError: a value is out of range.
    """
    check_times(fps, half_life)
    search = FrameSearch(predictor.detector)
    tracker = Tracker(1 if predictor.detector.name == "none" else HITS)
    detections, samples = Every(1 / PER_SECOND), Every(1 / fps if fps else 0.0)
    frames: list[_Uncut] = []  # whose faces are not settled
    waiting = _Waiting(predictor, Smoother(half_life), live=clip.live)
    since = 0  # frames since the last detection
    for number, time in clip:
        detected, sampled = detections.due(time) or since >= FRAMES_AT_ONCE, samples.due(time)
        frame = clip.pixels() if detected or sampled else None
        if frame is None:
            continue
        grey = Image.fromarray(_grey(frame))
        if sampled:
            colour = _bands(frame) if predictor.in_colour else ()
            frames.append(_Uncut(number, time, grey, frame if pixels else None, colour))
            since += 1
        if detected:
            tracker.update(time, search(grey, time, tracker.expected(time)))
            since = 0
            waiting.take(frames, tracker, time)
            if waiting.full():
                yield from waiting.predicted()
    waiting.take(frames, tracker, float("inf"))
    yield from waiting.predicted()


def check_times(fps: float | None, half_life: float) -> None:
    """Raise where the rate of the predicted frames, or the half-life of their smoothing, is out of range.

    Raises:
        FerError: naming the setting and the range.
    """
    if fps is not None:
        check_number("fps", fps, *PREDICTED)
    check_number("half_life", half_life, *HALF_LIVES, "{} to {} seconds")


def _grey(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    cv2 = opencv()
    grey: NDArray[np.uint8] = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)  # ITU-R 601, as for pictures
    return grey


def _bands(frame: NDArray[np.uint8]) -> tuple[Image.Image, ...]:
    """Return red, green and blue of a frame."""
    return tuple(Image.fromarray(np.ascontiguousarray(frame[..., band])) for band in (2, 1, 0))


@dataclass(frozen=True)
class _Uncut:
    """A frame whose boxes are not known yet; ``colour`` has its bands where the network takes colours."""

    number: int
    time: float
    grey: Image.Image
    pixels: NDArray[np.uint8] | None
    colour: Sequence[Image.Image] = ()


@dataclass(frozen=True)
class _Cut:
    """A frame whose faces are cut out and not yet predicted; ``inputs`` are what the network takes of each."""

    frame: Frame
    faces: Sequence[tuple[int, Detection]]
    inputs: Sequence[NDArray[np.uint8]]


@dataclass
class _Waiting:
    """Frames that wait until there are enough faces for the network."""

    predictor: Predictor
    smoother: Smoother
    live: bool
    frames: list[_Cut] = field(default_factory=list)

    def take(self, frames: list[_Uncut], tracker: Tracker, now: float) -> None:
        """Cut out the faces of the frames up to the first that is not settled, and take them from their list.

        Of a camera all are taken, since its frames do not wait.
        """
        while frames and (self.live or tracker.settled(frames[0].time, now)):
            self.frames.append(self._cut(frames.pop(0), tracker))

    def _cut(self, given: _Uncut, tracker: Tracker) -> _Cut:
        inside = [
            (track, face)
            for track, face in tracker.shown(given.time, live=self.live)
            if _inside(face.box, given.grey.size)
        ]
        faces = [(track, face) for track, face in inside if face.box.side >= LEAST_SIDE]
        faces.sort(key=lambda pair: -pair[1].box.side)
        if self.predictor.largest:
            del faces[1:]
        crop, size = self.predictor.crop, self.predictor.image_size
        crops = [crop(given.grey, face.box, size, face.tilt) for _, face in faces]
        inputs = crops
        if given.colour:
            inputs = [np.stack([crop(band, face.box, size, face.tilt) for band in given.colour]) for _, face in faces]
        small = sum(face.box.side < LEAST_SIDE for _, face in inside)
        unconfirmed = tracker.unconfirmed(given.time)
        frame = Frame(given.number, given.time, (), (), crops, small, unconfirmed, given.grey.size, given.pixels)
        return _Cut(frame, faces, inputs)

    def full(self) -> bool:
        """Return whether the frames are to be predicted now."""
        pixels = sum(cut.frame.pixels.nbytes for cut in self.frames if cut.frame.pixels is not None)
        crops = sum(len(cut.faces) for cut in self.frames)
        many = crops >= CROPS_AT_ONCE or len(self.frames) >= FRAMES_AT_ONCE
        return self.live or many or pixels >= BYTES_AT_ONCE

    def predicted(self) -> Iterator[Frame]:
        """Give the waiting frames with their predictions."""
        frames, self.frames = self.frames, []
        rows = iter(self.predictor.probabilities([given for cut in frames for given in cut.inputs]))
        emotions = self.predictor.emotions
        for cut in frames:
            raw = [next(rows) for _ in cut.faces]
            smooth = [self.smoother(track, cut.frame.time, row) for (track, _), row in zip(cut.faces, raw, strict=True)]
            faces = self.predictor.faces([face for _, face in cut.faces], smooth)
            yield replace(
                cut.frame,
                faces=[replace(face, track=track) for face, (track, _) in zip(faces, cut.faces, strict=True)],
                raw=[dict(zip(emotions, map(float, row), strict=True)) for row in raw],
            )


def _inside(box: Box, size: tuple[int, int]) -> bool:
    x, y = box.centre
    return 0 <= x < size[0] and 0 <= y < size[1]
