"""Checkpoints: written whole or not at all, read without trusting them.

A checkpoint is Lightning's, with plain contents and an entry ``fer`` that rebuilds the network. It is written beside
its name and renamed, in the same folder (Lightning itself goes through ``$TMPDIR``, which may lie on another disk,
where moving is copying). PyTorch's files are zip archives, so that every part carries a CRC-32: reading checks them,
since ``torch.load`` does not and a flipped byte in the weights would pass unseen.
"""

import hashlib
import json
import logging
import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fer.config.errors import FerError, setting
from fer.models import MODELS, EmotionClassifier, safetensors
from fer.models.provenance import Provenance

log = logging.getLogger(__name__)

PRETRAINED = Path(__file__).with_name("zoo")
ABOUT = "fer"  # text of a safetensors file that tells of its network
ABOUT_TEACHERS = {"checkpoint", "sha256", "architecture", "weight"}  # what is told of each
FORMAT = 1  # of the entry "fer"; raise it when an older version could not read the checkpoint


def find(path: str | Path) -> Path:
    """Return the checkpoint that ``path`` means: itself, the best of a run folder, or a network of the package.

    Raises:
        FerError: it is a URL, missing, or a folder without checkpoints.
    """
    if "://" in str(path):
        raise FerError(f"{path}: checkpoints are read from files only; download it and give the path")
    given = Path(path).expanduser()
    if given.is_dir():
        inside = given / "checkpoints" / "best.ckpt"
        if not inside.is_file():
            hidden = "; it hides the package's network of that name" if str(path) in pretrained() else ""
            raise FerError(f"{given}: no run folder (it has no checkpoints/best.ckpt){hidden}")
        return inside
    if given.is_file():
        return given
    with_the_package = PRETRAINED / f"{path}{safetensors.SUFFIX}"
    if str(path) in pretrained():
        return with_the_package
    offered = f"; the package brings {', '.join(pretrained())}" if pretrained() else ""
    raise FerError(f"{given}: no such checkpoint or run folder{offered}")


def pretrained() -> list[str]:
    """Return the names of the networks that come with the package, which ``load`` takes in place of a path."""
    return sorted(file.stem for file in PRETRAINED.glob(f"*{safetensors.SUFFIX}"))


def of_package(file: Path) -> bool:
    """Return whether a file is one of the package's networks."""
    return file.resolve().parent == PRETRAINED.resolve()


def called(file: Path) -> str:
    """Return what ``load`` takes for a file beside the reader: its name, or the package's name of the network."""
    return file.stem if of_package(file) else file.name


def read(path: Path) -> dict[str, Any]:
    """Return a checkpoint's contents as plain values and tensors; nothing in it is executed.

    Raises:
        FerError: it is damaged, no checkpoint of this library, holds more than plain values, comes from a newer
            version, or its weights are not finite.
    """
    if path.suffix == safetensors.SUFFIX:
        return shared(path)
    _check_archive(path)
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FerError(f"{path}: refused, it holds more than weights and plain values") from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise FerError(f"{path}: not readable as a checkpoint ({str(error).splitlines()[0]})") from error
    _check_contents(checkpoint, path)
    return checkpoint


def shared(path: Path) -> dict[str, Any]:
    """Return the contents of a network that was shared as safetensors, as those of a checkpoint; see ``fer.share``.

    Raises:
        FerError: it is damaged, or tells of no network of this library.
    """
    tensors, texts = safetensors.read(path)
    try:
        told = json.loads(texts[ABOUT])
        hyper = told.pop("hyper_parameters")
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FerError(
            f"{path}: weights alone; what network they are of is not told (by python -m fer.share)"
        ) from error
    halves = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    checkpoint = {"fer": told, "state_dict": halves, "hyper_parameters": hyper}
    _check_contents(checkpoint, path)
    return checkpoint


def _check_contents(checkpoint: Any, path: Path) -> None:
    """Raise unless a checkpoint is laid out as this version knows it."""
    about = checkpoint.get("fer") if isinstance(checkpoint, dict) else None
    if not isinstance(about, dict):
        raise FerError(f"{path}: no checkpoint of fer (it has no entry 'fer'); train one with python -m fer.train")
    version = about.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise FerError(f"{path}: written by a newer version of fer (format {version}, known up to {FORMAT})")
    tensors, hyper = checkpoint.get("state_dict"), checkpoint.get("hyper_parameters")
    sound = isinstance(tensors, dict) and all(isinstance(value, torch.Tensor) for value in tensors.values())
    begun = about.get("pretrained")
    sound = sound and (begun is None or (isinstance(begun, dict) and {"name", "file", "sha256"} <= begun.keys()))
    warmth, before = about.get("temperature"), about.get("ancestors", [])
    sound = sound and _all_are(dict, before) and isinstance(about.get("plan") or {}, dict)
    taught = about.get("teachers") or []
    sound = sound and _all_are(dict, taught) and all(one.keys() >= ABOUT_TEACHERS for one in taught)
    sound = sound and (warmth is None or (isinstance(warmth, float) and 0 < warmth < math.inf))
    if version != FORMAT or not sound or not isinstance(hyper, dict) or not isinstance(about.get("dataset"), dict):
        raise FerError(f"{path}: not laid out as a checkpoint of fer; it was changed, or written by something else")
    if "_instantiator" in hyper:
        raise FerError(f"{path}: refused, it names code to run ('_instantiator')")
    if not all(_sound_dataset(dataset) for dataset in (about["dataset"], *before)):
        raise FerError(f"{path}: what it tells of its data was changed, or written by something else")
    bad = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise FerError(f"{path}: {bad[0]} holds NaN or infinite weights")


def _all_are(kind: type, values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _sound_dataset(dataset: dict[str, Any]) -> bool:
    """Return whether what is read of a training's data is of the kind that it should be."""
    return isinstance(dataset.get("settings", {}), dict) and isinstance(dataset.get("excluded") or {}, dict)


def _check_archive(path: Path) -> None:
    """Raise unless the file is a whole zip archive whose parts all fit their checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise FerError(f"{path}: damaged, cut short, or no checkpoint ({error})") from error
    if damaged is not None:
        raise FerError(f"{path}: damaged (checksum of {damaged})")


def weights_sha256(model: EmotionClassifier) -> str:
    """Return a sha256 of a network's weights, whatever else its checkpoint tells: equal weights have equal ones."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def evaluated(member: Mapping[str, Any]) -> tuple[Path, EmotionClassifier]:
    """Return the file and the network of a member of an evaluation, as ``metrics.json`` tells of it.

    Raises:
        FerError: the checkpoint is bad, or has other weights than when it was evaluated.
    """
    file = find(member["checkpoint"])
    model = load(file)
    known = member.get("weights_sha256")  # which older evaluations do not tell
    if known is not None and known != weights_sha256(model):
        raise FerError(f"{file}: its weights have changed since the evaluation; evaluate it again")
    return file, model


def rebuild(checkpoint: dict[str, Any], path: Path) -> EmotionClassifier:
    """Return the network that a checkpoint describes, with its weights, in evaluation mode.

    Raises:
        FerError: its architecture is not registered, or weights and architecture do not fit.
    """
    name = checkpoint["fer"].get("architecture")
    if name not in MODELS.names():
        raise FerError(
            f"{path}: network {name!r} is not registered (there is {', '.join(MODELS.names())}); if it is yours, "
            f"import the module that registers it first (on the command line: {setting('plugins', '[MODULE]')})"
        )
    network = MODELS.get(name)
    try:
        model: EmotionClassifier = network(**checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"], strict=True)
    except FerError as error:
        raise FerError(f"{path}: {error}") from error
    except (TypeError, RuntimeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise FerError(f"{path}: does not fit the network {name!r}: {' '.join(str(error).split())[:300]}") from error
    model.provenance = replace(Provenance.of(checkpoint["fer"]), batch_size=None)  # of that training's machine
    return model.eval()


def load(path: str | Path) -> EmotionClassifier:
    """Return the network of a checkpoint or run folder (its best epoch), ready to predict, on the CPU.

    It takes faces (B, 1, S, S), uint8 or float in [0, 1], and returns logits (B, C) in the order of
    ``model.hparams["classes"]``; ``model.probabilities`` gives calibrated probabilities. Nothing but the file is
    needed, and nothing in it is executed.

    Raises:
        FerError: the file is missing, damaged, not this library's, or its network is not registered.
    """
    file = find(path)
    return rebuild(read(file), file)
