"""ResNet-9: the small residual network that led DAWNBench's CIFAR-10 table.

Page 2018, "How to train your ResNet", part 4; layers and initial weights are those of the author's code,
github.com/davidcpage/cifar10-fast. Input (B, 3, 32, 32) in the source, at least 8 here. With the defaults at 48 pixels:
6,570,432 parameters, 850.7 million multiply-adds; with a width of 16 about a sixteenth of both. Sides that are no
multiple of 8 (16 with a stride of 2) are halved with rounding up, so that no pixel is lost.
"""

from typing import Any, Literal

from torch import Tensor, nn

from fer.config.schema import AboveZero, Positive
from fer.models.base import EmotionClassifier
from fer.models.factory import register
from fer.models.layers import Residual, conv_norm


@register("resnet9")
class ResNet9(EmotionClassifier):
    """Eight 3x3 convolutions, four of them in two residual blocks, and a linear layer.

    Args:
        width: channels of the first convolution; they double three times, each time the side is halved.
        scale: factor on the logits.
        stride: stride of the first convolution; with 2 its kernel is 4x4, and the network needs a quarter of the
            multiply-adds. Not in Page's network.
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: the faces are too small.
    """

    def __init__(
        self, width: Positive = 64, scale: AboveZero = 0.125, stride: Literal[1, 2] = 1, **contract: Any
    ) -> None:
        super().__init__(**contract)
        self.side_after(2 + stride)
        self.net = nn.Sequential(
            *conv_norm(self.in_channels, width, size=2 + stride, stride=stride), nn.ReLU(inplace=True),
            *halved(width, 2 * width), residual(2 * width),
            *halved(2 * width, 4 * width),
            *halved(4 * width, 8 * width), residual(8 * width),
            GlobalMax(), nn.Linear(8 * width, self.num_classes, bias=False), Scale(scale),
        )  # fmt: skip


def halved(inputs: int, outputs: int) -> list[nn.Module]:
    """Return a 3x3 convolution, batch normalisation, max-pooling to half the side, and ReLU.

    Half of an odd side is rounded up: rounded down, the last row and column would be lost, at 5 pixels a fifth of each.
    """
    return [*conv_norm(inputs, outputs), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU(inplace=True)]


def residual(channels: int) -> nn.Module:
    """Return a residual block of two 3x3 convolutions, each followed by ReLU."""
    layers = [layer for _ in range(2) for layer in (*conv_norm(channels, channels), nn.ReLU(inplace=True))]
    return Residual(nn.Sequential(*layers))


class GlobalMax(nn.Module):
    """The maximum of each channel. Unlike adaptive pooling's, its gradient is deterministic on a GPU."""

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C) of (B, C, S, S)."""
        return images.amax((2, 3))


class Scale(nn.Module):
    """A constant factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the product."""
        return inputs * self.factor
