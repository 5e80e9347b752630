"""EfficientNet for small images, in less than half a million parameters.

Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks". The network is torchvision's,
cut down from B0: four stages instead of seven, and a first 3x3 convolution with stride 1. Input (B, 1, 48, 48), at
least 8 pixels. With the defaults at 48 pixels: 418,041 parameters, 38.2 million multiply-adds.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from fer.config.errors import FerError
from fer.config.schema import PartialFraction, Positive
from fer.models import blocks
from fer.models.base import EmotionClassifier
from fer.models.factory import register
from fer.models.layers import refuse_empty

if TYPE_CHECKING:
    from torchvision.models import EfficientNet as Torchvision

LARGE = 2  # the stage with depthwise convolutions of 5x5; the other stages have 3x3


@register("efficientnet")
class EfficientNet(EmotionClassifier):
    """Stages of inverted bottlenecks: wide depthwise convolutions with gates inside, narrow layers between.

    Args:
        channels: channels of each stage, multiples of 8; each stage but the first halves the side.
        depths: bottlenecks of each stage.
        expand: expansion ratio of the bottlenecks; the first stage has 1.
        last: channels of the 1x1 convolution before pooling.
        stride: of the first convolution.
        dropout: rate before the linear layer.
        drop_path: stochastic depth; the blocks' rates rise to this one (Huang et al. 2016).
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: the faces are too small, depths and channels differ in number, or channels are no multiples of 8.
    """

    net: "Torchvision"

    def __init__(
        self,
        channels: Sequence[Positive] = (24, 32, 56, 104),
        depths: Sequence[Positive] = (1, 2, 3, 3),
        expand: Positive = 4,
        last: Positive = 256,
        stride: Literal[1, 2] = 1,
        dropout: PartialFraction = 0.2,
        drop_path: PartialFraction = 0.0,
        **contract: Any,
    ) -> None:
        from torchvision.models import EfficientNet as Torchvision  # their import takes a second
        from torchvision.models.efficientnet import MBConvConfig

        super().__init__(**contract)
        if len(depths) != len(channels):
            raise FerError(f"model.depths={list(depths)}: expected {len(channels)}, one for each of model.channels")
        refuse_empty(channels=channels)
        if any(width % 8 for width in channels):  # torchvision would round them
            raise FerError(f"model.channels={list(channels)}: expected multiples of 8")
        self.side_after(len(channels) - 2 + stride)
        stages = [
            MBConvConfig(expand if stage else 1, 5 if stage == LARGE else 3, 2 if stage else 1, *widths, depth)
            for stage, (widths, depth) in enumerate(zip(pairwise([channels[0], *channels]), depths, strict=True))
        ]
        self.net = Torchvision(stages, dropout, drop_path, self.num_classes, last_channel=last)
        first = nn.Conv2d(self.in_channels, channels[0], 3, stride, 1, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out")
        self.net.set_submodule("features.0.0", first)

    @property
    def chains(self) -> Sequence[nn.Sequential]:
        """The parts of ``features``, each a chain of blocks, and the dense layer."""
        return blocks.in_parts(self.net)

    @property
    def map_layers(self) -> Sequence[nn.Module]:
        """The first convolution, the stages, the last convolution."""
        return list(self.net.features)
