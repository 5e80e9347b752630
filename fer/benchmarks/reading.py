"""Reading ``fer2013.csv``: against torchvision's reader, in memory, and from the cache."""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

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
    return [
        Figure("reading fer2013.csv, checked", median(ours) * rows, "s of processor"),
        at_least("reading, torchvision's time / ours", ratio, "times", 8),
        *(
            [at_most("reading, peak memory above the pixels", peak_above_pixels(file), "MB", 40)]
            if tells_memory()
            else []
        ),
    ]


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


def tells_memory() -> bool:
    """Return whether this system tells a process's peak memory."""
    from fer.machine import peak_memory

    return peak_memory() is not None


MEMORY = """
import json, sys
from pathlib import Path
from fer.data.readers import csv_file
from fer.machine import peak_memory
before = peak_memory()
faces = csv_file.read(Path(sys.argv[1]))
print(json.dumps([peak_memory() - before, faces.images.nbytes / 2**20]))
"""


def peak_above_pixels(file: Path) -> float:
    """Return by how many MB reading raises a fresh process's peak above its pixels."""
    ended = subprocess.run([sys.executable, "-c", MEMORY, str(file)], capture_output=True, text=True, check=True)
    rise, pixels = json.loads(ended.stdout)
    return float(rise - pixels)


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
