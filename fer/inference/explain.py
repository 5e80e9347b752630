"""Maps of what speaks for an emotion on a face.

They are made by occlusion, Grad-CAM or integrated gradients. A map has a value for each pixel: above 0 where the face
speaks for the emotion, below 0 where it speaks against it. All methods measure changes of a log probability or a logit.
The difference of two emotions' maps is therefore the map of their log odds: why the network prefers one to the other.
Occlusion needs no torch; ``fer.inference.gradients`` has the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.inference.exported import Images
from fer.inference.network import Network, channels

if TYPE_CHECKING:
    from fer.models import EmotionClassifier

OCCLUSION = "occlusion"  # the method that needs nothing but probabilities
PATCH = 1 / 6  # of the side: 8 of 48 pixels
POSITIONS = 11  # of the patch along a side: a step of 4 of 48 pixels
VIEWS_AT_ONCE = 256  # faces in a batch; more are no faster on a CPU
LEAST_PROBABILITY = 1e-12  # float32 probabilities may be 0


@dataclass(frozen=True)
class Explained:
    """What is explained: a network, or several whose calibrated probabilities are averaged.

    Args:
        networks: one or more networks with the same emotions.

    Raises:
        FerError: they take faces of different sizes, or some take colours.
    """

    networks: Sequence[Network]

    def __post_init__(self) -> None:
        for one in self.networks[1:]:
            if one.image_size != self.image_size:
                sizes = f"{self.image_size} and {one.image_size} pixels"
                raise FerError(f"the networks take faces of {sizes}; explain networks of one size together")
            if channels(one) != self.in_channels:
                raise FerError(
                    "some networks take faces in colour, others grey ones; explain networks of one kind together"
                )

    @property
    def emotions(self) -> tuple[str, ...]:
        """The emotions, in the order of the probabilities."""
        return tuple(self.networks[0].emotions)

    @property
    def image_size(self) -> int:
        """Side of the faces, in pixels."""
        return self.networks[0].image_size

    @property
    def in_channels(self) -> int:
        """1 of grey faces, 3 of faces in colour."""
        return channels(self.networks[0])

    @property
    def models(self) -> "list[EmotionClassifier]":
        """The networks with their weights; exported files have none."""
        return [network.model for network in self.networks if hasattr(network, "model")]

    def probabilities(self, faces: Images) -> NDArray[np.float32]:
        """Return calibrated probabilities (N, C) of N faces, uint8 or float in [0, 1]; see ``explained``."""
        parts = [np.empty((0, len(self.emotions)), np.float32)]
        parts += [np.mean([one.probabilities(part) for one in self.networks], axis=0) for part in _batches(faces)]
        return np.concatenate(parts)

    def alone(self, method: str) -> "EmotionClassifier":
        """Return the only network.

        Args:
            method: that needs its gradients, for the message.

        Raises:
            FerError: there are several, or it is an exported file.
        """
        if len(self.models) < len(self.networks):
            raise FerError(
                f"--method {method}: needs gradients, which an exported file has not; use occlusion, or the network "
                "that it was made from"
            )
        if len(self.networks) > 1:
            raise FerError(f"--method {method}: needs the gradients of one network; explain an ensemble by occlusion")
        return self.models[0]


def explained(what: Explained, method: str, faces: Images, emotions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return maps (N, K, S, S) of N faces and K emotions of each.

    Args:
        what: the network or networks.
        method: "occlusion", or a name in ``fer.inference.gradients.METHODS``.
        faces: (N, 1, S, S), in colour (N, 3, S, S), uint8 or float in [0, 1].
        emotions: (N, K) indices of emotions.

    Raises:
        FerError: the method does not apply to these networks.
    """
    if method == OCCLUSION:
        return occlusion(what, to_unit(faces), emotions)
    model = what.alone(method)
    from fer.inference import gradients

    return gradients.maps(model, method, faces, emotions)


def to_unit(faces: Images) -> NDArray[np.float32]:
    """Return uint8 faces as float32 in [0, 1]; float ones unchanged."""
    return (
        faces.astype(np.float32) / np.float32(255) if faces.dtype == np.uint8 else faces.astype(np.float32, copy=False)
    )


def _batches(values: Images) -> Iterator[Images]:
    return (values[start : start + VIEWS_AT_ONCE] for start in range(0, len(values), VIEWS_AT_ONCE))


# --- occlusion ------------------------------------------------------------------------------------------------------


def occlusion(what: Explained, faces: NDArray[np.float32], emotions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return how much log probability each region is worth (Zeiler & Fergus 2014): (N, K, S, S).

    A patch of the face's mean grey, or mean colour, covers one region after the other. The value of a region is the
    log probability that the emotion loses. It needs nothing but probabilities. Values between the patches' middles are
    interpolated.
    """
    count, side = len(faces), faces.shape[-1]
    corners, patches = covered(side)  # (P, 1, S, S)
    means = faces.mean((2, 3), keepdims=True)  # (N, C, 1, 1)
    covers = len(patches)
    parts = []
    for start in range(0, count * covers, VIEWS_AT_ONCE):
        index = np.arange(start, min(start + VIEWS_AT_ONCE, count * covers))
        face, patch = index // covers, index % covers
        views = np.where(patches[patch], means[face], faces[face])
        parts.append(np.take_along_axis(_log(what.probabilities(views)), emotions[face], 1))
    left = np.moveaxis(np.concatenate(parts).reshape(count, covers, -1), 1, 2)  # (N, K, P)
    before = np.take_along_axis(_log(what.probabilities(faces)), emotions, 1)
    lost = (before[..., None] - left).reshape(count, -1, len(corners), len(corners))
    return between(lost, corners, side)


def covered(side: int) -> tuple[list[int], NDArray[np.bool_]]:
    """Return the corners of the patches along a side, and which pixels each patch covers, (P, 1, S, S)."""
    size = round(side * PATCH)
    steps = min(POSITIONS, side - size + 1)
    corners = np.linspace(0, side - size, steps).round().astype(int).tolist()
    covers = np.zeros((steps, steps, side, side), bool)
    for row, top in enumerate(corners):
        for column, left in enumerate(corners):
            covers[row, column, top : top + size, left : left + size] = True
    return corners, covers.reshape(-1, 1, side, side)


def between(values: NDArray[np.float32], corners: Sequence[int], side: int) -> NDArray[np.float32]:
    """Return maps (N, K, S, S) of values (N, K, P, P) at the middles of patches, bilinear between and constant beyond.

    Args:
        values: of each patch.
        corners: of the patches along a side.
        side: of the maps, in pixels.
    """
    middles = [corner + (round(side * PATCH) - 1) / 2 for corner in corners]
    columns = [np.interp(np.arange(side), middles, alone) for alone in np.eye(len(corners))]
    weights = np.stack(columns, 1).astype(np.float32)  # (S, P) of each patch at each pixel
    maps: NDArray[np.float32] = np.matmul(np.matmul(weights, values), weights.T)
    return maps


def _log(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    logs: NDArray[np.float32] = np.log(probabilities.clip(min=LEAST_PROBABILITY))
    return logs
