"""Several networks as one: a weighted mean of their probabilities.

Probabilities and labels are arrays of NumPy or tensors of torch (``fer.metrics.arrays``), both of one kind.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.metrics.arrays import TINY, Array, doubled, library
from fer.metrics.calibration import fitted_temperature, tempered

PICKS = 50  # steps of a greedy choice, of which the best beginning is kept
CONVERGED = 1e-9  # gain of the mean log-likelihood below which weights stay as they are
MOST_STEPS = 10_000


def mixed(predicted: Array, weights: Array, temperatures: Array | None = None) -> Array:
    """Return the probabilities (N, C) of an ensemble of M networks.

    Args:
        predicted: (M, N, C).
        weights: (M,), which sum to 1.
        temperatures: (M,) by which each network's logits are divided first; None is 1 for each.
    """
    if temperatures is not None:
        predicted = each_tempered(predicted, temperatures)
    lib = library(predicted)
    return lib.einsum("m,mnc->nc", lib.asarray(weights, dtype=predicted.dtype), predicted)


def each_tempered(predicted: Array, temperatures: Array) -> Array:
    """Return (M, N, C) probabilities, each network's at its own temperature; 1 changes no bit.

    Args:
        predicted: (M, N, C).
        temperatures: (M,).
    """
    lib, members = library(predicted), zip(predicted, temperatures.tolist(), strict=True)
    return lib.stack(
        [
            each if by == 1 else lib.asarray(tempered(np.asarray(each), by), dtype=predicted.dtype)
            for each, by in members
        ]
    )


def own_temperatures(predicted: Array, targets: Array) -> NDArray[np.float64]:
    """Return (M,) temperatures, float64: each minimises the NLL of one network.

    In a mean of probabilities an overconfident network counts for more than its weight, an underconfident one for less.
    At their own temperatures, all networks are as confident as they are accurate.

    Args:
        predicted: (M, N, C), on val, which has chosen nothing but the epochs of the members.
        targets: (N,) true classes.
    """
    return np.array([fitted_temperature(np.asarray(probabilities), np.asarray(targets)) for probabilities in predicted])


def equal_weights(members: int) -> NDArray[np.float64]:
    """Return (M,) weights 1 / M, float64."""
    return np.full(members, 1 / members)


def fitted_weights(predicted: Array, targets: Array) -> Array:
    """Return the (M,) weights under which the ensemble's likelihood of the labels is largest, float64.

    Expectation maximisation for the weights of a mixture (Dempster, Laird & Rubin 1977); the likelihood is concave in
    them, so that the best weights are found. The weight of a useless network goes towards 0.

    Args:
        predicted: (M, N, C), on val, which has chosen nothing but the epochs of the members.
        targets: (N,) true classes.
    """
    lib = library(predicted)
    chances = doubled(predicted[:, lib.arange(len(targets)), targets]).clip(TINY)
    weights, before = lib.asarray(equal_weights(len(chances))), -np.inf
    for _ in range(MOST_STEPS):
        together = weights @ chances  # (N,)
        likelihood = float(lib.log(together).mean())
        if likelihood - before < CONVERGED:
            break
        before = likelihood
        weights = weights * (chances / together).mean(1)
    return weights / weights.sum()


class Pick(NamedTuple):
    """A step of a greedy choice.

    Args:
        member: index of the network that was added.
        nll: of the ensemble with it.
        accuracy: of the ensemble with it.
    """

    member: int
    nll: float
    accuracy: float


def greedy(predicted: Array, targets: Array) -> list[Pick]:
    """Return the networks to add to the best one, step by step.

    Ensemble selection with replacement (Caruana et al. 2004, "Ensemble Selection from Libraries of Models"): one added
    twice counts twice. Steps are chosen by likelihood, since most additions do not change the accuracy. Useless steps
    are dropped at the end only: the best network, added again, makes room for a small part of a worse one.

    Args:
        predicted: (M, N, C), on val, which has chosen nothing but the epochs of the members.
        targets: (N,) true classes.
    """
    lib = library(predicted)
    rows = lib.arange(len(targets))
    total = lib.zeros_like(predicted[0])  # (N, C), the sum over the picks
    picks: list[Pick] = []
    while len(picks) < PICKS:
        tried = total[rows, targets] + predicted[:, rows, targets]  # (M, N)
        nll = -lib.log((doubled(tried) / (len(picks) + 1)).clip(TINY)).mean(1)
        best = int(nll.argmin())
        total = total + predicted[best]
        right = doubled(total.argmax(1) == targets).mean()
        picks.append(Pick(best, float(nll[best]), float(right)))
    least = min(pick.nll for pick in picks)
    return picks[: 1 + next(index for index, pick in enumerate(picks) if pick.nll < least + CONVERGED)]


class Choice(NamedTuple):
    """The outcome of a greedy choice among M networks.

    Args:
        weights: (M,) float64, which sum to 1; 0 of a network that was left out.
        temperatures: (M,) float64 by which each network's logits are divided before mixing. All 1 where a single
            network was chosen: nothing is mixed, and its temperature is the ensemble's.
        picks: the steps.
    """

    weights: NDArray[np.float64]
    temperatures: NDArray[np.float64]
    picks: list[Pick]


def chosen_greedily(predicted: Array, targets: Array) -> Choice:
    """Return the ensemble that ``greedy`` chooses among networks, each at its own temperature.

    Args:
        predicted: (M, N, C), on val, which has chosen nothing but the epochs of the members.
        targets: (N,) true classes.
    """
    temperatures = own_temperatures(predicted, targets)
    picks = greedy(each_tempered(doubled(predicted), temperatures), targets)
    weights = picked_weights(picks, len(predicted))
    if np.count_nonzero(weights) == 1:
        temperatures = np.ones_like(temperatures)
    return Choice(weights, temperatures, picks)


def picked_weights(picks: Sequence[Pick], members: int) -> NDArray[np.float64]:
    """Return the (M,) weights of a greedy choice: how often each was picked."""
    return np.bincount([pick.member for pick in picks], minlength=members) / len(picks)


def disagreement(predicted: Array) -> Array:
    """Return (M, M) shares of the faces that two of M networks answer differently, float64.

    Args:
        predicted: (M, N, C).
    """
    answers = predicted.argmax(2)  # (M, N)
    return doubled(answers[:, None] != answers[None]).mean(2)
