"""Networks whose last layers have random weights: a map that stays the same shows the face, not the network.

Adebayo et al. 2018, "Sanity Checks for Saliency Maps".
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from fer.inference.explain import Explained
from fer.inference.loaded import LoadedNetwork
from fer.models import EmotionClassifier

SHARES = (0.25, 0.5, 0.75, 1.0)  # of the layers that are randomised, after the last one alone
SEED = 0


class Randomisation(NamedTuple):
    """Networks with random layers.

    Args:
        layers: number of random layers of the first network, counted from the last.
        of: number of its layers with weights.
        networks: with random weights.
    """

    layers: int
    of: int
    networks: Explained


def cascade(models: Sequence[EmotionClassifier]) -> Iterator[Randomisation]:
    """Give networks with more and more random layers, from the last to the first."""
    of = len(weighted(models[0]))
    for count in sorted({1, *(math.ceil(share * of) for share in SHARES)}):
        again = [randomised(model, math.ceil(count / of * len(weighted(model)))) for model in models]
        yield Randomisation(count, of, Explained([LoadedNetwork(model, model.device) for model in again]))


def weighted(model: EmotionClassifier) -> list[nn.Module]:
    """Return the layers that have weights of their own, in their order."""
    return [layer for layer in model.net.modules() if any(True for _ in layer.parameters(recurse=False))]


def randomised(model: EmotionClassifier, count: int) -> EmotionClassifier:
    """Return a copy of a network whose last ``count`` layers have their weights in a random order.

    The weights keep their distribution, so that the signal neither dies nor explodes.
    """
    copied = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for layer in weighted(copied)[::-1][:count]:
            for weights in layer.parameters(recurse=False):
                order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
                weights.copy_(weights.flatten()[order].view(weights.shape))
    return copied.eval()
