"""Layers that several networks share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fer.config.errors import FerError
from fer.data.noise import in_whole


class Residual(nn.Module):
    """The sum of a branch and a shortcut past it (He et al. 2016).

    Args:
        branch: layers that learn the difference.
        shortcut: layers that bring the input to the shape of the branch's output; by default the identity.
        drop_path: rate at which the branch is left out of an image's sum in training, see ``drop_rates``.
    """

    def __init__(self, branch: nn.Sequential, shortcut: nn.Module | None = None, drop_path: float = 0.0) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut or nn.Identity()
        self.drop = _stochastic_depth(drop_path) if drop_path else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sum."""
        total: Tensor = self.drop(self.branch(inputs)) + self.shortcut(inputs)
        return total


def _stochastic_depth(rate: float) -> nn.Module:
    from torchvision.ops import StochasticDepth  # its import takes a second

    layer: nn.Module = StochasticDepth(rate, "row")
    return layer


def drop_rates(last: float, blocks: int) -> list[float]:
    """Return each block's rate of stochastic depth: from 0 linearly to ``last`` (Huang et al. 2016)."""
    return [last * index / max(blocks - 1, 1) for index in range(blocks)]


class Dropout(nn.Dropout):
    """Dropout from random bytes on a CPU, which rounds its rate to 256ths.

    torch draws a random number for each value there, which takes a tenth of a small network's step. One random int64
    serves eight values here.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs; in training some values are zero and the others are scaled up by 1 / (1 - rate)."""
        dropped = round(256 * self.p)  # values out of 256
        if not self.training or not dropped or dropped == 256 or inputs.device.type != "cpu":
            return super().forward(inputs)
        if torch.compiler.is_compiling():
            return super().forward(inputs)
        return inputs * in_whole(inputs, lambda whole: _mask(whole, dropped))


def _mask(inputs: Tensor, dropped: int) -> Tensor:
    """Return a tensor like ``inputs`` that drops ``dropped`` of 256 values and scales the others up."""
    count = inputs.numel()
    drawn = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)[:count]
    mask = torch.empty_like(inputs)  # dense, for any order of dimensions
    mask.as_strided((count,), (1,)).copy_(drawn).ge_(dropped).mul_(256 / (256 - dropped))
    return mask


def conv_norm(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    """Return a convolution without bias and its batch normalisation, whose shift replaces the bias.

    Args:
        inputs: input channels.
        outputs: output channels.
        size: side of the kernel; with a stride of 1, zero padding keeps the side of the image.
        stride: divisor of the side, which odd kernels round up and even ones down; even kernels need an even stride.
    """
    border = (size - stride + 1) // 2
    return [nn.Conv2d(inputs, outputs, size, stride, border, bias=False), nn.BatchNorm2d(outputs)]


def vgg_block(inputs: int, outputs: int, depth: int) -> list[nn.Module]:
    """Return ``depth`` 3x3 convolutions, each with batch normalisation and ReLU, and max-pooling to half the side.

    Pooling comes before the last ReLU: the result is the same, and ReLU then has a quarter of the values.
    """
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [*conv_norm(outputs if index else inputs, outputs), nn.ReLU(inplace=True)]
    return [*layers[:-1], nn.MaxPool2d(2), layers[-1]]


def refuse_empty(**lists: Sequence[int]) -> None:
    """Raise if one of the lists of stages is empty.

    Raises:
        FerError: naming the argument by its key under ``model``.
    """
    for name, values in lists.items():
        if not values:
            raise FerError(f"model.{name}=[]: expected at least one stage")
