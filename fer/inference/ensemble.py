"""Several networks as one: a weighted mean of their probabilities."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fer.metrics.calibration import fitted_temperature, tempered

PICKS = 50  # of a greedy choice, of which the best beginning is kept
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
    """Return (M, N, C) probabilities, each network's at its own temperature; 1 leaves them as they are, to the bit.

    Args:
        predicted: (M, N, C).
        temperatures: (M,).
    """
    members = zip(predicted, temperatures.tolist(), strict=True)
    return torch.stack(
        [one if own == 1 else torch.from_numpy(tempered(one.numpy(), own)).to(predicted) for one, own in members]
    )


def own_temperatures(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return (M,) temperatures under each of which one network's NLL of the labels is smallest, float64.

    A mean of probabilities counts a network that is too sure for more than its weight, and one that is too modest for
    less; divided by their own temperatures all are as sure as they are right.

    Args:
        predicted: (M, N, C), on faces that chose nothing of the members but their epochs: val.
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
    them, so that it finds the best there are. What brings nothing goes towards 0.

    Args:
        predicted: (M, N, C), on faces that chose nothing of the members but their epochs: val.
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
        member: the network that was added, by its place.
        nll: negative mean log-likelihood of the labels under the ensemble as it then is.
        accuracy: of the ensemble as it then is.
    """

    member: int
    nll: float
    accuracy: float


def greedy(predicted: Tensor, targets: Tensor) -> list[Pick]:
    """Return which networks to add, one after the other, to the best of them.

    Ensemble selection with replacement (Caruana et al. 2004, "Ensemble Selection from Libraries of Models"): one added
    twice counts twice. By likelihood, since accuracy stands still for most additions. Steps that bring nothing are
    taken back at the end only: the best network added to itself makes room for a small part of a worse one.

    Args:
        predicted: (M, N, C), on faces that chose nothing of the members but their epochs: val.
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
    return picks[: 1 + next(place for place, pick in enumerate(picks) if pick.nll < least + CONVERGED)]


class Choice(NamedTuple):
    """What a greedy choice among M networks came to.

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
        predicted: (M, N, C), on faces that chose nothing of the members but their epochs: val.
        targets: (N,) true classes.
    """
    temperatures = own_temperatures(predicted, targets)
    picks = greedy(each_tempered(predicted.double(), temperatures), targets)  # in 32 bits rounding passes for a gain
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
