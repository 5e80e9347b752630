"""Speed and memory of reading ``fer2013.csv`` and of loading it from the cache.

Reading is compared with torchvision's reader.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from fer.benchmarks.measurement import ROUNDS, Measurement, at_least, at_most, cpu_seconds

SAMPLE = 3_000  # rows for torchvision's reader in each round: the whole table would take a minute


def reading(file: Path, folder: Path) -> list[Measurement]:
    """Measure the processor time per row of our reader and of torchvision's, and our memory in a separate process."""
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
    measurements = [
        Measurement("reading fer2013.csv, checked", median(ours) * rows, "s of processor"),
        at_least("reading, torchvision's time / ours", ratio, "times", 8),
    ]
    cost = cost_of_reading(file)
    if cost.peak:
        measurements.append(at_most("reading, peak memory above the pixels", cost.peak - cost.pixels, "MB", 40))
    return measurements


def head(file: Path, rows: int, folder: Path) -> Path:
    """Write the table's first rows into ``folder``, under the path that torchvision requires."""
    target = folder / "sample" / "fer2013" / "fer2013.csv"
    target.parent.mkdir(parents=True)
    with open(file, "rb") as source, open(target, "wb") as copy:
        for _ in range(rows + 1):
            copy.write(source.readline())
    return target


def torchvision_rows(file: Path) -> int:
    """Parse with torchvision.datasets.FER2013 and return its number of rows.

    torchvision accepts one file alone by its checksum; that check is skipped here, the parsing is unchanged.
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
from fer.system.machine import memory
before, start = memory() or 0, time.process_time()
faces = csv_file.read(Path(sys.argv[1]))
took = time.process_time() - start
print(json.dumps([len(faces), took, (memory() or 0) - before, faces.images.nbytes / 2**20]))
"""


class Cost(NamedTuple):
    """The cost of reading a table.

    Args:
        rows: rows of the table.
        seconds: processor time.
        peak: MB added to the peak memory of a fresh process; 0 if the system does not report memory.
        pixels: MB of the faces.
    """

    rows: int
    seconds: float
    peak: float
    pixels: float


def cost_of_reading(file: Path) -> Cost:
    """Read an uncompressed table in a separate process."""
    ended = subprocess.run([sys.executable, "-c", READ, str(file)], capture_output=True, text=True, check=True)
    return Cost(*json.loads(ended.stdout))


def caching(file: Path, folder: Path) -> list[Measurement]:
    """Measure the first load and later loads from the cache, the search for the entry included."""
    from fer.data.load import read_path

    def load() -> None:
        read_path(file, image_size=48, on_bad="error", cache=folder / "cache")

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
    return [Measurement("first load, parsed and cached", first, "s"), at_most("later loads", median(times), "s", 0.2)]
