"""Damaged files of every format that the library reads: each gives a result, or one line of ``FerError``.

The inputs are made in forked children, whose memory is limited, so that a crash of a decoder ends a batch and not the
count. Hypothesis shrinks what fails to its smallest form. The inputs of a seed are always the same.
"""

import contextlib
import gzip
import io
import json
import os
import resource
import shutil
import signal
import struct
import tarfile
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from PIL import Image

import fer
from fer.config.errors import FerError
from fer.data import exclude
from fer.data.faces import Faces
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS
from fer.data.load import read_path
from fer.data.readers import ferplus
from fer.metrics import results
from fer.models import checkpoints
from fer.runs import load, predictions, stored

from .damage import mutated, nearby, restructured, values
from .forks import Child
from .table import Row, measured

EXPECTED = "a result, or one line that says what is wrong; in 10 s and 1 GB"
BATCH = 500  # inputs of a child
LONGEST_S, MOST_BYTES = 10, 1 << 30  # of an input
LONGEST_LINE = 1500  # characters of a message
SIDE = 48
PHASES = (Phase.generate, Phase.shrink)
FIXTURES = Path(__file__).parents[1] / "fixtures" / "format_1"


class Slow(BaseException):
    """An input that takes too long; no ``Exception``, which a reader might take for its own."""


@dataclass(frozen=True)
class Format:
    """A format of files.

    Args:
        name: of the format.
        base: function that writes a sound example into an empty folder.
        damage: function that damages the copy of an example by choices of ``data``.
        use: function that reads the damaged example.
    """

    name: str
    base: Callable[[Path], None]
    damage: Callable[[st.DataObject, Path], None]
    use: Callable[[Path], object]


def fuzzed(folder: Path, run: Path, count: int, seed: int = 0, names: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield a row for each format.

    Args:
        folder: for examples.
        run: folder of a finished run.
        count: inputs of each format.
        seed: of the inputs.
        names: formats; empty for all.
    """
    _warm()
    for each in formats(run):
        if names and each.name not in names:
            continue
        base = folder / each.name / "base"
        base.mkdir(parents=True)
        each.base(base)
        shutil.copytree(base, base.parent / "sound")
        each.use(base.parent / "sound")  # else each input would be refused for a reason of its own
        with measured(Row(f"damaged {each.name}", EXPECTED)) as row:
            waiting = [
                (1000 * seed + batch, min(BATCH, count - start)) for batch, start in enumerate(range(0, count, BATCH))
            ]
            running: list[Batch] = []
            while waiting or running:
                while waiting and len(running) < (os.cpu_count() or 1):
                    running.append(Batch(each, base, *waiting.pop(0)))
                running.pop(0).count_in(row)
        yield row


def _warm() -> None:
    """Let hypothesis load its tables before the first fork: each child would take half a second for it."""
    settings(max_examples=1, database=None)(seeded(0)(given(st.data())(lambda data: data.draw(values()))))()


class Batch:
    """A forked child that tries some inputs of a format."""

    def __init__(self, each: Format, base: Path, seed: int, count: int) -> None:
        self.seed, self.work = seed, base.parent / f"batch{seed}"
        self.child = Child(
            lambda report: _inputs(report, each, base, self.work, count, seed), self.work.with_suffix(".log")
        )

    def count_in(self, row: Row) -> None:
        """Wait for the end, and add the counts to a row."""
        ended = self.child.end(BATCH * LONGEST_S)
        counts = {kind: int(text) for kind, _, text in (line.partition(" ") for line in ended.said) if kind != "failed"}
        failures = [json.loads(line.partition(" ")[2]) for line in ended.said if line.startswith("failed ")]
        if ended.code != 0:
            failures.append(f"the process ended with {ended.code}: {ended.output[-500:]}")
        row.tried += counts.get("tried", 0)
        row.failures += [f"seed {self.seed}: {failure}" for failure in failures]
        row.add("refused", counts.get("refused", 0))
        row.facts["most MB"] = max(row.facts.get("most MB", 0), counts.get("mb", 0))
        shutil.rmtree(self.work, ignore_errors=True)


def _inputs(report: Callable[[str], None], each: Format, base: Path, work: Path, count: int, seed: int) -> int:
    """Try the inputs of a batch, in a child."""
    torch.set_num_threads(1)
    counts = {"tried": 0, "refused": 0}
    before = _limited()

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=PHASES,
    )
    @seeded(seed)
    @given(st.data())
    def tried(data: st.DataObject) -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)
        each.damage(data, work)
        counts["tried"] += 1
        counts["refused"] += _use(each, work)

    with contextlib.suppress(Exception):  # reported below
        try:
            tried()
        except BaseException as error:
            for one in getattr(error, "exceptions", (error,)):
                report("failed " + json.dumps(_described(one)))
    report(f"tried {counts['tried']}\nrefused {counts['refused']}")
    report(f"mb {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024}")
    return 0


def _described(error: BaseException) -> str:
    """Return an error with the last lines of its traceback, and the notes of hypothesis."""
    lines = traceback.format_exception(error)
    return "".join(lines)[-1500:] + "\n".join(getattr(error, "__notes__", []))[:1500]


def _limited() -> int:
    """Limit this process's memory, and return the kilobytes that it has used."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _use(each: Format, folder: Path) -> bool:
    """Read an input; return whether it was refused.

    Raises:
        AssertionError: it took too long, or the message is no line.
        Exception: whatever the reader raised that is no ``FerError``.
    """

    def late(*_: object) -> None:
        raise Slow

    signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST_S)
    try:
        each.use(folder)
        return False
    except FerError as error:
        message = str(error)
        assert message
        assert len(message) <= LONGEST_LINE, message[:200]
        return True
    except Slow:
        raise AssertionError(f"took over {LONGEST_S} s") from None
    except MemoryError as error:
        raise AssertionError("took over 1 GB") from error
    finally:
        signal.alarm(0)


# --- faces ----------------------------------------------------------------------------------------------------------


def _table() -> bytes:
    draw = np.random.default_rng(0)
    lines = ["emotion,pixels,Usage"]
    for index, usage in enumerate(("Training", "Training", "PublicTest", "PrivateTest")):
        pixels = " ".join(map(str, draw.integers(0, 256, SIDE * SIDE)))
        lines.append(f"{index % 7},{pixels},{usage}")
    return ("\n".join(lines) + "\n").encode()


def _faces(path: Path) -> object:
    """Read faces in both ways, and check them."""
    skipped = None
    with contextlib.suppress(FerError):
        skipped = _checked(read_path(path, image_size=SIDE, on_bad="skip", cache=None))
    whole = _checked(read_path(path, image_size=SIDE, on_bad="error", cache=None))
    assert skipped is not None
    assert len(whole) == len(skipped)
    return whole


def _checked(faces: Faces) -> Faces:
    assert faces.images.dtype == np.uint8
    assert faces.images.shape == (len(faces), SIDE, SIDE)
    assert ((faces.targets >= -1) & (faces.targets < len(faces.classes))).all()
    return faces


def _damage_file(name: str) -> Callable[[st.DataObject, Path], None]:
    """Return a function that changes the bytes of a file."""

    def damage(data: st.DataObject, folder: Path) -> None:
        file = folder / name
        file.write_bytes(mutated(data, file.read_bytes()))

    return damage


def _damage_archive(data: st.DataObject, folder: Path) -> None:
    """Pack a table that may be damaged, in one of four ways, and damage the archive, or not."""
    contents = (folder / "fer2013.csv").read_bytes()
    (folder / "fer2013.csv").unlink()
    if inside := data.draw(st.booleans()):
        contents = mutated(data, contents)
    kind = data.draw(st.sampled_from((".zip", ".csv.gz", ".tar.gz", ".tar")))
    name = data.draw(
        st.sampled_from(("fer2013.csv", "fer2013/fer2013.csv", "icml_face_data.csv", "../x.csv", "a", "\x1b[2J"))
    )
    packed = _packed(kind, name, contents, data.draw(st.integers(1, 2)))
    if not inside or data.draw(st.booleans()):
        packed = mutated(data, packed)
    (folder / f"fer2013{kind}").write_bytes(packed)


def _packed(kind: str, name: str, contents: bytes, times: int) -> bytes:
    stream = io.BytesIO()
    if kind == ".csv.gz":
        return b"".join(gzip.compress(contents, 1, mtime=0) for _ in range(times))
    if kind == ".zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for number in range(times):
                archive.writestr(zipfile.ZipInfo(f"{'b/' * number}{name}"), contents, zipfile.ZIP_DEFLATED, 1)
        return stream.getvalue()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number in range(times):
            entry = tarfile.TarInfo(f"{'b/' * number}{name}")
            entry.size = len(contents)
            archive.addfile(entry, io.BytesIO(contents))
    # tarfile would write the time into the gzip header: hypothesis needs the same bytes every time
    return gzip.compress(stream.getvalue(), mtime=0) if kind.endswith("gz") else stream.getvalue()


KINDS = (("png", "L"), ("jpeg", "RGB"), ("bmp", "L"), ("gif", "P"), ("webp", "RGB"), ("tiff", "I;16"), ("ppm", "RGB"))


def _tree(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for index, (kind, mode) in enumerate(KINDS):
        path = folder / ("train", "test")[index % 2] / EMOTIONS[index]
        path.mkdir(parents=True)
        picture = Image.fromarray(draw.integers(0, 256, (SIDE, SIDE), np.uint8)).convert(
            "I;16" if mode == "I;16" else mode
        )
        picture.save(path / f"{index}.{kind}", kind)


def _damage_tree(data: st.DataObject, folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for _ in range(data.draw(st.integers(1, 3))):
        file = data.draw(st.sampled_from(files))
        kind = data.draw(st.sampled_from(("bytes", "bytes", "bytes", "name", "folder", "link", "table")))
        if kind == "bytes" and file.is_file():
            file.write_bytes(mutated(data, file.read_bytes() or b"x"))
            continue
        target = file.with_name(data.draw(st.text(min_size=1, max_size=12).filter(_is_name)) + data.draw(_suffix))
        with contextlib.suppress(OSError, ValueError):  # names that the file system refuses
            if kind == "name":
                file.rename(target)
            elif kind == "folder":
                target.mkdir()
            elif kind == "link":
                target.symlink_to(
                    data.draw(st.sampled_from((folder, file, target, Path("/dev/zero"), Path("nowhere"))))
                )
            else:
                target.with_suffix(".csv").write_bytes(mutated(data, b"emotion,pixels,Usage\n0,1 2,Training\n"))


_suffix = st.sampled_from(("", ".png", ".jpg", ".csv", ".gz"))


def _is_name(text: str) -> bool:
    return (
        "/" not in text and "\0" not in text and text not in (".", "..") and len(text.encode("utf-8", "replace")) < 200
    )


def _votes(folder: Path) -> None:
    (folder / "fer2013.csv").write_bytes(_table())
    lines = [",".join(("Usage", "Image name", *FERPLUS_COLUMNS))]
    for index, usage in enumerate(("Training", "Training", "PublicTest", "PrivateTest")):
        numbers = [0] * len(FERPLUS_COLUMNS)
        numbers[(4, 5, 6, 1)[index]] = 10
        lines.append(",".join([usage, f"fer{index:07}.png", *map(str, numbers)]))
    (folder / "fer2013new.csv").write_text("\n".join(lines) + "\n")


def _use_votes(folder: Path) -> object:
    faces = _cached_faces(folder / "fer2013.csv")
    joined = ferplus.join_votes(faces, folder / "fer2013new.csv")
    assert joined.votes is not None
    assert joined.votes.shape == (4, 10)
    return joined


_kept: dict[str, Faces] = {}


def _cached_faces(file: Path) -> Faces:
    """Return the faces of the sound table, read once in a process."""
    if "faces" not in _kept:
        _kept["faces"] = read_path(file, image_size=SIDE, on_bad="error", cache=None)
    return _kept["faces"]


def _suggestions(folder: Path) -> None:
    lines = [
        f"{exclude.PURPOSE} fingerprint=0123456789abcdef image_size=48 split=official",
        ",".join(exclude.HEADS),
        "59,near duplicate in test,exclude,train,sad,59,1.0000",
        "60,label may be wrong,relabel:happy,train,sad,,0.0100",
        "61,no face,look,val,sad,,",
    ]
    (folder / "audit.csv").write_text("\n".join(lines) + "\n")


def _use_suggestions(folder: Path) -> object:
    excluded = exclude.read(folder / "audit.csv")
    assert (excluded.rows >= 0).all()
    return excluded


# --- runs -----------------------------------------------------------------------------------------------------------


def _copied(run: Path, *names: str) -> Callable[[Path], None]:
    """Return a function that copies files of a run."""

    def base(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(run / name, folder / name)

    return base


OF_RUN = (
    "metrics.json",
    "predictions.csv",
    "history.csv",
    ".hydra/config.yaml",
    ".hydra/overrides.yaml",
    ".hydra/hydra.yaml",
)
SECTIONS = ("model", "loss", "optimizer", "scheduler", "seed", "monitor")  # YAML is slow to read, so that there are few


def _run(run: Path) -> Callable[[Path], None]:
    """Return a function that copies what a comparison reads of a run, with a short configuration."""

    def base(folder: Path) -> None:
        _copied(run, *OF_RUN)(folder)
        config, hydra = (folder / ".hydra" / name for name in ("config.yaml", "hydra.yaml"))
        stored = yaml.load(config.read_bytes(), yaml.CSafeLoader)
        config.write_text(yaml.safe_dump({name: stored[name] for name in SECTIONS}))
        stored = yaml.load(hydra.read_bytes(), yaml.CSafeLoader)["hydra"]
        short = {"overrides": stored["overrides"], "runtime": {"choices": stored["runtime"]["choices"]}}
        hydra.write_text(yaml.safe_dump({"hydra": short}))

    return base


def _use_predictions(folder: Path) -> object:
    (file,) = folder.glob("predictions.csv*")
    stored = predictions.read(file)
    assert stored.probabilities.shape == (len(stored.rows), len(stored.classes))
    return stored


def _damage_predictions(data: st.DataObject, folder: Path) -> None:
    file = folder / "predictions.csv"
    if data.draw(st.booleans()):
        file.write_bytes(mutated(data, file.read_bytes()))
        return
    packed = gzip.compress(mutated(data, file.read_bytes()), 1, mtime=0)
    file.unlink()
    (folder / "predictions.csv.gz").write_bytes(mutated(data, packed) if data.draw(st.booleans()) else packed)


def _damage_hydra(data: st.DataObject, folder: Path) -> None:
    file = folder / ".hydra" / data.draw(st.sampled_from(("config.yaml", "overrides.yaml", "hydra.yaml")))
    if data.draw(st.booleans()):
        file.write_bytes(mutated(data, file.read_bytes()))
        return
    changed = restructured(data, yaml.load(file.read_bytes(), yaml.CSafeLoader))
    file.write_bytes(yaml.dump(changed, Dumper=yaml.CSafeDumper, encoding="utf-8"))


def _use_run(folder: Path) -> object:
    """Read a run's command line as ``resume=`` does, or the run as a comparison does."""
    with contextlib.suppress(FerError):
        stored.overrides(folder, [])
    return load.load(folder)


def _damage_metrics(data: st.DataObject, folder: Path) -> None:
    file = folder / "metrics.json"
    if data.draw(st.integers(0, 2)) == 0:
        file.write_bytes(mutated(data, file.read_bytes()))
        return
    file.write_text(json.dumps(restructured(data, json.loads(file.read_text()))), encoding="utf-8", errors="replace")


def _use_metrics(folder: Path) -> object:
    with contextlib.suppress(FerError):
        results.read(folder / "metrics.json")
    return load.load(folder)


# --- networks -------------------------------------------------------------------------------------------------------


def _other_tensor(data: st.DataObject, value: Any) -> Any:
    """Return something in place of a value of a checkpoint."""
    if not isinstance(value, torch.Tensor) or data.draw(st.integers(0, 4)) == 0:
        return nearby(data, value)
    changed: list[Callable[[], Any]] = [
        lambda: value.double(),
        lambda: value.half() * 1e9,
        lambda: value.to(torch.complex64),
        lambda: value.to(torch.uint8),
        lambda: value.flatten(),
        lambda: value.reshape(1, *value.shape),
        lambda: value.expand(3, *value.shape),
        lambda: value.to_sparse(),
        lambda: value * float("nan"),
        lambda: -value - 1,
        lambda: value.new_empty(0),
        lambda: torch.empty(value.shape, device="meta"),
        lambda: torch.nn.Parameter(value.float()),
        lambda: torch.tensor(7),
    ]
    other = data.draw(st.sampled_from(changed))
    try:
        return other()
    except (RuntimeError, NotImplementedError):  # of a sparse tensor, or one without values, that was put there before
        return value


def _damage_checkpoint(data: st.DataObject, folder: Path) -> None:
    file = folder / "checkpoints" / "best.ckpt"
    if data.draw(st.integers(0, 2)) == 0:
        file.write_bytes(mutated(data, file.read_bytes()))
        return
    contents = torch.load(file, weights_only=True)
    part = data.draw(st.sampled_from(("fer", "hyper_parameters", "state_dict", "")))
    if part:
        contents[part] = restructured(data, contents[part], _other_tensor)
    else:
        contents = restructured(data, contents, _other_tensor)
    torch.save(contents, file)


def _use_network(file: Path) -> object:
    """Load a network, and predict a face."""
    model = fer.load(file)
    side = model.image_size
    with torch.no_grad():
        values = model.probabilities(torch.zeros(1, 1, side, side, dtype=torch.uint8))
    assert values.shape == (1, len(model.hparams["classes"]))
    assert torch.isfinite(values).all()
    return model


def _shared(folder: Path) -> None:
    shutil.copy(FIXTURES / "shared.safetensors", folder)


def _damage_shared(data: st.DataObject, folder: Path) -> None:
    """Change the bytes of a file, or values of its header, or of the description in the header."""
    file = folder / "shared.safetensors"
    contents = file.read_bytes()
    if data.draw(st.integers(0, 2)) == 0:
        file.write_bytes(mutated(data, contents))
        return
    (size,) = struct.unpack("<Q", contents[:8])
    header = json.loads(contents[8 : 8 + size])
    if data.draw(st.booleans()):
        header = restructured(data, header)
    else:
        about = header["__metadata__"]
        entry = restructured(data, json.loads(about[checkpoints.METADATA]))
        about[checkpoints.METADATA] = json.dumps(entry)
    written = json.dumps(header).encode("utf-8", "replace")
    file.write_bytes(struct.pack("<Q", len(written)) + written + contents[8 + size :])


def formats(run: Path) -> list[Format]:
    """Return the formats; ``run`` is the folder of a finished run."""
    table = "fer2013.csv"
    return [
        Format("table", lambda folder: _write(folder / table, _table()), _damage_file(table), _faces),
        Format("archive", lambda folder: _write(folder / table, _table()), _damage_archive, _faces),
        Format("tree", _tree, _damage_tree, _faces),
        Format("votes", _votes, _damage_file("fer2013new.csv"), _use_votes),
        Format("audit.csv", _suggestions, _damage_file("audit.csv"), _use_suggestions),
        Format("predictions.csv", _copied(run, "predictions.csv"), _damage_predictions, _use_predictions),
        Format("checkpoint", _copied(run, "checkpoints/best.ckpt"), _damage_checkpoint, _use_network),
        Format("safetensors", _shared, _damage_shared, lambda folder: _use_network(folder / "shared.safetensors")),
        Format(".hydra", _run(run), _damage_hydra, _use_run),
        Format("metrics.json", _run(run), _damage_metrics, _use_metrics),
    ]


def _write(file: Path, contents: bytes) -> None:
    file.write_bytes(contents)
