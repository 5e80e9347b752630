"""Sharpness-aware minimisation (Foret et al. 2021): steps by the gradients where the loss is highest nearby.

Each step costs two passes. The first pass counts: its loss and its scores are the network's, and it alone moves the
running statistics of batch normalisation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def climbing(model: Any, closure: Callable[[], Any], distance: float) -> Callable[[], Any]:
    """Return a closure that leaves the gradients of the point to which ``closure``'s gradients lead up.

    Args:
        model: the network; ``climbing`` of it is set during the second pass.
        closure: computes the loss of the weights as they are, and its gradients.
        distance: length of the step up, in the space of all weights (rho).
    """

    def climb() -> Any:
        loss = closure()
        with above(model, distance), statistics_at_rest(model):
            model.climbing = True
            try:
                closure()
            finally:
                model.climbing = False
        return loss

    return climb


@contextmanager
@torch.no_grad()
def above(model: nn.Module, distance: float) -> Iterator[None]:
    """Move the weights along their gradients, which are together made ``distance`` long, and back again at the end."""
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
def statistics_at_rest(model: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch normalisation as they are."""
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
