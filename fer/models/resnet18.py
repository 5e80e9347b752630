"""ResNet-18 for small images.

A first 3x3 convolution replaces ImageNet's 7x7 one with max-pooling. He, Zhang, Ren & Sun 2016, "Deep Residual Learning
for Image Recognition"; beyond the first layers it is torchvision's ``resnet18``, initial weights included. Input (B, 1,
48, 48), at least 8 pixels. With the defaults at 48 pixels: 11,171,271 parameters, 1,247.0 million multiply-adds; with a
width of 16 about a sixteenth of both.
"""

from typing import Any

from torch import nn

from fer.config.schema import PartialFraction, Positive
from fer.models.base import EmotionClassifier
from fer.models.factory import register
from fer.models.layers import Residual, conv_norm, drop_rates


@register("resnet18")
class ResNet18(EmotionClassifier):
    """Eight residual blocks of two 3x3 convolutions, global average pooling and a linear layer.

    Args:
        width: channels of the first stage; they double three times, each time the side is halved.
        zero_init: start each block as the identity (Goyal et al. 2017), unlike He et al.
        drop_path: stochastic depth; the blocks' rates rise to this one (Huang et al. 2016).
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: the faces are too small.
    """

    def __init__(
        self, width: Positive = 64, zero_init: bool = False, drop_path: PartialFraction = 0.0, **contract: Any
    ) -> None:
        super().__init__(**contract)
        self.side_after(3)
        layers: list[nn.Module] = [*conv_norm(self.in_channels, width), nn.ReLU(inplace=True)]
        inputs, rates = width, drop_rates(drop_path, 8)
        for index, rate in enumerate(rates):
            stage, later = divmod(index, 2)
            outputs = width << stage
            layers += block(inputs, outputs, stride=1 if later or not stage else 2, drop_path=rate)
            inputs = outputs
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, self.num_classes)]
        self.net = nn.Sequential(*layers, *head)
        initialise(self.net, zero_init)


def block(inputs: int, outputs: int, stride: int = 1, drop_path: float = 0.0) -> list[nn.Module]:
    """Return a residual block; its shortcut is a 1x1 convolution if width or side change."""
    branch = [*conv_norm(inputs, outputs, stride=stride), nn.ReLU(inplace=True), *conv_norm(outputs, outputs)]
    changes = stride > 1 or inputs != outputs
    shortcut = nn.Sequential(*conv_norm(inputs, outputs, 1, stride)) if changes else None
    return [Residual(nn.Sequential(*branch), shortcut, drop_path), nn.ReLU(inplace=True)]


def initialise(layers: nn.Module, zero_init: bool) -> None:
    """Draw the weights of convolutions: normal (He et al. 2015); with ``zero_init`` each branch returns 0."""
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, Residual) and zero_init:
            nn.init.zeros_(layer.branch[-1].weight)  # type: ignore[arg-type]
