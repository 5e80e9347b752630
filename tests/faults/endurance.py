"""A long training: memory, open files and threads stay the same."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from conftest import SMALL

from .forks import Child
from .table import Row, measured
from .trainings import training

MOST_MB = 16.0  # growth after the warm-up: the history in memory, and the allocator's spare room
LONGEST_S = 3600
MARKS = 20  # measurements in all; the first two are the warm-up


def endurance(folder: Path, epochs: int) -> Iterator[Row]:
    """Yield the row of a training of many epochs: each measurement is a try."""
    expected = f"memory grows by less than {MOST_MB:g} MB after the warm-up; no more open files, no more threads"
    arguments = [
        *SMALL,
        "data.batch_size=64",
        "model.hidden=[4]",
        f"trainer.max_epochs={epochs}",
        "logger.tensorboard=true",
    ]
    with measured(Row(f"a training of {epochs:,} epochs", expected)) as row:
        child = Child(
            _work([*arguments, f"hydra.run.dir={folder / 'long'}"], max(1, epochs // MARKS)), folder / "long.log"
        )
        ended = child.end(LONGEST_S)
        marks = [tuple(map(float, line.split()[1:])) for line in ended.said if line.startswith("mark ")]
        warm = marks[min(2, len(marks) - 1)] if marks else (0.0, 0.0, 0.0)
        for epoch, (memory, files, threads) in enumerate(marks):
            grown = memory - warm[0] > MOST_MB or files > warm[1] or threads > warm[2]
            row.count(
                f"{memory:.1f} MB, {files:g} files, {threads:g} threads, from {warm}" if grown else "", str(epoch)
            )
        if ended.code != 0 or not marks:
            row.failures.append(f"exit code {ended.code}: {ended.output[-300:]}")
        if marks:
            row.add("MB more", round(marks[-1][0] - warm[0], 1))
            row.add("open files", marks[-1][1])
    yield row


def _work(arguments: list[str], every: int) -> Callable[[Callable[[str], None]], int]:
    act = training(arguments)

    def watched(report: Callable[[str], None]) -> int:
        from fer.training.callbacks.history import Stopwatch

        ended = Stopwatch.on_train_epoch_end

        def on_train_epoch_end(self: Stopwatch, trainer: Any, *more: Any) -> None:
            ended(self, trainer, *more)
            if (trainer.current_epoch + 1) % every == 0:
                report(f"mark {_megabytes()} {len(os.listdir('/proc/self/fd'))} {len(os.listdir('/proc/self/task'))}")

        Stopwatch.on_train_epoch_end = on_train_epoch_end
        return act(report)

    return watched


def _megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
