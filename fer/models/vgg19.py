"""VGG-19 for small images: batch normalisation, and one linear layer in place of three.

Source: Simonyan & Zisserman 2015, "Very Deep Convolutional Networks", configuration E. With batch normalisation and
this head it is the network of github.com/WuJie1010/Facial-Expression-Recognition.Pytorch. That has 73.11 % on
PrivateTest, at the epoch with the best value there. Input (B, 3, 44, 44) in the source: crops of 48 pixels, grey
repeated as three channels. Here one grey channel of at least 32 pixels. With the defaults at 48 pixels: 20,032,327
parameters, 893.1 million multiply-adds.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from fer.config.errors import FerError
from fer.config.schema import PartialFraction, Positive
from fer.models.base import EmotionClassifier
from fer.models.factory import register
from fer.models.layers import Dropout, refuse_empty, vgg_block


@register("vgg19")
class VGG19(EmotionClassifier):
    """Blocks of 3x3 convolutions and max-pooling, dropout, and a linear layer.

    Args:
        channels: of each block; each block halves the side.
        depths: convolutions of each block.
        dropout: rate before the linear layer.
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: the faces are too small, or there are not as many depths as channels.
    """

    def __init__(
        self,
        channels: Sequence[Positive] = (64, 128, 256, 512, 512),
        depths: Sequence[Positive] = (2, 2, 4, 4, 4),
        dropout: PartialFraction = 0.5,
        **contract: Any,
    ) -> None:
        super().__init__(**contract)
        if len(depths) != len(channels):
            raise FerError(f"model.depths={list(depths)}: expected {len(channels)}, one for each of model.channels")
        refuse_empty(channels=channels)
        side = self.side_after(len(channels))
        planes = pairwise([self.in_channels, *channels])
        blocks = [vgg_block(inputs, outputs, depth) for (inputs, outputs), depth in zip(planes, depths, strict=True)]
        layers = [layer for block in blocks for layer in block]
        head = nn.Linear(channels[-1] * side**2, self.num_classes)
        self.net = nn.Sequential(*layers, nn.Flatten(), Dropout(dropout), head)
