"""Intervals and tests for faces of groups, compared with those of independent faces and with simulations."""

import numpy as np
import pytest

from fer.data.faces import UNKNOWN
from fer.metrics import classification
from fer.metrics.groups import (
    mcnemar_of,
    mean_interval_of,
    number_of,
    numbered,
    of_part,
    random_signs_p,
    share_interval,
)
from fer.metrics.statistics import mcnemar, mean_interval, wilson

NAMES = ("angry", "happy", "neutral")


def people(count, faces, generator, shares):
    """Return the hits of one network on as many faces of each person, whose own shares vary, and the groups."""
    own = generator.beta(*shares, size=count)
    return (generator.random((count, faces)) < own[:, None]).ravel(), np.repeat(np.arange(count), faces)


def test_groups_are_numbered_and_single_faces_are_groups_of_their_own():
    assert numbered(np.array([7, 7, UNKNOWN, 3, UNKNOWN], np.int32), UNKNOWN).tolist() == [1, 1, 2, 0, 3]
    assert numbered(np.array([7, 8, UNKNOWN], np.int32), UNKNOWN) is None
    assert numbered(np.full(3, UNKNOWN, np.int32), UNKNOWN) is None
    groups = np.array([0, 0, 1, 2])
    assert of_part(groups, np.array([True, True, False, True])).tolist() == [0, 0, 1]
    assert of_part(groups, np.array([False, True, False, True])) is None  # no two of one group
    assert of_part(None, np.ones(4, bool)) is None
    assert (number_of(groups, groups < 2), number_of(None, groups < 2)) == (2, 3)


def test_without_groups_intervals_are_those_of_independent_faces():
    hits = np.arange(50) % 3 > 0
    assert share_interval(hits, None) == pytest.approx(tuple(wilson(33, 50)))
    assert mean_interval_of(hits * 1, None, 1) == mean_interval(hits * 1)


def test_the_interval_of_a_share_contains_it_in_simulated_people():
    generator, of_groups, of_faces = np.random.default_rng(0), [], []
    for _ in range(400):
        hits, groups = people(30, 20, generator, (4, 2))
        for found, interval in ((of_groups, share_interval(hits, groups)), (of_faces, share_interval(hits, None))):
            found.append(interval.low <= 4 / 6 <= interval.high)
    assert np.mean(of_groups) > 0.92
    assert np.mean(of_faces) < 0.8  # why the groups matter


@pytest.mark.parametrize("shares", [(7, 3), (2, 0.2), (1, 0.05)])  # with hits of 70 %, 91 % and 95 %
def test_the_interval_of_a_share_near_1_contains_it_too(shares):
    generator, found = np.random.default_rng(8), []
    for _ in range(400):
        low, high = share_interval(*people(30, 20, generator, shares))
        found.append(low <= shares[0] / sum(shares) <= high)
    assert np.mean(found) > 0.91


def test_a_single_error_makes_an_interval_no_narrower_than_none():
    groups = np.repeat(np.arange(12), 7)
    none, one = (share_interval(np.arange(84) >= wrong, groups) for wrong in (0, 1))
    assert one.low < none.low < none.high == 1


def test_independent_faces_in_groups_have_nearly_their_own_interval():
    hits = np.random.default_rng(1).random(3000) < 0.7
    low, high = share_interval(hits, np.repeat(np.arange(300), 10))
    assert high - low == pytest.approx(np.subtract(*wilson(int(hits.sum()), 3000)[::-1]), rel=0.15)


def test_few_groups_are_not_certain():
    assert share_interval(np.ones(40, bool), np.zeros(40, int)) == (0, 1)
    of_two = share_interval(np.ones(40, bool), np.repeat([0, 1], 20))
    assert of_two.low < 0.1
    assert mean_interval_of(np.arange(40), np.zeros(40, int), 40) is None
    assert mean_interval_of(np.repeat([5, 7], 20), np.repeat([0, 1], 20), 7) == (0, 7)  # Student's reaches to 18.7
    hits, groups = people(12, 5, np.random.default_rng(2), (4, 2))
    low, high = mean_interval_of(hits * 1, groups, 1)
    assert low < hits.mean() < high


@pytest.mark.parametrize(("values", "p"), [([1, 1, 1, -1, -1], 1.0), ([1] * 5, 2 / 32), ([2, -1], 1.0), ([3, 1], 0.5)])
def test_random_signs_by_hand(values, p):
    assert random_signs_p(np.array([*values, 0])) == pytest.approx(p, abs=1e-9)


def test_groups_of_one_face_have_mcnemars_test():
    first, second = (np.random.default_rng(seed).random(200) < share for seed, share in ((3, 0.6), (4, 0.5)))
    assert mcnemar_of(first, second, np.arange(200)).p == pytest.approx(mcnemar(first, second).p, rel=1e-9)
    assert mcnemar_of(first, second, None) == mcnemar(first, second)


def test_equal_networks_on_people_differ_in_five_of_a_hundred_tests():
    generator, found, naive = np.random.default_rng(5), 0, 0
    for _ in range(300):
        own = generator.normal(0, 1, (2, 30))
        first, second = (
            (generator.random((30, 20)) < 1 / (1 + np.exp(-0.7 - shift[:, None]))).ravel() for shift in own
        )
        groups = np.repeat(np.arange(30), 20)
        found += mcnemar_of(first, second, groups).p < 0.05
        naive += mcnemar_of(first, second, None).p < 0.05
    assert found / 300 < 0.09
    assert naive / 300 > 0.15


def test_metrics_of_groups_have_wider_intervals_and_equal_values():
    generator = np.random.default_rng(6)
    groups, labels = np.repeat(np.arange(40), 15), generator.integers(0, 3, 600)
    logits = generator.normal(size=(600, 3)) + generator.normal(0, 1.5, 40)[groups, None] * np.eye(3)[labels]
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    alone, grouped = (classification.score(chances, labels, NAMES, each) for each in (None, groups))
    assert (alone.groups, grouped.groups) == (None, 40)
    for name, value in alone.metrics.items():
        other = grouped.metrics[name]
        assert other.value == value.value
        if value.ci95:
            assert np.subtract(*other.ci95) < np.subtract(*value.ci95), name  # lower minus upper end
    recalls = [one.per_class["happy"].recall.ci95 for one in (alone, grouped)]
    assert np.subtract(*recalls[1]) < np.subtract(*recalls[0])
    few = classification.score(chances, labels, NAMES, groups // 8)  # five groups
    assert few.metrics["macro_f1"].ci95 is None
    right, other = chances.argmax(1) == labels, chances[::-1].argmax(1) == labels
    found = classification.paired(chances, chances[::-1], labels, groups).mcnemar
    assert found == mcnemar_of(right, other, groups)
    assert found.p > mcnemar(right, other).p
