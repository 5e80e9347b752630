"""The check of maps: good maps win, bad ones lose, and the intervals decide the sentence."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

import fer
from fer.evaluation import faithfulness
from fer.evaluation.faithfulness import (
    PARTS,
    blob,
    blurred,
    paths,
    random_maps,
    rank_correlation,
    ranks,
    verdict,
)
from fer.evaluation.randomisation import randomised, weighted
from fer.inference.explain import Explained
from fer.metrics.explanation import BLOB, RANDOM, Difference, Mean
from fer.metrics.statistics import Interval


def drawn(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


CORNER = (slice(4, 12), slice(30, 38))  # rows and columns that the network looks at


@pytest.fixture
def corner():
    """A network that looks for a bright square in the upper right corner, with no weights."""

    def probabilities(images):
        first = images[:, 0, *CORNER].mean((1, 2)).clip(0.01, 0.99)
        return np.stack([first, 1 - first], 1)

    return Explained([SimpleNamespace(probabilities=probabilities, image_size=48, emotions=("a", "b"))])


@pytest.fixture
def bright():
    """30 faces with a bright square in that corner, (30, 1, 48, 48)."""
    images = 0.2 * drawn(30, 1, 48, 48)
    images[..., *CORNER] = 0.9
    return images


def verdict_of(what, faces, maps):
    emotions = np.zeros(len(faces), np.int64)
    areas = {
        name: paths(what, faces, emotions, ranked)
        for name, ranked in (("occlusion", maps), (BLOB, blob(faces)), (RANDOM, random_maps(faces)))
    }
    differences = [faithfulness._difference(name, areas["occlusion"], areas[name]) for name in (BLOB, RANDOM)]
    return verdict("occlusion", differences, len(faces))


def test_the_map_of_what_counts_wins_and_its_opposite_loses(corner, bright):
    best = np.zeros((30, 48, 48), np.float32)
    best[:, *CORNER] = 1
    assert verdict_of(corner, bright, best) == (
        "Occlusion maps of this network explain it better than a blob in the middle of the frame, and they are better "
        "than random maps."
    )
    assert "worse than a blob" in verdict_of(corner, bright, -best)
    assert "are not better than a blob" in verdict_of(corner, bright, blob(bright))


def test_curves_begin_with_the_face_and_end_with_the_blurred_one(corner, bright):
    best = np.zeros((30, 48, 48), np.float32)
    best[:, *CORNER] = 1
    emotions = np.zeros(30, np.int64)
    deletion, insertion = paths(corner, bright, emotions, best)
    assert deletion.shape == insertion.shape == (30, PARTS + 1)
    assert deletion[:, 0] == pytest.approx(0.9, abs=1e-6)
    assert insertion[:, -1] == pytest.approx(0.9, abs=1e-6)
    assert deletion[:, -1] == pytest.approx(insertion[:, 0])
    assert deletion[:, 1] == pytest.approx(deletion[:, -1])  # a twelfth of the pixels covers all that counts
    assert insertion[:, 1] == pytest.approx(0.9, abs=1e-6)


def difference(baseline, deletion, insertion):
    """A difference with intervals of 0.02 around these values."""
    return Difference(baseline, *(Mean(value, Interval(value - 0.01, value + 0.01)) for value in (deletion, insertion)))


@pytest.mark.parametrize(
    ("beside_blob", "beside_random", "words"),
    [
        ((-0.05, 0.05), (-0.05, 0.05), ("explain it better than a blob", "and they are better than random")),
        ((-0.05, 0.005), (-0.05, 0.05), ("are not better than a blob", "but they are better than random")),
        ((0.005, 0.05), (-0.05, 0.05), ("are not better than a blob", "but they are better than random")),
        ((-0.05, -0.05), (-0.05, 0.05), ("are not better than a blob",)),
        ((0.05, -0.05), (0.0, 0.0), ("explain it worse than a blob", "and they are not better than random")),
        ((0.05, -0.05), (0.05, -0.05), ("explain it worse than a blob", "and they are worse than random")),
        ((0.0, 0.0), (0.0, 0.0), ("are not better than a blob", "and they are not better than random")),
    ],
)
def test_both_intervals_decide(beside_blob, beside_random, words):
    decision = verdict("gradcam", [difference(BLOB, *beside_blob), difference(RANDOM, *beside_random)], 500)
    assert decision.startswith("Grad-CAM maps of this network")
    for part in words:
        assert part in decision


@pytest.mark.parametrize("faces", [1, 19])
def test_few_faces_get_no_verdict(faces):
    decision = verdict("occlusion", [Difference(name, Mean(-0.5), Mean(0.5)) for name in (BLOB, RANDOM)], faces)
    assert f"{faces} face" in decision
    assert "too few" in decision
    assert "20 are needed" in decision


def test_ranks_put_the_largest_first_and_break_ties_at_random():
    values = drawn(3, 7, 7)
    for rank, value in zip(ranks(values), values, strict=True):
        assert np.array_equal(value.flatten()[rank.flatten().argsort()], np.sort(value.flatten())[::-1])
    (flat,) = ranks(np.zeros((1, 9, 9), np.float32))
    assert sorted(flat.flatten().tolist()) == list(range(81))
    assert abs(float(flat[:4].mean() - flat[5:].mean())) < 20  # scan order would differ by 45


def test_faces_are_blurred_as_scipy_does():
    faces = drawn(2, 1, 48, 48)
    expected = [scipy.ndimage.gaussian_filter(face[0], 4.0, mode="nearest", truncate=3.0) for face in faces]
    np.testing.assert_allclose(blurred(faces)[:, 0], np.stack(expected), atol=1e-5)


def test_rank_correlation_is_scipys():
    first, second = drawn(2, 3, 8, 8)
    second = second.round(1)  # it has ties
    expected = [scipy.stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(first, second, strict=True)]
    assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-9)
    assert rank_correlation(first, np.ones((3, 8, 8), np.float32)).tolist() == [0, 0, 0]


def test_random_maps_are_of_each_face_and_the_blob_is_of_none():
    faces = drawn(3, 1, 48, 48)
    assert not np.array_equal(*random_maps(faces)[:2])
    assert np.array_equal(random_maps(faces), random_maps(np.zeros_like(faces)))
    first, second, _ = blob(faces)
    assert np.array_equal(first, second)
    assert first.argmax() in (23 * 48 + 23, 23 * 48 + 24, 24 * 48 + 23, 24 * 48 + 24)
    assert first.argmin() in (0, 47, 47 * 48, 48 * 48 - 1)


def test_weights_are_put_into_a_random_order_from_the_last_layer():
    tiny = fer.load("tiny").eval()
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    last, several = randomised(tiny, 1).state_dict(), randomised(tiny, 5).state_dict()
    assert [name for name in last if not torch.equal(last[name], before[name])] == ["net.18.weight"]
    changed = [name for name in several if not torch.equal(several[name], before[name])]
    assert {name.split(".")[1] for name in changed} == {"16", "18"}  # the head, two convolutions, two normalisations
    assert len(changed) == 1 + 2 + 4
    for name in changed:
        assert torch.equal(several[name].flatten().sort().values, before[name].flatten().sort().values)
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())
    assert len(weighted(tiny)) == 17
