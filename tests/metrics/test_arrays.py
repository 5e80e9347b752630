"""Arrays of NumPy and tensors of torch: equal draws, and metrics that are equal up to the order of sums."""

import numpy as np
import pytest
import torch

from fer.metrics import classification
from fer.metrics.arrays import drawn_counts, drawn_shares, generator, together
from fer.system.records import plain

NAMES = list("abcdefg")


@pytest.mark.parametrize("count", [1, 7, 3589])
def test_draws_are_those_of_torch(count):
    theirs, ours = torch.Generator().manual_seed(0), generator()
    for _ in range(2):  # of chunks
        drawn = torch.randint(count, (5, count), generator=theirs)
        expected = torch.zeros(5, count).scatter_add_(1, drawn, torch.ones(5, count))
        np.testing.assert_array_equal(drawn_counts(ours, 5, count), expected.numpy())
    theirs, ours = torch.Generator().manual_seed(0), generator()
    for _ in range(2):
        expected = torch.rand(5, count, generator=theirs)
        np.testing.assert_array_equal(drawn_shares(ours, 5, count), expected.numpy())


def leaves(value):
    if isinstance(value, dict):
        return [leaf for name in value for leaf in leaves(value[name])]
    return [leaf for each in value for leaf in leaves(each)] if isinstance(value, list | tuple) else [value]


def test_arrays_have_the_metrics_of_tensors():
    generator = torch.Generator().manual_seed(1)
    first, second = (2 * torch.randn(2, 90, 7, generator=generator)).softmax(2)
    targets = torch.multinomial(first, 1, generator=generator)[:, 0]
    tensors, arrays = (first, second, targets), (first.numpy(), second.numpy(), targets.numpy())
    for compute in (
        lambda first, _, targets: classification.score(first, targets, NAMES),
        lambda first, _, targets: classification.tempered_metrics(first, targets),
        classification.paired,
    ):
        expected, actual = (leaves(plain(compute(*each))) for each in (tensors, arrays))
        assert len(actual) == len(expected) > 10
        assert actual == [
            one if one is None or isinstance(one, str) else pytest.approx(one, abs=2e-6) for one in expected
        ]


def test_a_metric_that_is_undefined_for_arrays_is_null():
    chances = np.full((50, 7), 1 / 7)
    scores = classification.score(chances, np.zeros(50, np.int64), NAMES)
    assert scores.metrics["roc_auc"].value is None
    assert scores.metrics["kappa"].value is None


def test_an_array_beside_a_tensor_becomes_one():
    assert isinstance(together([np.zeros(2), torch.zeros(2, dtype=torch.float64)]), torch.Tensor)
    assert isinstance(together([np.zeros(2), np.ones(2)]), np.ndarray)
