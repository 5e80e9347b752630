"""How time and memory grow: with the number of faces, the batch size and the threads."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from fer.benchmarks.contestants import Order
from fer.benchmarks.figures import Figure, at_most
from fer.benchmarks.reading import cost_of_reading
from fer.benchmarks.training import NANO, Turn, interleaved

log = logging.getLogger(__name__)

SIZES = (1, 4, 16)  # times the table
BATCHES = (32, 64, 128, 256, 512)  # faces
FACES = 4_096  # of an epoch where batches and threads are compared
NOISE = 1.15  # by which a share may be above what linear growth gives, before it counts as worse


@dataclass(frozen=True)
class Series:
    """What was measured at each of K sizes.

    Args:
        name: what was measured.
        across: what grows.
        sizes: K of it.
        values: K.
        unit: of the values.
        linear: whether the values are expected to grow with the sizes.
    """

    name: str
    across: str
    sizes: Sequence[int]
    values: Sequence[float]
    unit: str
    linear: bool = False

    def figures(self) -> Iterable[Figure]:
        """Yield each value, and where growth is expected how it compares with a straight line through nothing."""
        for size, value in zip(self.sizes, self.values, strict=True):
            yield Figure(f"{self.name}, {size:,} {self.across}", value, self.unit)
        if self.linear:
            growth = (self.values[-1] / self.values[0]) / (self.sizes[-1] / self.sizes[0])
            yield at_most(f"{self.name}: growth against linear", growth, "times", NOISE)


def growing(file: Path, folder: Path, rounds: int, threads: Sequence[int]) -> Iterator[Series]:
    """Measure a reading, an epoch of a network that costs nothing, and the CNN's by batch size and threads.

    Each is given as it is known.

    Args:
        file: a plain ``fer2013.csv``.
        folder: for the table's repetitions: 21 times its size.
        rounds: epochs that count.
        threads: of the processor, to be compared.
    """
    yield from by_faces(file, folder, rounds)
    yield from by_batch(file, rounds)
    yield from by_threads(file, rounds, threads)


def by_faces(file: Path, folder: Path, rounds: int) -> list[Series]:
    """Measure reading and training on the table and its repetitions."""
    orders, read = {}, []
    for times in SIZES:
        table = repeated(file, times, folder / f"times{times}")
        read.append(cost_of_reading(table))
        orders[str(times)] = ("ours", Order(str(table), "", cache=str(folder / "cache"), **NANO))
    told = interleaved(orders, rounds)
    trained = [median(turn["images"] for turn in turns) for turns in told.values()]
    images, rows = [int(count) for count in trained], [cost.rows for cost in read]
    seconds = [median(turn["seconds"] for turn in turns) for turns in told.values()]
    return [
        Series("reading fer2013.csv", "rows", rows, [cost.seconds for cost in read], "s of processor", linear=True),
        Series("reading, peak memory", "rows", rows, [cost.peak for cost in read], "MB", linear=True),
        Series("epoch of a nano network", "faces", images, seconds, "s", linear=True),
        Series("epoch of a nano network, peak memory", "faces", images, list(map(peak, told.values())), "MB"),
    ]


def by_batch(file: Path, rounds: int) -> list[Series]:
    """Measure the CNN's epochs at several batch sizes."""
    told = interleaved(
        {str(size): ("ours", Order(str(file), "", batch_size=size, steps=FACES // size)) for size in BATCHES}, rounds
    )
    memory = list(map(peak, told.values()))
    return [
        Series("cnn by batch size", "faces a step", BATCHES, list(map(speed, told.values())), "images/s"),
        Series("cnn by batch size, peak memory", "faces a step", BATCHES, memory, "MB", linear=True),
    ]


def by_threads(file: Path, rounds: int, threads: Sequence[int]) -> list[Series]:
    """Measure the CNN's epochs on several numbers of threads."""
    order = Order(str(file), "", steps=FACES // 128)
    told = interleaved({str(count): ("ours", replace(order, threads=count)) for count in threads}, rounds)
    return [Series("cnn by threads", "threads", threads, list(map(speed, told.values())), "images/s")]


def repeated(file: Path, times: int, folder: Path) -> Path:
    """Write a table whose rows are those of ``file``, so many times over, and return it."""
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
    """Return the peak memory in MB, imports excluded."""
    return turns[-1]["memory"]


def drawn(series: Sequence[Series], folder: Path) -> None:
    """Draw all series into ``folder`` as ``growth.png`` and ``growth.svg``, and say where."""
    from fer.reports import plotting

    with plotting.style():
        figure, rows = plotting.canvas(1.35 * len(series), len(series))
        for axes, one in zip(rows[:, 0], series, strict=True):
            _draw(axes, one)
    plotting.save(figure, folder, "growth")
    log.info("drawn: %s", folder / "growth.png")


def _draw(axes: Any, one: Series) -> None:
    axes.plot(one.sizes, one.values, marker="o", markersize=4)
    if one.linear:
        line = [one.values[0] * size / one.sizes[0] for size in one.sizes]
        axes.plot(one.sizes, line, linestyle=(0, (2, 2)), linewidth=1, label="in proportion to the first")
        axes.legend(fontsize=7)
        axes.set_yscale("log")  # linear growth is a straight line
    else:
        axes.set_ylim(0, 1.15 * max(one.values))
    axes.set_xscale("log", base=2)
    axes.set_xticks(one.sizes, [f"{size:,}" for size in one.sizes])
    axes.minorticks_off()
    axes.set_title(one.name, fontsize=9)
    axes.set_ylabel(one.unit)
    axes.set_xlabel(one.across)
