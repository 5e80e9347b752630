"""Batch normalisation over the whole batch of all ranks, on a CPU as well as on a GPU.

``torch.nn.SyncBatchNorm`` refuses a CPU. Here two sums and a count are added up over the ranks, and gradients flow back
through them. Names and values in a checkpoint are those of ordinary batch normalisation.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fer.config.settings import TrainerSettings
from fer.system import ranks

log = logging.getLogger(__name__)


class _Total(torch.autograd.Function):
    """The sum of the ranks' tensors; the gradient of each is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        ranks.add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        ranks.add_up(total)
        return total


def _total(value: Tensor) -> Tensor:
    total: Tensor = _Total.apply(value)
    return total


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation (Ioffe & Szegedy 2015) whose mean and variance are those of all ranks' inputs together."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the normalised inputs (B, C, ...), of any number of dimensions."""
        if not self.training or not ranks.current().several:
            return super().forward(inputs)
        dimensions = [dimension for dimension in range(inputs.ndim) if dimension != 1]
        values = inputs.float()
        count = values.new_full((1,), inputs.numel() / inputs.shape[1])
        sums = torch.cat([values.sum(dimensions), count])
        total = _total(sums)
        count = total[-1].detach()
        shape = [1, -1, *([1] * (inputs.ndim - 2))]
        mean = (total[:-1] / count).view(shape)
        centred = values - mean
        # the sum of squared differences, in a second round: a difference of large sums would lose digits
        variance = _total(centred.square().sum(dimensions)) / count
        self._follow(mean.detach().flatten(), variance.detach(), count)
        normal = centred * (variance.view(shape) + self.eps).rsqrt()
        if self.weight is not None:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(inputs.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions: the layer replaces one that was built for its inputs."""


def share_statistics(settings: TrainerSettings, model: nn.Module) -> None:
    """Let batch normalisation use the batches of all ranks, or log that it does not."""
    layers = sum(isinstance(layer, _BatchNorm) for layer in model.modules())
    if settings.sync_batchnorm:
        share(model)
    elif layers:
        log.info("trainer.sync_batchnorm=false: %d layers normalise each process's part of a batch apart", layers)


def share(model: nn.Module) -> int:
    """Make the batch normalisation of a network that of all ranks, in place; return the number of layers."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    for layer in layers:
        layer.__class__ = SharedBatchNorm  # keeps parameters, buffers, hooks and the names in a checkpoint
    return len(layers)


def average(model: nn.Module) -> None:
    """Replace the running statistics by their means over the ranks, which saw different faces."""
    for layer in model.modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None and layer.running_var is not None:
            for statistics in (layer.running_mean, layer.running_var):
                ranks.add_up(statistics)
                statistics /= ranks.current().count
