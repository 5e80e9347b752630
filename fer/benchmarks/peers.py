"""``fer predict`` beside two packages of the package index, ``fer`` and ``deepface``.

All predict the same pictures. A peer runs in an interpreter of its own (``--python``), since one of them has this
library's name. Both sides get one thread, and their turns alternate. The faces are those of FER2013's val, enlarged;
never those of test. The index's ``fer`` was trained on FER2013 itself, perhaps on these faces, so that the comparison
of accuracies favours it.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer.benchmarks.measurement import Measurement, cpu_seconds
from fer.benchmarks.watching import hopper, one_thread
from fer.config.errors import FerError
from fer.data.crop import Box
from fer.system.files import read_json, why, write_json
from fer.system.records import read

log = logging.getLogger(__name__)

PACKAGES = ("fer", "deepface")
WORKER = Path(__file__).with_name("peer_worker.py")
FACES = 500  # of val, the first ones
ENLARGED, RIM = 4, 24  # times; pixels of the frame's edges that are repeated around it
LONGEST = 600  # seconds of a peer's turn
ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "MKL_NUM_THREADS")
}
Scores = Mapping[str, float]  # emotion -> probability


@dataclass(frozen=True)
class Job:
    """What a peer's interpreter is asked.

    Args:
        package: name of the peer.
        pictures: files to find faces on.
        faces: file of cut-out faces (N, S, S); None for none.
        box: x, y, width, height of the face on each of these.
    """

    package: str
    pictures: tuple[str, ...]
    faces: str | None = None
    box: tuple[int, ...] = ()


@dataclass(frozen=True)
class PeerFace:
    """A face that a peer found.

    Args:
        box: x, y, width, height in pixels.
        emotions: emotion -> score.
    """

    box: tuple[float, ...]
    emotions: Scores


@dataclass(frozen=True)
class PeerAnswer:
    """What a peer's interpreter answered.

    Args:
        version: of the package.
        pictures: the faces of each picture.
        faces: the scores of each cut-out face.
        seconds: processor time of these.
        reason: why there is no answer.
    """

    version: str = ""
    pictures: tuple[tuple[PeerFace, ...], ...] = ()
    faces: tuple[Scores, ...] = ()
    seconds: float = 0.0
    reason: str = ""


def peers(python: Path | None, table: Path, folder: Path, rounds: int) -> Iterator[Measurement]:
    """Measure start, faces a second, accuracy and answers of each peer and of this library.

    Args:
        python: the peers' interpreter, or the folder of its environment.
        table: ``fer2013.csv``.
        folder: for temporary files.
        rounds: turns of each side.
    """
    if python is None:
        log.info("  not measured: name an environment that has the package fer or deepface with --python")
        return
    interpreter = interpreter_of(python)
    pictures = drawn_pictures(folder)
    faces, labels, box = val_faces(table)
    np.save(folder / "faces.npy", faces)
    for package in PACKAGES:
        job = Job(package, (str(pictures[0]),))
        first = asked(interpreter, job, folder)
        if first.reason:
            log.info("  %s: not measured: %s", package, first.reason)
            continue
        yield from starts(interpreter, job, pictures[0], folder, rounds)
        job = Job(package, tuple(map(str, pictures)), str(folder / "faces.npy"), box)
        yield from beside(interpreter, job, faces, labels, folder, rounds)


def interpreter_of(python: Path) -> Path:
    """Return an interpreter, given itself or the folder of its environment.

    Raises:
        FerError: there is none.
    """
    for file in (python, python / "bin" / "python", python / "Scripts" / "python.exe"):
        if file.is_file():
            return file.absolute()
    raise FerError(f"--python {python}: expected an interpreter, or the folder of an environment that has one")


def asked(interpreter: Path, job: Job, folder: Path) -> PeerAnswer:
    """Return what a peer answers to a job; a reason where it fails, in place of an error."""
    question, answer = folder / "job.json", folder / "answer.json"
    write_json(question, asdict(job))
    answer.unlink(missing_ok=True)
    environment = {**os.environ, **ONE_THREAD, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        ended = subprocess.run(
            [interpreter, "-I", WORKER, question, answer], capture_output=True, text=True, timeout=LONGEST,
            cwd=folder, env=environment, check=False,
        )  # fmt: skip
        return read(PeerAnswer, read_json(answer))
    except subprocess.TimeoutExpired:
        return PeerAnswer(reason=f"no answer within {LONGEST} s")
    except (OSError, ValueError) as error:
        said = ended.stderr.strip().splitlines()[-1:] if isinstance(error, FileNotFoundError) else []
        return PeerAnswer(reason=said[0] if said else why(error))


def drawn_pictures(folder: Path) -> list[Path]:
    """Write Grace Hopper's portrait whole, smaller and turned, and the astronaut's where skimage is installed."""
    whole = hopper()
    pictures = {
        "hopper": whole, "hopper_small": whole.resize((whole.width // 4, whole.height // 4)),
        "hopper_tilted": whole.rotate(-20, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128)),
    }  # fmt: skip
    try:
        import skimage.data

        pictures["astronaut"] = Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    except ImportError:
        log.info("  the astronaut's portrait comes with scikit-image, which is not installed")
    files = [folder / f"{name}.png" for name in pictures]
    for file, picture in zip(files, pictures.values(), strict=True):
        picture.save(file)
    return files


def val_faces(table: Path) -> tuple[NDArray[np.uint8], list[str], tuple[int, ...]]:
    """Return faces of val, enlarged with repeated edges (N, S, S), their labels, and the box of each."""
    from fer.config.settings import DataSettings
    from fer.data.datamodule import FERDataModule

    data = FERDataModule(DataSettings(path=str(table)))
    data.setup("fit")
    val = data.datasets["val"]
    images, targets = np.asarray(val.images)[:FACES, 0], np.asarray(val.targets)[:FACES].tolist()
    side = images.shape[1]
    wide = np.pad(images, ((0, 0), (RIM, RIM), (RIM, RIM)), mode="edge")
    size = (ENLARGED * wide.shape[1],) * 2
    enlarged = [np.asarray(Image.fromarray(face).resize(size, Image.Resampling.BICUBIC)) for face in wide]
    names, corner = data.faces.classes, ENLARGED * RIM
    return np.stack(enlarged), [names[target] for target in targets], (corner, corner, ENLARGED * side, ENLARGED * side)


def starts(interpreter: Path, job: Job, photo: Path, folder: Path, rounds: int) -> Iterator[Measurement]:
    """Measure the wall time from the command to the answer for one photograph, in turn."""
    command = [sys.executable, "-m", "fer.predict", str(photo)]
    pairs = []
    for _ in range(rounds):
        began = time.perf_counter()
        asked(interpreter, job, folder)
        between = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        pairs.append((between - began, time.perf_counter() - between))
    for name, seconds in zip((f"{job.package} of the index", "ours"), zip(*pairs, strict=True), strict=True):
        spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
        yield Measurement(f"start to the answer for one photograph, {name}", median(seconds), "s", note=spread)


def beside(
    interpreter: Path, job: Job, faces: NDArray[np.uint8], labels: Sequence[str], folder: Path,
    rounds: int,
) -> Iterator[Measurement]:  # fmt: skip
    """Measure faces a second of processor time with given boxes, accuracy on them, and the answers for portraits."""
    from fer.inference.predictor import Predictor

    predictor, package = Predictor(), f"{job.package} of the index"
    box = Box(*map(float, job.box))
    boxes = [[box]] * len(faces)
    ours: list[float] = []
    theirs: list[PeerAnswer] = []
    with one_thread():
        predictor(list(faces[:32]), boxes[:32])  # warms up
        for _ in range(rounds):
            theirs.append(asked(interpreter, job, folder))
            if theirs[-1].reason:
                log.info("  %s: not measured: %s", package, theirs[-1].reason)
                return
            ours.append(cpu_seconds(lambda: predictor(list(faces), boxes)))
        predicted = [one[0].emotion for one in predictor(list(faces), boxes)]
    times = [answer.seconds for answer in theirs]
    note = f"with the box given; version {theirs[0].version}"
    yield Measurement(f"faces a second, {package}", len(faces) / median(times), "faces/s", note=note)
    ratio = [their / own for their, own in zip(times, ours, strict=True)]
    note = f"{median(ratio):.2f} times theirs, {min(ratio):.2f} to {max(ratio):.2f}"
    yield Measurement("faces a second, ours", len(faces) / median(ours), "faces/s", note=note)
    yield accuracy(
        f"{package} (trained on FER2013, perhaps on these faces)", [best(scores) for scores in theirs[0].faces], labels
    )
    yield accuracy("ours", predicted, labels)
    yield from answers(package, theirs[0], [Path(file) for file in job.pictures])


def accuracy(name: str, found: Sequence[str], labels: Sequence[str]) -> Measurement:
    """Return the share of faces whose answer is the label, with its 95 % interval."""
    from fer.metrics.statistics import wilson

    right = sum(emotion == label for emotion, label in zip(found, labels, strict=True))
    low, high = wilson(right, len(labels))
    note = f"95 % interval {100 * low:.1f} to {100 * high:.1f}, {len(labels):,} faces of val"
    return Measurement(f"accuracy, {name}", 100 * right / len(labels), "%", note=note)


def best(scores: Scores) -> str:
    """Return the emotion with the highest score."""
    return max(scores, key=lambda name: scores[name])


def answers(package: str, answer: PeerAnswer, files: Sequence[Path]) -> Iterator[Measurement]:
    """Give the number of faces on each portrait, with their boxes and emotions."""
    from fer.inference.predictor import Predictor

    predictor = Predictor()
    for file, theirs in zip(files, answer.pictures, strict=True):
        note = "; ".join(_face(face.box, best(face.emotions), face.emotions) for face in theirs)
        yield Measurement(f"faces on {file.stem}, {package}", len(theirs), "faces", note=note)
        (mine,) = predictor([file])
        note = "; ".join(
            _face((one.box.x, one.box.y, one.box.width, one.box.height), one.emotion, one.probabilities) for one in mine
        )
        yield Measurement(f"faces on {file.stem}, ours", len(mine), "faces", note=note)


def _face(box: Sequence[float], emotion: str, scores: Scores) -> str:
    x, y, width, height = (round(value) for value in box)
    return f"{emotion} {100 * scores[emotion]:.0f} %, box {width}x{height} at {x}, {y}"
