"""Optimizers by name: ``optimizer.name`` and the arguments of the function registered under it.

Biases and the scales of normalisation, one number for each channel, have no weight decay (Goyal et al. 2017).
Parameters may come in groups with separate learning rates, as in torch. The fused kernels update all weights in one
call, on CPU and GPU.
"""

import logging
from typing import Annotated, Any

import torch
from torch import Tensor, optim
from torch.optim.optimizer import ParamsT

from fer.config.errors import FerError
from fer.config.registry import Registry
from fer.config.schema import AboveZero, LayerDecay, NonNegative, PartialFraction, Range
from fer.config.settings import Section, TrainSettings
from fer.optim.muon import MOST_IN_BF16, MOST_ITERATIONS, Group, Muon

log = logging.getLogger(__name__)

OPTIMIZERS: Registry = Registry("optimizer")  # type: ignore[type-arg]
DISTANCE = "distance"  # entry of a parameter group: layers between it and the layer of the logits
RATES = ("lr", "adam_lr")  # keys of ``optimizer`` that are learning rates


def with_scaled_rates(settings: TrainSettings) -> Section:
    """Return the section ``optimizer`` with its rates scaled by ``trainer.lr_scaling``."""
    factor = settings.lr_factor
    if factor == 1:
        return settings.optimizer
    rates = {key: value * factor for key, value in settings.optimizer.items() if key in RATES}
    shown = ", ".join(f"optimizer.{key}={value:.3g}" for key, value in rates.items())
    log.info("trainer.lr_scaling=%s: %s for %d faces", settings.trainer.lr_scaling, shown, settings.faces_an_update)
    return settings.optimizer | rates


def listed(parameters: ParamsT) -> list[Group]:
    """Return parameter groups; parameters without groups are one group."""
    whole: list[Any] = list(parameters)
    return whole if whole and isinstance(whole[0], dict) else [{"params": whole}]


def slowed(parameters: ParamsT, lr: float, layer_decay: float) -> list[Group]:
    """Return parameter groups with the rates of their layers (Clark et al. 2020, "ELECTRA").

    Args:
        parameters: of a network, or groups of them.
        lr: learning rate of groups without one.
        layer_decay: factor on a group's rate for each layer of its ``DISTANCE``.
    """
    rates = []
    for group in listed(parameters):
        entries = {key: value for key, value in group.items() if key != DISTANCE}
        distance = group.get(DISTANCE, 0)
        rates.append(entries | ({"lr": group.get("lr", lr) * layer_decay**distance} if distance else {}))
    return rates


def groups(parameters: ParamsT, weight_decay: float) -> list[Group]:
    """Split each parameter group in two: matrices and kernels with weight decay, vectors without."""
    split = []
    for group in listed(parameters):
        trainable = [parameter for parameter in group["params"] if parameter.requires_grad]
        matrices = [parameter for parameter in trainable if not is_vector(parameter)]
        vectors = [parameter for parameter in trainable if is_vector(parameter)]
        split.append({**group, "params": matrices, "weight_decay": weight_decay})
        split.append({**group, "params": vectors, "weight_decay": 0.0})
    return split


def largest_rate(optimizer: optim.Optimizer) -> float:
    """Return the current learning rate of the layer that has the largest; of Muon's own matrices where it has some."""
    own = [group for group in optimizer.param_groups if group.get("orthogonal")]
    return max(float(group["lr"]) for group in own or optimizer.param_groups)


def is_vector(parameter: Tensor) -> bool:
    """Return whether a parameter has one number for each channel, in any number of dimensions: a bias or a scale."""
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
    layer_decay: LayerDecay = 1.0,
) -> optim.Optimizer:
    """Return stochastic gradient descent; ``nesterov`` has no effect without momentum."""
    split = groups(slowed(parameters, lr, layer_decay), weight_decay)
    return optim.SGD(split, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, fused=True)


@OPTIMIZERS.register("adam")
def adam(
    parameters: ParamsT,
    /,
    *,
    lr: AboveZero,
    beta1: PartialFraction = 0.9,
    beta2: PartialFraction = 0.999,
    weight_decay: NonNegative = 0.0,
    layer_decay: LayerDecay = 1.0,
) -> optim.Optimizer:
    """Return Adam (Kingma & Ba 2015), with weight decay added to the gradient."""
    split = groups(slowed(parameters, lr, layer_decay), weight_decay)
    return optim.Adam(split, lr=lr, betas=(beta1, beta2), fused=True)


@OPTIMIZERS.register("adamw")
def adamw(
    parameters: ParamsT,
    /,
    *,
    lr: AboveZero,
    beta1: PartialFraction = 0.9,
    beta2: PartialFraction = 0.999,
    weight_decay: NonNegative = 0.01,
    layer_decay: LayerDecay = 1.0,
) -> optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019), with weight decay separate from the gradient."""
    split = groups(slowed(parameters, lr, layer_decay), weight_decay)
    return optim.AdamW(split, lr=lr, betas=(beta1, beta2), fused=True)


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
    layer_decay: LayerDecay = 1.0,
) -> optim.Optimizer:
    """Return Muon for kernels and matrices, and AdamW for vectors and for the last matrix, which computes the logits.

    Args:
        parameters: of a network, in its order; of several groups the first contains the layer of the logits.
        lr: learning rate of Muon.
        adam_lr: learning rate of AdamW.
        momentum: of Muon.
        weight_decay: of kernels and matrices, separate from the gradient.
        iterations: of the orthogonalisation, see ``fer.optim.muon``.
        bf16: whether the orthogonalisation is computed in bfloat16.
        layer_decay: see ``slowed``.

    Raises:
        FerError: too many iterations for bfloat16, or nothing for Muon to train.
    """
    if bf16 and iterations > MOST_IN_BF16:
        raise FerError(
            f"optimizer.iterations={iterations} with optimizer.bf16=true: the rounding error grows with each; "
            f"expected at most {MOST_IN_BF16}, or optimizer.bf16=false"
        )
    split = groups(slowed(parameters, lr, layer_decay), weight_decay)
    head = next(
        (group["params"][-1] for group in split if group["params"] and not is_vector(group["params"][-1])), None
    )
    typed = []
    for group in split:
        hidden = [parameter for parameter in group["params"] if not is_vector(parameter) and parameter is not head]
        rest = [parameter for parameter in group["params"] if is_vector(parameter) or parameter is head]
        rate = group.get("lr", lr)
        typed.append({**group, "params": hidden, "lr": rate, "orthogonal": True, "momentum": momentum})
        typed.append({**group, "params": rest, "lr": rate * adam_lr / lr, "orthogonal": False})
    if not any(group["orthogonal"] and group["params"] for group in typed):
        raise FerError(
            "optimizer=muon: the layer of the logits and vectors are all that is trained, and AdamW trains those; set "
            f"optimizer=adamw optimizer.lr={adam_lr:g}"
        )
    return Muon(
        [group for group in typed if group["params"]],
        (0.9, 0.999),
        iterations,
        torch.bfloat16 if bf16 else torch.float32,
    )
