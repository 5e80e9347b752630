"""ConvNeXt for small images: patches of 2x2 pixels in place of ImageNet's 4x4.

Liu et al. 2022, "A ConvNet for the 2020s"; the network is torchvision's, in the width and depth of Wightman's "atto"
(github.com/huggingface/pytorch-image-models). The patches keep 24x24 pixels, and the last stage has 3x3. Input (B, 1,
48, 48), at least 16 pixels. With the defaults at 48 pixels: 3,375,007 parameters, 99.5 million multiply-adds.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from fer.config.errors import FerError
from fer.config.schema import PartialFraction, Positive
from fer.models import blocks
from fer.models.base import EmotionClassifier
from fer.models.factory import register

if TYPE_CHECKING:
    from torchvision.models import ConvNeXt as Torchvision


@register("convnext")
class ConvNeXt(EmotionClassifier):
    """Stages of 7x7 depthwise convolutions and dense layers over channels, with layer normalisation.

    Args:
        channels: channels of each stage; each stage halves the side.
        depths: blocks of each stage.
        drop_path: stochastic depth; the blocks' rates rise to this one (Huang et al. 2016).
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.

    Raises:
        FerError: the faces are too small, depths and channels differ in number, or there are fewer than two blocks.
    """

    net: "Torchvision"

    def __init__(
        self,
        channels: Sequence[Positive] = (40, 80, 160, 320),
        depths: Sequence[Positive] = (2, 2, 6, 2),
        drop_path: PartialFraction = 0.1,
        **contract: Any,
    ) -> None:
        from torchvision.models import ConvNeXt as Torchvision  # their import takes a second
        from torchvision.models.convnext import CNBlockConfig

        super().__init__(**contract)
        if len(depths) != len(channels):
            raise FerError(f"model.depths={list(depths)}: expected {len(channels)}, one for each of model.channels")
        if sum(depths) < 2:
            raise FerError(f"model.depths={list(depths)}: expected at least two blocks in all")
        self.side_after(len(channels))
        following = [*channels[1:], None]
        stages = [CNBlockConfig(*stage) for stage in zip(channels, following, depths, strict=True)]
        self.net = Torchvision(stages, stochastic_depth_prob=drop_path, num_classes=self.num_classes)
        patches = nn.Conv2d(self.in_channels, channels[0], 2, 2)
        nn.init.trunc_normal_(patches.weight, std=0.02)
        nn.init.zeros_(patches.bias)  # type: ignore[arg-type]
        self.net.set_submodule("features.0.0", patches)

    @property
    def chains(self) -> Sequence[nn.Sequential]:
        """The parts of ``features``, each a chain of blocks, and the dense layer."""
        return blocks.in_parts(self.net)

    @property
    def map_layers(self) -> Sequence[nn.Module]:
        """The patches, the stages, and the halvings between them."""
        return list(self.net.features)
