"""Intervals and tests, compared with published tables, worked examples, and simulated runs with known truth."""

import math

import numpy as np
import pytest
from scipy import stats

from fer.metrics import statistics
from fer.metrics.statistics import (
    accuracy_interval,
    accuracy_interval_with_seeds,
    bootstrapped_means,
    holm,
    mcnemar,
    paired_difference,
    student_p,
    student_quantile,
    summarise_seeds,
    wilson,
)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4.7, 2.620726), (10, 2.22814), (30, 2.04227), (1e7, 1.95996)],
)  # fmt: skip
def test_students_quantile_is_that_of_the_tables(freedom, quantile):
    assert student_quantile(freedom) == pytest.approx(quantile, rel=3e-6)
    assert student_p(quantile, freedom) == pytest.approx(0.05, abs=1e-6)


def test_students_probability_at_worked_points():
    assert student_p(1, 1) == pytest.approx(0.5, abs=1e-12)  # Cauchy: 1 - 2 atan(1) / pi
    assert student_p(-math.sqrt(2), 2) == pytest.approx(1 - math.sqrt(0.5), abs=1e-12)  # 1 - t / sqrt(2 + t^2)
    assert student_p(0, 5) == 1
    assert student_p(40, 3) == pytest.approx(3.43807e-5, rel=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1),
        (0, 5, 2 / 32),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
        (4, 4, 1),
        (8, 2, 112 / 1024),
        (430, 500, 0.02360884),
    ],
)
def test_mcnemar_counts_the_faces_that_one_network_alone_has_right(first, second, p):
    """The last: SciPy 1.17, ``binomtest(430, 930).pvalue``."""
    one = np.array([True] * first + [False] * second + [True] * 7 + [False] * 3)
    other = np.array([False] * first + [True] * second + [True] * 7 + [False] * 3)
    result = mcnemar(one, other)
    assert (result.first, result.second) == (first, second)
    assert result.p == pytest.approx(p, rel=1e-5)


def test_thousands_of_faces_have_a_p_value_too():
    result = mcnemar(np.arange(28709) % 3 > 0, np.arange(28709) % 3 == 0)
    assert result.first + result.second == 28709
    assert 0 <= result.p < 1e-300


def test_holm_is_his_procedure():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02]) == [0.02]
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_the_interval_over_seeds_is_students():
    seeds = summarise_seeds([0.1, 0.2, 0.3])
    assert (seeds.number, seeds.mean, seeds.sd) == (3, pytest.approx(0.2), pytest.approx(0.1))
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert seeds.interval == pytest.approx((0.2 - half, 0.2 + half), rel=1e-6)


def test_one_seed_has_no_interval():
    seeds = summarise_seeds([0.5])
    assert (seeds.mean, seeds.sd, seeds.interval) == (0.5, None, None)


def test_seeds_with_equal_accuracies_have_an_interval_of_some_width():
    """Two networks with equal accuracies that err on different faces: a third would have another accuracy."""
    correct = np.array([[True, False] * 50, [False, True] * 50])
    least = statistics.sampling_sd(correct)
    assert least == pytest.approx(math.sqrt(0.5 / 99))  # of 0 and 1 the variance is 0.5, of the accuracies 0
    seeds = summarise_seeds(correct.mean(1).tolist(), least)
    assert seeds.sd == 0
    assert seeds.interval.high - seeds.interval.low == pytest.approx(2 * 12.7062 * least / math.sqrt(2), rel=1e-4)


def test_over_faces_one_network_has_wilsons_interval_and_several_a_narrower_one():
    correct = np.random.default_rng(0).random((4, 1000)) < 0.6
    alike = accuracy_interval(correct[:1])
    assert alike == pytest.approx(wilson(int(correct[0].sum()), 1000))
    assert accuracy_interval(np.repeat(correct[:1], 4, axis=0)) == pytest.approx(
        tuple(alike)
    )  # the same network four times
    several = accuracy_interval(correct)  # independent of each other: as one on four times as many faces
    assert several.high - several.low == pytest.approx((alike.high - alike.low) / 2, rel=0.03)


def test_perfect_networks_are_not_certain():
    assert accuracy_interval(np.ones((3, 20), bool)) == pytest.approx((0.8389, 1), abs=1e-4)  # Wilson's of 20 in 20
    result = paired_difference(np.ones((3, 20), bool), np.ones((3, 20), bool))
    assert result.interval.low < -0.05
    assert result.interval.high > 0.05
    assert (result.value, result.p) == (0, 1)


def test_the_interval_of_networks_that_share_no_mistake_does_not_jump():
    opposed = np.tile([[True], [False]], 200)
    opposed[:, ::2] = ~opposed[:, ::2]
    almost = opposed.copy()
    almost[0, 0] = ~almost[0, 0]
    assert statistics.accuracy_interval(opposed) == pytest.approx(statistics.accuracy_interval(almost), abs=0.005)
    for right in (0, 50):
        alike = statistics.accuracy_interval(np.full((2, 50), right > 0))
        assert alike == pytest.approx(wilson(right, 50), abs=1e-9)


def test_two_networks_have_bonett_and_prices_interval():
    """24 faces, 7 of which only the first has right and 2 only the second: (b - c) / (n + 2) and its error by hand."""
    first = np.array([True] * 7 + [False] * 2 + [True] * 15)
    second = np.array([False] * 7 + [True] * 2 + [True] * 15)
    result = paired_difference(first[None], second[None])
    middle, error = 5 / 26, math.sqrt((11 / 26 - (5 / 26) ** 2) / 26)
    half = 2.068658 * error  # Student's quantile of 23
    assert result.value == pytest.approx(5 / 24)
    assert result.interval == pytest.approx((middle - half, middle + half), rel=1e-6)
    assert not result.seeds


def test_a_difference_with_exchanged_arguments_has_the_opposite_sign():
    generator = np.random.default_rng(1)
    first, second = generator.random((3, 300)) < 0.7, generator.random((2, 300)) < 0.6
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert one.seeds
    assert one.value == pytest.approx(-other.value)
    assert one.interval == pytest.approx((-other.interval.high, -other.interval.low))
    assert one.p == pytest.approx(other.p)


def test_p_is_below_5_percent_exactly_if_the_interval_leaves_out_0():
    generator = np.random.default_rng(2)
    outcomes = set()
    for share in np.linspace(0.5, 0.65, 40):
        result = paired_difference(generator.random((3, 400)) < share, generator.random((3, 400)) < 0.5)
        assert (result.p < 0.05) == (not result.interval.low <= 0 <= result.interval.high)
        outcomes.add(result.p < 0.05)
    assert outcomes == {True, False}


def coverage(seeds: tuple[int, int], faces: int, seed_noise: float, times: int) -> float:
    """Return how often the interval contains the truth in simulated studies.

    A face is easy or hard for both configurations and a little for each apart; a seed shifts a network's logits.
    """
    generator = np.random.default_rng(0)
    gap, hard, apart = 0.1, 1.8, 0.8

    def share(logits):
        return 1 / (1 + np.exp(-logits))

    def logits(count):
        common = generator.normal(0.9, hard, count)
        return common + generator.normal(0, apart, count), common + generator.normal(-gap, apart, count)

    first, second = logits(400_000)
    shifts = np.linspace(-3, 3, 13)
    weights = np.exp(-(shifts**2) / 2) / np.exp(-(shifts**2) / 2).sum()
    truth = sum(
        weight * (share(first + seed_noise * shift) - share(second + seed_noise * shift)).mean()
        for weight, shift in zip(weights, shifts, strict=True)
    )
    covered = 0
    for _ in range(times):
        answers = [
            generator.random((count, faces)) < share(own + generator.normal(0, seed_noise, (count, 1)))
            for count, own in zip(seeds, logits(faces), strict=True)
        ]
        low, high = paired_difference(*answers).interval
        covered += low <= truth <= high
    return covered / times


def test_the_interval_of_a_difference_contains_the_truth():
    assert coverage((3, 3), 700, 0.05, 300) >= 0.92  # of 0.95 or more; 0.03 is what 300 studies leave open


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(2, 2), (3, 3), (5, 3)])
@pytest.mark.parametrize("faces", [150, 3589])
@pytest.mark.parametrize("seed_noise", [0.0, 0.03, 0.1])  # standard deviation of accuracies: 0.6, 0.7, 1.4 points
def test_the_interval_of_a_difference_contains_the_truth_for_all_kinds_of_noise(seeds, faces, seed_noise):
    assert coverage(seeds, faces, seed_noise, 800) >= 0.93


@pytest.mark.slow
def test_one_seed_each_covers_the_faces_and_cannot_cover_the_seeds():
    assert coverage((1, 1), 3589, 0.0, 800) >= 0.93
    assert coverage((1, 1), 3589, 0.1, 800) < 0.8  # why the difference says whether seeds are covered


@pytest.mark.parametrize(("seeds", "noise"), [(2, 0.0), (2, 0.1), (3, 0.0), (3, 0.1)])
def test_the_interval_over_faces_and_seeds_contains_the_accuracy_and_counts_the_faces_once(seeds, noise):
    generator, contained, widths = np.random.default_rng(7), 0, []
    faces = generator.normal(0.9, 1.5, 200_000)
    truth = np.mean([(1 / (1 + np.exp(-faces - noise * shift))).mean() for shift in generator.normal(size=40)])
    for _ in range(300):
        logits = generator.choice(faces, 500) + generator.normal(0, noise, (seeds, 1))
        correct = generator.random((seeds, 500)) < 1 / (1 + np.exp(-logits))
        low, high = accuracy_interval_with_seeds(correct)
        contained += low <= truth <= high
        widths.append((high - low) / np.subtract(*accuracy_interval(correct)[::-1]))
    assert contained / 300 > 0.92
    assert np.median(widths) < 1.5  # adding the whole spread of two seeds makes it 4 times as wide


def test_one_seed_has_the_interval_over_faces():
    correct = np.arange(60)[None] % 3 > 0
    assert accuracy_interval_with_seeds(correct) == accuracy_interval(correct)


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).integers(1, 8, 40)
    expected = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert statistics.mean_interval(values) == pytest.approx(expected)
    assert statistics.mean_interval(values[:1]) is None


def test_bootstrapped_means_are_those_of_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(3).exponential(size=(40, 2))
    for column, found in zip(values.T, bootstrapped_means(values), strict=True):
        expected = bootstrap((column,), np.mean, method="percentile", n_resamples=5000, random_state=0)
        assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.03)
    assert bootstrapped_means(values) == bootstrapped_means(values)
    assert bootstrapped_means(np.ones((20, 1))) == [(1, 1)]


def test_bootstrapped_means_contain_the_mean_of_a_simulation():
    values = np.random.default_rng(4).normal(size=(64, 2000))
    contained = np.mean([low < 0 < high for low, high in bootstrapped_means(values)])
    assert 0.92 < contained < 0.96
