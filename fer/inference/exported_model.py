"""An exported file in the role of a network with weights.

It serves evaluations and maps, whose metrics need torch. The graph gives calibrated probabilities. Their logarithms
times the temperature are logits whose softmax is what the network predicts without its temperature, up to rounding;
evaluations compute with that.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fer.data.crop import Crop
from fer.inference.exported import ExportedNetwork, is_exported
from fer.models import EmotionClassifier, checkpoints
from fer.models.provenance import Provenance


class ExportedModel(EmotionClassifier):
    """A network that is known by its graph alone; it has neither weights nor gradients.

    Args:
        classes: names, in the order of the probabilities.
        image_size: side of the faces, in pixels.
        in_channels: 1 for grey faces, 3 for faces in colour.
    """

    network: ExportedNetwork
    file: Tensor

    def __init__(self, *, classes: Sequence[str], image_size: int, in_channels: int = 1) -> None:
        super().__init__(classes=classes, image_size=image_size, in_channels=in_channels)
        self.net = nn.Identity()

    @classmethod
    def of(cls, network: ExportedNetwork) -> "ExportedModel":
        """Return a model that asks an exported network."""
        model = cls(
            classes=list(network.emotions), image_size=network.image_size, in_channels=network.in_channels
        )  # fmt: skip
        model.network, model.architecture = network, network.architecture
        # a hash of the weights is a hash of the file
        model.register_buffer("file", torch.frombuffer(bytearray.fromhex(network.sha256), dtype=torch.uint8))
        first, *others = network.about.networks
        every = [*first.ancestors, *(part for one in others for part in (one.dataset, *one.ancestors))]
        model.provenance = Provenance(
            dataset=first.dataset, ancestors=[part for part in every if part != first.dataset],
            pretrained=first.pretrained, teachers=first.teachers, temperature=network.about.temperature,
            sets=network.about.sets,
        )  # fmt: skip
        return model.eval()

    @property
    def face_crop(self) -> Crop:
        """How faces are cut out of pictures, for boxes like those of ``haar``."""
        return self.network.face_crop

    @property
    def parameter_count(self) -> int:
        """Number of parameters of the network that was exported."""
        return self.network.about.parameters

    def logits_of_crops(self, images: Tensor) -> Tensor:
        """Return logits (B, C) of faces (B, 1 or 3, S, S), uint8 or float in [0, 1]."""
        chances = torch.from_numpy(self.network.probabilities(images.cpu().numpy())).to(images.device)
        tiny = torch.finfo(chances.dtype).tiny
        return chances.clamp(min=tiny).log() * self.network.about.temperature


def load(path: str | Path) -> EmotionClassifier:
    """Return the network of an exported file, or of whatever else ``fer.load`` takes.

    Raises:
        FerError: it cannot be had.
    """
    return ExportedModel.of(ExportedNetwork(path)) if is_exported(path) else checkpoints.load(path)
