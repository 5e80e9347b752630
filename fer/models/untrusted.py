"""Checks of a checkpoint or shared file before a network is built from it.

The file may be a stranger's. Values are plain, tensors dense and finite, sizes those of a network that the file's own
weights fill. Nothing is allocated that is larger than the file, and a network is built without memory (on torch's
device "meta") first.
"""

import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from fer.config.errors import FerError
from fer.config.schema import check, keyword_parameters
from fer.config.settings import MAX_SIZE, MIN_SIZE
from fer.data.labels import EMOTIONS, LONGEST_CLASS, MOST_CLASSES, are_classes, is_class_name
from fer.models.base import EmotionClassifier
from fer.models.safetensors import TYPES

CONTRACT = ("classes", "image_size", "crop", "mean", "std", "in_channels")  # arguments of every network
LEAST_STD = 0.001  # of pixels in [0, 1]; a training writes at least 1/255, and 1e-320 is 0 in 32 bits
LARGEST = 1_000_000  # of a whole number in a network's arguments, such as its width
SHARED = 4  # times the file's size that its tensors may have together: some networks share tensors between layers
ZIP = b"PK\x03\x04"  # the first bytes of a zip archive
ENDINGS = ".safetensors or .onnx"
SPARE = 10  # registered parameters for each of the file's: a network may replace layers while it is built

warnings.filterwarnings("ignore", message="Validating sparse")  # of torch, before the tensor is refused here


class Unbounded(Exception):
    """A network that grows beyond what its file can fill."""


def check_archive(path: Path) -> None:
    """Raise unless a file is a complete zip archive as torch writes it: not compressed, all checksums right.

    Raises:
        FerError: the archive is damaged, or would unpack to more than the file's size.
    """
    if not _begins_as_archive(path):
        raise FerError(f"{path}: is no network; expected a run, a checkpoint, or a file that ends in {ENDINGS}")
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
            if packed or sum(part.file_size for part in parts) > path.stat().st_size:
                raise FerError(f"{path}: refused, it is packed; checkpoints are not compressed")
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise FerError(f"{path}: damaged, cut short, or no checkpoint; copy it again or name another") from error
    except (EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise FerError(f"{path}: damaged, cut short, or no checkpoint ({error})") from error
    if damaged is not None:
        raise FerError(f"{path}: damaged (wrong checksum of {damaged!r})")


def _begins_as_archive(path: Path) -> bool:
    """Return whether a file begins as a zip archive does, as far as it goes: one that is empty was cut short."""
    with path.open("rb") as stream:
        return ZIP.startswith(stream.read(len(ZIP)))


def check_tensors(tensors: Mapping[str, Any], path: Path) -> None:
    """Refuse tensors that no network has: sparse, quantised or complex ones, views of few numbers, NaN.

    Raises:
        FerError: the message names the tensor.
    """
    size, total = path.stat().st_size, 0
    for name, value in tensors.items():
        if not isinstance(name, str) or not _dense(value):
            raise FerError(f"{path}: {str(name)[:LONGEST_CLASS]!r} is no dense tensor of numbers")
        total += value.numel() * value.element_size()
        if total > SHARED * size:
            raise FerError(f"{path}: its tensors have more numbers than the file can hold")
    bad = [name for name, value in tensors.items() if not _finite(name, value)]
    if bad:
        raise FerError(f"{path}: {bad[0]} holds NaN or infinite weights")


def _dense(value: Any) -> bool:
    plain = type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided and value.device.type == "cpu"
    if not plain or value.is_quantized or value.dtype not in TYPES or value.is_neg():
        return False
    # a view of few numbers may claim to be of any size
    return bool(value.numel() * value.element_size() <= value.untyped_storage().nbytes())


def _finite(name: str, value: Tensor) -> bool:
    """Return whether a tensor is finite after its cast to 32 bits, and is no negative variance."""
    cast = value.float() if value.is_floating_point() else value
    return bool(torch.isfinite(cast).all()) and not (name.endswith("running_var") and bool((cast < 0).any()))


def check_contract(hyper: Mapping[str, Any], path: Path) -> None:
    """Refuse classes, sizes and a normalisation that no training writes.

    Raises:
        FerError: the message names the argument.
    """
    classes = hyper.get("classes", EMOTIONS)
    names = list(classes) if isinstance(classes, list | tuple) else []
    if not all(map(is_class_name, names)):
        raise FerError(f"{path}: its classes are not names of 1 to {LONGEST_CLASS} printable characters")
    if not are_classes(names):
        raise FerError(f"{path}: has {len(names)} classes; expected 2 to {MOST_CLASSES:,} different names")
    size, crop = hyper.get("image_size", MIN_SIZE), hyper.get("crop")
    if not _whole(size, MIN_SIZE, MAX_SIZE):
        raise FerError(f"{path}: image_size={size!r}: expected {MIN_SIZE} to {MAX_SIZE} pixels")
    if crop is not None and not _whole(crop, MIN_SIZE, size):
        raise FerError(f"{path}: crop={crop!r}: expected {MIN_SIZE} to {size} pixels, or null")
    if not _whole(channels := hyper.get("in_channels", 1), 1, 3) or channels == 2:
        raise FerError(f"{path}: in_channels={channels!r}: expected 1 (grey) or 3 (colour)")
    mean, std = hyper.get("mean", 0.5), hyper.get("std", 0.25)
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (mean, std))
    if not (numbers and 0 <= mean <= 1 and LEAST_STD <= std <= 1):
        raise FerError(f"{path}: mean={mean!r}, std={std!r}: expected a mean from 0 to 1, a std from {LEAST_STD} to 1")


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def checked_arguments(network: type[EmotionClassifier], hyper: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a network's arguments from a file after a check of types, ranges and sizes.

    Raises:
        FerError: the message names the argument.
    """
    check_contract(hyper, path)
    given = {key: value for key, value in hyper.items() if key not in CONTRACT or key in keyword_parameters(network)}
    for key, value in given.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(number, int | float) and not abs(number) <= LARGEST for number in numbers):
            raise FerError(f"{path}: model.{key}: out of range; expected at most {LARGEST:,}")
    try:
        checked = check(network, given, "model")
    except FerError as error:
        raise FerError(f"{path}: {error}") from error
    return {**hyper, **checked}


def check_fit(network: type[EmotionClassifier], arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise unless a network with these arguments has exactly these tensors; it is built without memory for them.

    Raises:
        RuntimeError: a tensor is missing, unknown, or of another shape.
        TypeError: a tensor is of another kind of number.
        Unbounded: the network has many more parameters than there are tensors.
    """
    with torch.device("meta"), _bounded(SPARE * (len(tensors) + SPARE)):
        empty = network(**arguments)
    expected = empty.state_dict()
    for name in tensors.keys() & expected.keys():
        if tensors[name].is_floating_point() != expected[name].is_floating_point():
            raise TypeError(f"{name} is of the type {tensors[name].dtype}")
    empty.load_state_dict(dict(tensors), strict=True, assign=True)


@contextmanager
def _bounded(most: int) -> Iterator[None]:
    """Raise ``Unbounded`` when more than ``most`` parameters are registered in modules."""
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise Unbounded("has many more layers than the file has weights for")

    hook = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()
