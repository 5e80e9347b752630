"""Growth of time and memory.

They grow with the number of faces, the batch size and the number of threads.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from fer.benchmarks.contestants import Workload
from fer.benchmarks.measurement import Measurement, at_most
from fer.benchmarks.reading import cost_of_reading
from fer.benchmarks.training import Turn, interleaved, nano

log = logging.getLogger(__name__)

SIZES = (1, 4, 16)  # repetitions of the table
BATCHES = (32, 64, 128, 256, 512)  # faces
FACES = 4_096  # faces of an epoch in the comparison of batch sizes and threads
NOISE = 1.15  # tolerated ratio of measured to linear growth


@dataclass(frozen=True)
class Series:
    """The values measured at K sizes.

    Args:
        name: what was measured.
        across: unit of the sizes, such as "faces".
        sizes: K sizes.
        values: K measured values.
        unit: of the values.
        linear: whether the values are expected to grow in proportion to the sizes.
    """

    name: str
    across: str
    sizes: Sequence[int]
    values: Sequence[float]
    unit: str
    linear: bool = False

    def measurements(self) -> Iterable[Measurement]:
        """Yield each value and, for linear growth, the ratio of measured to proportional growth."""
        for size, value in zip(self.sizes, self.values, strict=True):
            yield Measurement(f"{self.name}, {size:,} {self.across}", value, self.unit)
        if self.linear:
            growth = (self.values[-1] / self.values[0]) / (self.sizes[-1] / self.sizes[0])
            yield at_most(f"{self.name}: growth / linear growth", growth, "times", NOISE)


def growing(file: Path, folder: Path, rounds: int, threads: Sequence[int]) -> Iterator[Series]:
    """Measure reading and an epoch of a nano network by table size, and the CNN's epoch by batch size and threads.

    Each series is yielded as soon as it is measured.

    Args:
        file: an uncompressed ``fer2013.csv``.
        folder: for repetitions of the table, 21 times its size.
        rounds: epochs that are measured.
        threads: numbers of processor threads to compare.
    """
    yield from by_faces(file, folder, rounds)
    yield from by_batch(file, rounds)
    yield from by_threads(file, rounds, threads)


def by_faces(file: Path, folder: Path, rounds: int) -> list[Series]:
    """Measure reading and training on the table and its repetitions."""
    workloads, readings = {}, []
    for times in SIZES:
        table = repeated(file, times, folder / f"times{times}")
        readings.append(cost_of_reading(table))
        workloads[str(times)] = ("ours", nano(table, str(folder / "cache")))
    epochs = interleaved(workloads, rounds)
    trained = [median(turn["images"] for turn in turns) for turns in epochs.values()]
    images, rows = [int(count) for count in trained], [cost.rows for cost in readings]
    seconds = [median(turn["seconds"] for turn in turns) for turns in epochs.values()]
    return [
        Series("reading fer2013.csv", "rows", rows, [cost.seconds for cost in readings], "s of processor", linear=True),
        Series("reading, peak memory", "rows", rows, [cost.peak for cost in readings], "MB", linear=True),
        Series("epoch of a nano network", "faces", images, seconds, "s", linear=True),
        Series("epoch of a nano network, peak memory", "faces", images, list(map(peak, epochs.values())), "MB"),
    ]


def by_batch(file: Path, rounds: int) -> list[Series]:
    """Measure the CNN's epochs at several batch sizes."""
    epochs = interleaved(
        {str(size): ("ours", Workload(str(file), "", batch_size=size, steps=FACES // size)) for size in BATCHES}, rounds
    )
    memory = list(map(peak, epochs.values()))
    return [
        Series("cnn by batch size", "faces a step", BATCHES, list(map(speed, epochs.values())), "images/s"),
        Series("cnn by batch size, peak memory", "faces a step", BATCHES, memory, "MB", linear=True),
    ]


def by_threads(file: Path, rounds: int, threads: Sequence[int]) -> list[Series]:
    """Measure the CNN's epochs with several numbers of threads."""
    workload = Workload(str(file), "", steps=FACES // 128)
    epochs = interleaved({str(count): ("ours", replace(workload, threads=count)) for count in threads}, rounds)
    return [Series("cnn by threads", "threads", threads, list(map(speed, epochs.values())), "images/s")]


def repeated(file: Path, times: int, folder: Path) -> Path:
    """Write a table with the rows of ``file``, ``times`` times over, and return it."""
    folder.mkdir(parents=True)
    target = folder / file.name
    head, _, rows = file.read_bytes().partition(b"\n")
    rows = rows if rows.endswith(b"\n") else rows + b"\n"
    with open(target, "wb") as stream:
        stream.write(head + b"\n")
        for _ in range(times):
            stream.write(rows)
    return target


def speed(turns: Sequence[Turn]) -> float:
    """Return the images a second of the median epoch, without its validation."""
    return median(turn["images"] / turn["trained"] for turn in turns)


def peak(turns: Sequence[Turn]) -> float:
    """Return the peak memory in MB, without imports."""
    return turns[-1]["memory"]


def drawn(series: Sequence[Series], folder: Path) -> None:
    """Draw all series into ``folder`` as ``growth.png`` and ``growth.svg``, and log the path."""
    from fer.reports import plotting

    with plotting.style():
        figure, rows = plotting.canvas(1.35 * len(series), len(series))
        for axes, single in zip(rows[:, 0], series, strict=True):
            _draw(axes, single)
    plotting.save(figure, folder, "growth")
    log.info("drawn: %s", folder / "growth.png")


def _draw(axes: Any, series: Series) -> None:
    axes.plot(series.sizes, series.values, marker="o", markersize=4)
    if series.linear:
        line = [series.values[0] * size / series.sizes[0] for size in series.sizes]
        axes.plot(series.sizes, line, linestyle=(0, (2, 2)), linewidth=1, label="proportional to the first")
        axes.legend(fontsize=7)
        axes.set_yscale("log")  # linear growth is a straight line
    else:
        axes.set_ylim(0, 1.15 * max(series.values))
    axes.set_xscale("log", base=2)
    axes.set_xticks(series.sizes, [f"{size:,}" for size in series.sizes])
    axes.minorticks_off()
    axes.set_title(series.name, fontsize=9)
    axes.set_ylabel(series.unit)
    axes.set_xlabel(series.across)
