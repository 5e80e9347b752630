"""Pre-activation ResNet with squeeze and excitation, for small images.

Source: He et al. 2016, "Identity Mappings in Deep Residual Networks". Each branch ends in a gate, torchvision's squeeze
and excitation (Hu et al. 2018, "Squeeze-and-Excitation Networks"). Input (B, 1, 48, 48), at least 8 pixels. With the
defaults at 48 pixels: 11,258,559 parameters, 1,247.1 million multiply-adds; with a width of 32 a quarter of both.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from fer.config.schema import PartialFraction, Positive
from fer.models.base import EmotionClassifier
from fer.models.factory import register
from fer.models.layers import Residual, drop_rates, refuse_empty
from fer.models.resnet18 import initialise


@register("preact_resnet")
class PreActResNet(EmotionClassifier):
    """A 3x3 convolution, residual blocks that normalise first, global average pooling and a linear layer.

    Args:
        width: channels of the first stage; they double with each further one, as the side is halved.
        depths: residual blocks of each stage; (2, 2, 2, 2) is the ResNet-18.
        stride: stride of the first convolution; with 2 its kernel is 4x4, as in ``resnet9``.
        squeeze: factor by which the gates narrow the channels; null removes the gates.
        dropout: rate before the linear layer.
        drop_path: stochastic depth; the blocks' rates rise to this one (Huang et al. 2016).
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: the faces are too small.
    """

    def __init__(
        self,
        width: Positive = 64,
        depths: Sequence[Positive] = (2, 2, 2, 2),
        stride: Literal[1, 2] = 1,
        squeeze: Positive | None = 16,
        dropout: PartialFraction = 0.0,
        drop_path: PartialFraction = 0.0,
        **contract: Any,
    ) -> None:
        super().__init__(**contract)
        refuse_empty(depths=depths)
        self.side_after(len(depths) - 2 + stride)
        layers: list[nn.Module] = [nn.Conv2d(self.in_channels, width, 2 + stride, stride, 1, bias=False)]
        inputs, rates = width, iter(drop_rates(drop_path, sum(depths)))
        for stage, depth in enumerate(depths):
            outputs = width << stage
            for index in range(depth):
                layers.append(block(inputs, outputs, 1 if index or not stage else 2, squeeze, next(rates)))
                inputs = outputs
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs, self.num_classes)]
        self.net = nn.Sequential(*layers, *rectified(inputs), *head)
        initialise(self.net, zero_init=False)


def block(inputs: int, outputs: int, stride: int, squeeze: int | None, drop_path: float) -> nn.Module:
    """Return a residual block; if width or side change, its shortcut is a 1x1 convolution after the first ReLU."""
    branch = [
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        *rectified(outputs),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
    ]
    if squeeze:
        from torchvision.ops import SqueezeExcitation  # its import takes a second

        branch.append(SqueezeExcitation(outputs, max(outputs // squeeze, 1)))
    if stride == 1 and inputs == outputs:
        return Residual(nn.Sequential(*rectified(inputs), *branch), drop_path=drop_path)
    shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(*rectified(inputs), Residual(nn.Sequential(*branch), shortcut, drop_path))


def rectified(channels: int) -> list[nn.Module]:
    """Return batch normalisation and ReLU."""
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
