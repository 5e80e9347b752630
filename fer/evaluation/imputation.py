"""Removed pixels of a face, filled from the others: ROAD's noisy linear imputation.

Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ROAD). A removed pixel is
the weighted mean of its eight neighbours. Some of these may be removed too, so that each face is one linear system. A
little noise hides which pixels were filled, since a smooth patch betrays its outline to a network. The authors' weights
and noise are used; conjugate gradients solve the systems of all faces together.
"""

import numpy as np
from numpy.typing import NDArray

SIDE, CORNER = 1 / 6, 1 / 12  # weights of the neighbours
NOISE = 0.01  # standard deviation, of pixels in [0, 1]
MOST_STEPS = 1000  # of conjugate gradients; 48x48 pixels take up to some 150
EXACT = 1e-6  # largest residual, of pixels in [0, 1]
SEED = 0


def imputed(faces: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return faces (N, C, S, S) in [0, 1] with the unknown pixels imputed; a face without known pixels gets its mean.

    Args:
        faces: (N, C, S, S) in [0, 1]; each channel is filled from itself.
        known: (N, 1, S, S), True where the pixel is kept.
    """
    noise = NOISE * np.random.default_rng(SEED).standard_normal(faces.shape, np.float32)
    filled: NDArray[np.float32] = np.where(known, faces, linear(faces, ~known) + noise).clip(0, 1)
    return filled


def linear(faces: NDArray[np.float32], unknown: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return faces (N, C, S, S); unknown pixels (N, 1, S, S) are weighted means of their neighbours, without noise."""
    given = faces.astype(np.float64)
    filled = np.where(unknown, given.mean((2, 3), keepdims=True), given)  # the answer where nothing is known
    shares = _neighbours(np.ones_like(given[:1]))  # 1, and less at the border

    def system(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return unknown * (shares * values - _neighbours(values))

    residual = -system(filled)
    direction, size = residual, _dot(residual, residual)
    for _ in range(MOST_STEPS):
        if np.abs(residual).max() <= EXACT:
            break
        moved = system(direction)
        step = _divided(size, _dot(direction, moved))
        filled, residual = filled + step * direction, residual - step * moved
        before, size = size, _dot(residual, residual)
        direction = residual + _divided(size, before) * direction
    return filled.astype(faces.dtype)


def _neighbours(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted sum of the eight neighbours of each pixel; beyond the border there are none."""
    wide = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
    beside = wide[..., :-2] + wide[..., 2:]  # left and right, (N, 1, S + 2, S)
    rows = CORNER * beside + SIDE * wide[..., 1:-1]
    sums: NDArray[np.float64] = rows[..., :-2, :] + rows[..., 2:, :] + SIDE * beside[..., 1:-1, :]
    return sums


def _dot(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inner product of each channel of each face, (N, C, 1, 1)."""
    products: NDArray[np.float64] = np.einsum("ncyx,ncyx->nc", first, second)[..., None, None]
    return products


def _divided(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a quotient, 0 where a channel is solved already."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
