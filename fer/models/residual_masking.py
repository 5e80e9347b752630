"""Residual masking network: a ResNet-34 whose stages are multiplied by masks of small U-nets.

Pham, Vu & Tran 2020, "Facial Expression Recognition Using Residual Masking Network": 74.14 % on PrivateTest from
ImageNet's weights at 224 pixels. Stages and masks are those of the authors' code,
github.com/phamquiluan/ResidualMaskingNetwork, after a 3x3 convolution for small images, in half the width. Input
(B, 1, 48, 48), at least 8 pixels. With the defaults at 48 pixels: 34,467,943 parameters, 4,002.0 million multiply-adds.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fer.config.errors import FerError
from fer.config.schema import PartialFraction, Positive
from fer.models.base import EmotionClassifier
from fer.models.factory import register
from fer.models.layers import Dropout, conv_norm, refuse_empty
from fer.models.resnet18 import block, initialise


@register("residual_masking")
class ResidualMasking(EmotionClassifier):
    """Stages of residual blocks, each multiplied by 1 + its mask; dropout and a linear layer.

    Args:
        width: channels of the first stage, 64 in the source; they double with each further one, as the side is halved.
        depths: residual blocks of each stage.
        levels: levels of each stage's mask, each at half the side of the one before.
        dropout: rate before the linear layer.
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: the faces are too small, or levels and depths differ in number.
    """

    def __init__(
        self,
        width: Positive = 32,
        depths: Sequence[Positive] = (3, 4, 6, 3),
        levels: Sequence[Positive] = (4, 3, 2, 1),
        dropout: PartialFraction = 0.4,
        **contract: Any,
    ) -> None:
        super().__init__(**contract)
        if len(levels) != len(depths):
            raise FerError(f"model.levels={list(levels)}: expected {len(depths)}, one for each of model.depths")
        refuse_empty(depths=depths)
        halvings = max(stage + level - 1 for stage, level in enumerate(levels))
        self.side_after(halvings)
        layers: list[nn.Module] = [*conv_norm(self.in_channels, width), nn.ReLU(inplace=True)]
        inputs = width
        for stage, (depth, level) in enumerate(zip(depths, levels, strict=True)):
            outputs = width << stage
            blocks = [*block(inputs, outputs, 2 if stage else 1)]
            for _ in range(depth - 1):
                blocks += block(outputs, outputs)
            layers.append(Masked(nn.Sequential(*blocks), Mask(outputs, level)))
            inputs = outputs
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), Dropout(dropout), nn.Linear(inputs, self.num_classes)]
        self.net = nn.Sequential(*layers, *head)
        initialise(self.net, zero_init=False)
        for layer in self.net.modules():
            if isinstance(layer, Mask):
                initialise(layer, zero_init=True)

    @property
    def map_layers(self) -> Sequence[nn.Module]:
        """The stages, masks included."""
        return [layer for layer in self.net.children() if isinstance(layer, Masked)]


class Masked(nn.Module):
    """Layers whose output x becomes x * (1 + mask(x)).

    Args:
        layers: layers with output (B, C, S, S).
        mask: module whose output has the shape of its input.
    """

    def __init__(self, layers: nn.Module, mask: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.mask = mask

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C, S, S)."""
        values: Tensor = self.layers(images)
        weights: Tensor = 1 + self.mask(values)
        return values * weights


class Mask(nn.Module):
    """A U-net (Ronneberger et al. 2015) of residual blocks, whose channels sum to 1 at each pixel.

    Args:
        channels: channels C of input and output; each level is twice as wide as the one before.
        levels: number of levels, each but the first at half the side, rounded down.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        widths = [channels << level for level in range(levels + 1)]
        self.halve = nn.MaxPool2d(2)
        self.down = nn.ModuleList(nn.Sequential(*block(width, 2 * width)) for width in widths[:-1])
        self.doubling = nn.ModuleList(Doubling(2 * width, width) for width in reversed(widths[1:-1]))
        self.up = nn.ModuleList(nn.Sequential(*block(2 * width, width)) for width in reversed(widths[:-1]))

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C, S, S) of (B, C, S, S)."""
        skipped: list[Tensor] = []  # outputs of the levels, for the skip connections
        for level, residual in enumerate(self.down):
            images = residual(self.halve(images) if level else images)
            skipped.append(images)
        skipped.pop()
        for doubling, residual in zip(self.doubling, self.up, strict=False):  # the last of ``up`` follows below
            skip = skipped.pop()
            images = residual(torch.cat([doubling(images, skip), skip], 1))
        masks: Tensor = self.up[-1](images)
        return masks.movedim(1, -1).softmax(-1).movedim(-1, 1)  # keeps the memory format


class Doubling(nn.Module):
    """A transposed convolution to the side of another image, batch normalisation and ReLU.

    Args:
        inputs: input channels.
        outputs: output channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 2, 2)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, images: Tensor, skip: Tensor) -> Tensor:
        """Return (B, C, S, S) of images (B, 2C, S // 2, S // 2); ``skip`` (B, C, S, S) gives the side."""
        doubled: Tensor = self.norm(self.conv(images, output_size=skip.shape[2:]))
        return doubled.relu()
