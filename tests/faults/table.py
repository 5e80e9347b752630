"""The table of faults: a row for each, printed and written as soon as it is counted."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fer.system.files import write_json

SHOWN = 5  # failures that are printed of a row


@dataclass
class Row:
    """A fault that was tried some number of times.

    Args:
        fault: what was done.
        expected: what has to follow.
        tried: number of times so far.
        failures: in words, what followed instead.
        seconds: that it took.
        facts: further counts, such as how many inputs were refused.
    """

    fault: str
    expected: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def held(self) -> int:
        """Return the number of times that the expected followed."""
        return self.tried - len(self.failures)

    def count(self, wrong: str, what: str) -> None:
        """Count a try, whose failure is ``wrong``; empty where the expected followed."""
        self.tried += 1
        if wrong:
            self.failures.append(f"{what}: {wrong}")

    def add(self, fact: str, number: float = 1) -> None:
        """Add to a further count."""
        self.facts[fact] = self.facts.get(fact, 0) + number


_begun: list[Row] = []  # rows whose tries are not complete


@contextmanager
def measured(row: Row) -> Iterator[Row]:
    """Measure the seconds of a row."""
    began = time.monotonic()
    _begun.append(row)
    try:
        yield row
        _begun.remove(row)
    finally:
        row.seconds = round(time.monotonic() - began, 1)


def filled(makers: Iterable[Callable[[], Iterable[Row]]], file: Path, about: dict[str, str]) -> list[Row]:
    """Return the rows of functions, called one after the other; the file holds those so far, also when interrupted."""
    rows: list[Row] = []
    print(f"{'tried':>7} {'held':>7} {'s':>6}  fault", flush=True)
    try:
        for make in makers:
            for row in make():
                rows.append(row)
                _show(row)
                _write(rows, file, about)
    finally:
        for row in _begun:  # interrupted within
            row.fault += " (interrupted)"
            _show(row)
        _write([*rows, *_begun], file, about)
        _begun.clear()
    return rows


def progress(words: str) -> None:
    """Print how far a row is that takes minutes."""
    print(f"{'':>24}{words}", flush=True)


def _show(row: Row) -> None:
    facts = ", ".join(f"{name} {number:,g}" for name, number in row.facts.items())
    print(f"{row.tried:>7,} {row.held:>7,} {row.seconds:>6.0f}  {row.fault}" + (f" ({facts})" if facts else ""))
    for failure in row.failures[:SHOWN]:
        print(f"{'':>24}FAILED {failure[:400]}")
    print(end="", flush=True)


def _write(rows: list[Row], file: Path, about: dict[str, str]) -> None:
    entries = [asdict(row) | {"held": row.held} for row in rows]
    write_json(file, about | {"rows": entries})
