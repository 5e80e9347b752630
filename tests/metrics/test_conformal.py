"""Prediction sets: compared with a reference written here, on data of which the coverage is known, and at the edges."""

from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np
import pytest

from fer.config.errors import FerError
from fer.metrics import conformal
from fer.metrics.conformal import Thresholds, named_sets, quantile, scores, sets

CLASSES = ("angry", "disgust", "fear", "happy")


def drawn(count, seed, classes=7, sharpened=1.0):
    """Probabilities and labels drawn from them; sharpened, the probabilities are those of an overconfident network."""
    generator = np.random.default_rng(seed)
    chances = generator.dirichlet(np.full(classes, 0.4), count)
    targets = (generator.random((count, 1)) > chances.cumsum(1)).sum(1).clip(max=classes - 1)
    sharp = chances**sharpened
    return sharp / sharp.sum(1, keepdims=True), targets


# --- the reference: sets built face by face, thresholds in exact fractions ------------------------------------------


def smallest_levels(row):
    """Class -> the total probability of the classes before it, taken in from the most probable, ties together."""
    levels, total = {}, 0.0
    for value in sorted(set(row), reverse=True):
        tied = [index for index, one in enumerate(row) if one == value]
        levels |= dict.fromkeys(tied, total)
        total += value * len(tied)
    return levels


def reference_threshold(chances, targets, coverage):
    """The ⌈(n + 1) coverage⌉-th smallest level of the labels; infinity where there are too few."""
    levels = sorted(smallest_levels(row)[target] for row, target in zip(chances.tolist(), targets, strict=True))
    rank = ceil((len(levels) + 1) * Fraction(str(coverage)))
    return levels[rank - 1] if rank <= len(levels) else float("inf")


@pytest.mark.parametrize("coverage", [0.5, 0.57, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("count", [8, 99, 400])
def test_sets_are_those_of_the_reference(count, coverage):
    chances, targets = drawn(count, 0)
    chances = np.round(chances, 2) + 0.001  # with ties
    others, _ = drawn(60, 1)
    expected = reference_threshold(chances, targets, coverage)
    held_sets = sets(others, Thresholds.calibrated(chances, targets).threshold(coverage))
    for row, inside in zip(others.tolist(), held_sets, strict=True):
        levels = smallest_levels(row)
        assert inside.tolist() == [levels[index] <= expected + 1e-12 for index in range(7)]


# --- the promise ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharpened", [1.0, 3.0])
def test_the_coverage_is_that_of_the_theory(sharpened):
    """Over calibrations on n faces it is ⌈(n + 1) c⌉ / (n + 1), whatever the network (Vovk et al. 2005)."""
    trials, n, new = 3000, 20, 20
    chances, targets = drawn(trials * (n + new), 2, sharpened=sharpened)
    values = scores(chances).reshape(trials, n + new, 7)
    own = np.take_along_axis(values, targets.reshape(trials, n + new, 1), 2)[:, :, 0]
    thresholds = np.array([quantile(np.sort(row), 90) for row in own[:, :n]])
    covered = (own[:, n:] <= thresholds[:, None]).mean()
    assert covered == pytest.approx(19 / 21, abs=0.005)  # not the 18 / 21 of the plain quantile


def test_coverage_rises_with_the_promise_and_so_does_the_size():
    chances, targets = drawn(4000, 3)
    known = Thresholds.calibrated(chances[:2000], targets[:2000])
    inside = [sets(chances[2000:], known.threshold(coverage)) for coverage in (0.6, 0.8, 0.9, 0.95, 0.99)]
    assert all((small <= large).all() for small, large in pairwise(inside))
    covered = [one[np.arange(2000), targets[2000:]].mean() for one in inside]
    assert covered[2:] == pytest.approx([0.9, 0.95, 0.99], abs=0.02)
    assert list(known.at.values()) == sorted(known.at.values())


# --- edges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 8])
def test_too_few_faces_give_every_emotion(count):
    """⌈(8 + 1) 0.9⌉ = 9: no score of 8 faces can promise 90 %."""
    chances, targets = drawn(count, 4)
    known = Thresholds.calibrated(chances, targets)
    assert known.faces == count
    assert sets(np.array([[0.7, 0.2, 0.1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]), known.threshold(0.9)).all()


def test_equal_probabilities_enter_together():
    assert scores(np.full((1, 7), 1 / 7)).tolist() == [[0] * 7]
    assert sets(np.full((1, 7), 1 / 7), 0).all()
    assert sets(np.array([[0.4, 0.4, 0.1, 0.1]]), 0).tolist() == [[True, True, False, False]]
    assert scores(np.array([[0.1, 0.4, 0.4, 0.1]])) == pytest.approx(np.array([[0.8, 0, 0, 0.8]]))


def test_a_set_is_never_empty_and_begins_with_the_answer():
    chances, _ = drawn(500, 5)
    inside = sets(chances, 0)
    assert (inside.sum(1) == 1).all()
    assert (inside.argmax(1) == chances.argmax(1)).all()
    assert named_sets(np.array([[0.1, 0.2, 0.3, 0.4]]), CLASSES, 0.7) == [("happy", "fear", "disgust")]
    assert named_sets(np.array([[0.1, 0.2, 0.3, 0.4]]), CLASSES, 0.69) == [("happy", "fear")]


def test_a_class_that_val_lacks_may_still_be_in_a_set():
    chances, targets = drawn(2000, 6)
    kept = targets != 1
    known = Thresholds.calibrated(chances[kept], targets[kept])
    assert known.faces == kept.sum()
    assert named_sets(np.array([[0.4, 0.5, 0.1, 0, 0, 0, 0]]), "abcdefg", known.threshold(0.9))[0][0] == "b"


def test_between_two_steps_the_promise_is_kept():
    known = Thresholds.calibrated(*drawn(3000, 7))
    assert known.threshold(0.901) == known.threshold(0.905) == known.at["0.91"] > known.threshold(0.9)
    assert known.threshold(0.57) == known.at["0.57"]  # 100 * 0.57 is a little below 57, 100 * 0.55 above 55
    assert known.threshold(0.55) == known.at["0.55"]


@pytest.mark.parametrize("coverage", [0, 0.49, 0.995, 1, 90, float("nan")])
def test_other_coverages_are_refused_with_the_range(coverage):
    with pytest.raises(FerError, match=r"coverage=.*: expected .* 0\.5 to 0\.99"):
        Thresholds.calibrated(*drawn(50, 8)).threshold(coverage)


def test_what_a_checkpoint_holds_is_checked():
    known = Thresholds.calibrated(*drawn(300, 9))
    good = {"faces": 300, "at": dict(known.at)}
    assert conformal.valid(good, 7)
    for bad in (
        {"at": {"0.90": float("nan")}}, {"at": {"0.90": -0.1}}, {"at": {"0.90": 1.5}}, {"at": {"0.90": "0.5"}},
        {"at": {"0.50": 1.0}}, {"faces": None},
    ):  # fmt: skip
        assert not conformal.valid({**good, **bad, "at": {**good["at"], **bad.get("at", {})}}, 7)
    assert not conformal.valid({"faces": 300, "at": {}}, 7)
    assert not conformal.valid({"faces": 300}, 7)
    assert not conformal.valid([], 7)
    assert conformal.valid({**good, "by_class": [good] * 7}, 7)
    for bad in ([good] * 6, [good] * 8, [{**good, "at": {}}] * 7, "seven", None):
        assert not conformal.valid({**good, "by_class": bad}, 7)


# --- a promise for each class ---------------------------------------------------------------------------------------


def test_thresholds_by_class_are_those_of_the_faces_of_each_class():
    chances, targets = drawn(400, 11)
    thresholds = Thresholds.calibrated(chances, targets)
    for label, limit in enumerate(thresholds.limits(0.9, "class")):
        own = targets == label
        assert limit == pytest.approx(Thresholds.calibrated(chances[own], targets[own]).threshold(0.9)), label
    assert thresholds.limits(0.9, "all") == thresholds.threshold(0.9)


def test_each_class_keeps_the_promise_where_one_threshold_breaks_it():
    chances, targets = drawn(20_000, 12)
    chances[:, 1] *= 0.2  # a class that the network underrates
    chances /= chances.sum(1, keepdims=True)
    (first, others), (labels, expected) = np.split(chances, 2), np.split(targets, 2)
    known, rare = Thresholds.calibrated(first, labels), expected == 1
    coverage = {way: sets(others, known.limits(0.9, way))[rare, 1].mean() for way in ("all", "class")}
    assert coverage["all"] < 0.8
    assert coverage["class"] == pytest.approx(0.9, abs=0.03)


def test_a_class_with_too_few_faces_has_the_threshold_over_all_faces_and_is_named():
    chances, targets = drawn(400, 13)
    nine, eight = np.flatnonzero(targets == 2)[:9], np.flatnonzero(targets == 3)[:8]
    kept = np.concatenate([np.flatnonzero(~np.isin(targets, (2, 3))), nine, eight])
    thresholds = Thresholds.calibrated(chances[kept], targets[kept])
    assert thresholds.unpromised(0.9) == [3]
    assert thresholds.limits(0.9, "class")[3] == thresholds.threshold(0.9)


def test_thresholds_of_earlier_versions_serve_no_class():
    old = Thresholds(50, Thresholds.calibrated(*drawn(50, 14)).at)
    with pytest.raises(FerError, match=r"coverage_by=class: .*fer\.evaluate .*--coverage-by class"):
        old.limits(0.9, "class")
