"""Kills of a training: at any moment, and within the writing of a checkpoint; what a resumed run then gives."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

from fer.config.errors import FerError

from . import trainings
from .forks import Child, Ended
from .forks import run as forked
from .table import Row, measured
from .trainings import NANO, Moments, Whole, training

EXPECTED = "no checkpoint is lost; the resumed run is equal to the bit"
STRAY = 3  # tries for each kill that is asked for: some trainings end before the signal arrives


def kills(folder: Path, whole: Whole, count: int, seed: int = 0) -> Iterator[Row]:
    """Yield the rows of ``count`` kills: half of them at any moment, half within a checkpoint's writing."""
    draw = random.Random(seed)
    with measured(Row("kill within a checkpoint's writing", EXPECTED)) as row:
        for number in range(count // 2):
            at = draw.randint(1, whole.operations)
            _try(row, folder / f"within_{number}", whole, f"operation {at}", Moments(at=at), None)
    yield row
    with measured(Row("kill at a random moment", EXPECTED)) as row:
        for number in range(STRAY * (count - count // 2)):
            if row.tried == count - count // 2:
                break
            after = draw.uniform(0, whole.seconds)
            _try(row, folder / f"random_{number}", whole, f"after {after:.3f} s", Moments(), after)
    yield row


def two_processes(folder: Path, whole: Whole, count: int, seed: int = 0) -> Iterator[Row]:
    """Yield the row of kills while a second process asks for the folder, and of two that resume it at once."""
    draw = random.Random(seed)
    with measured(Row("kill, with a second process on the folder", EXPECTED + "; one process works at a time")) as row:
        for number in range(STRAY * count):
            if row.tried == count:
                break
            _two(row, folder / f"two_{number}", whole, draw.uniform(0.1, 1) * (whole.seconds - whole.began["training"]))
    yield row


def _try(row: Row, out: Path, whole: Whole, what: str, moments: Moments, after: float | None) -> None:
    """Kill a training, and check what is left."""
    arguments = [*NANO, f"hydra.run.dir={out}"]
    child = Child(training(arguments, moments), out.with_suffix(".log"))
    if after is not None:
        child.wait_for(None, after)
        child.send(signal.SIGKILL)
    ended = child.end()
    if ended.code == 0:
        return  # it had ended before
    row.count(wrong_after(ended, out, whole.folder), what)


def wrong_after(ended: Ended, out: Path, whole: Path) -> str:
    """Return in words what is wrong after a training was killed, and after it was resumed; empty for nothing."""
    if ended.code != -signal.SIGKILL:
        return f"exit code {ended.code}: {ended.output[-300:]}"
    return lost(ended, out) or wrong_resumed(out, whole)


def lost(ended: Ended, out: Path) -> str:
    """Return which checkpoint that was written whole is lost; empty for none."""
    try:
        left = trainings.loaded(out)
    except FerError as error:
        return f"not whole: {error}"
    for name in trainings.PAIR:
        if f"wrote {name}.ckpt" in ended.said and name not in left:
            return f"{name}.ckpt is gone"
    epochs = ended.said.count("wrote last.ckpt")
    if epochs and left["last"]["epoch"] < epochs - 1:
        return f"last.ckpt is of epoch {left['last']['epoch']}, {epochs} were written"
    named = left["last"]["callbacks"]["Saver"]["best_epoch"] if "last" in left else -1
    return "last.ckpt names a best epoch whose file is missing" if named >= 0 and "best" not in left else ""


def wrong_resumed(out: Path, whole: Path) -> str:
    """Resume a training, or begin again where nothing was saved; return how the result differs from the whole one."""
    resumed = forked(training([f"resume={out}"]), out.with_suffix(".resumed.log"))
    if resumed.code == 1 and not (out / "checkpoints" / "last.ckpt").exists():
        if "begin again" not in resumed.output and "no run folder" not in resumed.output:
            return f"refused without a remedy: {resumed.output}"
        resumed = forked(training([*NANO, f"hydra.run.dir={out}"]), out.with_suffix(".again.log"))
    if resumed.code != 0:
        return f"resumed with exit code {resumed.code}: {resumed.output[-400:]}"
    parts = [str(file) for file in out.rglob(".*.part")]
    return trainings.difference(whole, out) or (f"left {parts}" if parts else "")


def _two(row: Row, out: Path, whole: Whole, after: float) -> None:
    arguments = [*NANO, f"hydra.run.dir={out}"]
    first = Child(training(arguments), out.with_suffix(".log"))
    first.wait_for("training", 60)
    second = Child(training(arguments), out.with_suffix(".second.log"))
    first.wait_for(None, after)
    first.send(signal.SIGKILL)
    ended, beside = first.end(), second.end()
    if ended.code == 0:
        return
    wrong = _wrong_second(beside)
    if not wrong and beside.code == 1:
        wrong = lost(ended, out)
    both = [Child(training([f"resume={out}"]), out.with_suffix(f".resumed{index}.log")) for index in range(2)]
    codes = [child.end() for child in both]
    if not wrong and (out / "checkpoints" / "last.ckpt").exists():
        wrong = next((text for text in map(_wrong_second, codes) if text), "")
        wrong = wrong or ("" if any(each.code == 0 for each in codes) else f"neither resumed: {codes[0].output}")
    row.count(wrong or wrong_resumed(out, whole.folder), f"kill {after:.3f} s after the start")


def _wrong_second(ended: Ended) -> str:
    """Return what is wrong with a process that may have been refused, since another one worked in the folder."""
    refused = ("another process works", "holds a run already")
    if ended.code == 0 or (ended.code == 1 and any(text in ended.output for text in refused)):
        return ""
    return f"the second process: exit code {ended.code}: {ended.output[-300:]}"
