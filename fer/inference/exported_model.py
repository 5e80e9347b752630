"""An exported file in place of a network with weights, for evaluations.

No torch is imported here. The graph gives calibrated probabilities. Evaluations compute with those that the network
predicts without its temperature, which are the same up to rounding.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.inference.exported import ExportedNetwork, is_exported
from fer.inference.tta import VIEWS
from fer.metrics.calibration import tempered
from fer.runs.provenance import Provenance

if TYPE_CHECKING:
    from fer.models import EmotionClassifier


class ExportedModel:
    """What evaluations ask of a network, answered by an exported file, which has neither weights nor gradients.

    Args:
        network: the file, opened.
    """

    def __init__(self, network: ExportedNetwork) -> None:
        self.network = network
        first, *others = network.about.networks
        every = [*first.ancestors, *(part for one in others for part in (one.dataset, *one.ancestors))]
        self.provenance = Provenance(
            dataset=first.dataset, ancestors=[part for part in every if part != first.dataset],
            pretrained=first.pretrained, teachers=first.teachers,
            temperature=network.about.fitted_temperature, sets=network.about.sets,
        )  # fmt: skip

    @property
    def hparams(self) -> Mapping[str, Sequence[str]]:
        """The entry of a network's arguments that evaluations ask for: names, in the order of the probabilities."""
        return {"classes": self.network.emotions}

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.network.emotions)

    @property
    def image_size(self) -> int:
        """Side of the faces, in pixels."""
        return self.network.image_size

    @property
    def in_channels(self) -> int:
        """1 for grey faces, 3 for faces in colour."""
        return self.network.in_channels

    @property
    def architecture(self) -> str:
        """Name of the network."""
        return self.network.architecture

    @property
    def parameter_count(self) -> int:
        """Number of parameters of the network that was exported."""
        return self.network.about.parameters

    @property
    def weights_sha256(self) -> str:
        """The sha256 of the file, which stands for one of the weights."""
        return self.network.sha256

    def computed_on(self, device: str) -> None:
        """Raise unless the device is the CPU, which computes exported files.

        Raises:
            FerError: naming the file and the device.
        """
        if device != "cpu":
            raise FerError(
                f"{self.network.file}: an exported file is computed on the CPU; leave out the device {device}"
            )

    def uncalibrated(self, faces: NDArray[np.uint8], views: str = "none") -> NDArray[np.float32]:
        """Return probabilities (N, C) without the temperature, averaged over views.

        Args:
            faces: (N, 1, S, S), in colour (N, 3, S, S).
            views: of each face, a name of ``fer.inference.tta.VIEWS``.

        Raises:
            FerError: the graph cannot be computed.
            NotFinite: a probability is NaN.
        """
        units = faces.astype(np.float32) / np.float32(255)
        given = [self.network.probabilities(np.ascontiguousarray(view)) for view in VIEWS[views](units, None)]
        cooled = [tempered(chances, 1 / self.network.about.temperature).astype(np.float32) for chances in given]
        mean: NDArray[np.float32] = np.mean(cooled, axis=0)
        return mean


def load(file: Path) -> "EmotionClassifier | ExportedModel":
    """Return the network of a file: an exported one, or one with weights, which ``fer.load`` takes.

    Raises:
        FerError: it cannot be had.
    """
    if is_exported(file):
        return ExportedModel(ExportedNetwork(file))
    from fer.models import checkpoints

    return checkpoints.load(file)
