"""Several networks as one: a weighted mean of their probabilities."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fer.metrics.calibration import fitted_temperature, tempered

PICKS = 50  # steps of a greedy choice, of which the best beginning is kept
CONVERGED = 1e-9  # gain of the mean log-likelihood below which weights stay as they are
MOST_STEPS = 10_000


def mixed(predicted: Tensor, weights: Tensor, temperatures: Tensor | None = None) -> Tensor:
    """Return the probabilities (N, C) of an ensemble of M networks.

    Args:
        predicted: (M, N, C).
        weights: (M,), which sum to 1.
        temperatures: (M,) by which each network's logits are divided first; None is 1 for each.
    """
    if temperatures is not None:
        predicted = each_tempered(predicted, temperatures)
    return torch.einsum("m,mnc->nc", weights.to(predicted), predicted)


def each_tempered(predicted: Tensor, temperatures: Tensor) -> Tensor:
    """Return (M, N, C) probabilities, each network's at its own temperature; 1 changes no bit.

    Args:
        predicted: (M, N, C).
        temperatures: (M,).
    """
    members = zip(predicted, temperatures.tolist(), strict=True)
    return torch.stack(
        [each if by == 1 else torch.from_numpy(tempered(each.numpy(), by)).to(predicted) for each, by in members]
    )


def own_temperatures(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return (M,) temperatures, float64: each minimises the NLL of one network.

    In a mean of probabilities an overconfident network counts for more than its weight, an underconfident one for less.
    At their own temperatures, all networks are as confident as they are accurate.

    Args:
        predicted: (M, N, C), on val, which has chosen nothing but the epochs of the members.
        targets: (N,) true classes.
    """
    fitted = [fitted_temperature(one.numpy(), targets.numpy()) for one in predicted]
    return torch.tensor(fitted, dtype=torch.float64)


def equal_weights(members: int) -> Tensor:
    """Return (M,) weights 1 / M, float64."""
    return torch.full((members,), 1 / members, dtype=torch.float64)


def fitted_weights(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return the (M,) weights under which the ensemble's likelihood of the labels is largest, float64.

    Expectation maximisation for the weights of a mixture (Dempster, Laird & Rubin 1977); the likelihood is concave in
    them, so that the best weights are found. The weight of a useless network goes towards 0.

    Args:
        predicted: (M, N, C), on val, which has chosen nothing but the epochs of the members.
        targets: (N,) true classes.
    """
    chances = predicted[:, torch.arange(len(targets)), targets].double().clamp(min=torch.finfo(torch.float32).tiny)
    weights, before = equal_weights(len(chances)), -torch.inf
    for _ in range(MOST_STEPS):
        together = weights @ chances  # (N,)
        likelihood = float(together.log().mean())
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


def greedy(predicted: Tensor, targets: Tensor) -> list[Pick]:
    """Return the networks to add to the best one, step by step.

    Ensemble selection with replacement (Caruana et al. 2004, "Ensemble Selection from Libraries of Models"): one added
    twice counts twice. Steps are chosen by likelihood, since most additions do not change the accuracy. Useless steps
    are dropped at the end only: the best network, added again, makes room for a small part of a worse one.

    Args:
        predicted: (M, N, C), on val, which has chosen nothing but the epochs of the members.
        targets: (N,) true classes.
    """
    tiny = torch.finfo(torch.float32).tiny
    own = torch.arange(len(targets))
    total = torch.zeros_like(predicted[0])  # (N, C), the sum over the picks
    picks: list[Pick] = []
    while len(picks) < PICKS:
        tried = total[own, targets] + predicted[:, own, targets]  # (M, N)
        nll = -(tried.double() / (len(picks) + 1)).clamp(min=tiny).log().mean(1)
        best = int(nll.argmin())
        total = total + predicted[best]
        right = (total.argmax(1) == targets).double().mean()
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

    weights: Tensor
    temperatures: Tensor
    picks: list[Pick]


def chosen_greedily(predicted: Tensor, targets: Tensor) -> Choice:
    """Return the ensemble that ``greedy`` chooses among networks, each at its own temperature.

    Args:
        predicted: (M, N, C), on val, which has chosen nothing but the epochs of the members.
        targets: (N,) true classes.
    """
    temperatures = own_temperatures(predicted, targets)
    picks = greedy(each_tempered(predicted.double(), temperatures), targets)
    weights = picked_weights(picks, len(predicted))
    if weights.count_nonzero() == 1:
        temperatures = torch.ones_like(temperatures)
    return Choice(weights, temperatures, picks)


def picked_weights(picks: Sequence[Pick], members: int) -> Tensor:
    """Return the (M,) weights of a greedy choice, float64: how often each was picked."""
    counts = torch.bincount(torch.tensor([pick.member for pick in picks]), minlength=members)
    return counts.double() / len(picks)


def disagreement(predicted: Tensor) -> Tensor:
    """Return (M, M) shares of the faces that two of M networks answer differently, float64.

    Args:
        predicted: (M, N, C).
    """
    answers = predicted.argmax(2)  # (M, N)
    return (answers[:, None] != answers[None]).double().mean(2)
