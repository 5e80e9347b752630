"""``python -m fer.bench [--data fer2013.csv]``: measure what the library promises of its speed, in one run.

Each comparison is interleaved and its median taken, so that a machine's changing mood falls on both sides alike.
Without FER2013, drawn faces are written in its layout and its size. Writes ``outputs/bench/latest.json``: a list of
``{name, value, unit, wanted, ok}``, the machine and versions among them.
"""

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fer.errors import FerError, Grammar, command
from fer.results import text_table, write_json

log = logging.getLogger(__name__)

ROWS = 35_887  # FER2013's
SAMPLE = 3_000  # rows that torchvision's reader is timed on, each time: whole, it would take a minute
ROUNDS = 5
VAL_FACES = 3_589  # FER2013's PublicTest
CURVES = ("loss/train", "loss/val", "accuracy/train", "accuracy/val", "learning_rate", "seconds")


@dataclass(frozen=True)
class Figure:
    """One measured value and what is wanted of it ("at least" or "at most", or nothing).

    Args:
        name: what was measured.
        value: of it.
        unit: of the value.
        wanted: the bound in words, such as ">= 8"; empty where none is set.
        ok: whether the bound holds; None where none is set.
    """

    name: str
    value: float
    unit: str
    wanted: str = ""
    ok: bool | None = None


def at_least(name: str, value: float, unit: str, bound: float) -> Figure:
    """Return a figure that is wanted no smaller than ``bound``."""
    return Figure(name, value, unit, f">= {bound:g}", value >= bound)


def at_most(name: str, value: float, unit: str, bound: float) -> Figure:
    """Return a figure that is wanted no larger than ``bound``."""
    return Figure(name, value, unit, f"<= {bound:g}", value <= bound)


@command("fer.bench")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 1 if anything wanted was missed."""
    grammar = Grammar(prog="python -m fer.bench", description=(__doc__ or "").split("\n\n")[0])
    grammar.add_argument("--data", type=Path, help="a plain fer2013.csv; default: $FER_DATA or data/, else drawn faces")
    grammar.add_argument("--out", type=Path, default=Path("outputs/bench/latest.json"), help="default: %(default)s")
    arguments, _ = grammar.begin(argv)
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
        file = table(arguments.data, Path(folder))
        log.info("reading %s", file)
        figures = [*reading(file, Path(folder)), *caching(file, Path(folder)), *augmenting(), *showing(Path(folder))]
    report(figures, arguments.out, str(file))
    return 0 if all(figure.ok in (True, None) for figure in figures) else 1


def report(figures: list[Figure], file: Path, data: str) -> None:
    """Print the table and write the JSON."""
    from fer import machine

    marks = {True: "yes", False: "NO", None: ""}
    rows = [
        (f.name, f"{f.value:,.3g}" if f.value < 100 else f"{f.value:,.0f}", f.unit, f.wanted, marks[f.ok])
        for f in figures
    ]
    log.info("\n%s\n", text_table(("what", "value", "unit", "wanted", "met"), rows))
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {"hardware": machine.hardware(), "versions": machine.versions(), "data": data}
    entries = [asdict(figure) for figure in figures]
    entries += [{"name": name, "value": value, "unit": "", "wanted": "", "ok": None} for name, value in about.items()]
    write_json(file, entries)
    log.info("written: %s", file)


def table(given: Path | None, folder: Path) -> Path:
    """Return a plain CSV to measure on: the one given or found, else drawn faces in FER2013's layout and size.

    Raises:
        FerError: what was given is no plain table.
    """
    from fer.data.locate import locate
    from fer.data.readers import recognise
    from fer.data.readers.synthetic import NAME

    path, _ = locate(str(given) if given else None, drawn_faces_allowed=given is None)
    if path == NAME:
        log.info("no FER2013 found: writing %s drawn faces in its layout", f"{ROWS:,}")
        return drawn_table(folder / "fer2013.csv")
    name, reader, found = recognise(Path(path))
    file = reader.files(found)[0] if name == "csv" else found
    if file.suffix != ".csv":
        raise FerError(f"{path}: the bench reads a plain fer2013.csv; this is read as {name} from {file.name}")
    return file


def drawn_table(file: Path) -> Path:
    """Write drawn faces in the layout of ``fer2013.csv`` and return the file."""
    from fer.data.readers.synthetic import read

    faces = read(ROWS, seed=0, image_size=48)
    digits = [str(value) for value in range(256)]
    usages = ("Training", "PublicTest", "PrivateTest")
    with open(file, "w", newline="") as stream:
        stream.write("emotion,pixels,Usage\n")
        for image, target, split in zip(faces.images, faces.targets, faces.official, strict=True):
            pixels = " ".join([digits[pixel] for pixel in image.ravel().tolist()])
            stream.write(f"{target},{pixels},{usages[split]}\n")
    return file


# --- reading --------------------------------------------------------------------------------------------------------


def reading(file: Path, folder: Path) -> list[Figure]:
    """Measure the reader against torchvision's in processor time a row, and its memory in a process of its own."""
    from fer.data.readers import csv_file

    ours, theirs = [], []
    rows = 0
    sample = head(file, SAMPLE, folder)
    for _ in range(ROUNDS):
        theirs.append(cpu_seconds(lambda: torchvision_rows(sample)) / SAMPLE)
        start = time.process_time()
        rows = len(csv_file.read(file))
        ours.append((time.process_time() - start) / rows)
    ratio = median(b / a for a, b in zip(ours, theirs, strict=True))
    return [
        Figure("reading fer2013.csv, checked", median(ours) * rows, "s of processor"),
        at_least("reading, torchvision's time / ours", ratio, "times", 8),
        *(
            [at_most("reading, peak memory above the pixels", peak_above_pixels(file), "MB", 40)]
            if tells_memory()
            else []
        ),
    ]


def head(file: Path, rows: int, folder: Path) -> Path:
    """Write the table's first rows into ``folder``, under the name that torchvision wants."""
    target = folder / "sample" / "fer2013" / "fer2013.csv"
    target.parent.mkdir(parents=True)
    with open(file, "rb") as source, open(target, "wb") as copy:
        for _ in range(rows + 1):
            copy.write(source.readline())
    return target


def torchvision_rows(file: Path) -> int:
    """Parse with torchvision.datasets.FER2013 and return its number of rows.

    Its checksum knows one file alone, so that the check is passed over; the parsing is its own.
    """
    from unittest.mock import patch

    from torchvision.datasets import FER2013

    with patch("torchvision.datasets.fer2013.check_integrity", return_value=True):
        return len(FER2013(str(file.parent.parent), split="train")) + len(
            FER2013(str(file.parent.parent), split="test")
        )


def cpu_seconds(action: Callable[[], Any]) -> float:
    """Return the processor time of one call, which busy neighbours disturb less than the clock."""
    start = time.process_time()
    action()
    return time.process_time() - start


def tells_memory() -> bool:
    """Return whether this system tells a process's peak memory."""
    from fer.machine import peak_memory

    return peak_memory() is not None


MEMORY = """
import json, sys
from pathlib import Path
from fer.data.readers import csv_file
from fer.machine import peak_memory
before = peak_memory()
faces = csv_file.read(Path(sys.argv[1]))
print(json.dumps([peak_memory() - before, faces.images.nbytes / 2**20]))
"""


def peak_above_pixels(file: Path) -> float:
    """Return by how many MB reading raises a fresh process's peak above its pixels."""
    ended = subprocess.run([sys.executable, "-c", MEMORY, str(file)], capture_output=True, text=True, check=True)
    rise, pixels = json.loads(ended.stdout)
    return float(rise - pixels)


def caching(file: Path, folder: Path) -> list[Figure]:
    """Measure the second load, from the cache, with what it takes to find it."""
    from fer.data import readers

    def load() -> None:
        readers.read(file, image_size=48, on_bad="error", cache=folder / "cache")

    start = time.perf_counter()
    load()
    first = time.perf_counter() - start
    time.sleep(2.1)  # a file written within the last two seconds is not trusted to stay as it is
    load()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        load()
        times.append(time.perf_counter() - start)
    return [Figure("first load, parsed and cached", first, "s"), at_most("later loads", median(times), "s", 0.2)]


# --- augmenting -----------------------------------------------------------------------------------------------------


def augmenting() -> list[Figure]:
    """Measure whole-batch augmentation against a chain of Pillow operations a face, on one thread of the processor."""
    import torch
    from torchvision.transforms import v2

    from fer import machine
    from fer.augment import build
    from fer.data.datamodule import to_unit
    from fer.data.readers.drawing import draw_faces
    from fer.settings import AugmentSettings

    machine.keep_freed_memory()  # as a training does
    torch.set_num_threads(1)
    images = torch.from_numpy(draw_faces(128)[0])[:, None]  # (128, 1, 48, 48) uint8
    crop = build(AugmentSettings(flip=0.5, crop_padding=4))
    affine = build(AugmentSettings(flip=0.5, rotate_degrees=10, zoom=0.1, shift=0.1))
    chain = v2.Compose(
        [
            v2.ToPILImage(),
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1)),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )

    def by_batch(transform: v2.Transform) -> Callable[[], Any]:
        return lambda: [transform(to_unit(images)) for _ in range(20)]

    def one_by_one() -> Any:
        return torch.stack([chain(image) for image in images])

    speeds: dict[str, list[float]] = {"crop": [], "affine": [], "chain": []}
    for _ in range(ROUNDS + 1):
        speeds["crop"].append(20 * 128 / cpu_seconds(by_batch(crop)))
        speeds["affine"].append(20 * 128 / cpu_seconds(by_batch(affine)))
        speeds["chain"].append(128 / cpu_seconds(one_by_one))
    crop_speed, affine_speed, chain_speed = (median(values[1:]) for values in speeds.values())  # the first warms up
    return [
        at_least("augmenting on one thread, crop + flip", crop_speed, "images/s", 70_000),
        at_least("augmenting on one thread, affine + flip", affine_speed, "images/s", 50_000),
        Figure("augmenting on one thread, Pillow face by face", chain_speed, "images/s"),
        at_least("augmenting, affine / Pillow face by face", affine_speed / chain_speed, "times", 10),
    ]


# --- showing --------------------------------------------------------------------------------------------------------


def showing(folder: Path) -> list[Figure]:
    """Measure what a run's pictures and its report cost beyond the forward pass, in processor time on one thread."""
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from fer.dashboard import draw_epoch
    from fer.metrics import confusion_of
    from fer.reports import run

    scored = guesses(VAL_FACES)
    confusion = confusion_of(torch.from_numpy(scored.probabilities), torch.from_numpy(scored.targets))
    history = [{name: 1.0 / epoch for name in CURVES} | {"epoch": float(epoch)} for epoch in range(1, 31)]
    samples = scored.images[:6], scored.images[: 6 * 9].reshape(6, 9, *scored.images.shape[1:])
    writer = SummaryWriter(str(folder / "tensorboard"))
    epoch_times, end_times = [], []
    for round_ in range(ROUNDS + 1):  # the first warms up: fonts are read then
        epoch_times.append(cpu_seconds(lambda: draw_epoch(writer, scored, confusion, round_ + 1)))  # noqa: B023
        end_times.append(cpu_seconds(lambda: run.write(run.Report(finished(scored), scored, history, samples), folder)))
    writer.close()
    return [
        at_most(
            f"TensorBoard's pictures of an epoch, {VAL_FACES:,} faces", median(epoch_times[1:]), "s of processor", 1
        ),
        at_most(f"intervals, figures and report.html, {VAL_FACES:,} faces", median(end_times[1:]), "s of processor", 3),
    ]


def guesses(count: int) -> Any:
    """Return ``count`` drawn faces with made-up probabilities, as ``fer.predictions.Scored``."""
    import numpy as np

    from fer.data.readers.drawing import draw_faces
    from fer.labels import EMOTIONS
    from fer.predictions import Scored

    images, targets = draw_faces(count, seed=0)
    logits = np.random.default_rng(0).normal(size=(count, len(EMOTIONS)))
    logits[np.arange(count), targets] += 1.5  # about as often right as a small network on FER2013
    chances = np.exp(logits)
    probabilities = (chances / chances.sum(1, keepdims=True)).astype(np.float32)
    return Scored(images, targets.astype(np.int64), probabilities, np.arange(count), EMOTIONS)


def finished(scored: Any) -> dict[str, Any]:
    """Return what ``metrics.json`` would hold of a run with these predictions."""
    import numpy as np
    import torch

    from fer import machine, scoring

    predicted, targets = torch.from_numpy(scored.probabilities), torch.from_numpy(scored.targets)
    clean = scoring.clean(predicted, targets, np.ones(len(targets), bool), scored.classes)
    figures = {**scoring.figures(scored, 1.1), "clean": clean}
    dataset = {
        "name": "bench", "path": "", "layout": "drawn", "labels": "drawn", "split": "official", "fingerprint": "",
        "counts": {}, "notes": [], "skipped": [],
    }  # fmt: skip
    run = {"best_epoch": 30, "epochs": 30, "train_seconds": 1.0, "images_per_second": 1.0, "architecture": "bench"}
    return {**figures, **run, "split": "val", "dataset": dataset, "command": "", **machine.provenance()}


if __name__ == "__main__":
    sys.exit(main(None))
