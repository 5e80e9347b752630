"""Signals at any moment of each phase of a training: it ends with the signal's exit code, and goes on to the bit."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

from fer.runs import status
from fer.system.signals import NAMES, exit_code

from .forks import LONGEST_S, Child, Ended
from .kills import lost, wrong_resumed
from .table import Row, measured
from .trainings import NANO, Moments, Whole, training

EXPECTED = "the signal's exit code, one line with the remedy, status interrupted; the resumed run is equal to the bit"
WITHIN = {  # phase -> mark of the phase after it
    "preparing": "training",
    "training": "scoring",
    "scoring": "report",
    "report": "",
}
STRAY = 3  # tries for each signal that is asked for: some trainings end before it arrives


def stops(folder: Path, whole: Whole, count: int, seed: int = 0) -> Iterator[Row]:
    """Yield a row for each phase, with ``count`` signals in all, of each kind in turn."""
    draw = random.Random(seed)
    numbers = [getattr(signal, name) for name in NAMES]
    each = -(-count // (len(WITHIN) + 2))
    for phase in (*WITHIN, "val", "writing"):
        with measured(Row(f"signal while {_WORDS.get(phase, phase)}", EXPECTED)) as row:
            for turn in range(STRAY * each):
                if row.tried == each:
                    break
                number = numbers[turn % len(numbers)]
                _try(row, folder / f"{phase}_{turn}", whole, phase, number, draw)
        yield row


_WORDS = {"report": "the report is drawn", "val": "val is predicted", "writing": "a checkpoint is written"}


def _try(row: Row, out: Path, whole: Whole, phase: str, number: int, draw: random.Random) -> None:
    at = draw.randint(1, whole.operations) if phase == "writing" else 0
    step = draw.randint(1, whole.validations) if phase == "val" else 0
    moments = Moments(at, step, number)
    child = Child(training([*NANO, f"hydra.run.dir={out}"], moments), out.with_suffix(".log"))
    if phase in WITHIN:
        child.wait_for(phase, LONGEST_S)
        end = whole.began.get(WITHIN[phase], whole.seconds)
        child.wait_for(None, draw.uniform(0, end - whole.began[phase]))
        child.send(number)
    ended = child.end()
    if ended.code == 0 or (ended.code == -number and _finished(out)):
        return  # the training had ended before
    row.count(_wrong(ended, out, whole, number), f"{signal.Signals(number).name} {moments}")


def _finished(out: Path) -> bool:
    now = status.read(out)
    return now is not None and now.state == "finished"


def _wrong(ended: Ended, out: Path, whole: Whole, number: int) -> str:
    """Return in words what is wrong after a signal, and after the remedy of its message; empty for nothing."""
    said = [line for line in ended.output.splitlines() if line.startswith("fer.train: ")]
    now = status.read(out)
    if ended.code != exit_code(number):
        return f"exit code {ended.code}: {ended.output[-300:]}"
    if len(said) != 1 or not any(text in said[0] for text in ("resume with: ", "begin again")):
        return f"no line with a remedy: {ended.output[-300:]}"
    if now is None or now.state != "interrupted":
        return f"its status is {now}"
    begins = "begin again" in said[0]
    if begins == (out / "checkpoints" / "last.ckpt").exists():
        return f"a wrong remedy: {said[0]}"
    return lost(ended, out) or wrong_resumed(out, whole.folder)
