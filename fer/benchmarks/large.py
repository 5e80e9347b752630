"""Speed of reading data that are larger than memory.

200,000 generated pictures are decoded, memory-mapped, and served again from the map. The pictures are drawn faces as
JPEG and PNG in turn. A few thousand differ; the others are hard links to them. Their files are therefore in the
system's cache, and the processor's work is measured, not a disk's. Bare decoding is our decoder in as many processes,
which throw the faces away. It alternates with the reader on the same pictures. The two are compared by processor time,
that of all processes: the images/s are those of all cores with nothing else to do.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from fer.benchmarks.measurement import Measurement, at_least, at_most
from fer.data.labels import EMOTIONS
from fer.data.readers import decoding, image_folder, synthetic
from fer.data.readers.decoding import Cut
from fer.data.readers.images import read_picture
from fer.data.readers.pixel_memory import PixelMemory, entered
from fer.system.slots import usable_cores

PICTURES, DIFFERENT, SIDE = 200_000, 4_000, 112
TURN, TURNS = 2_048, 15  # pictures of a turn, turns of each side: short, since other processes disturb whole seconds
VAL = 10  # each tenth picture is val


def large(folder: Path, pictures: int = PICTURES) -> Iterator[Measurement]:
    """Measure scan, first and second start, both epochs and memory.

    Args:
        folder: for the pictures and the cache: 3 GB for 200,000 pictures.
        pictures: number of the pictures.
    """
    tree = generated(folder / "tree", pictures)
    start = time.perf_counter()
    files = image_folder.files(tree)
    yield Measurement("large: scan of the folders", time.perf_counter() - start, "s", note=f"{len(files):,} pictures")
    yield from against_bare(tree, files, folder)
    first, second = (started(tree, folder / "cache") for _ in range(2))
    yield Measurement("large: first start, to the first batch", first["first_batch"], "s", note="every picture decoded")
    yield Measurement("large: later start, to the first batch", second["first_batch"], "s")
    yield Measurement("large: first pass, decoded into the file", first["decoded"], "images/s")
    yield Measurement("large: an epoch from the memory map", second["epoch"], "images/s")
    yield at_least("large: epoch from the map / first pass", second["epoch"] / first["decoded"], "times", 5)
    for name, times in (("first", first), ("later", second)):
        share = times["peak"] / times["pixels"]
        note = f"{times['peak']:,.0f} MB above the imports; the pixels have {times['pixels']:,.0f} MB"
        yield at_most(f"large: {name} start and epoch, peak memory / pixels", share, "times", 0.2, note)


def generated(tree: Path, pictures: int) -> Path:
    """Write class folders of train and val with a number of pictures, most of them links, and return their folder."""
    different = min(DIFFERENT, pictures)
    faces = synthetic.read(max(140, different), seed=0, image_size=SIDE)
    folders = [tree / split / emotion for split in ("train", "val") for emotion in EMOTIONS]
    for each in folders:
        each.mkdir(parents=True)
    written: list[Path] = []
    for number in range(pictures):
        target = int(faces.targets[number % different])
        kind = "png" if number % different % 2 else "jpg"
        file = folders[target + len(EMOTIONS) * (number % VAL == 0)] / f"{number:06d}.{kind}"
        if number < different:
            Image.fromarray(faces.images[number]).convert("RGB").save(file, quality=90)
            written.append(file)
        else:
            os.link(written[number % different], file)
    return tree


def against_bare(tree: Path, files: Sequence[Path], folder: Path) -> Iterator[Measurement]:
    """Measure reading into the file and decoding on demand beside bare decoding of the same pictures, in turn."""
    drawn = np.random.default_rng(0).permutation(len(files))
    count, turn = usable_cores(), min(TURN, len(files))
    costs: dict[str, list[float]] = {"bare": [], "file": [], "pillow": []}
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        list(decoding.shared().in_order([Cut(files[0], whole=True)] * decoding.CHUNK * count, SIDE))  # starts them
        list(pool.map(bare, [files[:1]] * count))
        for number in range(TURNS):
            part = [files[index] for index in np.roll(drawn, number * turn)[:turn].tolist()]
            chunks = [part[start : start + decoding.CHUNK] for start in range(0, turn, decoding.CHUNK)]
            for name in np.roll(list(costs), number).tolist():
                start = processor_seconds()
                if name == "file":
                    into_file(part, folder)
                else:
                    list(pool.map(bare if name == "bare" else pillow, chunks))
                costs[name].append((processor_seconds() - start) / turn)
    note = f"{count} cores, {TURNS} turns of {turn:,} pictures"
    for name, words in (("bare", "bare decoding"), ("pillow", "Pillow alone, unchecked"), ("file", "into the file")):
        yield Measurement(f"large: {words}", count / median(costs[name]), "images/s", note=note)
    ratios = [theirs / ours for ours, theirs in zip(costs["file"], costs["bare"], strict=True)]
    note = f"{min(ratios):.2f} to {max(ratios):.2f}"
    yield at_least("large: into the file / bare decoding", median(ratios), "times", 0.9, note)


def processor_seconds() -> float:
    """Return the processor time so far of this process and its children, which other processes hardly disturb."""
    spent = time.process_time()
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def into_file(files: Sequence[Path], folder: Path) -> None:
    """Decode pictures as a reader does: in order, hashed, into one file."""
    with entered(PixelMemory(0, folder)) as memory, memory.building(folder / "turn"):
        pixels = memory.pixels(len(files), SIDE)
        cuts = [Cut(file, whole=True) for file in files]
        for cut, face in zip(cuts, pixels.decoded(cuts), strict=True):
            assert face.pixels is not None
            pixels.add(face.pixels, cut)
        pixels.images()


def bare(files: Sequence[Path]) -> None:
    """Decode pictures and throw them away."""
    for file in files:
        read_picture(file, SIDE)


def pillow(files: Sequence[Path]) -> None:
    """Decode pictures without any check of the file and throw them away."""
    for file in files:
        with Image.open(file) as picture:
            np.asarray(picture.convert("L"))


STARTED = """
import json, sys, time
import torch
from pathlib import Path
from fer.config.settings import DataSettings
from fer.data.datamodule import FERDataModule
from fer.data.readers.pixel_memory import OutsideMemory
from fer.system.machine import RESIDENT, memory
before, spent, decoded = memory(RESIDENT) or 0, [0.0], OutsideMemory.images
began = []
pixels = OutsideMemory.decoded
def begin(self, cuts, **named):
    began.append(time.perf_counter())
    return pixels(self, cuts, **named)
def end(self):
    result = decoded(self)
    spent[0] = time.perf_counter() - began[0]
    return result
OutsideMemory.decoded, OutsideMemory.images = begin, end
start = time.perf_counter()
data = FERDataModule(DataSettings(path=sys.argv[1], image_size=int(sys.argv[2]), split="as_given", cache=sys.argv[3],
                                  memory_limit_gb=0.0))
data.setup("fit")
data.statistics()
loader = data.train_dataloader()
next(iter(loader))
first = time.perf_counter() - start
start, faces = time.perf_counter(), 0
for batch in loader:
    faces += len(batch.targets)
epoch = time.perf_counter() - start
decoded, pixels = len(data.faces) / spent[0] if spent[0] else 0.0, data.faces.images.nbytes / 2**20
peak = (memory() or 0) - before
print(json.dumps({"first_batch": first, "epoch": faces / epoch, "peak": peak, "decoded": decoded, "pixels": pixels}))
"""


def started(tree: Path, cache: Path) -> dict[str, float]:
    """Load a tree in a process of its own, and serve the first batch and an epoch."""
    command = [sys.executable, "-c", STARTED, str(tree), str(SIDE), str(cache)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    values: dict[str, float] = json.loads(ended.stdout)
    return values
