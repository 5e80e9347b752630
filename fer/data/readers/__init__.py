"""Readers: one for each layout of the data, all returning ``Faces``.

``fer.data.locate`` asks them which of them recognises a path. The reader registered last is asked first, so that a
plugin can take over a layout of the package. A plugin adds a reader by registering a class with the three functions of
``Reader`` (docs/extend.md).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from fer.config.errors import FerError, setting, takes
from fer.config.registry import Registry
from fer.data.faces import Faces, OnBad
from fer.data.readers import affectnet, ckplus, csv_file, expw, ferplus, image_folder, jaffe, kdef, parquet, rafdb

READERS: Registry[Any] = Registry("reader")  # classes and modules with the functions of Reader


class Reader(Protocol):
    """The interface of a reader; a module or a class with these three functions serves."""

    def recognises(self, path: Path) -> bool:
        """Return whether ``path`` has this reader's layout."""

    def files(self, path: Path) -> list[Path]:
        """Return the files that ``read`` would open; the cache's key depends on their contents."""

    def read(self, path: Path, *, image_size: int, on_bad: OnBad) -> Faces:
        """Return the faces, (image_size, image_size) each."""


def register_reader(name: str) -> Callable[[Any], Any]:
    """Return a decorator that registers a ``Reader`` under ``name``, to be asked before all registered earlier.

    Raises:
        FerError: another reader has this name.
    """
    return READERS.register(name)


# the reader of image folders is asked last: a folder may hold class folders and a CSV table
register_reader("image_tree")(image_folder)
register_reader("csv")(csv_file)
register_reader("ferplus")(ferplus)
register_reader("parquet")(parquet.Parquet())
register_reader("rafdb")(rafdb.READER)
register_reader("affectnet_2017")(affectnet.TABLES)
register_reader("affectnet_2021")(affectnet.FOLDERS)
register_reader("expw")(expw.READER)
register_reader("ckplus")(ckplus.READER)
register_reader("jaffe")(jaffe.READER)
register_reader("kdef")(kdef.READER)


def with_colours(reader: Reader, name: str, path: Path, memory_limit_gb: float | None) -> Reader:
    """Return a reader that keeps the colours.

    Raises:
        FerError: the layout has none, or a limit of memory is given.
    """
    if memory_limit_gb is not None:
        raise FerError(
            f"{setting('data.memory_limit_gb', memory_limit_gb)}: colours are kept in memory alone; leave it out, or "
            "set data.channels=1"
        )
    if not getattr(reader, "in_colour", False):
        pictures = f"{path} is read by {name}, which serves grey faces alone"
        if not takes("data.channels"):
            raise FerError(f"{pictures}, and the network takes 3 channels; name pictures in colour")
        raise FerError(
            f"{setting('data.channels', 3)}: {pictures}; set {setting('data.channels', 1)}, or name pictures in colour"
        )
    return _InColour(reader)


class _InColour:
    """A reader that keeps the colours.

    Args:
        reader: whose ``read`` takes ``channels``.
    """

    def __init__(self, reader: Any) -> None:
        self.recognises, self.files = reader.recognises, reader.files
        if hasattr(reader, "inputs"):
            self.inputs = reader.inputs
        self._read = reader.read

    def read(self, path: Path, *, image_size: int, on_bad: OnBad) -> Faces:
        """Return the faces, with their colours."""
        faces: Faces = self._read(path, image_size=image_size, on_bad=on_bad, channels=3)
        return faces
