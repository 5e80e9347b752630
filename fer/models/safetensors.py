"""Safetensors: weights as plain bytes behind a table of names, shapes and places; nothing in a file can be executed.

The format is Hugging Face's (github.com/huggingface/safetensors, README): eight bytes that tell the length of a JSON
header, the header, the numbers. It is read and written here so that a network that comes with the package needs no
further one; tests hold it against the library itself.
"""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fer.config.errors import FerError

SUFFIX = ".safetensors"
LONGEST_HEADER = 100_000_000  # bytes, the library's own limit
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {kind: name for name, kind in TYPES.items()}
ABOUT = "__metadata__"  # of the header: texts about the whole


def to_bytes(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """Return tensors and texts about them as a safetensors file has it, in the order that is given."""
    header: dict[str, Any] = {ABOUT: dict(about)}
    parts, end = [], 0
    for name, tensor in tensors.items():
        part = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        places = [end, end + len(part)]
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": places}
        parts.append(part)
        end += len(part)
    told = json.dumps(header, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)  # so that the numbers lie where a processor likes them
    return struct.pack("<Q", len(told)) + told + b"".join(parts)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file and the texts about them.

    Raises:
        FerError: it is missing, cut short, changed, or something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FerError(f"{path}: {error.strerror or error}") from error
    length = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else len(content)
    if length > min(LONGEST_HEADER, len(content) - 8):
        raise FerError(f"{path}: cut short, or no safetensors file")
    try:
        header = json.loads(content[8 : 8 + length])
        about = {str(key): str(value) for key, value in header.pop(ABOUT, {}).items()}
        entries = sorted(header.items(), key=lambda entry: entry[1]["data_offsets"][0])
        return _tensors(entries, bytearray(content[8 + length :])), about
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise FerError(f"{path}: its table of weights is damaged ({' '.join(str(error).split())[:100]})") from error


def _tensors(entries: list[tuple[str, Any]], numbers: bytearray) -> dict[str, Tensor]:
    """Return the tensors that a table tells of; they follow each other without gap or overlap and fill the numbers.

    Raises:
        ValueError: they do not.
    """
    tensors, end = {}, 0
    for name, told in entries:
        kind, shape, (start, stop) = TYPES[told["dtype"]], [int(side) for side in told["shape"]], told["data_offsets"]
        size = math.prod(shape) * kind.itemsize
        if start != end or stop - start != size or min(shape, default=0) < 0:
            raise ValueError(f"{name} is not where it should be")
        whole = torch.frombuffer(numbers, dtype=torch.uint8, count=size, offset=start) if size else torch.empty(0)
        tensors[name] = whole.view(kind).reshape(shape).clone() if size else torch.empty(shape, dtype=kind)
        end = stop
    if end != len(numbers):
        raise ValueError(f"{len(numbers) - end:,} bytes belong to nothing")
    return tensors
