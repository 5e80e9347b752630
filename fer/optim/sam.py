"""Sharpness-aware minimisation (Foret et al. 2021).

The gradient is taken at a nearby point with a higher loss. The method wraps any optimizer and is none itself. Each step
takes two passes. Loss and metrics come from the first pass, which alone updates the running statistics of batch
normalisation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def sharpness_aware(model: Any, closure: Callable[[], Any], distance: float) -> Callable[[], Any]:
    """Return a closure that computes the gradients at a point ``distance`` up along the gradients of ``closure``.

    Args:
        model: the network; its attribute ``climbing`` is set during the second pass.
        closure: computes the loss at the current weights, and its gradients.
        distance: length of the step up, in the space of all weights (rho).
    """

    def two_passes() -> Any:
        loss = closure()
        with raised(model, distance), frozen_statistics(model):
            model.climbing = True
            try:
                closure()
            finally:
                model.climbing = False
        return loss

    return two_passes


@contextmanager
@torch.no_grad()
def raised(model: nn.Module, distance: float) -> Iterator[None]:
    """Move the weights by ``distance`` along their gradients within the block, and back at its end."""
    moved: list[Tensor] = [parameter for parameter in model.parameters() if parameter.grad is not None]
    gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
    before = [parameter.clone() for parameter in moved]
    length = torch.stack(torch._foreach_norm(gradients)).norm()
    for parameter, gradient in zip(moved, gradients, strict=True):
        parameter.addcmul_(gradient, distance / (length + 1e-12))
    try:
        with torch.enable_grad():
            yield
    finally:
        torch._foreach_copy_(moved, before)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch normalisation unchanged within the block."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    counts = [None if layer.num_batches_tracked is None else layer.num_batches_tracked.clone() for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum, count in zip(layers, momenta, counts, strict=True):
            layer.momentum = momentum
            if count is not None and layer.num_batches_tracked is not None:
                layer.num_batches_tracked.copy_(count)
