"""A nano training in a forked child, the moments within it, and the comparison of two of its folders to the bit."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from conftest import SMALL, metrics

from fer import train
from fer.config.errors import FerError
from fer.models import checkpoints
from fer.models.trainable import Trainable
from fer.runs import status
from fer.training import run
from fer.training.callbacks import checkpointing

from .forks import LONGEST_S, Child

# everything that a resumed run restores: averages, momentum, noise of the augmentation
NANO = (
    *SMALL,
    "model.hidden=[8]",
    "ema=0.9",
    "augment=strong",
    "optimizer.lr=0.02",
    "monitor=loss/val",
    "logger.report=true",
)
PAIR = ("last", "best")
PHASES = ("preparing", "training", "scoring", "report")


@dataclass(frozen=True)
class Moments:
    """Where a child stops itself.

    Args:
        at: number of the operation of writing checkpoints before which it does, from 1; 0 for nowhere.
        step: number of the step of val before which it does; 0 for nowhere.
        number: signal that it sends itself.
    """

    at: int = 0
    step: int = 0
    number: int = signal.SIGKILL


def training(arguments: Sequence[str], moments: Moments = Moments()) -> Callable[[Callable[[str], None]], int]:
    """Return the work of a child that trains; it reports phases, checkpoints that are whole, and writing operations."""

    def act(report: Callable[[str], None]) -> int:
        torch.set_num_threads(1)
        _unrendered()
        checkpointing.WRITE_EVERY = 0.0  # a checkpoint an epoch
        _watched_phases(report)
        _watched_writing(report, moments)
        _watched_val(report, moments)
        return train.main(list(arguments))

    return act


def _unrendered() -> None:
    """Leave figures blank: rendering takes most of a run's time."""
    from matplotlib.figure import Figure

    def savefig(figure: Figure, stream: Any, format: str, **options: Any) -> None:
        text = '<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt"></svg>'
        stream.write(text if format == "svg" else text.encode())

    Figure.savefig = savefig


def _watched_phases(report: Callable[[str], None]) -> None:
    enter, show, within = status.enter, run.write_report, train.working_in

    def entered(folder: Path, phase: status.Phase) -> None:
        enter(folder, phase)
        report(phase)

    def shown(*arguments: Any) -> None:
        report("report")
        show(*arguments)

    def working(*arguments: Any, **named: Any) -> Any:
        report("preparing")
        return within(*arguments, **named)

    status.enter, run.write_report, train.working_in = entered, shown, working


def _watched_writing(report: Callable[[str], None], moments: Moments) -> None:
    """Count the operations by which checkpoints are written: each write of bytes, the flush, and the renaming."""
    save, fsync, rename = torch.save, os.fsync, os.replace
    count = 0

    def reached() -> None:
        nonlocal count
        count += 1
        if count == moments.at:
            os.kill(os.getpid(), moments.number)

    class Counted:
        """A stream whose writes are counted."""

        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def write(self, data: Any) -> int:
            reached()
            return self.stream.write(data)

        def flush(self) -> None:
            self.stream.flush()

    def saved(contents: Any, stream: Any) -> None:
        save(contents, Counted(stream))

    def flushed(descriptor: int) -> None:
        reached()
        fsync(descriptor)
        reached()

    def renamed(part: Path, file: Path) -> None:
        ours = Path(file).suffix == ".ckpt"
        if ours:
            reached()
        rename(part, file)
        if ours:
            report(f"wrote {Path(file).name}")
            reached()
            report(f"operations {count}")

    torch.save, os.fsync, os.replace = saved, flushed, renamed


def _watched_val(report: Callable[[str], None], moments: Moments) -> None:
    step = Trainable.validation_step
    count = 0

    def validation_step(self: Trainable, batch: Any, batch_idx: int) -> Any:
        nonlocal count
        count += 1
        report(f"val {count}")
        if count == moments.step:
            os.kill(os.getpid(), moments.number)
        return step(self, batch, batch_idx)

    Trainable.validation_step = validation_step


@dataclass(frozen=True)
class Whole:
    """An uninterrupted training, with which resumed ones are compared.

    Args:
        folder: folder of the run.
        operations: number of operations by which its checkpoints were written.
        validations: number of its steps of val.
        seconds: that it took, and the seconds at which each of its phases began.
    """

    folder: Path
    operations: int
    validations: int
    seconds: float
    began: dict[str, float]


def whole(folder: Path) -> Whole:
    """Run a training without a fault in ``folder``."""
    out = folder / "whole"
    child = Child(training([*NANO, f"hydra.run.dir={out}"]), folder / "whole.log")
    began = {}
    for phase in PHASES:
        child.wait_for(phase, LONGEST_S)
        began[phase] = time.monotonic() - child.began
    ended = child.end()
    if ended.code != 0:
        raise RuntimeError(f"the training without a fault failed: {ended.output}")
    counts = {line.split()[0]: int(line.split()[1]) for line in ended.said if line.startswith(("operations", "val "))}
    return Whole(out, counts["operations"], counts["val"], time.monotonic() - child.began, began)


def loaded(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the checkpoints of a run that exist, by name.

    Raises:
        FerError: one of them is not whole.
    """
    files = {name: folder / "checkpoints" / f"{name}.ckpt" for name in PAIR}
    return {name: checkpoints.read(file) for name, file in files.items() if file.exists()}


def difference(one: Path, other: Path) -> str:
    """Return in which part two finished runs differ; empty if they are equal to the bit."""
    try:
        first, second = loaded(one), loaded(other)
        for name in PAIR:
            for part in ("state_dict", "optimizer_states"):
                if not equal(first[name][part], second[name][part]):
                    return f"{part} of {name}.ckpt"
        if history(one) != history(other):
            return "history.csv"
        results = [metrics(folder) for folder in (one, other)]
        same = all(results[0][key] == results[1][key] for key in ("confusion", "accuracy", "best_epoch"))
        return "" if same else "metrics.json"
    except (FerError, OSError, LookupError) as error:
        return f"{type(error).__name__}: {error}"


def equal(one: Any, other: Any) -> bool:
    """Return whether nested values and tensors are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def history(folder: Path) -> list[str]:
    """Return the rows of a history without its times."""
    return [row.rsplit(",", 2)[0] for row in (folder / "history.csv").read_text().splitlines()]
