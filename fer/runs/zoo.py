"""The networks that the package contains: their files and their names."""

from pathlib import Path

import fer
from fer.system import hub

PRETRAINED = Path(fer.__file__).parent / "models" / "zoo"
ENDING = ".safetensors"  # of their files, which ``fer.models.safetensors`` reads


def pretrained() -> list[str]:
    """Return the names of the package's networks, which ``fer.load`` takes in place of a path."""
    return sorted(file.stem for file in PRETRAINED.glob(f"*{ENDING}"))


def of_package(file: Path) -> bool:
    """Return whether a file is one of the package's networks."""
    return file.resolve().parent == PRETRAINED.resolve()


def called(file: Path) -> str:
    """Return what ``fer.load`` takes for a file in the current folder: its name, or that of the package or the hub."""
    origin = hub.origin(file)
    return str(hub.Reference(origin.name)) if origin else file.stem if of_package(file) else file.name
