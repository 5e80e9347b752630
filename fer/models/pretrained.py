"""Weights trained elsewhere: fetched or read from a file, without trusting it, their names and shapes checked."""

import hashlib
import logging
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, hub

from fer.config.errors import FerError

log = logging.getLogger(__name__)


def fetched(url: str, key: str) -> Path:
    """Return the file of ``url`` in torch.hub's folder, downloaded if it is not there yet.

    Args:
        url: whose file name ends in a dash and the beginning of its sha256, as PyTorch's do.
        key: what the user set, for the message.

    Raises:
        FerError: it cannot be downloaded; the message says what file goes where.
    """
    file = Path(hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if file.is_file():
        return file
    log.info("downloading %s to %s", url, file.parent)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        hub.download_url_to_file(url, str(file), hash_beginning(url), progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash is another one
        option = key.partition("=")[0]
        raise FerError(
            f"{key}: {url} could not be downloaded ({error}); put {file.name} into {file.parent}, or name the file: "
            f"{option}=/path/{file.name}"
        ) from error
    return file


def hash_beginning(url: str) -> str:
    """Return the beginning of the sha256 that a file name of PyTorch's holds: "397923af" of "vgg16-397923af.pth"."""
    return Path(url).stem.rpartition("-")[2]


def sha256_of(file: Path) -> str:
    """Return a file's sha256, in hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def local(path: str, key: str) -> Path:
    """Return an existing file.

    Args:
        path: as the user gave it.
        key: what the user set, for the message.

    Raises:
        FerError: it is a URL, or there is no such file.
    """
    if "://" in path:
        raise FerError(f"{key}={path}: weights are read from files only; download it and give the path")
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise FerError(f"{key}={path}: no such file")
    return file


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return name -> tensor of a state dict that ``torch.save`` has written; nothing in it is executed.

    Raises:
        FerError: it is damaged, or something else.
    """
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FerError(f"{file}: refused, it is no file of weights or holds more than weights") from error
    except Exception as error:  # torch raises nearly anything on a damaged file
        reason = " ".join(str(error).split())[:200] or "cut short"
        raise FerError(f"{file}: not readable as weights ({reason})") from error
    if not isinstance(found, dict) or not found:
        raise FerError(f"{file}: holds no state dict (names and tensors)")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise FerError(f"{file}: {name!r} is {type(value).__name__}; expected a state dict (names and tensors)")
    return found


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Raise unless the tensors have the names and shapes that are wanted, and finite values.

    Raises:
        FerError: naming the first that does not fit.
    """
    for name, value in wanted.items():
        if name not in found:
            raise FerError(f"{where}: has no {name}; expected {tuple(value.shape)}")
        if found[name].shape != value.shape:
            raise FerError(f"{where}: {name} is {tuple(found[name].shape)}; expected {tuple(value.shape)}")
        if not torch.isfinite(found[name]).all():
            raise FerError(f"{where}: {name} holds NaN or infinite weights")
    unknown = [name for name in found if name not in wanted]
    if unknown:
        raise FerError(f"{where}: {unknown[0]} does not belong; the last that does is {list(wanted)[-1]}")
