"""Bins of confidence, against torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from fer.calibration import bins_of, expected_error, place_of


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_error_is_torchmetrics(seed):
    generator = torch.Generator().manual_seed(seed)
    chances = (3 * torch.randn(500, 7, generator=generator)).softmax(1)
    targets = torch.randint(7, (500,), generator=generator)
    theirs = float(multiclass_calibration_error(chances, targets, 7, n_bins=15))
    assert expected_error(bins_of(chances.numpy(), targets.numpy())) == pytest.approx(theirs, abs=1e-6)


def test_bins_by_hand():
    chances = np.array([[0.95, 0.05], [0.9, 0.1], [0.45, 0.55], [1.0, 0.0]])
    bins = bins_of(chances, np.array([0, 1, 1, 0]), bins=10)
    assert bins.faces.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 3]
    assert bins.accuracy[9] == pytest.approx(2 / 3)
    assert bins.confidence[9] == pytest.approx((0.95 + 0.9 + 1) / 3)
    assert bins.accuracy[5] == 1
    assert expected_error(bins) == pytest.approx((0.45 + 3 * abs(0.95 - 2 / 3)) / 4)


def test_edges_belong_to_the_bin_above_and_1_to_the_last():
    assert place_of(np.array([0.0, 0.1, 0.0999, 1.0]), 10).tolist() == [0, 1, 0, 9]
