"""The search for faces in the frames of a video.

Known faces are searched for near their boxes, the whole frame less often. A search of a whole frame of 640x480 pixels
takes some 150 ms of one thread. All else that is done to a frame takes 2 ms. A face that is known is found in a patch
around it in 3 ms.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fer.inference.detect import SAME_FACE, Detection, Detector, Haar, strongest

PER_SECOND = 10  # detections
GLANCES = 0.5  # seconds between fast searches of the whole frame for large upright faces, while a face is followed
THOROUGH = 2.0  # seconds between searches for small faces too, while a face is followed
THOROUGH_ALONE = 1.0  # seconds between them otherwise; tilted faces are searched for then
EARLY = 0.05  # seconds by which a search may be early; detections are at whole frames
LONGEST = 480  # pixels, the longer side of the copy that is searched thoroughly; its smallest face has 20 pixels


class Every:
    """A regular action in the time of a video.

    Args:
        seconds: between two; 0 is at each time.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last: int | None = None

    def due(self, time: float) -> bool:
        """Return whether the action is due at a time, in seconds; it counts as done then."""
        if not self.seconds:
            return True
        turn = math.floor(time / self.seconds + 1e-6)  # time stamps are rounded
        due, self._last = turn != self._last, turn
        return due


class FrameSearch:
    """Finds the faces of frames that follow each other.

    Args:
        detector: the cascade searches near known faces, and now and then the whole frame. Any other detector searches
            the whole frame each time.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self._glanced = self._searched = float("-inf")  # seconds

    def __call__(self, grey: Image.Image, time: float, known: Sequence[Detection]) -> list[Detection]:
        """Return the faces of a frame.

        Args:
            grey: the frame, mode "L".
            time: of it, in seconds.
            known: faces where they are expected.
        """
        haar = self.detector
        if not isinstance(haar, Haar):
            return haar(grey)
        pixels, glance = np.asarray(grey), time - self._glanced > GLANCES - EARLY
        tried = [haar.near(pixels, face, refined=glance) for face in known]
        near = strongest([face for face in tried if face is not None])
        whole: list[Detection] = []
        if time - self._searched > (THOROUGH if near else THOROUGH_ALONE) - EARLY:
            self._searched = self._glanced = time
            whole = haar(grey, LONGEST)
        elif glance or not near:
            self._glanced = time
            whole = haar.glance(grey)
        return near + [face for face in whole if all(face.box.overlap(other.box) <= SAME_FACE for other in near)]
