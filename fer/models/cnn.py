"""The founding study's CNN: convolutions, max-pooling and dropout, with batch normalisation added.

Input (B, 1, 48, 48).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from fer.config.errors import FerError
from fer.config.schema import PartialFraction, Positive
from fer.models.base import EmotionClassifier
from fer.models.factory import register
from fer.models.layers import Dropout


@register("cnn")
class CNN(EmotionClassifier):
    """Blocks of 3x3 convolutions, each ended by max-pooling and dropout, then two dense layers.

    Args:
        channels: of each block; each block halves the side.
        depth: convolutions a block.
        hidden: width of the dense layer.
        dropout: rate after each block.
        head_dropout: rate before each dense layer.
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: there is no block, or there are more blocks than halvings of the image.
    """

    def __init__(
        self,
        channels: Sequence[Positive] = (32, 64, 128, 256),
        depth: Positive = 1,
        hidden: Positive = 256,
        dropout: PartialFraction = 0.05,
        head_dropout: PartialFraction = 0.3,
        **contract: Any,
    ) -> None:
        super().__init__(**contract)
        side = self.input_size >> len(channels)
        if not channels:
            raise FerError("model.channels=[]: expected at least one block, such as [32, 64]")
        if side < 1:
            raise FerError(
                f"model.channels={list(channels)}: {self.input_size} pixels cannot be halved {len(channels)} times"
            )
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([self.in_channels, *channels]):
            layers += [*block(inputs, outputs, depth), Dropout(dropout)]
        flat = channels[-1] * side**2
        head = [nn.Linear(flat, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), Dropout(head_dropout)]
        self.net = nn.Sequential(
            *layers, nn.Flatten(), Dropout(head_dropout), *head, nn.Linear(hidden, self.num_classes)
        )


def block(inputs: int, outputs: int, depth: int) -> list[nn.Module]:
    """Return ``depth`` 3x3 convolutions, each with batch normalisation and ReLU, and max-pooling to half the side.

    Pooling comes before the last normalisation, which then has a quarter of the values.
    """
    layers: list[nn.Module] = []
    for index in range(depth):
        layers.append(nn.Conv2d(outputs if index else inputs, outputs, 3, padding=1, bias=False))
        if index == depth - 1:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return layers
