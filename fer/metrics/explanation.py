"""The types of ``explain.json``: how far maps explain a network, and what they show. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer.metrics.statistics import Interval, bootstrapped_means
from fer.system import records
from fer.system.files import write_json

SCHEMA = 1  # of explain.json; raise it when a field changes its meaning
LEAST_FACES = 20  # for an interval: with fewer, a bootstrap is too narrow
BLOB, RANDOM = "blob", "random"  # the baselines that maps are compared with
TITLES: Mapping[str, str] = {
    "occlusion": "Occlusion", "gradcam": "Grad-CAM", "integrated_gradients": "Integrated gradients",
    BLOB: "Blob in the middle", RANDOM: "Random maps",
}  # fmt: skip


@dataclass(frozen=True)
class Mean:
    """A mean over faces.

    Args:
        value: the mean.
        ci95: its 95 % interval for other faces; None with fewer than ``LEAST_FACES``.
    """

    value: float
    ci95: Interval | None = None

    def written(self, *, sign: bool = False) -> str:
        """Return the mean with its interval, as text."""
        plus = "+" if sign else ""
        ends = "" if self.ci95 is None else f" [{self.ci95.low:{plus}.3f}, {self.ci95.high:{plus}.3f}]"
        return f"{self.value:{plus}.3f}{ends}"


def means(values: NDArray[np.floating]) -> list[Mean]:
    """Return the K means of values (N, K) of N faces, with intervals where there are enough faces."""
    intervals = bootstrapped_means(values) if len(values) >= LEAST_FACES else [None] * values.shape[1]
    return [Mean(float(value), interval) for value, interval in zip(values.mean(0), intervals, strict=True)]


@dataclass(frozen=True)
class Curves:
    """How the probability of the predicted emotion falls and rises with the pixels that a map ranks first.

    Args:
        map: the method of the maps, or ``BLOB`` or ``RANDOM``.
        deletion: the mean probability after each share of pixels was blurred, from none to all.
        insertion: the mean probability after each share of pixels was shown in a blurred face.
        deletion_area: mean of the deletion curve over the shares; smaller is better.
        insertion_area: mean of the insertion curve over the shares; larger is better.
    """

    map: str
    deletion: tuple[Mean, ...]
    insertion: tuple[Mean, ...]
    deletion_area: Mean
    insertion_area: Mean


@dataclass(frozen=True)
class Difference:
    """The areas of a method's maps less those of a baseline, over the same faces.

    Args:
        baseline: ``BLOB`` or ``RANDOM``.
        deletion: below 0 where the maps are better.
        insertion: above 0 where the maps are better.
    """

    baseline: str
    deletion: Mean
    insertion: Mean


@dataclass(frozen=True)
class Imputed:
    """The comparison of the curves with removed pixels imputed from their neighbours (ROAD) in place of blurred.

    Args:
        faces: number of faces, some of those of the blurred curves.
        curves: of the method and of the baselines.
        differences: from the baselines.
        verdict: one sentence, which the intervals of ``differences`` decide.
    """

    faces: int
    curves: tuple[Curves, ...]
    differences: tuple[Difference, ...]
    verdict: str


@dataclass(frozen=True)
class Randomised:
    """The maps of a network whose last layers were randomised, beside those of the network.

    Args:
        layers: number of layers that were randomised, from the last.
        of: number of layers with weights.
        correlation: rank correlation of the maps over pixels; 0 where they depend on the weights alone.
    """

    layers: int
    of: int
    correlation: Mean


@dataclass(frozen=True)
class Check:
    """Whether maps explain a network.

    Args:
        faces: number of faces of the curves.
        curves: of the method and of the baselines.
        differences: from the baselines.
        faces_of_randomised: number of faces of what follows.
        randomised: networks with more and more random layers.
        mirrored: rank correlation of a face's map with that of the mirrored face, mirrored back.
        verdict: one sentence, which the intervals of ``differences`` decide.
        imputed: the same with imputed pixels.
    """

    faces: int
    curves: tuple[Curves, ...]
    differences: tuple[Difference, ...]
    faces_of_randomised: int
    randomised: tuple[Randomised, ...]
    mirrored: Mean
    verdict: str
    imputed: Imputed


@dataclass(frozen=True)
class OfEmotion:
    """What the maps of an emotion's faces show.

    Args:
        emotion: the label.
        right: number of faces that are predicted right.
        wrong: number of faces that are predicted wrong.
        left_share: share of the support for the prediction that lies in the left half of the picture.
        mirror: rank correlation of the mean map with its mirror image; 1 where it is symmetric.
    """

    emotion: str
    right: int
    wrong: int
    left_share: Mean
    mirror: float


@dataclass(frozen=True)
class OfConfusion:
    """A confusion: faces of one label with another prediction."""

    label: str
    predicted: str
    faces: int


@dataclass(frozen=True)
class OfFace:
    """An explained face.

    Args:
        name: file and number of the face in it, or row of the data.
        box: of the face in its picture, x, y, width, height in pixels; None of faces that were cut out already.
        predicted: the most probable emotion.
        second: the next one.
        probabilities: emotion -> calibrated probability.
        label: the emotion that the data state; None of a picture.
    """

    name: str
    predicted: str
    second: str
    probabilities: Mapping[str, float]
    box: tuple[float, float, float, float] | None = None
    label: str | None = None


@dataclass(frozen=True)
class Explanation:
    """The contents of ``explain.json``.

    Args:
        method: of the maps.
        layer: side in pixels of the feature maps of Grad-CAM; None of other methods.
        networks: files of the networks.
        architecture: of the networks.
        source: the pictures or the split, in words.
        faces: the explained faces.
        check: whether the maps explain the network.
        emotions: of a split; empty of pictures.
        confusions: the largest; empty of pictures.
        left_out: picture -> why it has no explained face.
        faces_per_second: explained.
        command: the command line.
        schema: of this file.
    """

    method: str
    layer: int | None
    networks: tuple[str, ...]
    architecture: str
    source: str
    faces: tuple[OfFace, ...]
    check: Check
    emotions: tuple[OfEmotion, ...]
    confusions: tuple[OfConfusion, ...]
    left_out: Mapping[str, str]
    faces_per_second: float
    command: str
    schema: int = SCHEMA


def write(file: Path, explanation: Explanation) -> None:
    """Write ``explain.json``."""
    write_json(file, records.plain(explanation))
