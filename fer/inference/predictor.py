"""The way from pictures to emotions.

Faces are found, cut out and classified. ``fer predict`` and ``fer.Predictor`` use it.

``fer.Predictor("tiny")(["photo.jpg", an_array])`` returns a list of faces for each picture.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fer.config.errors import FerError, check_number, setting
from fer.data.crop import Box, Crop
from fer.data.readers.images import PictureError, read_colour, read_grey, to_colour, to_grey
from fer.inference import detect
from fer.inference.network import Network, channels, opened
from fer.metrics import conformal
from fer.system.files import why
from fer.system.records import Object

if TYPE_CHECKING:
    import torch

    from fer.models import EmotionClassifier

Picture = str | Path | Image.Image | NDArray[np.uint8]

MOST_PIXELS = 200_000_000  # of a picture; today's telephones take that many
MARGINS = 0.1, 10  # multiples of a box's side
LEAST_SIDE = 24  # pixels of a box's side; of val faces shrunk to it `tiny` predicts 52 % right, of whole ones 68
SMALL_SIDE = 32  # pixels, below which an answer counts as uncertain
SURE = 0.5  # least probability of an answer that is not uncertain, of a network without prediction sets
FACES_AT_ONCE, PICTURES_AT_ONCE = 256, 32
WITHOUT_SETS = (  # and how to get them
    "no prediction sets: the file of this network has no thresholds for them; python -m fer.evaluate NETWORK "
    "--coverage 0.9 calibrates them on val, and python -m fer.share EVALUATION NAME.safetensors writes a file with "
    "them; for an exported file, evaluate the networks that it was made from, and export that evaluation"
)


@dataclass(frozen=True)
class Face:
    """A face of a picture, and what a network predicts.

    Args:
        box: in the upright picture, in pixels.
        emotion: the most probable.
        probability: of it, calibrated.
        probabilities: emotion -> probability, calibrated; they sum to 1.
        emotions: of the prediction set, the most probable first: with the promised probability one of them is the
            label. Empty where the network has no thresholds of such sets.
        uncertain: the set holds more than one emotion (without a set, the probability is below 0.5). Or the face is
            smaller than 32 pixels, for which nothing is promised.
        detector_score: of the detector; no probability. None where the box was given.
        tilt: by how many degrees the face is turned clockwise.
        track: number of the face in its video; None on a picture.
    """

    box: Box
    emotion: str
    probability: float
    probabilities: Mapping[str, float]
    emotions: tuple[str, ...]
    uncertain: bool
    detector_score: float | None = None
    tilt: float = 0.0
    track: int | None = None


@dataclass(frozen=True)
class Answer:
    """What is predicted for one picture.

    Args:
        faces: largest first; where boxes were given, in their order.
        crops: of each face, (S, S) uint8 grey.
        inputs: of each face, (1, S, S) or in colour (3, S, S) uint8, as the network takes it.
        too_small: faces that were found and are below 24 pixels; they are not predicted.
        size: of the upright picture, (width, height) in pixels.
    """

    faces: Sequence[Face]
    crops: Sequence[NDArray[np.uint8]]
    inputs: Sequence[NDArray[np.uint8]]
    too_small: int
    size: tuple[int, int]


class _Found(NamedTuple):
    chosen: Sequence[detect.Detection]
    crops: Sequence[NDArray[np.uint8]]
    inputs: Sequence[NDArray[np.uint8]]  # of the network: the crops, or (3, S, S) in colour
    too_small: int
    size: tuple[int, int]


class Predictor:
    """Predicts the emotions on the faces of pictures.

    Args:
        network: name of a network of the package, a run folder, a checkpoint, a shared or exported file, or a loaded
            network. An exported file (``.onnx``) is read without torch.
        detector: "haar" (needs the extra ``faces``), "yunet", "none" for pictures that are faces already, or an object
            like ``fer.inference.detect.Haar``.
        detector_model: file of "yunet".
        largest: predict the largest face of each picture alone.
        margin: side of the square that is cut out, as a multiple of the box's side, 0.1 to 10. The default is the
            detector's multiple, times what an exported file asks for.
        device: to compute on; exported files are computed on the CPU.
        coverage: promised share of faces whose prediction set holds the label; None for 0.9, of networks that have the
            thresholds for it.
        coverage_by: "all": it is promised over all faces together; "class": for the faces of each emotion.
            ``unpromised`` names the emotions for which it is not, since val had too few of their faces.

    Raises:
        FerError: the network or the detector cannot be had; the margin or the coverage is out of range, or the network
            has no thresholds for it.
    """

    def __init__(
        self, network: "str | Path | EmotionClassifier | Network" = "tiny", *, detector: str | detect.Detector = "haar",
        detector_model: str | Path | None = None, largest: bool = False, margin: float | None = None,
        device: "str | torch.device" = "cpu", coverage: float | None = None,
        coverage_by: conformal.By = "all",
    ) -> None:  # fmt: skip
        if margin is not None:
            check_number("margin", margin, *MARGINS)
        if coverage is not None:
            conformal.check(coverage)
        self.network = opened(network, device)
        self.largest, self._detector, self._margin = largest, detector, margin
        self._detector_model = None if detector_model is None else Path(detector_model)
        self.coverage_by = coverage_by
        self.coverage, self._threshold = threshold_of(self.network, coverage, coverage_by)
        self.unpromised = unpromised(self.network, self.coverage, coverage_by)

    @cached_property
    def detector(self) -> detect.Detector:
        """What finds the faces; it is made when the first picture asks for it."""
        if isinstance(self._detector, str):
            return detect.build(self._detector, self._detector_model)
        return self._detector

    @cached_property
    def emotions(self) -> tuple[str, ...]:
        """The emotions that the network distinguishes, in the order of its outputs."""
        return tuple(self.network.emotions)

    @cached_property
    def image_size(self) -> int:
        """Side of the faces that the network takes, in pixels."""
        return self.network.image_size

    @property
    def in_colour(self) -> bool:
        """Whether the network takes faces in colour."""
        return channels(self.network) == 3

    @property
    def crop(self) -> Crop:
        """How faces are cut out."""
        of_detector = self.detector.crop
        of_network = getattr(self.network, "face_crop", Crop())  # by an exported file, of haar's boxes
        shift = of_detector.shift + of_detector.margin * of_network.shift
        return Crop(of_detector.margin * of_network.margin if self._margin is None else self._margin, shift)

    def __call__(
        self, pictures: Picture | Iterable[Picture], boxes: Sequence[Sequence[Box]] | None = None
    ) -> list[list[Face]]:
        """Return the faces of each picture, largest first, or in the order of the boxes.

        Args:
            pictures: paths, PIL images, or uint8 arrays (height, width) grey or (height, width, 3) RGB; or one of them.
            boxes: of each picture, in the same order; nothing is searched then.

        Raises:
            FerError: one cannot be read; the message names it.
        """
        many = [pictures] if isinstance(pictures, str | Path | Image.Image | np.ndarray) else list(pictures)
        if boxes is not None and len(boxes) != len(many):
            raise FerError(f"boxes: {len(boxes)} lists; expected {len(many)}, one for each picture")
        faces = []
        for number, answer in enumerate(self.answers(many, boxes)):
            if isinstance(answer, PictureError):
                name = many[number] if isinstance(many[number], str | Path) else f"picture {number}"
                raise FerError(f"{name}: {answer}") from answer
            faces.append(list(answer.faces))
        return faces

    def answer(self, picture: Picture, boxes: Sequence[Box] | None = None) -> Answer:
        """Return what is predicted for one picture.

        Raises:
            PictureError: it cannot be read.
            FerError: the detector cannot be had.
        """
        (answer,) = self.answers([picture], None if boxes is None else [boxes])
        if isinstance(answer, PictureError):
            raise answer
        return answer

    def answers(
        self,
        pictures: Iterable[Picture],
        boxes: Iterable[Sequence[Box] | None] | None = None,
        at_once: int = PICTURES_AT_ONCE,
    ) -> Iterator[Answer | PictureError]:
        """Give what is predicted for each picture, in order; of one that cannot be read, the error.

        Args:
            pictures: any number of them; one at a time is in memory.
            boxes: of each picture; None is searched.
            at_once: pictures whose faces go through the network together.

        Raises:
            FerError: the detector cannot be had.
        """
        waiting: list[_Found | PictureError] = []
        for picture, given in zip(
            pictures, itertools.repeat(None) if boxes is None else boxes, strict=boxes is not None
        ):
            try:
                waiting.append(self._found(picture, given))
            except PictureError as error:
                waiting.append(error)
            if len(waiting) >= at_once:
                yield from self._answered(waiting)
                waiting = []
        yield from self._answered(waiting)

    def _found(self, picture: Picture, boxes: Sequence[Box] | None) -> "_Found":
        """Return the faces of a picture, cut out."""
        if boxes is None and self._takes_cut_out_faces and self._is_cut_out(picture):
            size, faces = (self.image_size, self.image_size), [np.asarray(picture)]
            return _Found([detect.Whole.of(*size)], faces, faces, 0, size)
        colour = upright_colour(picture) if self.in_colour else None
        grey = upright_grey(picture) if colour is None else colour.convert("L")
        if boxes is None:
            detected: Sequence[detect.Detection] = self.detector(grey)
        else:
            if isinstance(boxes, Box):
                raise PictureError("boxes: expected a list of boxes for each picture, got one box")
            for box in boxes:
                check_box(box, grey.size)
            detected = [detect.Detection(box, float("nan")) for box in boxes]
        large = [face for face in detected if face.box.side >= LEAST_SIDE]
        chosen = sorted(large, key=lambda face: -face.box.side)[:1] if self.largest else large
        crops = [self.crop(grey, face.box, self.image_size, face.tilt) for face in chosen]
        inputs = crops
        if colour is not None:
            bands = colour.split()
            inputs = [
                np.stack([self.crop(band, face.box, self.image_size, face.tilt) for band in bands]) for face in chosen
            ]
        return _Found(chosen, crops, inputs, len(detected) - len(large), grey.size)

    @cached_property
    def _takes_cut_out_faces(self) -> bool:
        """Whether a grey face of the network's size reaches the network as it is."""
        as_it_is = isinstance(self.detector, detect.Whole) and self.crop == Crop()
        return as_it_is and not self.in_colour and self.image_size >= LEAST_SIDE

    def _is_cut_out(self, picture: Picture) -> bool:
        size = self.image_size
        return isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape == (size, size)

    def _answered(self, waiting: Sequence["_Found | PictureError"]) -> Iterator[Answer | PictureError]:
        read = [one for one in waiting if isinstance(one, _Found)]
        rows = self.probabilities([given for one in read for given in one.inputs])
        faces = iter(self.faces([face for one in read for face in one.chosen], rows))
        for one in waiting:
            if isinstance(one, _Found):
                of_picture = list(itertools.islice(faces, len(one.chosen)))
                inputs = [given if given.ndim == 3 else given[None] for given in one.inputs]
                yield Answer(of_picture, one.crops, inputs, one.too_small, one.size)
            else:
                yield one

    def probabilities(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return calibrated probabilities (N, C) of N faces, each (S, S) uint8 grey, or (3, S, S) in colour."""
        parts = [np.empty((0, len(self.emotions)), np.float32)]
        for start in range(0, len(crops), FACES_AT_ONCE):
            together = np.stack(crops[start : start + FACES_AT_ONCE])
            parts.append(self.network.probabilities(together if together.ndim == 4 else together[:, None]))
        return np.concatenate(parts)

    def faces(self, found: Sequence[detect.Detection], rows: Iterable[NDArray[np.float32]]) -> list[Face]:
        """Return detected faces with their calibrated probabilities, a row (C,) each, and their prediction sets."""
        if not found:
            return []
        together = np.stack(list(rows))
        threshold = self._threshold
        sets = [()] * len(found) if threshold is None else conformal.named_sets(together, self.emotions, threshold)
        given = zip(found, together.tolist(), together.argmax(1).tolist(), sets, strict=True)
        return [self._face(*parts) for parts in given]

    def _face(self, found: detect.Detection, row: list[float], best: int, emotions: tuple[str, ...]) -> Face:
        unsure = len(emotions) > 1 if emotions else row[best] < SURE
        return Face(
            box=found.box,
            emotion=self.emotions[best],
            probability=row[best],
            probabilities=dict(zip(self.emotions, row, strict=True)),
            emotions=emotions,
            uncertain=unsure or found.box.side < SMALL_SIDE,
            detector_score=None if math.isnan(found.score) else found.score,
            tilt=found.tilt,
        )

    def about(self) -> Object:
        """Return what records state of how they were made: network, detector, crop."""
        return {
            "architecture": self.network.architecture,
            "emotions": list(self.emotions),
            "temperature": self.network.temperature,
            "coverage": self.coverage,
            **({} if self.coverage_by == "all" else {"coverage_by": "class", "unpromised": list(self.unpromised)}),
            "trained_on": self.network.trained_on,
            "detector": self.detector.name,
            **({"faces": "largest"} if self.largest else {}),
            "crop": self.crop.contract(self.image_size) | ({"colour": "red, green, blue"} if self.in_colour else {}),
        }


def check_box(box: Box, size: tuple[int, int]) -> None:
    """Raise where a box cannot be that of a face in a picture: its answer would be about the picture's repeated edge.

    Args:
        box: that was given.
        size: of the picture, (width, height) in pixels.

    Raises:
        PictureError: it is no ``Box``, its middle lies outside the picture, or it is larger than twice the picture.
    """
    if not isinstance(box, Box):
        raise PictureError(f"box {box!r}: expected fer.data.crop.Box(x, y, width, height)")
    (x, y), (width, height) = box.centre, size
    if not (0 <= x <= width and 0 <= y <= height and 0 < box.width <= 2 * width and 0 < box.height <= 2 * height):
        raise PictureError(
            f"box {box.width:g}x{box.height:g} at {box.x:g}, {box.y:g}: expected one whose middle lies in the picture "
            f"of {width}x{height} pixels, and no larger than twice the picture"
        )


def threshold_of(
    network: Network, coverage: float | None, by: conformal.By = "all"
) -> tuple[float | None, NDArray[np.float64] | float | None]:
    """Return the coverage of a network's prediction sets and their threshold, or (C,) those of the classes.

    Both are None where it has none.

    Raises:
        FerError: a coverage or a way is asked for that is out of range, or of a network without such thresholds.
    """
    if by not in conformal.WAYS:
        raise FerError(f"{setting('coverage_by', by)}: expected all or class")
    thresholds = network.sets
    if thresholds is not None:
        served = conformal.COVERAGE if coverage is None else coverage
        return served, thresholds.limits(served, by)
    if coverage is not None or by == "class":
        option = setting("coverage_by", by) if coverage is None else setting("coverage", coverage)
        raise FerError(f"{option}: {WITHOUT_SETS}")
    return None, None


def unpromised(network: Network, coverage: float | None, by: conformal.By) -> tuple[str, ...]:
    """Return the emotions for whose faces nothing is promised, since val has too few of them."""
    if by == "all" or network.sets is None or coverage is None:
        return ()
    return tuple(network.emotions[label] for label in network.sets.unpromised(coverage))


def upright_grey(picture: Picture) -> Image.Image:
    """Return a picture as 8-bit grey (mode "L"), upright.

    Raises:
        PictureError: it cannot be read, or is of another shape or type.
    """
    return _upright(picture, read_grey, to_grey)


def upright_colour(picture: Picture) -> Image.Image:
    """Return a picture in colour (mode "RGB"), upright.

    Raises:
        PictureError: it cannot be read, or is of another shape or type.
    """
    return _upright(picture, read_colour, to_colour)


def _upright(
    picture: Picture,
    read: Callable[[Path, int], Image.Image],
    convert: Callable[[Image.Image], Image.Image],
) -> Image.Image:
    if isinstance(picture, str | Path):
        return read(Path(picture), MOST_PIXELS)
    if isinstance(picture, Image.Image):
        try:
            return convert(ImageOps.exif_transpose(picture))
        except (OSError, SyntaxError, ValueError) as error:  # of a file that is decoded only now
            raise PictureError(f"picture cannot be decoded ({why(error)})") from error
    shape: tuple[int, ...] = getattr(picture, "shape", ())
    kind = getattr(picture, "dtype", None)
    known = kind == np.uint8 and len(shape) in (2, 3)
    if not known or 0 in shape or (len(shape) == 3 and shape[2] not in (3, 4)):
        raise PictureError(f"array {shape} of {kind}; expected uint8, (height, width) or (height, width, 3) RGB")
    return convert(Image.fromarray(picture))
