"""The founding study's simple neural network: flatten, dense layers, softmax (in the loss).

Input (B, 1, 48, 48). With the defaults: 1.3 million parameters, as many multiply-adds. ``conf/model/mlp.yaml`` sets an
augmentation of flips alone, since the network cannot learn invariance to shifts. On val, one seed, 12 epochs: 46.6 %
without augmentation, 42.2 % with flips, turns, zooms and shifts.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from fer.config.schema import PartialFraction, Positive
from fer.models.base import EmotionClassifier
from fer.models.factory import register
from fer.models.layers import Dropout


@register("mlp")
class MLP(EmotionClassifier):
    """Dense layers on raw pixels.

    Args:
        hidden: width of each hidden layer.
        dropout: rate after each hidden layer.
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.
    """

    def __init__(
        self, hidden: Sequence[Positive] = (512, 256), dropout: PartialFraction = 0.2, **contract: Any
    ) -> None:
        super().__init__(**contract)
        widths = [self.in_channels * self.input_size**2, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(), Dropout(dropout)]
        self.net = nn.Sequential(*layers, nn.Linear(widths[-1], self.num_classes))
