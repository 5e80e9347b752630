"""Imputed pixels are those of a sparse direct solution, and follow what is known."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from fer.evaluation.imputation import NOISE, imputed, linear

WEIGHTS = {  # of ROAD's authors
    (-1, -1): 1 / 12, (-1, 0): 1 / 6, (-1, 1): 1 / 12, (0, -1): 1 / 6,
    (0, 1): 1 / 6, (1, -1): 1 / 12, (1, 0): 1 / 6, (1, 1): 1 / 12,
}  # fmt: skip


def solved(face, unknown):
    """The same system, pixel by pixel, with scipy's sparse LU."""
    numbers = {pixel: number for number, pixel in enumerate(zip(*np.nonzero(unknown), strict=True))}
    matrix, right = scipy.sparse.lil_matrix((len(numbers), len(numbers))), np.zeros(len(numbers))
    for (y, x), number in numbers.items():
        for (down, across), weight in WEIGHTS.items():
            other = y + down, x + across
            if not (0 <= other[0] < face.shape[0] and 0 <= other[1] < face.shape[1]):
                continue
            matrix[number, number] += weight
            if other in numbers:
                matrix[number, numbers[other]] -= weight
            else:
                right[number] += weight * face[other]
    filled = face.copy()
    filled[unknown] = scipy.sparse.linalg.spsolve(matrix.tocsc(), right)
    return filled


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_it_is_a_sparse_direct_solution(share):
    generator = np.random.default_rng(int(100 * share))
    faces, unknown = generator.random((3, 16, 16)), generator.random((3, 16, 16)) < share
    unknown[0, :5] = True  # a region that reaches the border
    filled = linear(faces[:, None], unknown[:, None])[:, 0]
    expected = [solved(*one) for one in zip(faces, unknown, strict=True)]
    np.testing.assert_allclose(filled, expected, atol=1e-4)


def test_each_channel_is_filled_from_itself():
    generator = np.random.default_rng(0)
    faces, unknown = generator.random((2, 3, 16, 16)), generator.random((2, 1, 16, 16)) < 0.5
    alone = [linear(faces[:, [channel]], unknown) for channel in range(3)]
    np.testing.assert_allclose(linear(faces, unknown), np.concatenate(alone, 1), atol=1e-5)


def test_a_slope_is_continued_and_known_pixels_stay():
    slope = np.broadcast_to(np.linspace(0.2, 0.8, 48, dtype=np.float32), (1, 1, 48, 48))
    known = np.ones((1, 1, 48, 48), bool)
    known[..., 10:30, 12:30] = False
    filled = imputed(slope, known)
    assert np.array_equal(filled[known], slope[known])
    error = (filled - slope)[~known]
    assert float(error.std()) == pytest.approx(NOISE, rel=0.2)
    assert abs(float(error.mean())) < NOISE / 5


def test_with_nothing_known_a_face_is_its_mean():
    faces = np.random.default_rng(0).random((2, 1, 12, 12), np.float32)
    filled = linear(faces, np.ones(faces.shape, bool))
    np.testing.assert_allclose(filled, np.broadcast_to(faces.mean((2, 3), keepdims=True), filled.shape), atol=1e-6)
