"""Readers: one layout each, told apart from the path alone, all returning ``Faces``.

To add one from outside, register a class with these three functions (docs/extend.md); it is asked before the others.
"""

from pathlib import Path
from typing import Protocol, cast

from fer.config.errors import FerError
from fer.data.cache import cached
from fer.data.faces import Faces, OnBad
from fer.data.readers import csv_file, ferplus, image_folder

WRAPPERS = 3  # folders around the data that are looked through, as in archive/images/images/train


class Reader(Protocol):
    """What a reader offers; a module with these three functions is one."""

    def recognises(self, path: Path) -> bool:
        """Return whether this reader can read ``path``."""

    def files(self, path: Path) -> list[Path]:
        """Return the files that ``read`` would open, for the cache's key."""

    def read(self, path: Path, *, image_size: int, on_bad: OnBad) -> Faces:
        """Return the table."""


READERS: dict[str, Reader] = {
    "ferplus": cast(Reader, ferplus),
    "csv": cast(Reader, csv_file),
    "image_tree": cast(Reader, image_folder),
}


def register_reader(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Return a decorator that registers a ``Reader``, asked before the others.

    Raises:
        FerError: the name is taken.
    """

    def add(reader: Reader) -> Reader:
        if name in READERS and READERS[name] is not reader:
            raise FerError(f"reader {name!r} is registered twice; rename one")
        others = dict(READERS)
        READERS.clear()
        READERS.update({name: reader, **others})
        return reader

    return add


def read(path: Path, *, image_size: int, on_bad: OnBad, cache: Path | None) -> Faces:
    """Read whatever ``path`` is.

    Args:
        path: a table, an archive of one, or a folder.
        image_size: side of the faces, in pixels.
        on_bad: "error" raises on the first bad row or file, "skip" leaves it out, counted and listed.
        cache: folder of the cache, or None to parse anew.

    Raises:
        FerError: nothing is there, no layout is recognised, or the data are bad.
    """
    name, reader, found = recognise(path)
    if cache is None or name == "ferplus":  # the generator's votes have no place in the cache
        faces = reader.read(found, image_size=image_size, on_bad=on_bad)
    else:
        variant = f"{name} {image_size} {on_bad}"
        faces = cached(
            reader.files(found), variant, cache, lambda: reader.read(found, image_size=image_size, on_bad=on_bad)
        )
    return faces if found == path else faces.noted(f"read from {found}")


def recognise(path: Path) -> tuple[str, Reader, Path]:
    """Return the reader's name, the reader, and the folder inside ``path`` that it reads.

    Raises:
        FerError: ``path`` does not exist or holds nothing known.
    """
    if not path.exists():
        raise FerError(f"{path}: no such file or folder; expected FER2013 as CSV, archive or folders of pictures")
    inner = path
    for _ in range(WRAPPERS + 1):
        for name, reader in READERS.items():
            if reader.recognises(inner):
                return name, reader, inner
        wrapped = _wrapped(inner)
        if wrapped is None:
            break
        inner = wrapped
    raise FerError(
        f"{path}: no data set recognised; expected fer2013.csv, icml_face_data.csv or train.csv (also as .gz, .zip, "
        f".tar.gz), or folders named by emotion, below train/ val/ test/ or alone"
    )


def _wrapped(folder: Path) -> Path | None:
    """Return the one folder that might hold the data, or None."""
    if not folder.is_dir():
        return None
    folders = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    named = [entry for entry in folders if entry.name.lower() in ("images", "fer2013", "data")]
    return named[0] if named else folders[0] if len(folders) == 1 else None
