"""Layers that several networks are made of."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from fer.config.errors import FerError


class Residual(nn.Module):
    """The sum of a branch and a shortcut past it (He et al. 2016).

    Args:
        branch: what learns the difference.
        shortcut: what makes the input as wide and large as the branch's output; the identity unless given.
        drop_path: how often the branch is left out of an image's sum in training, see ``drop_rates``.
    """

    def __init__(self, branch: nn.Sequential, shortcut: nn.Module | None = None, drop_path: float = 0.0) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut or nn.Identity()
        self.drop = StochasticDepth(drop_path, "row") if drop_path else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sum."""
        total: Tensor = self.drop(self.branch(inputs)) + self.shortcut(inputs)
        return total


def drop_rates(last: float, blocks: int) -> list[float]:
    """Return how often each block's branch is dropped: from 0 at the first linearly to ``last`` (Huang et al. 2016)."""
    return [last * place / max(blocks - 1, 1) for place in range(blocks)]


class Dropout(nn.Dropout):
    """Dropout whose rate is rounded to 256ths on a CPU, where its random bytes come eight at a time.

    A random number for each value, as torch draws them there, takes a tenth of a small network's step.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs, while training with some of them zero and the others the larger for it."""
        dropped = round(256 * self.p)  # of 256
        if not self.training or not dropped or dropped == 256 or inputs.device.type != "cpu":
            return super().forward(inputs)
        if torch.compiler.is_compiling():
            return super().forward(inputs)
        count = inputs.numel()
        drawn = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)[:count]
        mask = torch.empty_like(inputs)  # dense, whatever its order of dimensions
        mask.as_strided((count,), (1,)).copy_(drawn).ge_(dropped).mul_(256 / (256 - dropped))
        return inputs * mask


def conv_norm(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    """Return a convolution and its batch normalisation, whose shift stands for a bias.

    Args:
        inputs: channels.
        outputs: channels.
        size: of the kernel; zeros around the image keep its side.
        stride: by which the side is divided, rounded up by odd kernels, down by even ones, which need an even stride.
    """
    border = (size - stride + 1) // 2
    return [nn.Conv2d(inputs, outputs, size, stride, border, bias=False), nn.BatchNorm2d(outputs)]


def vgg_block(inputs: int, outputs: int, depth: int) -> list[nn.Module]:
    """Return ``depth`` 3x3 convolutions, normalised and rectified, and max-pooling to half the side.

    Pooling precedes the last ReLU, with which the maximum commutes.
    """
    layers: list[nn.Module] = []
    for place in range(depth):
        layers += [*conv_norm(outputs if place else inputs, outputs), nn.ReLU(inplace=True)]
    return [*layers[:-1], nn.MaxPool2d(2), layers[-1]]


def refuse_empty(**lists: Sequence[int]) -> None:
    """Raise where a network is told of no stages.

    Raises:
        FerError: naming the argument, by its name under ``model``.
    """
    for name, values in lists.items():
        if not values:
            raise FerError(f"model.{name}=[]: expected a stage or more")
