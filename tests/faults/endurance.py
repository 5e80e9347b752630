"""A long training: memory, open files and threads stay the same."""

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from conftest import SMALL

from .forks import Child
from .table import Row, measured, progress
from .trainings import training

MOST_MB = 16.0  # growth after the warm-up of what is in use: the history in memory
MOST_RESIDENT_MB = 64.0  # the same with the free room that the C library's allocator keeps between blocks in use
LONGEST_S = 3600
MARKS = 20  # measurements in all; the first two are the warm-up


def endurance(folder: Path, epochs: int) -> Iterator[Row]:
    """Yield the row of a training of many epochs: each measurement is a try."""
    expected = (
        f"after the warm-up memory in use grows by less than {MOST_MB:g} MB, resident memory by less than "
        f"{MOST_RESIDENT_MB:g}; no more open files, no more threads"
    )
    arguments = [
        *SMALL,
        "data.batch_size=64",
        "model.hidden=[4]",
        f"trainer.max_epochs={epochs}",
        "logger.tensorboard=true",
    ]
    with measured(Row(f"a training of {epochs:,} epochs", expected)) as row:
        every = max(1, epochs // MARKS)
        child = Child(
            _work([*arguments, f"hydra.run.dir={folder / 'long'}"], every), folder / "long.log", _Shown(every, epochs)
        )
        ended = child.end(LONGEST_S)
        marks = [mark for line in ended.said if (mark := _mark(line))]
        warm = marks[min(2, len(marks) - 1)] if marks else Mark(0.0, 0.0, 0.0, 0.0)
        for number, mark in enumerate(marks):
            row.count(f"{mark}, from {warm}" if _grown(mark, warm) else "", str(number))
        if ended.code != 0 or not marks:
            row.failures.append(f"exit code {ended.code}: {ended.output[-300:]}")
        if marks:
            row.add("MB more in use", round(marks[-1].used - warm.used, 1))
            row.add("MB more resident", round(marks[-1].resident - warm.resident, 1))
            row.add("open files", marks[-1].files)
    yield row


class Mark(NamedTuple):
    """A measurement: MB that the C library's blocks use, MB of the process in memory, open files, threads."""

    used: float
    resident: float
    files: float
    threads: float

    def __str__(self) -> str:
        return (
            f"{self.used:.1f} MB in use, {self.resident:.1f} MB resident, {self.files:g} files, "
            f"{self.threads:g} threads"
        )


def _mark(line: str) -> Mark | None:
    """Return the measurement of a line; None for another line."""
    word, *numbers = line.split()
    return Mark(*map(float, numbers)) if word == "mark" else None


def _grown(mark: Mark, warm: Mark) -> bool:
    more = mark.used - warm.used > MOST_MB or mark.resident - warm.resident > MOST_RESIDENT_MB
    return more or mark.files > warm.files or mark.threads > warm.threads


class _Shown:
    """Prints each measurement as it comes."""

    def __init__(self, every: int, epochs: int) -> None:
        self.every, self.epochs, self.epoch = every, epochs, 0

    def __call__(self, line: str) -> None:
        if mark := _mark(line):
            self.epoch += self.every
            progress(f"{self.epoch:,} of {self.epochs:,} epochs: {mark}")


def _work(arguments: list[str], every: int) -> Callable[[Callable[[str], None]], int]:
    act = training(arguments)

    def watched(report: Callable[[str], None]) -> int:
        from fer.training.callbacks.history import Stopwatch

        ended = Stopwatch.on_train_epoch_end

        def on_train_epoch_end(self: Stopwatch, trainer: Any, *more: Any) -> None:
            ended(self, trainer, *more)
            if (trainer.current_epoch + 1) % every == 0:
                files, threads = (len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task"))
                report(f"mark {_used()} {_resident()} {files} {threads}")

        Stopwatch.on_train_epoch_end = on_train_epoch_end
        return act(report)

    return watched


class _Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of malloc.h (glibc 2.33): ten numbers, of which two are read here."""

    _fields_: ClassVar = [
        *((f"before_{number}", ctypes.c_size_t) for number in range(4)),
        ("hblkhd", ctypes.c_size_t),  # bytes of blocks that are mapped on their own
        *((f"between_{number}", ctypes.c_size_t) for number in range(2)),
        ("uordblks", ctypes.c_size_t),  # bytes of the other blocks in use, of all arenas
        *((f"after_{number}", ctypes.c_size_t) for number in range(2)),
    ]


def _used() -> float:
    """Return the MB of the C library's blocks that are in use."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo
    facts = mallinfo2()
    return (facts.hblkhd + facts.uordblks) / 2**20


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
