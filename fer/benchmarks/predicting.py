"""Speed of ``fer predict`` on photographs.

Measured are the start, the faces a second, and the search for faces beside bare OpenCV.
"""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from fer.benchmarks.measurement import ROUNDS, Measurement, at_least, at_most, cpu_seconds
from fer.benchmarks.watching import hopper, one_thread
from fer.config.errors import FerError

log = logging.getLogger(__name__)

STARTS = 3
FACES = 512  # cut-out faces of a round
SIZE = 48  # pixels of a cut-out face
COLD_START, SHARE_OF_NETWORK, SHARE_OF_OPENCV = 6.0, 0.9, 0.9  # targets: seconds, and shares of the bare speed


def predicting(folder: Path) -> Iterable[Measurement]:
    """Measure the time to the first answer, and the speed of its two halves beside what they call."""
    from fer.inference.predictor import Predictor

    photo = portrait(folder / "portrait.png")
    predictor = Predictor()
    try:
        _ = predictor.detector
    except FerError as error:
        log.info("  not measured: %s", error)
        return
    yield start(photo)
    with one_thread():
        yield from (throughput(), search(photo))


def portrait(file: Path) -> Path:
    """Write matplotlib's portrait of Grace Hopper, in the public domain, as a photograph of one megapixel."""
    picture = hopper()
    scale = (1_000_000 / (picture.width * picture.height)) ** 0.5
    size = round(picture.width * scale), round(picture.height * scale)
    picture.resize(size, Image.Resampling.BICUBIC).save(file)
    return file


def start(photo: Path) -> Measurement:
    """Measure the seconds of ``python -m fer.predict`` on one photograph, with a warm disk cache."""

    def once() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "fer.predict", str(photo)], check=True, capture_output=True)
        return time.perf_counter() - began

    once()
    seconds = [once() for _ in range(STARTS)]
    note = f"{min(seconds):.1f} to {max(seconds):.1f}"
    return at_most("from the command to the answer for one photograph", median(seconds), "s", COLD_START, note)


def throughput() -> Measurement:
    """Measure faces a second of ``fer.Predictor`` on cut-out faces, beside the network alone on the same batches."""
    import torch

    from fer.inference.predictor import PICTURES_AT_ONCE, Predictor
    from fer.models import checkpoints

    model = checkpoints.load("tiny")
    predictor = Predictor(model, detector="none")
    faces = np.random.default_rng(0).integers(0, 256, (FACES, SIZE, SIZE), np.uint8)
    batches = [torch.from_numpy(faces[i : i + PICTURES_AT_ONCE, None]) for i in range(0, FACES, PICTURES_AT_ONCE)]

    def alone() -> None:
        for batch in batches:
            model.probabilities(batch)

    share, note = beside(lambda: predictor(list(faces)), alone, FACES, "faces/s")
    return at_least("cut-out faces a second, of the network's alone", share, "x", SHARE_OF_NETWORK, note)


def search(photo: Path) -> Measurement:
    """Measure the megapixels a second of the search for faces, beside OpenCV's cascade with the same arguments."""
    from fer.inference import detect
    from fer.inference.predictor import upright_grey

    haar, grey = detect.Haar(), upright_grey(photo)
    pixels, _ = detect.searched(grey)
    smallest = detect.smallest(max(pixels.shape))

    def bare() -> None:
        haar.cascade.detectMultiScale3(
            pixels, scaleFactor=detect.SCALE, minNeighbors=detect.NEIGHBOURS, minSize=(smallest,) * 2,
            outputRejectLevels=True,
        )  # fmt: skip

    share, note = beside(lambda: haar(grey), bare, pixels.size / 1e6, "MP/s")
    return at_least("megapixels searched a second, of OpenCV's alone", share, "x", SHARE_OF_OPENCV, note)


def beside(ours: Callable[[], Any], bare: Callable[[], Any], amount: float, unit: str) -> tuple[float, str]:
    """Return our speed as a share of the bare one, measured in turn, and both speeds in words."""

    def rounds() -> Iterator[tuple[float, float]]:
        for round_ in range(ROUNDS + 1):
            pair = cpu_seconds(ours), cpu_seconds(bare)
            if round_:  # the first warms up
                yield pair

    pairs = list(rounds())
    mine, theirs = (amount / median(column) for column in zip(*pairs, strict=True))
    return median(alone / whole for whole, alone in pairs), f"{mine:,.3g} and {theirs:,.3g} {unit}"
