"""Pretrained weights, downloaded or read from a file.

The file is not trusted: names and shapes are checked.
"""

import hashlib
import logging
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, hub

from fer.config.errors import FerError
from fer.config.paths import expand_home

log = logging.getLogger(__name__)


def fetched(url: str, key: str) -> Path:
    """Return the file of ``url`` in torch.hub's folder; download it if it is missing.

    Args:
        url: address whose file name ends in a dash and the beginning of its sha256, as PyTorch's do.
        key: setting that asked for it, for the message.

    Raises:
        FerError: the download failed; the message names the file and the folder for a download by hand.
    """
    file = Path(hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if file.is_file():
        return file
    log.info("downloading %s to %s", url, file.parent)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        hub.download_url_to_file(url, str(file), hash_beginning(url), progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash differs
        option = key.partition("=")[0]
        raise FerError(
            f"{key}: {url} could not be downloaded ({error}); put {file.name} into {file.parent}, or name the file: "
            f"{option}=/path/{file.name}"
        ) from error
    return file


def hash_beginning(url: str) -> str:
    """Return the beginning of the sha256 in PyTorch's file names: "397923af" of "vgg16-397923af.pth"."""
    return Path(url).stem.rpartition("-")[2]


def sha256_of(file: Path) -> str:
    """Return a file's sha256, in hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def local(path: str, key: str) -> Path:
    """Return the absolute path of an existing file of weights.

    Args:
        path: path as the user gave it.
        key: setting that named it, for the message.

    Raises:
        FerError: the path is a URL, or the file does not exist.
    """
    if "://" in path:
        raise FerError(f"{key}={path}: weights are read from files only; download it and give the path")
    file = expand_home(path).absolute()
    if not file.is_file():
        raise FerError(f"{key}={path}: no such file")
    return file


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the state dict (name -> tensor) of a file that ``torch.save`` wrote; nothing in it is executed.

    Raises:
        FerError: the file is damaged, or holds anything but a state dict.
    """
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FerError(f"{file}: refused, it is no file of weights, or holds objects other than weights") from error
    except Exception as error:  # torch raises nearly anything on a damaged file
        reason = " ".join(str(error).split())[:200] or "cut short"
        raise FerError(f"{file}: not readable as weights ({reason})") from error
    if not isinstance(tensors, dict) or not tensors:
        raise FerError(f"{file}: holds no state dict (names and tensors)")
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise FerError(f"{file}: {name!r} is {type(value).__name__}; expected a state dict (names and tensors)")
    return tensors


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Raise unless tensors have exactly the expected names and shapes, and finite values.

    Raises:
        FerError: naming the first tensor that does not fit.
    """
    for name, value in expected.items():
        if name not in tensors:
            raise FerError(f"{source}: has no {name}; expected {tuple(value.shape)}")
        if tensors[name].shape != value.shape:
            raise FerError(f"{source}: {name} is {tuple(tensors[name].shape)}; expected {tuple(value.shape)}")
        if not torch.isfinite(tensors[name]).all():
            raise FerError(f"{source}: {name} holds NaN or infinite weights")
    unknown = [name for name in tensors if name not in expected]
    if unknown:
        raise FerError(f"{source}: has the unknown entry {unknown[0]}; the last expected one is {list(expected)[-1]}")
