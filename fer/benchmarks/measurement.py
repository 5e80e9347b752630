"""The values that a benchmark measures, with their targets, and a clock of processor time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ROUNDS = 5
TRAIN_FACES, VAL_FACES = 28_709, 3_589  # FER2013's Training and PublicTest


@dataclass(frozen=True)
class Measurement:
    """One measured value and its target. The fields are the keys of an entry of ``latest.json``.

    Args:
        name: what was measured.
        value: the result.
        unit: of the value.
        target: as text, such as ">= 8"; empty if there is none.
        ok: whether the value meets the target; None if there is none.
        note: further text, such as the spread.
    """

    name: str
    value: float
    unit: str
    target: str = ""
    ok: bool | None = None
    note: str = ""


def at_least(name: str, value: float, unit: str, bound: float, note: str = "") -> Measurement:
    """Return a measurement whose target is ``bound`` or more."""
    return Measurement(name, value, unit, f">= {bound:g}", value >= bound, note)


def at_most(name: str, value: float, unit: str, bound: float, note: str = "") -> Measurement:
    """Return a measurement whose target is ``bound`` or less."""
    return Measurement(name, value, unit, f"<= {bound:g}", value <= bound, note)


def cpu_seconds(action: Callable[[], Any]) -> float:
    """Return the processor time of one call; other processes disturb it less than wall time."""
    start = time.process_time()
    action()
    return time.process_time() - start
