"""VGG for FER2013: the network of Khaireddin & Chen 2021.

It has 73.28 % on PublicTest, selected on PrivateTest. Source: "Facial Emotion Recognition: State of the Art Performance
on FER2013", arXiv 2105.03588. Layers, dropout and initial weights are those of the authors' code,
github.com/usef-kh/fer. Input (B, 1, 40, 40) in the source, crops of 48; at least 16 pixels here. With the defaults at
48 pixels: 40,374,599 parameters, 504.1 million multiply-adds. At 40 pixels 29,888,839 parameters: the authors'
29,890,759 without the biases that batch normalisation cancels.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from fer.config.schema import PartialFraction, Positive
from fer.models.base import EmotionClassifier
from fer.models.factory import register
from fer.models.layers import Dropout, vgg_block


@register("vgg_fer")
class VGGFER(EmotionClassifier):
    """Blocks of two 3x3 convolutions and max-pooling, then dense layers.

    Args:
        channels: of each block; each block halves the side.
        hidden: width of each dense layer before the last.
        dropout: rate after each of these dense layers.
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: the faces are too small.
    """

    def __init__(
        self,
        channels: Sequence[Positive] = (64, 128, 256, 512),
        hidden: Sequence[Positive] = (4096, 4096),
        dropout: PartialFraction = 0.2,
        **contract: Any,
    ) -> None:
        super().__init__(**contract)
        side = self.side_after(len(channels))
        planes = [self.in_channels, *channels]
        layers = [layer for inputs, outputs in pairwise(planes) for layer in vgg_block(inputs, outputs, 2)]
        widths = [planes[-1] * side**2, *hidden]
        head: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            head += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True), Dropout(dropout)]
        self.net = nn.Sequential(*layers, nn.Flatten(), *head, nn.Linear(widths[-1], self.num_classes))
