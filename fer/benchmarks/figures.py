"""What a benchmark measures: figures with what is wanted of them, and processor time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ROUNDS = 5
TRAIN_FACES, VAL_FACES = 28_709, 3_589  # FER2013's Training and PublicTest


@dataclass(frozen=True)
class Figure:
    """One measured value and what is wanted of it ("at least" or "at most", or nothing).

    Args:
        name: what was measured.
        value: of it.
        unit: of the value.
        wanted: the bound in words, such as ">= 8"; empty where none is set.
        ok: whether the bound holds; None where none is set.
        note: in words, such as the spread.
    """

    name: str
    value: float
    unit: str
    wanted: str = ""
    ok: bool | None = None
    note: str = ""


def at_least(name: str, value: float, unit: str, bound: float, note: str = "") -> Figure:
    """Return a figure that is wanted no smaller than ``bound``."""
    return Figure(name, value, unit, f">= {bound:g}", value >= bound, note)


def at_most(name: str, value: float, unit: str, bound: float, note: str = "") -> Figure:
    """Return a figure that is wanted no larger than ``bound``."""
    return Figure(name, value, unit, f"<= {bound:g}", value <= bound, note)


def cpu_seconds(action: Callable[[], Any]) -> float:
    """Return the processor time of one call, which busy neighbours disturb less than the clock."""
    start = time.process_time()
    action()
    return time.process_time() - start
