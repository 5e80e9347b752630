"""``python -m fer.bench [PART ...] [--data fer2013.csv]``: the library's speed beside its targets.

Each comparison alternates between its sides and takes medians, so that changes of the machine's speed affect both
sides alike. Without FER2013 it draws faces in the same layout and number. Writes ``outputs/bench/latest.json``: a list
of ``{name, value, unit, target, ok, note}``, with the machine, versions and complete parts at its end. Each value is
printed and written as it is measured, so that an interruption loses none.
"""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from fer.benchmarks.augmenting import augmenting
from fer.benchmarks.large import large
from fer.benchmarks.measurement import Measurement
from fer.benchmarks.peers import interpreter_of, peers
from fer.benchmarks.predicting import predicting
from fer.benchmarks.reading import caching, reading
from fer.benchmarks.showing import showing
from fer.benchmarks.tables import table
from fer.benchmarks.watching import watching
from fer.config.command import Grammar, command
from fer.config.errors import FerError
from fer.system.files import write_json
from fer.system.text import text_table

log = logging.getLogger(__name__)

PARTS = (
    "reading",
    "augmenting",
    "predicting",
    "peers",
    "watching",
    "showing",
    "starting",
    "overhead",
    "training",
    "growth",
    "large",
    "gpu",
)
USED_BY = {  # option -> parts that it changes
    "rounds": ("peers", "starting", "overhead", "growth", "training", "gpu"),
    "threads": ("training",),
    "steps": ("training",),
    "python": ("peers",),
}
DEFAULTS = {"rounds": 3, "threads": 1}
NAME = 56  # columns of the name of a measurement


def parser() -> Grammar:
    """Return the command line's grammar."""
    grammar = Grammar(prog="python -m fer.bench", description="Measure the library's speed beside its targets.")
    grammar.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    grammar.add_argument("--data", type=Path, help="a plain fer2013.csv; default: $FER_DATA or data/, else drawn faces")
    grammar.add_folder("--out", "folder for the results; default: %(default)s", Path("outputs/bench"))
    grammar.add_argument(
        "--rounds",
        type=int,
        help=f"repetitions of each measurement ({', '.join(USED_BY['rounds'])}); default: {DEFAULTS['rounds']}",
    )
    grammar.add_argument("--threads", type=int, help=f"threads of each loop (training); default: {DEFAULTS['threads']}")
    grammar.add_argument(
        "--python", type=Path, help="an environment with the package fer or deepface of the index (peers)"
    )
    grammar.add_argument("--steps", type=int, help="steps of an epoch, for a quick trial (training); default: all")
    return grammar


@command("fer.bench", {"data.path": "--data"})
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 1 if a target was missed."""
    arguments, _ = parser().begin(argv)
    check(arguments)
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
        file, data = table(arguments.data, Path(folder))
        report = Report(results_file(arguments.out), data)
        try:
            for part in arguments.parts or PARTS:
                log.info("measuring: %s, on %s", part, data)
                before = len(report.measurements)
                for measurement in measured(part, file, Path(folder), report.file.parent, arguments):
                    report.add(measurement)
                if len(report.measurements) > before:  # else a line has said why there is none
                    report.parts.append(part)
        finally:
            report.end()
    return 0 if all(measurement.ok in (True, None) for measurement in report.measurements) else 1


def check(arguments: argparse.Namespace) -> None:
    """Refuse options that are out of range, and those that no chosen part uses.

    Raises:
        FerError: the message names the option.
    """
    for name in ("rounds", "threads", "steps"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise FerError(f"--{name} {value}: expected at least 1")
    for part in arguments.parts:
        if part not in PARTS:
            raise FerError(f"{part}: no part of the bench; use {', '.join(PARTS)}")
    for name, parts in USED_BY.items():
        value = getattr(arguments, name)
        if value is not None and arguments.parts and not set(parts) & set(arguments.parts):
            raise FerError(f"--{name} {value}: changes {', '.join(parts)} alone; leave it out, or name such a part")
    if arguments.python is not None:
        interpreter_of(arguments.python)


def results_file(out: Path) -> Path:
    """Return the file of the results in a folder; a name ending in .json is the file, as in older versions."""
    return out if out.suffix == ".json" else out / "latest.json"


def measured(part: str, file: Path, scratch: Path, out: Path, arguments: argparse.Namespace) -> Iterator[Measurement]:
    """Measure one part, and yield each value as soon as it is measured.

    Args:
        part: one of ``PARTS``.
        file: a plain ``fer2013.csv``.
        scratch: folder for temporary files.
        out: folder for figures.
        arguments: parsed command line.
    """
    from fer.benchmarks.training import on_gpu, overhead, side_by_side, starting  # imports torch

    rounds = arguments.rounds or DEFAULTS["rounds"]
    measures: dict[str, Callable[[], Iterable[Measurement]]] = {
        "reading": lambda: (value for measure in (reading, caching) for value in measure(file, scratch)),
        "augmenting": augmenting,
        "predicting": lambda: predicting(scratch),
        "peers": lambda: peers(arguments.python, file, scratch, rounds),
        "watching": lambda: watching(scratch),
        "showing": lambda: showing(scratch),
        "starting": lambda: starting(file, rounds),
        "overhead": lambda: overhead(file, rounds),
        "growth": lambda: growth(file, scratch, out, rounds),
        "large": lambda: large(scratch / "large"),
        "gpu": lambda: on_gpu(file, rounds),
        "training": lambda: side_by_side(file, rounds, arguments.threads or DEFAULTS["threads"], arguments.steps),
    }
    yield from measures[part]()


def growth(file: Path, scratch: Path, out: Path, rounds: int) -> Iterator[Measurement]:
    """Measure and plot how time and memory grow with the data."""
    from fer.benchmarks.growth import drawn, growing

    threads = sorted({1, 2, os.cpu_count() or 1})
    series = []
    for entry in growing(file, scratch, rounds, [count for count in threads if count <= (os.cpu_count() or 1)]):
        series.append(entry)
        yield from entry.measurements()
    drawn(series, out)


class Report:
    """The measurements so far, printed and written row by row.

    Args:
        file: file to write.
        data: data of the measurements, in words.
    """

    def __init__(self, file: Path, data: str) -> None:
        from fer.system import machine

        self.file = file
        self.measurements: list[Measurement] = []
        self.parts: list[str] = []  # complete parts
        self._about = {"hardware": asdict(machine.hardware()), "versions": machine.versions(), "data": data}

    def add(self, measurement: Measurement) -> None:
        """Print a value, and write all values so far."""
        self.measurements.append(measurement)
        name, value, unit, target, met, spread = row(measurement)
        bound = f"{target}: {met}" if target else ""
        log.info("  %s", f"{name:<{NAME}} {value:>8} {unit:<14}  {bound:<12}  {spread}".rstrip())
        self._write()

    def end(self) -> None:
        """Print the table of all measurements, complete or not."""
        if not self.measurements:
            return
        self._write()
        heads = ("what", "value", "unit", "target", "met", "spread")
        log.info(
            "\n%s\n\nwritten: %s", text_table(heads, [row(measurement) for measurement in self.measurements]), self.file
        )

    def _write(self) -> None:
        about = {**self._about, "parts": ", ".join(self.parts)}
        entries = [asdict(measurement) for measurement in self.measurements]
        entries += [
            {"name": name, "value": value, "unit": "", "target": "", "ok": None, "note": ""}
            for name, value in about.items()
        ]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, entries)


def row(measurement: Measurement) -> tuple[str, ...]:
    """Return a measurement as texts: name, value, unit, target, whether it is met, spread."""
    met = {True: "yes", False: "NO", None: ""}[measurement.ok]
    value = f"{measurement.value:,.3g}" if measurement.value < 100 else f"{measurement.value:,.0f}"
    return measurement.name, value, measurement.unit, measurement.target, met, measurement.note


if __name__ == "__main__":
    sys.exit(main(None))
