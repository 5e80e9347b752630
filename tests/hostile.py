"""Hostile files and folders: what a stranger might send, each with the command or function that is tried on it.

Every payload that runs code appends to one file, the canary. ``tests/test_hostile.py`` tries all of them.
"""

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

TABLE = "emotion,pixels,Usage\n"
ROW = "0," + " ".join(["7"] * 2304) + ",Training\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{', '.join([f'*{chr(97 + level)}'] * 10)}]\n" for level in range(9)
)


@dataclass(frozen=True)
class Case:
    """A hostile file or folder.

    Args:
        kind: the way in, a key of ``test_hostile.TRIED``.
        name: what is wrong.
        make: function of the folder to fill.
    """

    kind: str
    name: str
    make: Callable[[Path], Any]


def cases(run: Path, sweep: Path, search: Path, campaign: Path, canary: Path) -> list[Case]:
    """Return all cases.

    Args:
        run: a finished run on drawn faces.
        sweep: a folder with a sound ``sweep.json``.
        search: a folder with a sound ``tune.json``.
        campaign: a folder with a sound ``best.json``.
        canary: file that every payload writes to.
    """
    return [
        *_overrides(run, sweep, search, campaign, canary),
        *_records(run, sweep, search, campaign),
        *_checkpoints(run, canary),
        *_shared(),
        *_results(run),
        *_pictures(canary),
        *_tables(),
    ]


# --- overrides ------------------------------------------------------------------------------------------------------


def overrides(canary: Path) -> dict[str, str]:
    """Return payloads as overrides."""
    call = f"{{_target_:builtins.open,file:{canary},mode:a}}"
    handler = f"{{class:logging.FileHandler,filename:{canary}}}"
    return {
        "a callback": f"hydra.callbacks={{x:{call}}}",
        "an added callback": f"+hydra.callbacks.x={call}",
        "a forced callback": f"++hydra.callbacks.x={call}",
        "a group as callback": "model@hydra.callbacks=cnn",
        "callbacks of a group": "hydra/callbacks=evil",
        "a logging handler": f"+hydra.job_logging.handlers.x={handler}",
        "a log file elsewhere": f"hydra.job_logging.handlers.file.filename={canary}",
        "a log of Hydra elsewhere": f"+hydra.hydra_logging.handlers.x={handler}",
        "a logging class": "hydra.job_logging.handlers.file.class=os.system",
        "a launcher's target": "hydra.launcher._target_=os.system",
        "a sweeper's target": "hydra.sweeper._target_=os.system",
        "a launcher": "hydra/launcher=joblib",
        "a launcher's shell": f"+hydra.launcher.setup=['touch {canary}']",
        "a target in a section": "model._target_=os.system",
        "an added target": "+model._target_=os.system",
        "a nested target": f"model.hidden=[{call}]",
        "a plugin": "plugins=[canary_module]",
        "a plugin of the system": "plugins=[antigravity]",
        "a search path": f"hydra.searchpath=['file://{canary.parent}']",
        "a package as search path": "hydra.searchpath=[pkg://canary_module]",
        "an environment variable": "+hydra.job.env_set.LD_PRELOAD=evil.so",
        "another output folder": f"hydra.run.dir={canary}",
        "another configuration folder": "hydra.output_subdir=../../elsewhere",
        "a secret of the environment": "init_from=${oc.env:HOME}",
        "an expression": "seed=${oc.decode:'1'}",
        "a choice outside conf": f"experiment=../../../../../../../..{canary.parent}/experiment/evil",
        "a deleted key": "~model",
        "an unknown section": "evil.key=1",
        "an option": "--config-dir=/tmp",
        "another configuration": "--config-name=evil",
        "a long text": f"init_from={'x' * 20_000}",
        "no override": "\x1b[2J",
    }


def _overrides(run: Path, sweep: Path, search: Path, campaign: Path, canary: Path) -> Iterator[Case]:
    for name, text in overrides(canary).items():
        yield Case("resume", name, lambda folder, text=text: _with_overrides(run, folder, text))
        for kind, source, file in (("sweep", sweep, "sweep.json"), ("tune", search, "tune.json")):
            yield Case(
                kind,
                name,
                lambda folder, text=text, source=source, file=file: _copied(
                    source, folder, file, lambda stored: stored["arguments"].append(text)
                ),
            )
        yield Case(
            "best",
            name,
            lambda folder, text=text: _copied(
                campaign, folder, "best.json", lambda stored: stored["networks"][0]["overrides"].append(text)
            ),
        )


def _with_overrides(run: Path, folder: Path, text: str) -> None:
    _copy_run(run, folder)
    key = "hydra" if text.startswith("hydra.searchpath") else "task"
    if key == "task":
        file = folder / ".hydra" / "overrides.yaml"
        file.write_text(yaml.safe_dump([*yaml.safe_load(file.read_text()), text]))
        return
    file = folder / ".hydra" / "hydra.yaml"
    config = yaml.safe_load(file.read_text())
    config["hydra"]["overrides"]["hydra"].append(text)
    file.write_text(yaml.safe_dump(config))


def _copy_run(run: Path, folder: Path) -> None:
    shutil.copytree(run, folder, dirs_exist_ok=True)
    (folder / "metrics.json").unlink(missing_ok=True)  # not finished, so that it is resumed


def _copied(source: Path, folder: Path, file: str, change: Callable[[Any], Any]) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    contents = json.loads((folder / file).read_text())
    change(contents)
    (folder / file).write_text(json.dumps(contents))


# --- damaged records ------------------------------------------------------------------------------------------------


def damages(*, text: bool = True) -> dict[str, Callable[[Path], Any]]:
    """Return what may lie in place of any file, such as a pipe."""
    writers: dict[str, Callable[[Path], Any]] = {
        "empty": lambda file: file.write_bytes(b""),
        "random bytes": lambda file: file.write_bytes(np.random.default_rng(0).bytes(5000)),
        "a pipe": os.mkfifo,
        "an endless device": lambda file: file.symlink_to("/dev/zero"),
        "random numbers without end": lambda file: file.symlink_to("/dev/urandom"),
        "a folder": lambda file: file.mkdir(),
        "a link to itself": lambda file: file.symlink_to(file),
        "a huge hole": _hole,
    }
    if text:
        writers |= {
            "a list": lambda file: file.write_text("[]"),
            "a number": lambda file: file.write_text("1e999"),
            "nested deeply": lambda file: file.write_text("[" * 200_000),
            "an alias bomb": lambda file: file.write_text(BOMB),
            "a Python object": lambda file: file.write_text("!!python/object/apply:os.system ['true']\n"),
        }
    return writers


def _hole(file: Path) -> None:
    with open(file, "wb") as stream:
        stream.truncate(20 << 30)  # 20 GB that take no space


def _replaced(folder: Path, name: str, damage: Callable[[Path], Any]) -> None:
    file = folder / name
    file.unlink()
    damage(file)


def _records(run: Path, sweep: Path, search: Path, campaign: Path) -> Iterator[Case]:
    for kind, source, name in (
        ("sweep", sweep, "sweep.json"),
        ("tune", search, "tune.json"),
        ("best", campaign, "best.json"),
    ):
        for what, damage in damages().items():
            if what == "a pipe" or what.startswith(("an endless", "random numbers", "a folder", "a link")):
                continue  # no file: the folder has none of these records
            yield Case(
                kind,
                f"{name}: {what}",
                lambda folder, source=source, name=name, damage=damage: (
                    shutil.copytree(source, folder, dirs_exist_ok=True),
                    _replaced(folder, name, damage),
                ),
            )
    for name in (".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/hydra.yaml"):
        for what, damage in damages().items():
            yield Case(
                "resume",
                f"{name}: {what}",
                lambda folder, name=name, damage=damage: (_copy_run(run, folder), _replaced(folder, name, damage)),
            )


# --- runs -----------------------------------------------------------------------------------------------------------


def _results(run: Path) -> Iterator[Case]:
    for name in ("metrics.json", "predictions.csv", "history.csv", ".hydra/config.yaml", ".hydra/hydra.yaml"):
        for what, damage in damages().items():
            yield Case(
                "compare",
                f"{name}: {what}",
                lambda folder, name=name, damage=damage: (
                    shutil.copytree(run, folder, dirs_exist_ok=True),
                    _replaced(folder, name, damage),
                ),
            )
    for what, change in {
        "accuracy is NaN": lambda metrics: metrics.update(accuracy=float("nan")),
        "accuracy is 1e999": lambda metrics: metrics.update(accuracy=float("inf")),
        "accuracy is a text": lambda metrics: metrics.update(accuracy="high"),
        "n is negative": lambda metrics: metrics.update(n=-1),
        "n is huge": lambda metrics: metrics.update(n=10**30),
        "no data set": lambda metrics: metrics.update(dataset=None),
        "classes are numbers": lambda metrics: metrics.update(per_class=[1, 2]),
        "hardware is a list": lambda metrics: metrics.update(hardware=[1]),
        "hardware of lists": lambda metrics: metrics["hardware"].update(gpu=[1], cpu={}),
        "the seed is a list": lambda metrics: metrics.update(seed=[0]),
        "the fingerprint is a list": lambda metrics: metrics["dataset"].update(fingerprint=[1]),
        "the split rule is a list": lambda metrics: metrics["dataset"].update(split=["official"]),
        "finished is a number": lambda metrics: metrics.update(finished=7),
    }.items():
        yield Case("compare", f"metrics.json: {what}", lambda folder, change=change: _metrics(run, folder, change))
    for what, text in {
        "a row is huge": "row,split,target,predicted,p_angry\n99999999999999999999999999,val,angry,angry,1\n",
        "a probability is NaN": "row,split,target,predicted,p_angry\n1,val,angry,angry,nan\n",
        "a line is 200 kB": "row,split,target,predicted,p_angry\n1,val,angry," + "x" * 200_000 + ",1\n",
        "no class": "row,split,target,predicted\n1,val,angry,angry\n",
    }.items():
        yield Case(
            "compare",
            f"predictions.csv: {what}",
            lambda folder, text=text: (
                shutil.copytree(run, folder, dirs_exist_ok=True),
                (folder / "predictions.csv").write_text(text),
            ),
        )


def _metrics(run: Path, folder: Path, change: Callable[[Any], Any]) -> None:
    shutil.copytree(run, folder, dirs_exist_ok=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    change(metrics)
    (folder / "metrics.json").write_text(json.dumps(metrics))


# --- networks -------------------------------------------------------------------------------------------------------


class Payload:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _nested(levels: int, width: int = 10) -> list[Any]:
    """Return lists that name each other: few objects, but width ** levels mentions."""
    nested: list[Any] = ["x"] * width
    for _ in range(levels):
        nested = [nested] * width
    return nested


def _endless() -> list[Any]:
    circular: list[Any] = []
    circular.append(circular)
    return circular


def _hypers() -> dict[str, dict[str, Any]]:
    """Return arguments that no training of an MLP writes."""
    return {
        "a million wide": {"hidden": [10**6, 10**6]},
        "beyond all memory": {"hidden": [10**12]},
        "a million layers": {"hidden": [1] * 100_000},
        "a negative width": {"hidden": [-1]},
        "a width of NaN": {"hidden": [float("nan")]},
        "no list": {"hidden": {"a": 1}},
        "a text as rate": {"dropout": "high"},
        "a rate of 2": {"dropout": 2.0},
        "an unknown argument": {"evil": 1},
        "an instantiator": {"_instantiator": "os.system"},
        "a std of 0": {"std": 0.0},
        "a negative std": {"std": -1.0},
        "a std of NaN": {"std": float("nan")},
        "a mean of infinity": {"mean": float("inf")},
        "a text as mean": {"mean": "0.5"},
        "two equal classes": {"classes": ["angry"] * 7},
        "classes of numbers": {"classes": list(range(7))},
        "a class of 10 MB": {"classes": [*"abcdef", "x" * 10**7]},
        "a class that clears the screen": {"classes": [*"abcdef", "\x1b[2J"]},
        "a class turned round": {"classes": [*"abcdef", "\u202egnp"]},
        "an empty class": {"classes": [*"abcdef", ""]},
        "no class": {"classes": []},
        "one class": {"classes": ["angry"]},
        "a text as classes": {"classes": "abcdefg"},
        "faces of a million pixels": {"image_size": 10**6},
        "faces of no pixel": {"image_size": 0},
        "faces of half a pixel": {"image_size": 0.5},
        "a crop beyond the face": {"crop": 4000},
        "a bomb of lists": {"hidden": _nested(12)},
        "a list in itself": {"hidden": _endless()},
        "levels without end": {"hidden": _nested(200, 1)},
    }


def _entries() -> dict[str, dict[str, Any]]:
    """Return entries of a checkpoint's description that no training writes."""
    return {
        "a network by import path": {"architecture": "os.system"},
        "no network": {"architecture": None},
        "a list as network": {"architecture": ["mlp"]},
        "another network": {"architecture": "cnn"},
        "a newer format": {"format": 99},
        "a huge format": {"format": 10**400},
        "a temperature of 0": {"temperature": 0.0},
        "a negative temperature": {"temperature": -1.0},
        "a huge temperature": {"temperature": 1e9},
        "a temperature of NaN": {"temperature": float("nan")},
        "a text as temperature": {"temperature": "warm"},
        "no data set": {"dataset": None},
        "settings of data as list": {"dataset": {"settings": [1]}},
        "ancestors as text": {"ancestors": "none"},
        "teachers without weights": {"teachers": [{}]},
        "a bomb of lists": {"dataset": {"settings": {}, "name": _nested(12)}},
    }


def _tensors() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Return changes of the weights; the first layer has 16 x 576 numbers."""
    first = "net.1.weight"
    index = torch.tensor([[0], [0]])
    return {
        "NaN": lambda weights: weights[first].fill_(float("nan")),
        "beyond 32 bits": lambda weights: weights.update({first: torch.full((16, 576), 1e300, dtype=torch.float64)}),
        "another shape": lambda weights: weights.update({first: torch.zeros(17, 576)}),
        "a view of one number": lambda weights: weights.update({first: torch.zeros(1, 1).expand(16, 576)}),
        "a view of a terabyte": lambda weights: weights.update({first: torch.zeros(1).expand(2**38)}),
        "sparse": lambda weights: weights.update({first: torch.sparse_coo_tensor(index, torch.ones(1), (16, 576))}),
        "sparse and huge": lambda weights: weights.update(
            {first: torch.sparse_coo_tensor(index, torch.ones(1), (2**30,) * 2)}
        ),
        "complex": lambda weights: weights.update({first: torch.zeros(16, 576, dtype=torch.complex64)}),
        "eight bits of float": lambda weights: weights.update({first: torch.zeros(16, 576).to(torch.float8_e5m2)}),
        "quantised": lambda weights: weights.update(
            {first: torch.quantize_per_tensor(torch.zeros(16, 576), 1.0, 0, torch.qint8)}
        ),
        "whole numbers": lambda weights: weights.update({first: torch.zeros(16, 576, dtype=torch.int64)}),
        "nowhere": lambda weights: weights.update({first: torch.zeros(16, 576, device="meta")}),
        "a text": lambda weights: weights.update({first: "x"}),
        "a list": lambda weights: weights.update({first: [0.0] * 9}),
        "a number as name": lambda weights: weights.update({7: torch.zeros(1)}),
        "a missing layer": lambda weights: weights.pop(first),
        "one layer too many": lambda weights: weights.update({"net.9.weight": torch.zeros(4, 4)}),
        "no number": lambda weights: weights.update({first: torch.zeros(0)}),
    }


def _checkpoints(run: Path, canary: Path) -> Iterator[Case]:
    source = run / "checkpoints" / "best.ckpt"

    def saved(folder: Path, change: Callable[[dict[str, Any]], Any], **options: Any) -> None:
        checkpoint = torch.load(source, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, folder / "x.ckpt", **options)

    for name, hyper in _hypers().items():
        yield Case(
            "load", f"arguments: {name}",
            lambda folder, hyper=hyper: saved(folder, lambda contents: contents["hyper_parameters"].update(hyper)),
        )  # fmt: skip
    for name, entry in _entries().items():
        yield Case(
            "load", f"description: {name}",
            lambda folder, entry=entry: saved(folder, lambda contents: contents["fer"].update(entry)),
        )  # fmt: skip
    for name, change in _tensors().items():
        yield Case(
            "load", f"weights: {name}",
            lambda folder, change=change: saved(folder, lambda contents: change(contents["state_dict"])),
        )  # fmt: skip
    yield from _pickles(saved, canary)
    content = source.read_bytes()
    for share in range(1, 20):
        yield Case(
            "load", f"cut at {share}/20",
            lambda folder, share=share: (folder / "x.ckpt").write_bytes(content[: len(content) * share // 20]),
        )  # fmt: skip
        yield Case("load", f"flipped at {share}/20", lambda folder, share=share: _flipped(folder, content, share))
    yield Case("load", "deflated", lambda folder: _packed(folder, source, zipfile.ZIP_DEFLATED, 0))
    yield Case("load", "a zip bomb", lambda folder: _packed(folder, source, zipfile.ZIP_DEFLATED, 1 << 28))
    yield Case("load", "numbers that claim to be many", lambda folder: _claimed(folder, source))
    for name, damage in damages(text=False).items():
        yield Case("load", f"a checkpoint: {name}", lambda folder, damage=damage: damage(folder / "x.ckpt"))


def _pickles(saved: Callable[..., None], canary: Path) -> Iterator[Case]:
    for name, payload in {
        "open": Payload(open, str(canary), "a"),
        "a shell": Payload(os.system, f"touch {canary}"),
        "eval": Payload(eval, f"open({str(canary)!r}, 'a')"),
        "a folder": Payload(os.mkdir, str(canary)),
        "torch.load": Payload(torch.load, str(canary)),
    }.items():
        yield Case(
            "load", f"pickle: {name}", lambda folder, payload=payload: saved(folder, lambda h: h.update(x=payload))
        )
        yield Case("load", f"pickle alone: {name}", lambda folder, payload=payload: _pickled(folder, payload))
        yield Case(
            "load", f"pickle of old: {name}",
            lambda folder, payload=payload: saved(
                folder, lambda checkpoint: checkpoint.update(x=payload), _use_new_zipfile_serialization=False
            ),
        )  # fmt: skip


def _pickled(folder: Path, payload: Payload) -> None:
    (folder / "x.ckpt").write_bytes(pickle.dumps(payload))


def _flipped(folder: Path, content: bytes, share: int) -> None:
    changed = bytearray(content)
    changed[_read(content, len(content) * share // 20)] ^= 1 << share % 8
    (folder / "x.ckpt").write_bytes(changed)


def _read(content: bytes, at: int) -> int:
    """Return ``at``, or the next place in a zip file that readers look at: they skip what stands before an entry."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
            lengths = content[entry.header_offset + 26 : entry.header_offset + 30]  # of its name and what follows it
            start = (
                entry.header_offset + 30 + sum(int.from_bytes(part, "little") for part in (lengths[:2], lengths[2:]))
            )
            if at < start + entry.compress_size:
                return max(at, start)
    return at


def _packed(folder: Path, source: Path, method: int, zeros: int) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(folder / "x.ckpt", "w", method) as new:
        for part in old.namelist():
            new.writestr(part, old.read(part))
        new.writestr("archive/data/9999", b"\0" * zeros)


def _claimed(folder: Path, source: Path) -> None:
    """Write a checkpoint whose pickle claims more numbers than its parts hold."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(folder / "x.ckpt", "w") as new:
        for part in old.namelist():
            content = old.read(part)
            if part.endswith("data.pkl"):
                count = struct.pack("<H", 16 * 576)  # BININT2 of the first layer
                assert content.count(b"M" + count) >= 1
                content = content.replace(b"M" + count, b"J" + struct.pack("<i", 2**31 - 1), 1)
            new.writestr(part, content)


# --- shared files ---------------------------------------------------------------------------------------------------


def _shared() -> Iterator[Case]:
    from fer.models import checkpoints, safetensors

    file = checkpoints.find("tiny")
    tensors, about = safetensors.read(file)
    content = file.read_bytes()

    def written(folder: Path, **change: Any) -> None:
        entry = {**json.loads(about["fer"]), **change}
        (folder / "x.safetensors").write_bytes(
            safetensors.to_bytes(tensors, {"format": "pt", "fer": json.dumps(entry)})
        )

    def header(folder: Path, size: int, text: bytes) -> None:
        (folder / "x.safetensors").write_bytes(struct.pack("<Q", size) + text)

    hyper = json.loads(about["fer"])["hyper_parameters"]
    for name, change in _hypers().items():
        if name not in ("a bomb of lists", "a list in itself") and not {"hidden", "dropout"} & set(change):
            yield Case(
                "share", f"arguments: {name}",
                lambda folder, change=change: written(folder, hyper_parameters={**hyper, **change}),
            )  # fmt: skip
    for key in ("channels", "depth"):
        for value in (10**9, [10**9] * 4, "x", None, -1, 0, float("nan"), [[1]]):
            yield Case(
                "share", f"{key}={value}",
                lambda folder, key=key, value=value: written(folder, hyper_parameters={**hyper, key: value}),
            )  # fmt: skip
    for name, entry in _entries().items():
        if name not in ("a bomb of lists", "another network", "a huge format"):
            yield Case("share", f"description: {name}", lambda folder, entry=entry: written(folder, **entry))
    for name, size, text in (
        ("a header of 2**63 bytes", 2**63, b"{}"),
        ("a header of 16 GB", 2**34, b"{}"),
        ("a header of nothing", 0, b""),
        ("a tensor of a terabyte", 0, _header([2**38], 2**40)),
        ("a shape beyond all numbers", 0, _header([2**62, 2**62], 4)),
        ("a negative shape", 0, _header([-1], 4)),
        ("nested deeply", 0, b"[" * 100_000),
    ):  # fmt: skip
        yield Case("share", name, lambda folder, size=size, text=text: header(folder, size or len(text), text))
    for share in range(1, 10):
        yield Case(
            "share", f"cut at {share}/10",
            lambda folder, share=share: (folder / "x.safetensors").write_bytes(content[: len(content) * share // 10]),
        )  # fmt: skip


def _header(shape: list[int], end: int) -> bytes:
    return json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()


# --- pictures -------------------------------------------------------------------------------------------------------


def _pictures(canary: Path) -> Iterator[Case]:
    yield from _of_postscript(canary)
    yield from _of_other_formats()
    yield from _larger_than_allowed()
    for name, damage in damages(text=False).items():
        yield Case("picture", name, lambda folder, damage=damage: damage(folder / "x.png"))


def _of_postscript(canary: Path) -> Iterator[Case]:
    postscript = (
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n({canary}) (w) file closefile\nshowpage\n".encode()
    )
    for suffix in (".jpg", ".png", ".bmp", ".gif", ".webp", ".tif", ".pgm"):
        yield Case(
            "picture",
            f"PostScript as {suffix}",
            lambda folder, suffix=suffix: (folder / f"x{suffix}").write_bytes(postscript),
        )
    yield Case(
        "picture",
        "PostScript of DOS",
        lambda folder: (folder / "x.jpg").write_bytes(struct.pack("<II", 0xC6D3D0C5, 32) + bytes(24) + postscript),
    )


def _of_other_formats() -> Iterator[Case]:
    face = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8))
    for format in ("ICO", "PCX", "TGA", "SGI", "DDS", "PDF", "EPS", "IM", "MSP", "XBM", "JPEG2000", "QOI", "ICNS"):
        contents = io.BytesIO()
        try:
            (
                face.convert("RGB")
                if format in ("DDS", "QOI")
                else face.convert("1")
                if format in ("MSP", "XBM")
                else face
            ).save(contents, format)
        except (KeyError, OSError, ValueError):
            continue
        yield Case(
            "picture",
            f"{format} as .jpg",
            lambda folder, contents=contents: (folder / "x.jpg").write_bytes(contents.getvalue()),
        )


def _larger_than_allowed() -> Iterator[Case]:
    for name, size in (
        ("a little too large", (8_000, 8_000)),
        ("a bomb", (60_000, 60_000)),
        ("beyond all", (2**31 - 1,) * 2),
    ):
        head = struct.pack(">II5B", *size, 8, 0, 0, 0, 0)
        yield Case(
            "picture",
            f"a PNG {name}",
            lambda folder, head=head: (folder / "x.png").write_bytes(
                b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b"")
            ),
        )
    yield Case(
        "picture", "a PNM beyond all", lambda folder: (folder / "x.pgm").write_bytes(b"P5 99999999 99999999 255\n")
    )
    yield Case(
        "picture",
        "a BMP beyond all",
        lambda folder: (folder / "x.bmp").write_bytes(
            b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0)
        ),
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    import zlib

    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# --- tables ---------------------------------------------------------------------------------------------------------


def _tables() -> Iterator[Case]:
    def line(folder: Path, length: int) -> None:
        with open(folder / "fer2013.csv", "w") as stream:
            stream.write(TABLE + "0,")
            stream.seek(length)
            stream.write("7")

    yield Case("table", "a line of 1 GB", lambda folder: line(folder, 1 << 30))
    yield Case("table", "a line of 200 kB", lambda folder: line(folder, 200_000))
    yield Case("table", "a header of 1 GB", lambda folder: _hole(folder / "fer2013.csv"))
    yield Case(
        "table",
        "a packed line of 1 GB",
        lambda folder: _gz(folder / "fer2013.csv.gz", TABLE.encode() + b"0," + b"7" * (1 << 28)),
    )
    yield Case(
        "table", "packed blank lines", lambda folder: _gz(folder / "fer2013.csv.gz", TABLE.encode() + b"\n" * (1 << 28))
    )
    yield Case("table", "a packed hole in a tar", _tar_bomb)
    yield Case("table", "a zip bomb", lambda folder: _zip(folder / "fer2013.zip", TABLE.encode() + b"\n" * (1 << 28)))
    yield Case("table", "a zip cut in half", lambda folder: _cut_zip(folder / "fer2013.zip"))
    yield Case("table", "a damaged zip of another name", lambda folder: _damaged_zip(folder / "archive.zip"))
    yield Case(
        "table",
        "a zip with a name outside",
        lambda folder: _zip(folder / "fer2013.zip", ROW.encode(), "../../evil.txt"),
    )
    yield Case(
        "table", "a header of escapes", lambda folder: (folder / "fer2013.csv").write_text("\x1b[2J,\x1b]0;x\x07\n")
    )
    for name, damage in damages(text=False).items():
        yield Case("table", name, lambda folder, damage=damage: damage(folder / "fer2013.csv"))


def _gz(file: Path, contents: bytes) -> None:
    with gzip.open(file, "wb", 1) as stream:
        stream.write(contents)


def _zip(file: Path, contents: bytes, name: str = "fer2013.csv") -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(name, contents)


def _cut_zip(file: Path) -> None:
    _zip(file, (TABLE + ROW * 50).encode())
    file.write_bytes(file.read_bytes()[:300])


def _damaged_zip(file: Path) -> None:
    _zip(file, (TABLE + ROW * 50).encode())
    content = file.read_bytes()
    at = content.rindex(b"PK\x01\x02")
    file.write_bytes(content[:at] + b"XX" + content[at + 2 :])


def _tar_bomb(folder: Path) -> None:
    with tarfile.open(folder / "fer2013.tar.gz", "w:gz", compresslevel=1) as archive:
        entry = tarfile.TarInfo("fer2013.csv")
        entry.size = 1 << 28
        archive.addfile(entry, io.BytesIO(bytes(1 << 28)))
