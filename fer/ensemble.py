"""Several networks as one: a weighted mean of their probabilities."""

import torch
from torch import Tensor

CONVERGED = 1e-9  # gain of the mean log-likelihood below which weights stay as they are
MOST_STEPS = 10_000


def mixed(predicted: Tensor, weights: Tensor) -> Tensor:
    """Return the probabilities (N, C) of an ensemble of M networks.

    Args:
        predicted: (M, N, C).
        weights: (M,), which sum to 1.
    """
    return torch.einsum("m,mnc->nc", weights.to(predicted), predicted)


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
