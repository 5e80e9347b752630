"""Weights of an ensemble."""

import torch

from fer.ensemble import equal_weights, fitted_weights, mixed


def members(count=4000):
    """A good network, a worse one that errs elsewhere, and one that guesses; and the labels."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(7, (count,), generator=generator)
    made = []
    for strength in (2.5, 1.5, 0.0):
        logits = torch.randn(count, 7, generator=generator, dtype=torch.float64)
        logits[torch.arange(count), targets] += strength
        made.append((logits * (strength > 0)).softmax(1))
    return torch.stack(made), targets


def likelihood(predicted, targets, weights):
    return float(mixed(predicted, weights)[torch.arange(len(targets)), targets].log().mean())


def test_fitted_weights_are_the_likeliest():
    predicted, targets = members()
    weights = fitted_weights(predicted, targets)
    assert float(weights.sum()) == 1
    assert weights[0] > weights[1] > weights[2]
    best = likelihood(predicted, targets, weights)
    assert best > likelihood(predicted, targets, equal_weights(3))
    for place in range(3):
        for other in range(3):
            moved = weights.clone()
            moved[place] += 0.01
            moved[other] -= 0.01
            if (moved >= 0).all() and place != other:
                assert likelihood(predicted, targets, moved) < best


def test_a_network_twice_counts_as_once():
    predicted, targets = members(500)
    weights = fitted_weights(torch.stack([predicted[0], predicted[0]]), targets)
    assert torch.allclose(mixed(torch.stack([predicted[0], predicted[0]]), weights), predicted[0])
