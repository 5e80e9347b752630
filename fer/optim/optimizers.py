"""Optimizers by name: ``optimizer.name`` and the arguments of the function registered under it.

Weight decay spares biases and the scales of normalisation, one number a channel (Goyal et al. 2017). Parameters may
come in groups with rates of their own, as torch has it. The fused kernels update all weights in one call, on CPU and
GPU alike.
"""

from typing import Annotated, Any

import torch
from torch import Tensor, optim
from torch.optim.optimizer import ParamsT

from fer.config.errors import FerError
from fer.config.registry import Registry
from fer.config.schema import AboveZero, NonNegative, PartialFraction, Range
from fer.optim.muon import MOST_IN_BF16, MOST_ITERATIONS, Muon

OPTIMIZERS: Registry = Registry("optimizer")  # type: ignore[type-arg]


def groups(parameters: ParamsT, weight_decay: float) -> list[dict[str, Any]]:
    """Return two parameter groups for each that is given: decayed matrices and kernels, undecayed vectors."""
    given: list[Any] = list(parameters)
    sets = given if given and isinstance(given[0], dict) else [{"params": given}]
    made = []
    for group in sets:
        trained = [parameter for parameter in group["params"] if parameter.requires_grad]
        decayed = [parameter for parameter in trained if not is_vector(parameter)]
        spared = [parameter for parameter in trained if is_vector(parameter)]
        made.append({**group, "params": decayed, "weight_decay": weight_decay})
        made.append({**group, "params": spared, "weight_decay": 0.0})
    return made


def is_vector(parameter: Tensor) -> bool:
    """Return whether there is one number a channel, whatever the dimensions: a bias, a scale."""
    return parameter.ndim == 0 or parameter.numel() == parameter.shape[0]


@OPTIMIZERS.register("sgd")
def sgd(
    parameters: ParamsT,
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
    parameters: ParamsT,
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
    parameters: ParamsT,
    /,
    *,
    lr: AboveZero,
    beta1: PartialFraction = 0.9,
    beta2: PartialFraction = 0.999,
    weight_decay: NonNegative = 0.01,
) -> optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019), its weight decay apart from the gradient."""
    return optim.AdamW(groups(parameters, weight_decay), lr=lr, betas=(beta1, beta2), fused=True)


@OPTIMIZERS.register("muon")
def muon(
    parameters: ParamsT,
    /,
    *,
    lr: AboveZero,
    adam_lr: AboveZero = 0.002,
    momentum: PartialFraction = 0.9,
    weight_decay: NonNegative = 5e-4,
    iterations: Annotated[int, Range(1, MOST_ITERATIONS)] = 3,
    bf16: bool = False,
) -> optim.Optimizer:
    """Return Muon for kernels and matrices; for vectors and for the last matrix, which makes the logits, AdamW.

    Args:
        parameters: of a network, in its order; of several groups the first holds the layer that makes the logits.
        lr: of Muon.
        adam_lr: of AdamW.
        momentum: of Muon.
        weight_decay: of all but vectors, apart from the gradient.
        iterations: towards orthogonal steps, see ``fer.optim.muon``.
        bf16: compute these in bfloat16.

    Raises:
        FerError: there are more iterations than bfloat16 bears.
    """
    if bf16 and iterations > MOST_IN_BF16:
        raise FerError(
            f"optimizer.iterations={iterations} with optimizer.bf16=true: its rounding grows with each; "
            f"expected at most {MOST_IN_BF16}, or optimizer.bf16=false"
        )
    split = groups(parameters, weight_decay)
    head = next(
        (group["params"][-1] for group in split if group["params"] and not is_vector(group["params"][-1])), None
    )
    made = []
    for group in split:
        hidden = [one for one in group["params"] if not is_vector(one) and one is not head]
        others = [one for one in group["params"] if is_vector(one) or one is head]
        rate = group.get("lr", lr)
        made.append({**group, "params": hidden, "lr": rate, "orthogonal": True, "momentum": momentum})
        made.append({**group, "params": others, "lr": rate * adam_lr / lr, "orthogonal": False})
    return Muon(
        [group for group in made if group["params"]],
        (0.9, 0.999),
        iterations,
        torch.bfloat16 if bf16 else torch.float32,
    )
