"""A network with its weights as something that predicts: arrays in, arrays out."""

import numpy as np
import torch
from numpy.typing import NDArray

from fer.inference.exported import Images
from fer.metrics.conformal import Thresholds
from fer.models import EmotionClassifier


class LoadedNetwork:
    """Predicts with a network, by torch.

    Args:
        model: the network; it is moved to ``device``, and set to evaluation mode.
        device: to compute on.
    """

    def __init__(self, model: EmotionClassifier, device: str | torch.device = "cpu") -> None:
        self.model: EmotionClassifier = model.to(device).to(memory_format=torch.channels_last).eval()
        self.device = torch.device(device)

    @property
    def emotions(self) -> tuple[str, ...]:
        """The emotions, in the order of the probabilities."""
        return tuple(self.model.hparams["classes"])

    @property
    def image_size(self) -> int:
        """Side of the faces, in pixels."""
        return self.model.image_size

    @property
    def in_channels(self) -> int:
        """1 for grey faces, 3 for faces in colour."""
        return self.model.in_channels

    @property
    def architecture(self) -> str:
        """Name of the network."""
        return self.model.architecture

    @property
    def temperature(self) -> float | None:
        """Divisor of the logits."""
        return self.model.provenance.temperature

    @property
    def sets(self) -> Thresholds | None:
        """Thresholds of the prediction sets."""
        return self.model.provenance.sets

    @property
    def trained_on(self) -> str | None:
        """Name of the data set."""
        return self.model.provenance.dataset.get("name")

    def probabilities(self, faces: Images) -> NDArray[np.float32]:
        """Return calibrated probabilities (N, C) of faces (N, 1, S, S), uint8 or floats in [0, 1]."""
        predicted = self.model.probabilities(torch.from_numpy(faces).to(self.device))
        return predicted.float().cpu().numpy()
