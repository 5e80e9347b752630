"""Faces a second of a network and of its exported files, measured in turn on one thread."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fer.exports.check import Predict

BATCHES = (1, 32, 256)
ROUNDS = 3  # of which the best counts; one more warms up
LEAST = 16  # faces of a measurement


@dataclass(frozen=True)
class Speed:
    """Faces a second at one batch size.

    Args:
        batch: faces at a time.
        faces_per_second: of each kind, by its name; the best round.
    """

    batch: int
    faces_per_second: Mapping[str, float]


def timed(kinds: Mapping[str, Predict], size: int) -> list[Speed]:
    """Return the speed of each kind at each batch size; kinds take turns, so that a busy machine slows all of them.

    Args:
        kinds: name -> what predicts, on one thread.
        size: side of the faces, in pixels.
    """
    faces = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 1, size, size), np.uint8)
    with one_thread():
        return [_at(batch, kinds, faces[:batch]) for batch in BATCHES]


def _at(batch: int, kinds: Mapping[str, Predict], faces: NDArray[np.uint8]) -> Speed:
    calls = max(1, LEAST // batch)
    best = dict.fromkeys(kinds, 0.0)
    for round_ in range(ROUNDS + 1):
        for name, predict in kinds.items():
            began = time.perf_counter()
            for _ in range(calls):
                predict(faces)
            speed = calls * batch / (time.perf_counter() - began)
            best[name] = max(best[name], speed) if round_ else 0.0
    return Speed(batch, best)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
