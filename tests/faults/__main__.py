"""``python -m faults``: try all faults, print the table row by row, and write it to a JSON file.

Run by ``make faults``, from a parent that has imported everything and started no thread, since it forks.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import fer.reports.run  # noqa: F401  # imported before the first fork, as everything below
from fer.system.machine import commit, hardware

from . import endurance, fuzz, kills, stops, sweeps, trainings
from .table import Row, filled


def main() -> int:
    """Try the faults that are asked for; return 0 if all held."""
    arguments = _arguments().parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends with the rows so far
    folder = Path(tempfile.mkdtemp(prefix="faults_"))
    quick = Path(tempfile.mkdtemp(prefix="faults_", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    os.environ.pop("FER_DATA", None)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    whole = trainings.whole(folder)
    parts: dict[str, Callable[[], Iterable[Row]]] = {
        "kills": partial(kills.kills, folder, whole, arguments.kills, arguments.seed),
        "two": partial(kills.two_processes, folder, whole, arguments.two, arguments.seed),
        "signals": partial(stops.stops, folder, whole, arguments.signals, arguments.seed),
        "fuzz": partial(fuzz.fuzzed, quick, whole.folder, arguments.inputs, arguments.seed, tuple(arguments.formats)),
        "sweep": partial(sweeps.sweep, folder, arguments.jobs),
        "long": partial(endurance.endurance, folder, arguments.epochs),
    }
    chosen = [make for name, make in parts.items() if not arguments.only or name in arguments.only]
    about = {
        "command": f"python -m faults {' '.join(sys.argv[1:])}".strip(),
        "commit": str(commit()),
        "machine": f"{hardware().cpu}, {os.cpu_count()} cores",
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        rows = filled(chosen, arguments.out, about)
    except KeyboardInterrupt:
        print(f"interrupted; the rows so far are in {arguments.out}")
        return 130
    finally:
        shutil.rmtree(quick, ignore_errors=True)
    failed = sum(len(row.failures) for row in rows)
    if not failed:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{failed} failures; the table is in {arguments.out}" + (f", the runs are in {folder}" if failed else ""))
    return int(failed > 0)


def _arguments() -> argparse.ArgumentParser:
    grammar = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    grammar.add_argument("only", nargs="*", help="parts: kills, two, signals, fuzz, sweep, long; default: all")
    grammar.add_argument("--kills", type=int, default=200, help="half of them within the writing of checkpoints")
    grammar.add_argument("--two", type=int, default=20, help="kills with a second process on the folder")
    grammar.add_argument("--signals", type=int, default=60, help="signals, over six phases")
    grammar.add_argument("--inputs", type=int, default=10_000, help="damaged inputs of each format")
    grammar.add_argument("--formats", nargs="*", default=[], help="formats of the inputs; default: all")
    grammar.add_argument("--jobs", type=int, default=60, help="jobs of the sweep")
    grammar.add_argument("--epochs", type=int, default=2000, help="epochs of the long training")
    grammar.add_argument("--seed", type=int, default=0, help="of moments and inputs")
    grammar.add_argument("--out", type=Path, default=Path("outputs/faults.json"), help="file for the table")
    return grammar


if __name__ == "__main__":
    sys.exit(main())
