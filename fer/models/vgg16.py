"""VGG16 as in the founding study: frozen convolutions with ImageNet's weights, and a small head.

Simonyan & Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition"; layers, weights and
normalisation are torchvision's ``vgg16``. Input (B, 1, S, S), at least 32 pixels; grey becomes three channels. The
convolutions halve the side five times: 48 pixels become (512, 1, 1), so that VGG16's pooling to 7x7 is left out. With
the defaults at 48 pixels: 14,848,839 parameters, of which the head's 134,151 are trained; 704.8 million multiply-adds.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.optim.optimizer import ParamsT

from fer.config.errors import FerError
from fer.config.schema import AboveZero, PartialFraction, Positive
from fer.models.base import EmotionClassifier
from fer.models.factory import register
from fer.models.layers import Dropout
from fer.models.pretrained import check_tensors, fetched, hash_beginning, local, read_tensors, sha256_of
from fer.optim.muon import Group

if TYPE_CHECKING:
    from torchvision.models import VGG16_Weights

log = logging.getLogger(__name__)

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # channels; each halves the side
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1], red, green, blue
KEY = "model.weights"
PREFIX = "features."  # of the convolutions' names in a complete VGG16
LEAST_SIDE = 2 ** len(BLOCKS)


@register("vgg16")
class VGG16(EmotionClassifier):
    """VGG16's convolutions, pretrained on ImageNet, and a small head.

    Args:
        weights: weights of the convolutions: "imagenet" (torchvision's, downloaded once), a file, or None for random.
        unfreeze: which convolutions are trained: "none", "last_block" (the last three) or "all".
        trunk_lr_factor: factor on the learning rate of trained convolutions.
        hidden: width of the head's dense layer.
        dropout: rate after it.
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``; ImageNet's mean and std are used.

    Raises:
        FerError: the faces are too small.
    """

    net: nn.Sequential

    def __init__(
        self,
        weights: str | None = "imagenet",
        unfreeze: Literal["none", "last_block", "all"] = "none",
        trunk_lr_factor: AboveZero = 0.1,
        hidden: Positive = 256,
        dropout: PartialFraction = 0.5,
        **contract: Any,
    ) -> None:
        super().__init__(**contract)
        self.side_after(len(BLOCKS))
        self.mean, self.std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))  # grey spreads to three
        self.weights, self.trunk_lr_factor = weights, trunk_lr_factor
        parts = blocks()
        trunk = [layer for block in parts for layer in block]
        flat = BLOCKS[-1][-1] * (self.input_size // LEAST_SIDE) ** 2
        # normalisation comes first: features differ in scale, and after the dense layer it would make val unsteady
        head = [nn.BatchNorm1d(flat), nn.Linear(flat, hidden), nn.ReLU(), Dropout(dropout)]
        self.net = nn.Sequential(*trunk, nn.Flatten(), *head, nn.Linear(hidden, self.num_classes))
        self.trunk = len(trunk)
        initialise(self.net[: self.trunk])
        self.freeze_first({"none": self.trunk, "last_block": self.trunk - len(parts[-1]), "all": 0}[unfreeze])

    def load_pretrained(self) -> dict[str, str] | None:
        """Load the convolutions' weights.

        Without weights, frozen layers are drawn with a fixed seed, as if from a file, so that runs with different
        seeds share their cached features.

        Raises:
            FerError: the weights are not available, or are not VGG16's.
        """
        if self.weights is not None:
            imagenet = self.weights == "imagenet"
            file = fetched(published().url, f"{KEY}=imagenet") if imagenet else local(self.weights, KEY)
            return self._load(file, imagenet=imagenet)
        if self.frozen:
            log.warning("model.weights=null: the frozen layers are random; to train them, set model.unfreeze=all")
            initialise(self.net[: self.frozen], torch.Generator().manual_seed(0))
        return None

    def _load(self, file: Path, *, imagenet: bool) -> dict[str, str]:
        """Load the convolutions from torchvision's state dict, complete or of ``features`` alone; return its record."""
        digest = sha256_of(file)
        weights = published()
        genuine = digest.startswith(hash_beginning(weights.url))
        if imagenet and not genuine:
            raise FerError(f"{file}: its sha256 begins with {digest[:8]}, so that it is not {weights}; delete it")
        tensors = read_tensors(file)
        prefixed = any(name.startswith(PREFIX) for name in tensors)
        kernels = {name: value for name, value in tensors.items() if name.startswith(PREFIX) or not prefixed}
        trunk, prefix = self.net[: self.trunk], PREFIX if prefixed else ""
        check_tensors(kernels, {prefix + name: value for name, value in trunk.state_dict().items()}, str(file))
        trunk.load_state_dict({name.removeprefix(PREFIX): value for name, value in kernels.items()})
        return {"name": str(weights) if genuine else file.name, "file": str(file), "sha256": digest}

    def parameter_groups(self, lr: float) -> ParamsT:
        """Return the head, and the trained convolutions with a learning rate of their own."""
        trunk = [parameter for parameter in self.net[: self.trunk].parameters() if parameter.requires_grad]
        head: list[Group] = [{"params": list(self.net[self.trunk :].parameters())}]
        return [*head, {"params": trunk, "lr": lr * self.trunk_lr_factor}] if trunk else head


def published() -> "VGG16_Weights":
    """Return torchvision's record of the weights on ImageNet."""
    from torchvision.models import VGG16_Weights  # its import takes a second

    return VGG16_Weights.IMAGENET1K_V1


def blocks() -> list[list[nn.Module]]:
    """Return the layers of each block: 3x3 convolutions with ReLU, then max-pooling."""
    made, inputs = [], 3
    for channels in BLOCKS:
        layers: list[nn.Module] = []
        for outputs in channels:
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = outputs
        made.append([*layers, nn.MaxPool2d(2)])
    return made


def initialise(layers: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the weights of convolutions as torchvision's VGG does: normal (He et al. 2015), biases 0."""
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
