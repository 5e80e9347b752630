"""Pictures and videos with boxes around their faces and what is predicted beside them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fer.config.errors import FerError
from fer.inference.records import FaceRecord

LONGEST = 2048  # pixels of the annotated picture's longer side
SIDES = 2, 8191  # pixels of the frames of MPEG-4
WHITE, BLACK = (255, 255, 255), (20, 20, 20)


def fitted(picture: Image.Image) -> Image.Image:
    """Return a copy of a picture whose longer side has at most ``LONGEST`` pixels."""
    copy = picture.copy()
    copy.thumbnail((LONGEST, LONGEST))
    return copy


def annotated(picture: Image.Image, faces: Sequence[FaceRecord], longer_side: int | None = None) -> Image.Image:
    """Return a copy of a picture with its faces marked, whose longer side has at most ``LONGEST`` pixels.

    Each face has a white box with a dark rim, which is visible on any ground. A plate has the three most probable
    emotions, each with its probability and a bar. A question mark follows an uncertain one.

    Args:
        picture: upright, mode "RGB".
        faces: of its record.
        longer_side: of the picture that the faces' boxes lie in, in pixels; default: this one's.
    """
    scale = min(1.0, LONGEST / (longer_side or max(picture.size)))
    copy = fitted(picture)
    draw = ImageDraw.Draw(copy)
    for face in reversed(faces):  # the largest comes last, above the others
        x, y, width, height = (scale * value for value in face["box"])
        line = max(2, round(max(copy.size) / 400))
        draw.rectangle((x - line, y - line, x + width + line, y + height + line), outline=BLACK, width=3 * line)
        draw.rectangle((x, y, x + width, y + height), outline=WHITE, width=line)
        _plate(draw, copy.size, (x, y, width, height), face)
    return copy


def _plate(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], box: tuple[float, float, float, float], face: FaceRecord
) -> None:
    """Draw the three most probable emotions below a face, or above it where there is no room."""
    x, y, _, height = box
    letter = max(11, min(round(height / 8), round(max(size) / 40)))
    font = ImageFont.load_default(letter)
    best = sorted(face["probabilities"].items(), key=lambda item: -item[1])[:3]
    marks = ["?" if face["uncertain"] else "", "", ""]
    words = [f"{name}{mark} {100 * value:.0f} %" for (name, value), mark in zip(best, marks, strict=False)]
    if "track" in face:
        words[0] = f"{face['track']}: {words[0]}"
    across = max(draw.textlength(word, font) for word in words) + letter
    down = 1.6 * letter
    left = min(max(0.0, x), max(0.0, size[0] - across))
    top = y + height + letter / 3 if y + height + 3.4 * down < size[1] else max(0.0, y - 3 * down - letter / 3)
    draw.rectangle((left, top, left + across, top + 3 * down), fill=BLACK)
    for index, (word, (_, value)) in enumerate(zip(words, best, strict=True)):
        above = top + index * down
        bar = (left, above + down - letter / 4, left + across * value, above + down - 1)
        draw.text((left + letter / 2, above), word, WHITE, font)
        draw.rectangle(bar, fill=WHITE)


class AnnotatedVideo:
    """Writes a copy of a video with its faces marked: MPEG-4, a constant frame rate, no sound.

    Frames of a varying rate are repeated or left out, so that the copy is as long as the video. The file has its name
    once it is complete.

    Args:
        file: to write, ``.mp4``.
        rate: frames per second.

    Raises:
        FerError: OpenCV cannot write a file of this name.
    """

    def __init__(self, file: Path, rate: float) -> None:
        from fer.inference.detect import opencv
        from fer.inference.video import check_name

        check_name(file)

        self._cv2, self.file, self._rate = opencv(), file, rate
        self.refused = ""  # why there is no copy of these frames
        self._part = file.with_name(f".{file.stem}.part.mp4")
        self._writer: Any = None
        self._written = 0  # frames

    @property
    def begun(self) -> bool:
        """Whether it has a frame."""
        return self._written > 0

    def add(self, pixels: NDArray[np.uint8], time: float, faces: Sequence[FaceRecord]) -> None:
        """Write a frame.

        Args:
            pixels: (H, W, 3) BGR.
            time: seconds from the start.
            faces: of its record.

        Raises:
            FerError: the file cannot be written.
        """
        if self.refused:
            return
        marked = np.asarray(annotated(Image.fromarray(pixels[..., ::-1]), faces))[..., ::-1]
        if self._writer is None and not self._opened(marked):
            return
        if marked.shape[1::-1] != self._size:
            marked = self._cv2.resize(np.ascontiguousarray(marked), self._size)
        while self._written <= round(time * self._rate):
            self._writer.write(np.ascontiguousarray(marked))
            self._written += 1

    def _opened(self, frame: NDArray[np.uint8]) -> bool:
        """Open the file, and return whether it can hold frames of this size."""
        self._size = frame.shape[1], frame.shape[0]
        if not SIDES[0] <= min(self._size) <= max(self._size) <= SIDES[1]:
            self.refused = f"no marked copy: MPEG-4 has no frames of {self._size[0]}x{self._size[1]} pixels"
            return False
        fourcc = self._cv2.VideoWriter_fourcc(*"mp4v")
        self._writer = self._cv2.VideoWriter(str(self._part), fourcc, self._rate, self._size)
        if not self._writer.isOpened():
            raise FerError(f"{self.file}: cannot be written; expected a folder with write permission and space")
        return True

    def close(self, *, complete: bool) -> None:
        """Close the file; one that is not complete is removed.

        Raises:
            FerError: it could not be written whole.
        """
        if self._writer is not None:
            self._writer.release()
        try:
            if complete and self._writer is not None:
                self._check()
                os.replace(self._part, self.file)
        finally:
            self._part.unlink(missing_ok=True)

    def _check(self) -> None:
        """Raise where a part of the file is missing: OpenCV's writer does not report a full disk."""
        from fer.inference.video import quiet

        with quiet(self._cv2):
            capture = self._cv2.VideoCapture(str(self._part), self._cv2.CAP_FFMPEG)
            frames = capture.get(self._cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
            capture.release()
        if frames != self._written:
            raise FerError(f"{self.file}: cannot be written whole; expected space on the disk")
