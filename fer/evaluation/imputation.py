"""Removed pixels of a face, filled from the others: ROAD's noisy linear imputation.

Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ROAD). A removed pixel is
the weighted mean of its eight neighbours, of which others may be removed too: one linear system a face. A little noise
hides which pixels were filled, since a smooth patch betrays its outline to a network. The authors' weights and noise
are used; conjugate gradients solve the systems of all faces together.
"""

import torch
from torch import Tensor
from torch.nn import functional

SIDE, CORNER = 1 / 6, 1 / 12  # weights of the neighbours
NOISE = 0.01  # standard deviation, of pixels in [0, 1]
MOST_STEPS = 1000  # of conjugate gradients; 48x48 pixels take up to some 150
EXACT = 1e-6  # largest residual, of pixels in [0, 1]
SEED = 0


def imputed(faces: Tensor, known: Tensor) -> Tensor:
    """Return faces (N, 1, S, S) in [0, 1] whose unknown pixels are imputed; with none known, from the face's mean.

    Args:
        faces: (N, 1, S, S) in [0, 1].
        known: (N, 1, S, S), True where the pixel is kept.
    """
    unknown = ~known
    generator = torch.Generator().manual_seed(SEED)
    noise = NOISE * torch.randn(faces.shape, generator=generator)
    return torch.where(unknown, linear(faces, unknown) + noise, faces).clamp(0, 1)


def linear(faces: Tensor, unknown: Tensor) -> Tensor:
    """Return faces (N, 1, S, S) whose unknown pixels are the weighted means of their neighbours, without noise."""
    inside = unknown.double()
    start = faces.double().mean((1, 2, 3), keepdim=True).expand(faces.shape)  # the answer where nothing is known
    filled = torch.where(unknown, start, faces.double())
    shares = _neighbours(torch.ones_like(filled))  # 1, and less at the border

    def system(values: Tensor) -> Tensor:
        return inside * (shares * values - _neighbours(values))

    residual = -system(filled)
    direction, size = residual, _dot(residual, residual)
    for _ in range(MOST_STEPS):
        if residual.abs().max() <= EXACT:
            break
        moved = system(direction)
        step = _divided(size, _dot(direction, moved))
        filled, residual = filled + step * direction, residual - step * moved
        before, size = size, _dot(residual, residual)
        direction = residual + _divided(size, before) * direction
    return filled.to(faces.dtype)


def _neighbours(values: Tensor) -> Tensor:
    """Return the weighted sum of the eight neighbours of each pixel; beyond the border there are none."""
    row = torch.tensor([CORNER, SIDE, CORNER], dtype=values.dtype)
    kernel = torch.stack([row, torch.tensor([SIDE, 0, SIDE], dtype=values.dtype), row])
    return functional.conv2d(values, kernel[None, None], padding=1)


def _dot(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner product of each face, (N, 1, 1, 1)."""
    return (first * second).sum((1, 2, 3), keepdim=True)


def _divided(above: Tensor, below: Tensor) -> Tensor:
    """Return a quotient, 0 where a face is solved already."""
    return torch.where(below > 0, above / below.clamp(min=torch.finfo(below.dtype).tiny), 0.0)
