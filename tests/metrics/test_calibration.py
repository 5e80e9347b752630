"""Calibration errors compared with torchmetrics; temperatures and thresholds on simulated predictions."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from fer.metrics.calibration import (
    adaptive_error,
    area_under_risk,
    at_threshold,
    bin_indices,
    bin_indices_by_rank,
    bins_of,
    debiased_error,
    expected_error,
    fitted_temperature,
    risk_by_coverage,
    tempered,
    threshold_for,
)


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
    assert bin_indices(np.array([0.0, 0.1, 0.0999, 1.0]), 10).tolist() == [0, 1, 0, 9]


def drawn(count, seed, temperature=1.0):
    """Return probabilities whose logits were multiplied by a temperature, and labels drawn from those before."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 7, generator=generator, dtype=torch.float64)
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return (temperature * logits).softmax(1).numpy(), targets.numpy()


def test_equal_numbers_by_hand():
    assert bin_indices_by_rank(np.array([0.9, 0.1, 0.5, 0.3]), 2).tolist() == [1, 0, 1, 0]
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]] * 15)
    targets = np.array([0, 1, 0, 1] * 15)
    sizes = np.bincount(bin_indices_by_rank(chances.max(1)))
    assert sizes.tolist() == [4] * 15
    order = np.argsort(chances.max(1), kind="stable")
    gaps = (chances.max(1) - (targets == 0))[order].reshape(15, 4)
    assert adaptive_error(chances, targets) == pytest.approx(np.abs(gaps.mean(1)).mean())


def test_the_debiased_error_by_hand():
    """The mean product of the gaps of two different faces in each bin; a single face has no pair."""
    gaps, bins = np.array([0.1, -0.9, 0.2, 0.6, 0.5]), np.array([2, 2, 2, 4, 0])
    pairs = np.mean([0.1 * -0.9, 0.1 * 0.2, -0.9 * 0.2])
    assert debiased_error(gaps, bins) == pytest.approx(-math.sqrt(3 / 5 * -pairs))
    assert debiased_error(np.full(10, 0.3), np.repeat([1, 2], 5)) == pytest.approx(0.3)
    assert debiased_error(np.array([0.4]), np.array([3])) == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_simulated_temperature_is_recovered(temperature):
    chances, targets = drawn(20_000, 0, temperature)
    assert fitted_temperature(chances, targets) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_minimises_the_loss_and_changes_no_prediction():
    chances, targets = drawn(800, 1, 2.0)
    best = fitted_temperature(chances, targets)

    def loss(temperature):
        return -np.log(tempered(chances, temperature)[np.arange(800), targets]).mean()

    assert loss(best) <= min(loss(best * 1.01), loss(best / 1.01))
    assert (tempered(chances, best).argmax(1) == chances.argmax(1)).all()
    assert tempered(chances, 1.0) == pytest.approx(chances)
    assert expected_error(bins_of(tempered(chances, best), targets)) < expected_error(bins_of(chances, targets)) / 2


def test_the_adaptive_error_does_not_depend_on_the_order_of_equal_confidences():
    """A calibrated network: each of 7 classes has 100 faces of confidence 0.95, 5 of which are wrong."""
    targets = np.repeat(np.arange(7), 100)
    chances = np.full((700, 7), 0.05 / 6)
    wrong = np.zeros(700, bool)
    wrong[:35] = True  # all of one class, at the head of the table
    chances[np.arange(700), np.where(wrong, (targets + 1) % 7, targets)] = 0.95
    assert adaptive_error(chances, targets) < 0.03  # 0.09 in bins of neighbours in the table


def test_labels_that_say_nothing_of_the_confidence_leave_it():
    sure = np.full((30, 7), 0.01) + 0.93 * np.eye(7)[np.arange(30) % 7]
    assert fitted_temperature(sure, np.arange(30) % 7) == 1  # no error: confidences may be as large as they are
    assert fitted_temperature(np.full((30, 7), 1 / 7), np.arange(30) % 7) == 1
    flat = np.full((30, 7), 0.13) + 0.09 * np.eye(7)[np.arange(30) % 7]
    one_wrong = np.where(np.arange(30) == 4, 0, np.arange(30) % 7)
    assert fitted_temperature(flat, one_wrong) < 0.5
    assert fitted_temperature(sure, (np.arange(30) + 1) % 7) == pytest.approx(20, rel=1e-3)
    zeros = np.eye(7)[np.arange(30) % 7]  # a softmax rounded to 0 and 1
    assert np.isfinite(tempered(zeros, 3.0)).all()


def test_risk_by_coverage_by_hand():
    chances = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.6, 0.4]])
    coverage, risk = risk_by_coverage(chances, np.array([0, 1, 1, 0]))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk.tolist() == [0, 0.5, 0.5, 0.5]  # the two faces with 0.6 are covered together
    assert area_under_risk(risk) == pytest.approx(0.375)


@pytest.mark.slow
def test_the_bound_of_the_error_rate_holds_on_other_faces():
    """At most 5 of 100 thresholds may fail on average, and a few more by chance."""
    others, labels = drawn(100_000, 999)
    broken = met = 0
    for seed in range(100):
        threshold = threshold_for(0.2, *drawn(2000, seed))
        if threshold is not None:
            met += 1
            answered, wrong = at_threshold(threshold.confidence, others, labels)
            broken += wrong.sum() > 0.2 * answered.sum()
    assert met > 90
    assert broken <= 10


def test_an_error_rate_that_no_threshold_meets_gives_none():
    chances, targets = drawn(200, 2)
    assert threshold_for(0.0001, chances, targets) is None
    threshold = threshold_for(0.9999, chances, targets)
    assert threshold is not None
    assert threshold.coverage == 1
