"""Optimizers by name: ``optimizer.name`` and the arguments of the function registered under it.

Weight decay spares biases and the scales of normalisation, which have one dimension (Goyal et al. 2017). The fused
kernels update all weights in one call, on CPU and GPU alike.
"""

from collections.abc import Iterable
from typing import Any

from torch import nn, optim

from fer.arguments import AboveZero, NonNegative, PartialFraction
from fer.registry import Registry

OPTIMIZERS: Registry = Registry("optimizer")  # type: ignore[type-arg]


def groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return two parameter groups: decayed matrices and kernels, undecayed vectors."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter.ndim > 1]
    spared = [parameter for parameter in trained if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


@OPTIMIZERS.register("sgd")
def sgd(
    parameters: Iterable[nn.Parameter],
    /,
    *,
    lr: AboveZero,
    momentum: PartialFraction = 0.9,
    nesterov: bool = True,
    weight_decay: NonNegative = 5e-4,
) -> optim.Optimizer:
    """Return stochastic gradient descent; Nesterov's form needs a momentum."""
    nesterov = nesterov and momentum > 0
    return optim.SGD(groups(parameters, weight_decay), lr=lr, momentum=momentum, nesterov=nesterov, fused=True)


@OPTIMIZERS.register("adam")
def adam(
    parameters: Iterable[nn.Parameter],
    /,
    *,
    lr: AboveZero,
    beta1: PartialFraction = 0.9,
    beta2: PartialFraction = 0.999,
    weight_decay: NonNegative = 0.0,
) -> optim.Optimizer:
    """Return Adam (Kingma & Ba 2015), its weight decay added to the gradient."""
    return optim.Adam(groups(parameters, weight_decay), lr=lr, betas=(beta1, beta2), fused=True)


@OPTIMIZERS.register("adamw")
def adamw(
    parameters: Iterable[nn.Parameter],
    /,
    *,
    lr: AboveZero,
    beta1: PartialFraction = 0.9,
    beta2: PartialFraction = 0.999,
    weight_decay: NonNegative = 0.01,
) -> optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019), its weight decay apart from the gradient."""
    return optim.AdamW(groups(parameters, weight_decay), lr=lr, betas=(beta1, beta2), fused=True)
