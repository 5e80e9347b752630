"""ConvNeXt for small images: patches of 2x2 pixels where ImageNet's are 4x4.

Liu et al. 2022, "A ConvNet for the 2020s"; the network is torchvision's, in the width and depth of Wightman's "atto"
(github.com/huggingface/pytorch-image-models), so that a stage of 3x3 pixels remains of 24x24. Input (B, 1, 48, 48), at
least 16 pixels. With the defaults at 48 pixels: 3,375,007 parameters, 99.5 million multiply-adds.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torchvision.models import ConvNeXt as Torchvision
from torchvision.models.convnext import CNBlockConfig

from fer.config.errors import FerError
from fer.config.schema import PartialFraction, Positive
from fer.models.base import EmotionClassifier
from fer.models.factory import register


@register("convnext")
class ConvNeXt(EmotionClassifier):
    """Stages of 7x7 depthwise convolutions and dense layers over channels, normalised by layers, not by batches.

    Args:
        channels: of each stage; each halves the side.
        depths: blocks of each stage.
        drop_path: stochastic depth, the rate at which the last block's branch is left out (Huang et al. 2016).
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: the faces are too small, there are not as many depths as channels, or fewer than two blocks.
    """

    def __init__(
        self,
        channels: Sequence[Positive] = (40, 80, 160, 320),
        depths: Sequence[Positive] = (2, 2, 6, 2),
        drop_path: PartialFraction = 0.1,
        **contract: Any,
    ) -> None:
        super().__init__(**contract)
        if len(depths) != len(channels):
            raise FerError(f"model.depths={list(depths)}: expected {len(channels)}, one for each of model.channels")
        if sum(depths) < 2:
            raise FerError(f"model.depths={list(depths)}: expected two blocks or more in all")
        self.side_after(len(channels))
        following = [*channels[1:], None]
        stages = [CNBlockConfig(*stage) for stage in zip(channels, following, depths, strict=True)]
        self.net = Torchvision(stages, stochastic_depth_prob=drop_path, num_classes=self.num_classes)
        patches = nn.Conv2d(1, channels[0], 2, 2)
        nn.init.trunc_normal_(patches.weight, std=0.02)
        nn.init.zeros_(patches.bias)  # type: ignore[arg-type]
        self.net.set_submodule("features.0.0", patches)
