"""Reading ``fer2013.csv``: against torchvision's reader, in memory, and from the cache."""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from fer.benchmarks.figures import ROUNDS, Figure, at_least, at_most, cpu_seconds

SAMPLE = 3_000  # rows that torchvision's reader is timed on, each time: whole, it would take a minute


def reading(file: Path, folder: Path) -> list[Figure]:
    """Measure the reader against torchvision's in processor time a row, and its memory in a process of its own."""
    from fer.data.readers import csv_file

    ours, theirs = [], []
    rows = 0
    sample = head(file, SAMPLE, folder)
    for _ in range(ROUNDS):
        theirs.append(cpu_seconds(lambda: torchvision_rows(sample)) / SAMPLE)
        start = time.process_time()
        rows = len(csv_file.read(file))
        ours.append((time.process_time() - start) / rows)
    ratio = median(b / a for a, b in zip(ours, theirs, strict=True))
    figures = [
        Figure("reading fer2013.csv, checked", median(ours) * rows, "s of processor"),
        at_least("reading, torchvision's time / ours", ratio, "times", 8),
    ]
    cost = cost_of_reading(file)
    if cost.peak:
        figures.append(at_most("reading, peak memory above the pixels", cost.peak - cost.pixels, "MB", 40))
    return figures


def head(file: Path, rows: int, folder: Path) -> Path:
    """Write the table's first rows into ``folder``, under the name that torchvision wants."""
    target = folder / "sample" / "fer2013" / "fer2013.csv"
    target.parent.mkdir(parents=True)
    with open(file, "rb") as source, open(target, "wb") as copy:
        for _ in range(rows + 1):
            copy.write(source.readline())
    return target


def torchvision_rows(file: Path) -> int:
    """Parse with torchvision.datasets.FER2013 and return its number of rows.

    Its checksum knows one file alone, so that the check is passed over; the parsing is its own.
    """
    from unittest.mock import patch

    from torchvision.datasets import FER2013

    with patch("torchvision.datasets.fer2013.check_integrity", return_value=True):
        return len(FER2013(str(file.parent.parent), split="train")) + len(
            FER2013(str(file.parent.parent), split="test")
        )


READ = """
import json, sys, time
from pathlib import Path
from fer.data.readers import csv_file
from fer.machine import memory
before, start = memory() or 0, time.process_time()
faces = csv_file.read(Path(sys.argv[1]))
took = time.process_time() - start
print(json.dumps([len(faces), took, (memory() or 0) - before, faces.images.nbytes / 2**20]))
"""


class Cost(NamedTuple):
    """What reading a table costs.

    Args:
        rows: of the table.
        seconds: of the processor.
        peak: MB by which it raises a fresh process's peak of memory; 0 where the system does not tell.
        pixels: MB that the faces take.
    """

    rows: int
    seconds: float
    peak: float
    pixels: float


def cost_of_reading(file: Path) -> Cost:
    """Read a plain table in a process of its own."""
    ended = subprocess.run([sys.executable, "-c", READ, str(file)], capture_output=True, text=True, check=True)
    return Cost(*json.loads(ended.stdout))


def caching(file: Path, folder: Path) -> list[Figure]:
    """Measure the second load, from the cache, with what it takes to find it."""
    from fer.data import readers

    def load() -> None:
        readers.read(file, image_size=48, on_bad="error", cache=folder / "cache")

    start = time.perf_counter()
    load()
    first = time.perf_counter() - start
    time.sleep(2.1)  # a file written within the last two seconds is not trusted to stay as it is
    load()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        load()
        times.append(time.perf_counter() - start)
    return [Figure("first load, parsed and cached", first, "s"), at_most("later loads", median(times), "s", 0.2)]
