"""Weights of an ensemble."""

import torch

from fer.inference.ensemble import disagreement, equal_weights, fitted_weights, greedy, mixed, picked_weights


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
    for index in range(3):
        for other in range(3):
            moved = weights.clone()
            moved[index] += 0.01
            moved[other] -= 0.01
            if (moved >= 0).all() and index != other:
                assert likelihood(predicted, targets, moved) < best


def test_a_network_twice_counts_as_once():
    predicted, targets = members(500)
    weights = fitted_weights(torch.stack([predicted[0], predicted[0]]), targets)
    assert torch.allclose(mixed(torch.stack([predicted[0], predicted[0]]), weights), predicted[0])


def test_a_greedy_choice_takes_the_likeliest_step_until_none_helps():
    predicted, targets = members(1000)
    predicted = predicted**3 / (predicted**3).sum(2, keepdim=True)  # surer than they are right, so that others help
    picks = greedy(predicted, targets)
    weights = picked_weights(picks, 3)
    assert {pick.member for pick in picks} >= {0, 1}
    assert len(picks) > 3  # with replacement
    assert all(pick.nll > picks[-1].nll for pick in picks[:-1])
    assert abs(weights.sum() - 1) < 1e-12
    reached = likelihood(predicted, targets, weights)
    assert abs(reached + picks[-1].nll) < 1e-9
    assert abs(float((mixed(predicted, weights).argmax(1) == targets).double().mean()) - picks[-1].accuracy) < 1e-9
    for index in range(3):
        more = sum(pick.member == index for pick in picks) + 1
        moved = weights * len(picks)
        moved[index] = more
        assert likelihood(predicted, targets, moved / moved.sum()) <= reached + 1e-8


def test_a_network_that_only_harms_is_not_chosen():
    predicted, targets = members(1000)
    wrong = predicted[0].roll(1, dims=1)
    picks = greedy(torch.stack([wrong, predicted[0]]), targets)
    assert [pick.member for pick in picks] == [1]
    assert picked_weights(picks, 2).tolist() == [0, 1]


def test_disagreement_counts_different_answers():
    answers = torch.tensor([[0, 1, 2, 0], [0, 1, 1, 1], [0, 1, 2, 0]])
    shares = disagreement(torch.nn.functional.one_hot(answers, 3).double())
    assert shares.tolist() == [[0, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0]]
