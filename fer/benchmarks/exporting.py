"""``python -m fer.benchmarks.exporting fer2013.csv``: accuracy and speed of exported files.

The network is written in 32 and in 8 bits and checked on val. Then PyTorch and both files predict in turn, on one
thread. Last, the time from the command ``fer predict`` to the answer for one photograph is taken, with the network and
with the file. ``docs/results/export.json`` holds what ``--out`` wrote.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fer.config.command import Grammar, command
from fer.exports.check import CheckData, ParityCheck
from fer.exports.export import Int8, written
from fer.exports.source import source_of
from fer.exports.speed import Speed, timed
from fer.inference.exported import Parity
from fer.system import machine
from fer.system.files import write_json
from fer.system.machine import MachineRecord
from fer.system.records import plain

NETWORK = "tiny"
STARTS = 5


@dataclass(frozen=True)
class Start:
    """Seconds from the command to the answer for one photograph, the median and the least of five.

    Args:
        wall: seconds that passed.
        least: of them.
        cores: seconds of processor time.
    """

    wall: float
    least: float
    cores: float


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Args:
        network: that was exported.
        bytes: of the files, by precision.
        float32: the check of the file in 32 bits.
        int8: the check of the file in 8 bits.
        speeds: faces a second on one thread.
        starts: of the network and of the file.
        machine: where.
    """

    network: str
    bytes: Mapping[str, int]
    float32: Parity | None
    int8: Parity | None
    speeds: tuple[Speed, ...]
    starts: Mapping[str, Start]
    machine: MachineRecord


@command("fer.benchmarks.exporting", {"data.path": "data"})
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    grammar = Grammar(prog="python -m fer.benchmarks.exporting", description="Export the package's network, and time.")
    grammar.add_argument("data", help="FER2013's table, archive or folder")
    grammar.add_argument("--out", type=Path, default=Path("outputs/export.json"), help="default: %(default)s")
    arguments, _ = grammar.begin(argv)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, plain(measured(arguments.data)))
    return 0


def measured(data: str) -> Measured:
    """Export the network in both precisions, and measure.

    Raises:
        FerError: the data are missing, or a file predicts something else than the network.
    """
    source = source_of([NETWORK])
    eight = Int8(source, ParityCheck(source, CheckData(data)))
    with tempfile.TemporaryDirectory() as temporary:
        files = {name: Path(temporary) / f"{name}.onnx" for name in ("float32", "int8")}
        of_32, of_8 = written(files["float32"], eight.in_32_bits()), written(files["int8"], eight)
        speeds = timed({"PyTorch": source.probabilities, **eight.predictors(files["int8"])}, source.shape)
        return Measured(
            NETWORK, {name: file.stat().st_size for name, file in files.items()}, of_32.parity, of_8.parity,
            tuple(speeds), starts(files["float32"]), machine.provenance(),
        )  # fmt: skip


def starts(file: Path) -> Mapping[str, Start]:
    """Return the time to the answer with the network and with its file, in turn."""
    from fer.benchmarks.predicting import portrait

    photo = portrait(file.with_name("portrait.png"))
    taken: dict[str, list[tuple[float, float]]] = {NETWORK: [], file.suffix: []}
    for round_ in range(STARTS + 1):
        for name, network in ((NETWORK, NETWORK), (file.suffix, str(file))):
            seconds = _started(photo, network)
            if round_:  # the first warms the disk's cache
                taken[name].append(seconds)
    return {
        name: Start(median(wall for wall, _ in each), min(each)[0], median(cores for _, cores in each))
        for name, each in taken.items()
    }


def _started(photo: Path, network: str) -> tuple[float, float]:
    """Return wall and processor seconds of one call."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "fer.predict", str(photo), "--network", network], check=True, capture_output=True
    )
    wall, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


if __name__ == "__main__":
    sys.exit(main(None))
