"""Batch normalisation folded into the convolution before it, for networks that only predict."""

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fer.models.base import EmotionClassifier


def folded(network: EmotionClassifier) -> EmotionClassifier:
    """Fold batch normalisation into convolutions, in place; the predictions stay the same up to rounding.

    A normalisation that follows a convolution in a ``Sequential`` is a constant factor and shift of each channel. As
    part of the convolution's weights it takes no time, where it reads and writes all feature maps otherwise.

    Args:
        network: the network, which from then on cannot be trained.
    """
    network.eval()
    for layers in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for (name, first), (after, second) in list(pairwise(layers.named_children())):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(layers, name, fuse_conv_bn_eval(first, second))
                setattr(layers, after, nn.Identity())
    return network
