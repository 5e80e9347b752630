"""Arrays of NumPy and tensors of torch: what a function needs that serves both.

Predictions of a network that torch runs are tensors, those of an exported file arrays, so that exported files need no
torch. Both libraries have functions of the same names and positions, so that each metric is written once. Draws are
the same in both; the order of sums is not, and changes the last digit of a sum.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TINY = float(np.finfo(np.float32).tiny)  # least probability whose logarithm is taken
Array = Any  # an array of NumPy, or a tensor of torch on the CPU: no type of Python describes both


def library(array: Array) -> Any:
    """Return the module that computes with an array: NumPy, or torch, which a tensor has imported already."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def like(array: Array, values: object) -> Array:
    """Return values as an array of the same library."""
    return library(array).asarray(values)


def together(arrays: Sequence[Array]) -> Array:
    """Return arrays (M, ...) of one shape; tensors where one of them is a tensor."""
    tensors = [array for array in arrays if not isinstance(array, np.ndarray)]
    if not tensors:
        return np.stack(arrays)
    return library(tensors[0]).stack([like(tensors[0], array) for array in arrays])


def doubled(values: Array) -> Array:
    """Return values in 64 bits."""
    lib = library(values)
    return lib.asarray(values, dtype=lib.float64)


def largest_two(values: Array) -> Array:
    """Return the indices (N, 2) of the largest values (N, C) of each row; the order of equal ones is the library's."""
    if isinstance(values, np.ndarray):
        return np.argsort(-values, 1, stable=True)[:, :2]
    return values.topk(2, 1).indices


# --- draws, equal to those of ``torch.Generator().manual_seed(0)`` --------------------------------------------------


def generator() -> np.random.RandomState:
    """Return the Mersenne twister with seed 0, from which torch draws on a CPU too."""
    return np.random.RandomState(0)


def drawn_counts(source: np.random.RandomState, samples: int, count: int) -> NDArray[np.float32]:
    """Return how often each of ``count`` faces is drawn, (samples, count), with replacement; as ``torch.randint``."""
    drawn = source.randint(0, 1 << 32, (samples, count), dtype=np.uint32).astype(np.int64) % count
    cells = drawn + count * np.arange(samples)[:, None]
    return np.bincount(cells.ravel(), minlength=samples * count).reshape(samples, count).astype(np.float32)


def drawn_shares(source: np.random.RandomState, samples: int, count: int) -> NDArray[np.float32]:
    """Return numbers in [0, 1), (samples, count): 24 bits of each draw, as ``torch.rand`` takes them."""
    drawn = source.randint(0, 1 << 32, (samples, count), dtype=np.uint32)
    return (drawn & np.uint32((1 << 24) - 1)).astype(np.float32) / np.float32(1 << 24)
