"""Checkpoints: written whole or not at all, read without trusting them.

A checkpoint is Lightning's, with plain contents and an entry ``fer`` that rebuilds the network. It is written beside
its name and renamed, in the same folder (Lightning itself goes through ``$TMPDIR``, which may lie on another disk,
where moving is copying). PyTorch's files are zip archives, so that every part carries a CRC-32: reading checks them,
since ``torch.load`` does not and a flipped byte in the weights would pass unseen.
"""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from fer.errors import FerError
from fer.labels import EMOTIONS
from fer.models import MODELS, EmotionClassifier

FORMAT = 1  # of the entry "fer"; raise it when an older version could not read the checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its name, flushes it to the disk, and renames it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            FerError: the disk is full or the folder may not be written; what was there before is intact.
        """
        target = Path(path)
        part = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, target)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            part.unlink(missing_ok=True)
            reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            raise FerError(f"{target}: could not be written ({reason}); the checkpoint before it is intact") from error


def find(path: str | Path, name: str = "best") -> Path:
    """Return the checkpoint that ``path`` means: itself, or a run folder's ``checkpoints/<name>.ckpt``.

    Raises:
        FerError: it is a URL, missing, or a folder without checkpoints.
    """
    if "://" in str(path):
        raise FerError(f"{path}: checkpoints are read from files only; download it and give the path")
    given = Path(path).expanduser()
    if given.is_dir():
        inside = given / "checkpoints" / f"{name}.ckpt"
        if not inside.is_file():
            raise FerError(f"{given}: no run folder (it has no checkpoints/{name}.ckpt)")
        return inside
    if not given.is_file():
        raise FerError(f"{given}: no such checkpoint or run folder")
    return given


def read(path: Path) -> dict[str, Any]:
    """Return a checkpoint's contents as plain values and tensors; nothing in it is executed.

    Raises:
        FerError: it is damaged, no checkpoint of this library, holds more than plain values, comes from a newer
            version, or its weights are not finite.
    """
    _check_archive(path)
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FerError(f"{path}: refused, it holds more than weights and plain values") from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise FerError(f"{path}: not readable as a checkpoint ({str(error).splitlines()[0]})") from error
    about = checkpoint.get("fer") if isinstance(checkpoint, dict) else None
    if not isinstance(about, dict) or "state_dict" not in checkpoint:
        raise FerError(f"{path}: no checkpoint of fer (it has no entry 'fer'); train one with python -m fer.train")
    if about.get("format", 0) > FORMAT:
        raise FerError(f"{path}: written by a newer version of fer (format {about['format']}, known up to {FORMAT})")
    if "_instantiator" in checkpoint.get("hyper_parameters", {}):
        raise FerError(f"{path}: refused, it names code to run ('_instantiator')")
    bad = [name for name, value in checkpoint["state_dict"].items() if not torch.isfinite(value).all()]
    if bad:
        raise FerError(f"{path}: {bad[0]} holds NaN or infinite weights")
    return checkpoint


def _check_archive(path: Path) -> None:
    """Raise unless the file is a whole zip archive whose parts all fit their checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise FerError(f"{path}: damaged, cut short, or no checkpoint ({error})") from error
    if damaged is not None:
        raise FerError(f"{path}: damaged (checksum of {damaged})")


def rebuild(checkpoint: dict[str, Any], path: Path) -> EmotionClassifier:
    """Return the network that a checkpoint describes, with its weights, in evaluation mode.

    Raises:
        FerError: its architecture is not registered, or weights and architecture do not fit.
    """
    name = checkpoint["fer"].get("architecture")
    if name not in MODELS.names():
        raise FerError(
            f"{path}: network {name!r} is not registered (there is {', '.join(MODELS.names())}); if it is yours, "
            f"import the module that registers it, or name it with --plugins"
        )
    network = MODELS.get(name)
    try:
        model = network(**checkpoint.get("hyper_parameters", {}))
        model.load_state_dict(checkpoint["state_dict"], strict=True)
    except (TypeError, RuntimeError, ValueError) as error:
        raise FerError(f"{path}: does not fit the network {name!r}: {' '.join(str(error).split())[:300]}") from error
    model.dataset = checkpoint["fer"].get("dataset", {})
    return model.eval()


def load(path: str | Path) -> EmotionClassifier:
    """Return the network of a checkpoint or run folder (its best epoch), ready to predict, on the CPU.

    It takes faces (B, 1, S, S), uint8 or float in [0, 1], and returns logits (B, C) in the order of
    ``model.hparams["classes"]``. Nothing but the file is needed, and nothing in it is executed.

    Raises:
        FerError: the file is missing, damaged, not this library's, or its network is not registered.
    """
    file = find(path)
    return rebuild(read(file), file)


def load_weights(model: EmotionClassifier, path: str | Path) -> None:
    """Start ``model`` from another checkpoint's weights, to fine-tune.

    Raises:
        FerError: the file is bad, its classes differ, or its weights do not fit.
    """
    file = find(path)
    checkpoint = read(file)
    classes = list(checkpoint.get("hyper_parameters", {}).get("classes", EMOTIONS))
    if classes != list(model.hparams["classes"]):
        raise FerError(f"init_from={path}: its classes are {', '.join(classes)}; expected {', '.join(EMOTIONS)}")
    try:
        model.load_state_dict(checkpoint["state_dict"], strict=True)
    except RuntimeError as error:
        network = checkpoint["fer"].get("architecture")
        raise FerError(
            f"init_from={path}: holds {network!r}, which does not fit model.name={model.architecture}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
