"""Weights as safetensors (github.com/huggingface/safetensors).

A file is plain bytes behind a header, and nothing in it can run. The library checks the header: sizes, offsets without
gap or overlap, shapes, types. Types that no network of this library has (8 bits and fewer of float, complex) are
refused here.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fer.config.errors import FerError

SUFFIX = ".safetensors"
TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip


def to_bytes(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """Return the contents of a safetensors file that holds tensors and texts about them."""
    # cloned: the library refuses tensors of shared memory and of other strides, such as channels_last
    plain = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    return save(plain, dict(about))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file and the texts about them.

    Raises:
        FerError: the file is missing, cut short, changed, not safetensors, or holds a type outside ``TYPES``.
    """
    try:
        with safe_open(path, "pt") as file:
            # cloned: the library maps the file, and a mapped tensor would change, or crash, with the file
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            about = file.metadata() or {}
    except OSError as error:
        raise FerError(f"{path}: {error.strerror or error}") from error
    except (SafetensorError, RuntimeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:150]
        raise FerError(f"{path}: damaged, cut short, or no safetensors file ({reason})") from error
    for name, value in tensors.items():
        if value.dtype not in TYPES:
            raise FerError(
                f"{path}: {name} is of the type {_name(value.dtype)}; expected {', '.join(map(_name, TYPES))}"
            )
    return tensors, about


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")
