"""mini-Xception, the best-known small network for FER2013.

It has residual depthwise-separable convolutions. Sources: Arriaga, Valdenegro-Toro & Plöger 2017, "Real-time
Convolutional Neural Networks for Emotion and Gender Classification", after Chollet 2017, "Xception". Layers, padding
and initial weights are those of the authors' Keras code, github.com/oarriaga/face_classification. Input (B, 1, 64, 64)
in the source, at least 20 pixels here. With the defaults at 48 pixels: 56,951 parameters, 5.5 million multiply-adds.
Keras counts 58,423 parameters, which include the 1,472 running statistics of batch normalisation.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from fer.config.schema import Positive
from fer.models.base import EmotionClassifier
from fer.models.factory import register
from fer.models.layers import Residual

BORDER = 4  # pixels that the two convolutions without padding take off the side
EPSILON = 1e-3  # of Keras's batch normalisation


@register("mini_xception")
class MiniXception(EmotionClassifier):
    """Two 3x3 convolutions, then residual blocks of depthwise-separable ones; no dense layer.

    Args:
        stem: channels of the first two convolutions.
        channels: of each block; each block halves the side, rounded up.
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: the faces are too small.
    """

    def __init__(self, stem: Positive = 8, channels: Sequence[Positive] = (16, 32, 64, 128), **contract: Any) -> None:
        super().__init__(**contract)
        self.side_after(len(channels), BORDER)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([self.in_channels, stem, stem]):
            layers += [nn.Conv2d(inputs, outputs, 3, bias=False), norm(outputs), nn.ReLU(inplace=True)]
        widths = [stem, *channels]
        layers += [block(inputs, outputs) for inputs, outputs in pairwise(widths)]
        scores = nn.Conv2d(widths[-1], self.num_classes, 3, padding=1)
        self.net = nn.Sequential(*layers, scores, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        initialise(self.net)


class Halving(nn.Module):
    """Max-pooling of 3x3 pixels to half the side, rounded up, padded as TensorFlow does.

    An even side lacks one pixel, which TensorFlow adds at the end alone.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C, S / 2, S / 2) of (B, C, S, S)."""
        return functional.max_pool2d(images, 3, 2, padding=images.shape[-1] % 2, ceil_mode=True)


def block(inputs: int, outputs: int) -> nn.Module:
    """Return a residual block: two separable convolutions and pooling, with a strided 1x1 convolution as shortcut."""
    branch = [*separable(inputs, outputs), nn.ReLU(inplace=True), *separable(outputs, outputs), Halving()]
    shortcut = [nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), norm(outputs)]
    return Residual(nn.Sequential(*branch), nn.Sequential(*shortcut))


def separable(inputs: int, outputs: int) -> list[nn.Module]:
    """Return a depthwise 3x3 convolution, a 1x1 convolution and batch normalisation."""
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return [depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs)]


def norm(channels: int) -> nn.BatchNorm2d:
    """Return batch normalisation with Keras's epsilon and torch's momentum.

    Keras keeps 99 % of the running statistics at each step, torch 90 %. After 210 steps on drawn faces, the same
    weights had a val accuracy of 14 % with Keras's momentum, which is chance. With torch's they had 49 %.
    """
    return nn.BatchNorm2d(channels, eps=EPSILON)


def initialise(layers: nn.Module) -> None:
    """Draw the weights of convolutions as Keras does: uniform (Glorot & Bengio 2010), biases 0."""
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
