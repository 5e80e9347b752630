"""Faces a second of a network and of its exported files, measured in turn on one thread.

Seconds are those of the processor. On a quiet machine they pass like those of a clock; neighbours hardly change them.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fer.exports.check import Predict

BATCHES = (1, 32, 256)
ROUNDS = 4  # of which the best counts; one more warms up
LEAST = 16  # faces of a measurement
TICK = 1e-6  # seconds; a clock may stand still


@dataclass(frozen=True)
class Speed:
    """Faces a second at one batch size.

    Args:
        batch: faces at a time.
        faces_per_second: of processor time, of each kind by its name; the best round.
    """

    batch: int
    faces_per_second: Mapping[str, float]


def timed(kinds: Mapping[str, Predict], shape: tuple[int, int, int]) -> list[Speed]:
    """Return the speed of each kind at each batch size; kinds take turns, so that a busy machine slows all of them.

    Args:
        kinds: name -> what predicts, on one thread.
        shape: (C, S, S) of a face.
    """
    faces = np.random.default_rng(0).integers(0, 256, (max(BATCHES), *shape), np.uint8)
    with one_thread():
        return [_at(batch, kinds, faces[:batch]) for batch in BATCHES]


def _at(batch: int, kinds: Mapping[str, Predict], faces: NDArray[np.uint8]) -> Speed:
    calls = max(1, LEAST // batch)
    best = dict.fromkeys(kinds, 0.0)
    for round_ in range(ROUNDS + 1):
        for name, predict in kinds.items():
            began = time.process_time()
            for _ in range(calls):
                predict(faces)
            speed = calls * batch / max(time.process_time() - began, TICK)
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
