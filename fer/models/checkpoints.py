"""Reading checkpoints: untrusted files that are checked before a network is rebuilt.

A checkpoint is Lightning's, with plain values and an entry ``fer`` that rebuilds the network. It names its network by
a registered name, never by an import path, which would let a foreign file call any code.

PyTorch's files are zip archives with a CRC-32 for each part. ``torch.load`` does not check them, so reading does:
otherwise a flipped byte in the weights would not be noticed. No second file with a hash is needed.
``fer.training.callbacks.checkpointing`` writes checkpoints.
"""

import json
import logging
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fer.config.errors import FerError, setting
from fer.config.paths import expand_home
from fer.metrics import conformal
from fer.metrics.calibration import valid_temperature
from fer.models import MODELS, EmotionClassifier, hub_folder, safetensors, untrusted
from fer.runs import zoo
from fer.runs.provenance import Provenance
from fer.system import hub
from fer.system.files import POINTER, is_pointer, why
from fer.system.records import Json, is_plain

log = logging.getLogger(__name__)

Contents = dict[str, Any]  # of a checkpoint: "fer", "state_dict", "hyper_parameters", and what resuming needs

EXPORTED = (".onnx", ".pt2")  # endings of files of fer.export that hold a graph
METADATA = "fer"  # key of a safetensors file's metadata that describes the network
TEACHER_KEYS = {"checkpoint", "sha256", "architecture", "weight"}  # of the record of each teacher
FORMAT = 1  # version of the entry "fer"; raise it when an older version could not read the checkpoint


def find(path: str | Path, *, download: bool = False) -> Path:
    """Return the file of a checkpoint: ``path`` itself, the best of a run folder, a network of the package or the hub.

    Args:
        path: see ``load``.
        download: fetch a network of the hub that the cache lacks.

    Raises:
        FerError: ``path`` is a URL, missing, a pointer of Git LFS, or a folder without checkpoints; or a network of the
            hub cannot be had.
    """
    if hub.is_reference(path):
        return hub_folder.network_file(hub.folder(str(path), download=download))
    if "://" in str(path):
        raise FerError(
            f"{path}: checkpoints are read from files only, or hf://owner/name; download it and give the path"
        )
    given = expand_home(path)
    if given.is_dir():
        inside = given / "checkpoints" / "best.ckpt"
        if not inside.is_file() and hub_folder.is_hub_folder(given):
            return hub_folder.network_file(given)
        if not inside.is_file():
            hidden = "; it hides the package's network of that name" if str(path) in zoo.pretrained() else ""
            raise FerError(f"{given}: no run folder (it has no checkpoints/best.ckpt){hidden}")
        return inside
    if given.is_file():
        if is_pointer(given):
            raise FerError(f"{given}: {POINTER}")
        return given
    if str(path) in zoo.pretrained():
        return zoo.PRETRAINED / f"{path}{safetensors.SUFFIX}"
    offered = f"; the package contains {', '.join(zoo.pretrained())}" if zoo.pretrained() else ""
    of_hub = f"{hub.PREFIX}{path}"
    if not given.suffix and not given.parent.exists() and hub.NAMES.fullmatch(of_hub):
        offered += f"; a network of the hub is named {of_hub}"
    raise FerError(f"{given}: no such checkpoint or run folder{offered}")


def is_shared(file: Path) -> bool:
    """Return whether a file has the ending of one of ``fer.share``."""
    return file.suffix == safetensors.SUFFIX


def read(path: Path) -> Contents:
    """Return a checkpoint's contents as plain values and tensors; nothing in it is executed.

    Raises:
        FerError: the file is damaged, no checkpoint of this library, or written by a newer version. Or it holds objects
            other than plain values, or weights that are not finite.
    """
    if is_shared(path):
        return read_shared(path)
    if path.suffix in EXPORTED:
        raise FerError(
            f"{path}: an exported file, without weights to load; name the run or network that it was made from "
            "(fer.Predictor, fer predict, fer evaluate and fer explain take .onnx files)"
        )
    untrusted.check_archive(path)
    try:
        checkpoint: Contents = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FerError(f"{path}: refused, it holds objects other than weights and plain values") from error
    except Exception as error:  # a changed file makes torch's reader raise a dozen classes, MemoryError too
        raise FerError(f"{path}: not readable as a checkpoint ({why(error)})") from error
    _check_contents(checkpoint, path)
    return checkpoint


def read_shared(path: Path) -> Contents:
    """Return the contents of a file of ``fer.share`` in the form of a checkpoint, weights in 32 bits.

    Raises:
        FerError: the file is damaged, or describes no network of this library.
    """
    tensors, metadata = safetensors.read(path)
    try:
        entry = json.loads(metadata[METADATA])
        hyper = entry.pop("hyper_parameters")
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FerError(
            f"{path}: holds weights without a description of their network, which python -m fer.share writes"
        ) from error
    weights = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    checkpoint = {"fer": entry, "state_dict": weights, "hyper_parameters": hyper}
    _check_contents(checkpoint, path)
    return checkpoint


def _check_contents(checkpoint: Any, path: Path) -> None:
    """Raise unless a checkpoint has the entries and types of this version's format."""
    entry = checkpoint.get("fer") if isinstance(checkpoint, dict) else None
    if not isinstance(entry, dict):
        raise FerError(f"{path}: no checkpoint of fer (it has no entry 'fer'); train one with python -m fer.train")
    version = entry.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise FerError(f"{path}: written by a newer version of fer (format {version}, known up to {FORMAT})")
    tensors, hyper = checkpoint.get("state_dict"), checkpoint.get("hyper_parameters")
    valid = isinstance(tensors, dict) and isinstance(hyper, dict) and is_plain([entry, dict(hyper)])
    valid = valid and _valid_entry(entry, hyper.get("classes"))
    if version != FORMAT or not valid:
        raise FerError(f"{path}: not in the format of a checkpoint of fer; it was changed, or another program wrote it")
    if "_instantiator" in hyper:
        raise FerError(f"{path}: refused, it names code to run ('_instantiator')")
    if not all(_valid_dataset(dataset) for dataset in (entry["dataset"], *entry.get("ancestors", []))):
        raise FerError(f"{path}: its record of the training data was changed, or another program wrote it")
    untrusted.check_tensors(tensors, path)
    untrusted.check_contract(hyper, path)


def _valid_entry(entry: Mapping[str, Any], classes: object) -> bool:
    """Return whether the values of an entry "fer" have the types of this version's format."""
    number = len(classes) if isinstance(classes, list | tuple) else None  # then the contract is refused
    pretrained, temperature = entry.get("pretrained"), entry.get("temperature")
    ancestors, teachers = entry.get("ancestors", []), entry.get("teachers") or []
    return (
        isinstance(entry.get("dataset"), dict)
        and (pretrained is None or (isinstance(pretrained, dict) and {"name", "file", "sha256"} <= pretrained.keys()))
        and _all_dicts(ancestors)
        and isinstance(entry.get("plan") or {}, dict)
        and _all_dicts(teachers)
        and all(teacher.keys() >= TEACHER_KEYS for teacher in teachers)
        and (temperature is None or valid_temperature(temperature))
        and (entry.get("sets") is None or conformal.valid(entry["sets"], number))
    )


def _all_dicts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, dict) for value in values)


def _valid_dataset(dataset: Json) -> bool:
    """Return whether the entries of a data set's record have the right types."""
    settings, counts = dataset.get("settings", {}), dataset.get("counts", {})
    if not isinstance(settings, dict) or not isinstance(dataset.get("excluded") or {}, dict):
        return False
    paths = all(isinstance(settings.get(key), str | None) for key in ("path", "votes", "exclude"))
    lists = all(isinstance(dataset.get(key, []), list | tuple) for key in ("notes", "skipped"))
    if not all(isinstance(part, dict) and _valid_dataset(part) for part in dataset.get("sets") or ()):
        return False
    return paths and lists and isinstance(counts, dict) and all(isinstance(each, dict) for each in counts.values())


def evaluated(stated: str | Path, weights_sha256: str | None, evaluation: Path) -> tuple[Path, EmotionClassifier]:
    """Return the file and the network of a member of an evaluation.

    Its path may be relative to the folder in which ``fer.evaluate`` ran, and its run may have been moved. A file of
    that name in the run of the evaluation comes first, if it has the weights that were evaluated.

    Args:
        stated: its path in the evaluation's ``metrics.json``.
        weights_sha256: digest of its weights there; None if an older version wrote the file.
        evaluation: folder of that file.

    Raises:
        FerError: the checkpoint is missing or bad, or its weights have changed since the evaluation.
    """
    for file in _of_its_run(evaluation, Path(stated).name):
        with suppress(FerError):  # the stated file says what is wrong
            model = load(file)
            if weights_sha256 == model.weights_sha256:
                return file, model
    try:
        file = find(stated)
    except FerError as error:
        raise FerError(f"{error}; {evaluation} names it from the folder of that command: evaluate again") from error
    model = load(file)
    if weights_sha256 not in (None, model.weights_sha256):
        raise FerError(f"{file}: its weights have changed since the evaluation; evaluate it again")
    return file, model


def _of_its_run(evaluation: Path, name: str) -> list[Path]:
    """Return the files of a name in the run or folder whose ``evaluations/`` an evaluation is in."""
    parent = evaluation.absolute().parent
    if parent.name != "evaluations":
        return []
    files = [parent.parent / "checkpoints" / name, parent.parent / name]
    return [file for file in files if file.is_file()]


def rebuild(checkpoint: Contents, path: Path) -> EmotionClassifier:
    """Return the network that a checkpoint describes, with its weights, in evaluation mode.

    Raises:
        FerError: its network is not registered, or its arguments or weights do not fit that network.
    """
    name = checkpoint["fer"].get("architecture")
    if name not in MODELS.names():
        raise FerError(
            f"{path}: network {name!r} is not registered (registered: {', '.join(MODELS.names())}); if it is your "
            f"own, import the module that registers it first (on the command line: {setting('plugins', '[MODULE]')})"
        )
    network, tensors = MODELS.get(name), checkpoint["state_dict"]
    arguments = untrusted.checked_arguments(network, checkpoint["hyper_parameters"], path)
    try:
        untrusted.check_fit(network, arguments, tensors)
        model: EmotionClassifier = network(**arguments)
        model.load_state_dict(tensors, strict=True)
    except FerError as error:
        raise FerError(f"{path}: {error}") from error
    except Exception as error:  # arguments that a file names may fail anywhere in the network's construction
        raise FerError(f"{path}: does not fit the network {name!r}: {' '.join(str(error).split())[:300]}") from error
    model.provenance = replace(Provenance.of(checkpoint["fer"]), batch_size=None)  # it depends on that machine
    return model.eval()


def load(path: str | Path, *, download: bool = False) -> EmotionClassifier:
    """Return the network of a checkpoint or run folder (its best epoch), ready to predict, on the CPU.

    The network takes faces (B, 1, S, S), uint8 or float in [0, 1]. It returns logits (B, C) in the order of
    ``model.hparams["classes"]``. ``model.probabilities`` returns calibrated probabilities. Only the file is needed, and
    nothing in it is executed. The network of a plugin needs its module to be imported first.

    Args:
        path: checkpoint, run folder, file or folder of ``fer.share``, or name of one of the package's networks. Or
            ``hf://owner/name`` of the Hugging Face hub, whose cache is read.
        download: ask the hub for its newest files, and fetch what the cache lacks.

    Raises:
        FerError: the file is missing, damaged, not this library's, or its network is not registered.
    """
    file = find(path, download=download)
    return rebuild(read(file), file)
