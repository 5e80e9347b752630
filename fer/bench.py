"""``python -m fer.bench [PART ...] [--data fer2013.csv]``: measure what the library promises of its speed, in one run.

Each comparison is interleaved and its median taken, so that a machine's changing mood falls on both sides alike.
Without FER2013, drawn faces are written in its layout and its size. Writes ``outputs/bench/latest.json``: a list of
``{name, value, unit, wanted, ok, note}``, the machine and versions among them.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from fer.benchmarks.augmenting import augmenting
from fer.benchmarks.figures import Figure
from fer.benchmarks.growth import drawn, growing
from fer.benchmarks.reading import caching, reading
from fer.benchmarks.showing import showing
from fer.benchmarks.tables import table
from fer.benchmarks.training import on_gpu, overhead, side_by_side, starting
from fer.config.command import Grammar, command
from fer.config.errors import FerError
from fer.system.files import write_json
from fer.system.text import text_table

log = logging.getLogger(__name__)

PARTS = ("reading", "augmenting", "showing", "starting", "overhead", "training", "growth", "gpu")


@command("fer.bench")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 1 if anything wanted was missed."""
    grammar = Grammar(prog="python -m fer.bench", description=(__doc__ or "").split("\n\n")[0])
    grammar.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if none is named")
    grammar.add_argument("--data", type=Path, help="a plain fer2013.csv; default: $FER_DATA or data/, else drawn faces")
    grammar.add_argument("--out", type=Path, default=Path("outputs/bench/latest.json"), help="default: %(default)s")
    grammar.add_argument("--rounds", type=int, default=3, help="epochs of each loop that count (training, overhead)")
    grammar.add_argument("--threads", type=int, default=1, help="of the processor, of each loop in its turn (training)")
    grammar.add_argument("--steps", type=int, help="of an epoch, to see what it looks like (training)")
    arguments, _ = grammar.begin(argv)
    for name in ("rounds", "threads", "steps"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise FerError(f"--{name} {value}: expected at least 1")
    for part in arguments.parts:
        if part not in PARTS:
            raise FerError(f"{part}: no part of the bench; there are {', '.join(PARTS)}")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
        file = table(arguments.data, Path(folder))
        measures: dict[str, Callable[[], list[Figure]]] = {
            "reading": lambda: [*reading(file, Path(folder)), *caching(file, Path(folder))],
            "augmenting": augmenting,
            "showing": lambda: showing(Path(folder)),
            "starting": lambda: starting(file, arguments.rounds),
            "overhead": lambda: overhead(file, arguments.rounds),
            "growth": lambda: growth(file, Path(folder), arguments.out.parent, arguments.rounds),
            "gpu": lambda: on_gpu(file, arguments.rounds),
            "training": lambda: side_by_side(file, arguments.rounds, arguments.threads, arguments.steps),
        }
        for part in arguments.parts or PARTS:
            log.info("measuring: %s, on %s", part, file)
            figures += measures[part]()
    report(figures, arguments.out, str(file))
    return 0 if all(figure.ok in (True, None) for figure in figures) else 1


def growth(file: Path, scratch: Path, out: Path, rounds: int) -> list[Figure]:
    """Measure and draw how time and memory grow."""
    threads = sorted({1, 2, os.cpu_count() or 1})
    series = growing(file, scratch, rounds, [count for count in threads if count <= (os.cpu_count() or 1)])
    drawn(series, out)
    return [figure for one in series for figure in one.figures()]


def report(figures: list[Figure], file: Path, data: str) -> None:
    """Print the table and write the JSON."""
    from fer.system import machine

    marks = {True: "yes", False: "NO", None: ""}
    rows = [
        (f.name, f"{f.value:,.3g}" if f.value < 100 else f"{f.value:,.0f}", f.unit, f.wanted, marks[f.ok], f.note)
        for f in figures
    ]
    log.info("\n%s\n", text_table(("what", "value", "unit", "wanted", "met", "spread"), rows))
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {"hardware": machine.hardware(), "versions": machine.versions(), "data": data}
    entries = [asdict(figure) for figure in figures]
    entries += [
        {"name": name, "value": value, "unit": "", "wanted": "", "ok": None, "note": ""}
        for name, value in about.items()
    ]
    write_json(file, entries)
    log.info("written: %s", file)


if __name__ == "__main__":
    sys.exit(main(None))
