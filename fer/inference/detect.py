"""Faces in a picture, by OpenCV's detectors (extra ``faces``).

The default is the cascade ``frontalface_alt2`` with 3 neighbours. Unlike ``frontalface_default`` it finds no face on
coins or a cat, and it finds more small and tilted faces. Where it finds none, it searches again with the picture turned
by 30 degrees to either side. Profiles, masked faces and faces tilted by more than about 45 degrees are not found.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer.config.errors import FerError
from fer.data.crop import Box, Crop
from fer.inference import onnx_wire
from fer.system.files import contents, why
from fer.system.text import plural

LONGEST = 1280  # pixels, the longer side of the copy that is searched
SMALLEST = 24  # pixels of the copy, the smallest face that is searched for
SMALL_PICTURE, SMALLEST_THERE = 480, 16  # pixels: in a copy of at most that side smaller faces are found, and counted
SMALLEST_SHARE = 0.025  # of the copy's longer side, likewise
SCALE, NEIGHBOURS = 1.1, 3
TURNED_SCALE = 1.2  # of the search for tilted faces, so that all three searches take less than three times the first
CONFIRMING = 1  # neighbours that confirm a face at another tilt
LEAST_SCORE = 55.4  # of the cascade; faces at up to 30 degrees reach 55.7, parts of a more tilted face 55.1
TILT = 30.0  # degrees of the second search
REFINED = 15.0  # degrees to either side at which a face is searched again
SAME_FACE = 0.4  # overlap from which two boxes are one face
PATCH = 2.0  # side of the part of a picture in which it is, as a multiple of the box
NEAR, NEAR_SIDES, NEAR_SIDE = 1.7, (0.75, 1.33), 96  # of a face that is followed: the patch, its sizes, pixels at most
CLEARLY = 0.7  # by how much the score of another tilt exceeds that of the known one; scores tremble by half of it
LEAST_NEAR = 0.2  # overlap of a face with the box where it is expected
GLANCE_LONGEST, GLANCE_SCALE = 256, 1.2  # of the fast search of videos; finds faces of 8 % of the longer side
MOST_OF_YUNET = 8 * 2**20  # bytes of its file, which has 0.23 MB
# outputs of its releases from 2023 on, by strides: https://github.com/opencv/opencv face_detect.cpp
OF_YUNET = {f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)}
INSTALL = "pip install 'opencv-python-headless>=4.10,<5'"

# what is called before each search of a picture or a part of it; an exception of its own ends the work
_BEFORE: ContextVar[Callable[[], None]] = ContextVar("before_each_search", default=lambda: None)

Sides = tuple[int, int]  # pixels: the smallest and the largest face that is searched for; 0 is no bound


@dataclass(frozen=True)
class Detection:
    """A face that was found.

    Args:
        box: in the upright picture; of a tilted face the box that it has when it is turned upright around its middle.
        score: of the detector; higher is surer. It is no probability, and those of two detectors do not compare.
        tilt: by how many degrees the face is turned clockwise.
    """

    box: Box
    score: float
    tilt: float = 0.0


@contextmanager
def before_each_search(check: Callable[[], None]) -> Iterator[None]:
    """Call a function before each search by ``Haar`` of a picture or of a part of it; what it raises ends the work."""
    before = _BEFORE.set(check)
    try:
        yield
    finally:
        _BEFORE.reset(before)


class Detector(Protocol):
    """What finds faces."""

    name: str
    crop: Crop

    def __call__(self, grey: Image.Image) -> list[Detection]:
        """Return the faces of an upright grey picture, mode "L", largest first."""


def opencv() -> Any:
    """Return the module ``cv2``.

    Raises:
        FerError: it is missing.
    """
    try:
        import cv2
    except ImportError as error:
        raise FerError(f"finding faces needs OpenCV: {INSTALL}, or give --detector none or --boxes") from error
    return cv2


class Haar:
    """OpenCV's cascade ``frontalface_alt2``.

    Args:
        tilted: search again for tilted faces where no upright one was found.

    Raises:
        FerError: OpenCV is missing, or one that has no cascades any more.
    """

    name = "haar"
    crop = Crop()

    def __init__(self, *, tilted: bool = True) -> None:
        self.cv2, self.tilted = opencv(), tilted
        if not hasattr(self.cv2, "CascadeClassifier") or not hasattr(self.cv2, "data"):
            version = getattr(self.cv2, "__version__", "?")
            raise FerError(f"OpenCV {version} has no cascades (version 5 removed them): {INSTALL}")
        self.file = Path(self.cv2.data.haarcascades) / "haarcascade_frontalface_alt2.xml"
        self.cascade = self.cv2.CascadeClassifier(str(self.file))
        if self.cascade.empty():
            raise FerError(f"{self.file}: no cascade; install OpenCV again: {INSTALL}")

    def __call__(self, grey: Image.Image, longest: int = LONGEST) -> list[Detection]:
        """Return the faces of an upright grey picture, mode "L", largest first.

        Args:
            grey: the picture.
            longest: pixels, the longer side of the copy that is searched.
        """
        pixels, scale = searched(grey, longest)
        sides = (smallest(max(pixels.shape)), 0)  # 0: up to the whole picture
        hits = self._search(pixels, SCALE, NEIGHBOURS, sides)
        if not hits and self.tilted:
            for angle in (-TILT, TILT):
                hits += self._turned(pixels, angle, TURNED_SCALE, NEIGHBOURS, sides)
        faces = strongest(hits)
        if self.tilted:
            faces = [sure for face in faces if (sure := self._confirmed(pixels, face)) is not None]
        return sorted((_scaled(face, scale) for face in faces), key=lambda face: -face.box.side)

    def glance(self, grey: Image.Image) -> list[Detection]:
        """Return the upright and not too small faces of a picture, from a fast search of a small copy."""
        pixels, scale = searched(grey, GLANCE_LONGEST)
        return [_scaled(face, scale) for face in strongest(self._search(pixels, GLANCE_SCALE, NEIGHBOURS, (0, 0)))]

    def near(self, pixels: NDArray[np.uint8], known: Detection, *, refined: bool) -> Detection | None:
        """Return a face whose position and size are known roughly, or None.

        Args:
            pixels: of the picture, (H, W) grey.
            known: the face as expected.
            refined: choose the tilt anew; otherwise other tilts are tried only where the known one shows no face.
        """
        best = next(iter(self._near(pixels, known.box, known.tilt)), None)
        if self.tilted and (refined or best is None):
            turns = (known.tilt + turn for turn in (-REFINED, REFINED) if abs(known.tilt + turn) <= TILT)
            tried = [face for tilt in turns for face in self._near(pixels, known.box, tilt)]
            least = float("-inf") if best is None else best.score + CLEARLY
            best = max((face for face in tried if face.score > least), key=lambda face: face.score, default=best)
        return best

    def _near(self, pixels: NDArray[np.uint8], box: Box, tilt: float) -> list[Detection]:
        """Return the face of a tilt that overlaps a box most, if any."""
        patch, left, top = _patch(pixels, box, NEAR)
        if not patch.size:
            return []
        small, scale = searched(Image.fromarray(patch), round(NEAR * NEAR_SIDE))
        sides = round(NEAR_SIDES[0] * box.side / scale), round(NEAR_SIDES[1] * box.side / scale)
        faces = [
            _moved(_scaled(face, scale), left, top) for face in self._turned(small, tilt, SCALE, NEIGHBOURS, sides)
        ]
        same = [face for face in faces if face.box.overlap(box) > LEAST_NEAR]
        return sorted(same, key=lambda face: -face.box.overlap(box))[:1]

    def _search(self, pixels: NDArray[np.uint8], scale: float, neighbours: int, sides: Sides) -> list[Detection]:
        _BEFORE.get()()
        boxes, _, weights = self.cascade.detectMultiScale3(
            pixels, scaleFactor=scale, minNeighbors=neighbours, minSize=(sides[0],) * 2, maxSize=(sides[1],) * 2,
            outputRejectLevels=True,
        )  # fmt: skip
        hits = zip(boxes, np.ravel(weights), strict=True)
        return [Detection(Box(*map(float, box)), float(weight)) for box, weight in hits if weight >= LEAST_SCORE]

    def _turned(
        self, pixels: NDArray[np.uint8], angle: float, scale: float, neighbours: int, sides: Sides
    ) -> list[Detection]:
        """Return the faces that are tilted by ``angle`` degrees clockwise: the picture is turned back first."""
        if not angle:
            return self._search(pixels, scale, neighbours, sides)
        turned, back = upright(self.cv2, pixels, angle)
        faces = []
        for face in self._search(turned, scale, neighbours, sides):
            x, y = back @ (*face.box.centre, 1.0)
            box = replace(face.box, x=float(x) - face.box.width / 2, y=float(y) - face.box.height / 2)
            if 0 <= x < pixels.shape[1] and 0 <= y < pixels.shape[0]:
                faces.append(Detection(box, face.score, angle))
        return faces

    def _confirmed(self, pixels: NDArray[np.uint8], face: Detection) -> Detection | None:
        """Return a face at the tilt at which the cascade is surest, or None where one tilt alone shows a tilted face.

        The tilts 15 degrees to either side are searched in a patch around the face. A face is found at several tilts;
        coins and letters, which the search of turned pictures takes for faces, are found at one.
        """
        patch, left, top = _patch(pixels, face.box, PATCH)
        sides = (round(0.7 * face.box.side), round(1.4 * face.box.side))
        tried = [
            _moved(other, left, top)
            for angle in (face.tilt - REFINED, face.tilt + REFINED)
            for other in self._turned(patch, angle, SCALE, CONFIRMING, sides)
        ]
        same = [other for other in tried if other.box.overlap(face.box) > SAME_FACE]
        if face.tilt and not same:
            return None
        return max([face, *(other for other in same if abs(other.tilt) <= TILT)], key=lambda other: other.score)


class YuNet:
    """OpenCV's ``FaceDetectorYN`` with a model file of the user's: ``face_detection_yunet_2023mar.onnx`` of opencv_zoo.

    Args:
        model: the file.

    Raises:
        FerError: OpenCV is missing, or the file is no such model.
    """

    name = "yunet"
    crop = Crop(margin=1.05, shift=0.05)
    sure = 0.6  # least score

    def __init__(self, model: Path) -> None:
        self.cv2 = opencv()
        _check_yunet(model)
        try:
            self.network = self.cv2.FaceDetectorYN.create(str(model), "", (320, 320), self.sure)
        except (self.cv2.error, AttributeError) as error:
            raise FerError(f"--detector-model {model}: OpenCV cannot read it as YuNet's .onnx") from error

    def __call__(self, grey: Image.Image) -> list[Detection]:
        """Return the faces of an upright grey picture, mode "L", largest first."""
        pixels, scale = searched(grey)
        self.network.setInputSize(pixels.shape[::-1])
        _, rows = self.network.detect(self.cv2.cvtColor(pixels, self.cv2.COLOR_GRAY2BGR))
        faces = [Detection(Box(*map(float, row[:4])), float(row[14])) for row in (rows if rows is not None else ())]
        return sorted((_scaled(face, scale) for face in strongest(faces)), key=lambda face: -face.box.side)


def _check_yunet(model: Path) -> None:
    """Raise unless a file is an ONNX graph with YuNet's outputs, small, and whole: OpenCV runs what it is given.

    Raises:
        FerError: naming what is wrong.
    """
    expected = "expected YuNet's .onnx, of opencv_zoo"
    if not model.is_file():
        raise FerError(f"--detector-model {model}: no such file; {expected}")
    try:
        content = contents(model, MOST_OF_YUNET)
        elsewhere = onnx_wire.names_other_files(content)
        inputs, outputs = onnx_wire.inputs_and_outputs(content)
    except (OSError, ValueError) as error:
        raise FerError(f"--detector-model {model}: cannot be read ({why(error)}); {expected}") from error
    if elsewhere:
        raise FerError(f"--detector-model {model}: has tensors in other files; {expected}")
    if len(inputs) != 1 or set(outputs) != OF_YUNET:
        raise FerError(
            f"--detector-model {model}: has {plural(len(inputs), 'input')} and {plural(len(outputs), 'output')}, not "
            f"the {len(OF_YUNET)} of YuNet from bbox_8 to obj_32; {expected}"
        )


class YuFace:
    """The detector of the package ``yuface``, by YuNet's authors, where it is installed; it brings its own weights.

    Raises:
        FerError: the package is missing. It has wheels for CPython up to 3.11 alone.
    """

    name = "yuface"
    crop = YuNet.crop
    longest = 960  # pixels, beyond which the package warns of its speed
    sure = 0.5  # least score

    def __init__(self) -> None:
        try:
            import yuface
        except ImportError as error:
            raise FerError(
                "--detector yuface: needs a package: pip install yuface (wheels for Python up to 3.11), or take haar"
            ) from error
        self.detect = yuface.detect

    def __call__(self, grey: Image.Image) -> list[Detection]:
        """Return the faces of an upright grey picture, mode "L", largest first."""
        pixels, scale = searched(grey, self.longest)
        scores, boxes, _ = self.detect(np.ascontiguousarray(np.repeat(pixels[..., None], 3, axis=2)), self.sure)
        rows = zip(boxes, scores, strict=True)
        faces = [Detection(Box(*map(float, box)), float(score) / 100) for box, score in rows]
        return sorted((_scaled(face, scale) for face in strongest(faces)), key=lambda face: -face.box.side)


class Whole:
    """No detector: each picture is one face that was cut out already."""

    name = "none"
    crop = Crop()

    def __call__(self, grey: Image.Image) -> list[Detection]:
        """Return the whole picture as a face."""
        return [self.of(*grey.size)]

    @staticmethod
    def of(width: int, height: int) -> Detection:
        """Return the face of a picture of that size."""
        return Detection(Box(0.0, 0.0, float(width), float(height)), 1.0)


def build(name: str, model: Path | None = None, *, tilted: bool = True) -> Detector:
    """Return a detector by its name: "haar", "yunet", "yuface" or "none".

    Raises:
        FerError: it is none of these, it needs a model file or takes none, or OpenCV is missing.
    """
    if name in ("haar", "none", "yuface") and model is not None:
        raise FerError(f"--detector-model {model}: is of the detector yunet; add --detector yunet, or leave it out")
    if name == "haar":
        return Haar(tilted=tilted)
    if name == "none":
        return Whole()
    if name == "yuface":
        return YuFace()
    if name != "yunet":
        raise FerError(f"detector {name!r}: expected haar, yunet, yuface or none")
    if model is None:
        raise FerError("--detector yunet: needs --detector-model FILE, YuNet's .onnx of opencv_zoo")
    return YuNet(model)


def smallest(longest: int) -> int:
    """Return the side in pixels of the smallest face that is searched for, by the longer side of the copy."""
    return SMALLEST_THERE if longest <= SMALL_PICTURE else max(SMALLEST, round(SMALLEST_SHARE * longest))


def searched(grey: Image.Image, most: int = LONGEST) -> tuple[NDArray[np.uint8], float]:
    """Return the copy of a picture that is searched, and the factor from its coordinates to those of the picture.

    Args:
        grey: the picture, mode "L".
        most: pixels of the copy's longer side.
    """
    longest = max(grey.size)
    if longest <= most:
        return np.asarray(grey), 1.0
    size = tuple(max(1, round(side * most / longest)) for side in grey.size)
    return np.asarray(grey.resize((size[0], size[1]), Image.Resampling.BILINEAR)), longest / most


def upright(cv2: Any, pixels: NDArray[np.uint8], tilt: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return a picture turned back by ``tilt`` degrees clockwise, whole on a larger ground, and the way back.

    The second result is (2, 3): with a point (x, y, 1) of the turned picture it gives the point of the picture.
    """
    height, width = pixels.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), tilt, 1.0)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = math.ceil(width * cosine + height * sine), math.ceil(width * sine + height * cosine)
    matrix[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    turned = cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_LINEAR, borderValue=127)  # flat: searched at once
    return turned, cv2.invertAffineTransform(matrix)


def strongest(found: Sequence[Detection]) -> list[Detection]:
    """Return detections of which no two are the same face; of each face the one with the highest score."""
    kept: list[Detection] = []
    for face in sorted(found, key=lambda one: -one.score):
        if all(face.box.overlap(other.box) <= SAME_FACE for other in kept):
            kept.append(face)
    return kept


def _patch(pixels: NDArray[np.uint8], box: Box, multiple: float) -> tuple[NDArray[np.uint8], int, int]:
    """Return the part of a picture around a box, ``multiple`` of its side wide, and the part's left and upper edge."""
    x, y = box.centre
    reach = multiple * box.side / 2
    left, top = max(0, math.floor(x - reach)), max(0, math.floor(y - reach))
    return pixels[top : max(0, math.ceil(y + reach)), left : max(0, math.ceil(x + reach))], left, top


def _moved(face: Detection, x: float, y: float) -> Detection:
    return replace(face, box=replace(face.box, x=face.box.x + x, y=face.box.y + y))


def _scaled(face: Detection, scale: float) -> Detection:
    box = face.box
    return replace(face, box=Box(box.x * scale, box.y * scale, box.width * scale, box.height * scale))
