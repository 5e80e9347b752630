"""The memory of the faces that a reader decodes.

Faces are kept in memory, in one file that is then mapped, or nowhere. ``data.memory_limit_gb`` decides between memory
and the rest, the free space of the disk between file and nowhere. In the last case an index is all that is written, and
faces are decoded on demand. The bits are the same in each.
"""

import logging
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.data.duplicates import DIGEST, digests
from fer.data.faces import Faces
from fer.data.readers import decoding, index
from fer.data.readers.decoding import Cut, Face
from fer.data.rows import CHUNK_BYTES, Built, Mapped, Rows, outside
from fer.system.locks import waiting

log = logging.getLogger(__name__)

COPIES = 2  # of the pixels in memory: the table, and the splits made of it
SPARE = 1 << 30  # bytes of the disk that are left free
PIXELS = "images.npy"  # the cache's name of the file


class PixelMemory:
    """The memory and the disk that a reader has for faces.

    Args:
        limit_gb: ``data.memory_limit_gb``; None keeps all faces in memory.
        folder: of the cache.
    """

    def __init__(self, limit_gb: float | None = None, folder: Path | None = None) -> None:
        self.limit_gb, self.folder = limit_gb, folder
        self.scratch: Path | None = None  # folder for the file that is being written

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.limit_gb is not None

    def exceeded(self, pixels: int) -> bool:
        """Return whether faces of so many bytes, and their copies, take more memory than the limit."""
        return self.limit_gb is not None and COPIES * pixels > self.limit_gb * 1e9

    def fits_disk(self, pixels: int) -> bool:
        """Return whether a file of so many bytes fits on the disk of the cache."""
        return self._free() >= pixels + SPARE

    def pixels(self, most: int, side: int) -> "Pixels":
        """Return what collects the pixels of at most ``most`` faces of (side, side).

        Raises:
            FerError: they exceed the limit, and pyarrow or a folder for the cache is missing.
        """
        size = most * side * side
        if not self.exceeded(size):
            return InMemory(most, side)
        index.required()
        if self.scratch is None:
            raise FerError(
                f"data.memory_limit_gb={self.limit_gb:g}: {size / 1e9:.1f} GB of faces need a folder for the cache, "
                f"and data.cache={self.folder} cannot be written; name another"
            )
        return OutsideMemory(most, side, self.scratch / PIXELS if self.fits_disk(size) else None)

    @contextmanager
    def building(self, entry: Path) -> Iterator[None]:
        """Let this process alone build an entry of the cache; another one waits, and then finds it built."""
        with waiting(entry.parent / "locks" / entry.name, f"another process reads the same pictures into {entry}"):
            self.scratch = entry.with_name(f".building-{entry.name}")
            shutil.rmtree(self.scratch, ignore_errors=True)  # of a killed process
            self.scratch.mkdir()
            try:
                yield
            finally:
                shutil.rmtree(self.scratch, ignore_errors=True)
                self.scratch = None

    def load(self, entry: Path) -> NDArray[np.uint8]:
        """Return the faces of an entry that has an index and no pixels.

        Raises:
            OSError: the index is missing.
            ValueError: the index is damaged or of another version.
        """
        return Rows(index.Pictures(entry / index.FILE)).array

    def placed(self, faces: Faces, entry: Path | None) -> Faces:
        """Return faces with their pixels outside memory where the limit asks for it, and log where they are.

        Args:
            faces: read or from the cache.
            entry: of the cache; None for faces that have none.
        """
        if not self.limited:
            return faces
        if isinstance(faces.images, np.memmap) and self.exceeded(faces.images.nbytes):
            faces = replace(faces, images=Rows(Mapped(faces.images, entry)).array)
        log.info("faces: %s of %d px, %s", f"{len(faces):,}", faces.image_size, self._where(faces))
        return faces

    def _where(self, faces: Faces) -> str:
        size, limit = faces.images.nbytes, f"data.memory_limit_gb={self.limit_gb:g}"
        needed = f"{COPIES * size / 1e9:.2f} GB in memory, {limit}"
        if not self.exceeded(size):
            return f"kept in memory ({needed})"
        rows = outside(faces.images)
        if rows is None:
            return f"kept in memory although they take more than the limit: this layout has no other way ({needed})"
        if isinstance(rows.source, Mapped):
            return f"memory-mapped from {rows.source.folder} ({needed})"
        need = f"a file needs {(size + SPARE) / 1e9:.2f} GB, {self.folder} has {self._free() / 1e9:.2f} GB free"
        return f"decoded on demand: {need} ({needed})"

    def _free(self) -> int:
        return 0 if self.folder is None else shutil.disk_usage(self.folder).free


class Pixels(Protocol):
    """What collects the pixels of a reader's faces."""

    def decoded(self, cuts: Iterable[Cut], *, listed: bool = True) -> Iterator[Face]:
        """Yield the faces of cuts in their order; those of a list may be decoded before they are asked for."""

    def add(self, pixels: NDArray[np.uint8], cut: Cut) -> None:
        """Keep the pixels of the next face, (S, S)."""

    def images(self) -> NDArray[np.uint8]:
        """Return all faces that were added."""


class InMemory:
    """Pixels in an array.

    Args:
        most: upper limit of the number of faces.
        side: of the faces, in pixels.
    """

    def __init__(self, most: int, side: int) -> None:
        self._images, self._count = np.empty((most, side, side), np.uint8), 0

    def decoded(self, cuts: Iterable[Cut], *, listed: bool = True) -> Iterator[Face]:
        """Yield the faces of cuts, each decoded when it is asked for."""
        return decoding.here(cuts, self._images.shape[1])

    def add(self, pixels: NDArray[np.uint8], cut: Cut) -> None:
        """Keep the pixels of the next face, (S, S)."""
        self._images[self._count] = pixels
        self._count += 1

    def images(self) -> NDArray[np.uint8]:
        """Return all faces that were added, (N, S, S)."""
        return self._images[: self._count]


class Colours:
    """Colours of a reader's faces, in an array beside their grey pixels.

    Args:
        most: upper limit of the number of faces.
        side: of the faces, in pixels.
        channels: 3 keeps the colours, 1 keeps none.
    """

    def __init__(self, most: int, side: int, channels: int) -> None:
        self._images = np.empty((most, 3, side, side), np.uint8) if channels == 3 else None
        self._count = 0

    def add(self, face: Face) -> None:
        """Keep the colours of the next face, if they are kept and it has them."""
        if self._images is not None and face.colour is not None:
            self._images[self._count] = face.colour
            self._count += 1

    def images(self) -> NDArray[np.uint8] | None:
        """Return the colours of all faces that were added, (N, 3, S, S); None where none are kept."""
        return None if self._images is None else self._images[: self._count]


class OutsideMemory:
    """Pixels in a file that is written in order, or only their hashes and the cuts that make them again.

    A file is not mapped while it is written: on a full disk a write fails with an error, a mapped page kills the
    process. After such an error the pixels are given up, and the faces are decoded on demand.

    Args:
        most: upper limit of the number of faces.
        side: of the faces, in pixels.
        file: for the pixels; None keeps none.
    """

    def __init__(self, most: int, side: int, file: Path | None) -> None:
        self._most, self._side, self._file = most, side, file
        self._cuts: list[Cut] = []
        self._digests: dict[int, bytes] = {}  # of faces whose pixels are not kept
        self._checksum = 1  # of no bytes
        self._stream: IO[bytes] | None = None
        if file is not None:
            self._stream = open(file, "wb", buffering=CHUNK_BYTES)
            self._header(most)

    def decoded(self, cuts: Iterable[Cut], *, listed: bool = True) -> Iterator[Face]:
        """Yield the faces of cuts in their order, decoded by processes where they are many."""
        if listed and self._most >= decoding.FEW:
            return decoding.shared().in_order(cuts, self._side)
        return decoding.here(cuts, self._side)

    def add(self, pixels: NDArray[np.uint8], cut: Cut) -> None:
        """Write the pixels of the next face, (S, S).

        Raises:
            FerError: a picture that is no file cannot be decoded on demand, and the disk has no space for its pixels.
        """
        self._cuts.append(cut if isinstance(cut.picture, Path) else Cut(b""))
        if self._stream is not None:
            contents = np.ascontiguousarray(pixels).data
            self._checksum = zlib.adler32(contents, self._checksum)
            with self._given_up_when_full():
                self._stream.write(contents)
        elif isinstance(cut.picture, Path):
            self._digests[len(self._cuts) - 1] = digests([pixels])[0]
        if self._stream is None and not isinstance(cut.picture, Path):
            raise FerError(
                f"{self._most * self._side**2 / 1e9:.1f} GB of faces have no room in the cache's folder, and pictures "
                f"within a table are not decoded on demand; free the disk, name another data.cache, or raise "
                "data.memory_limit_gb"
            )

    def images(self) -> NDArray[np.uint8]:
        """Return all faces that were added, to be read once they are in the cache."""
        if self._stream is not None:
            with self._given_up_when_full():
                self._stream.seek(0)
                self._header(len(self._cuts))
                self._stream.flush()
                self._stream.close()
        named = None if self._stream is not None else self._named()
        sums = {} if self._stream is None else {"images": self._checksum}
        return Rows(Built((len(self._cuts), self._side, self._side), named, sums, self._write)).array

    def _named(self) -> NDArray[np.uint8]:
        """Return the hashes of all faces; those that went into a file which was given up are decoded again."""
        missing = [row for row in range(len(self._cuts)) if row not in self._digests]
        for row, face in zip(missing, self.decoded([self._cuts[row] for row in missing]), strict=True):
            if face.pixels is None:
                picture = self._cuts[row].picture
                assert isinstance(picture, Path)
                raise FerError(f"{picture}: {face.problem}")
            self._digests[row] = digests([face.pixels])[0]
        every = b"".join(self._digests[row] for row in range(len(self._cuts)))
        return np.frombuffer(every, np.uint8).reshape(-1, DIGEST)

    def _write(self, folder: Path, faces: Faces) -> None:
        """Write the files of an entry of the cache: the pixels, if they are kept, and the index of picture files."""
        if self._stream is not None and self._file is not None:
            os.replace(self._file, folder / PIXELS)
        if all(isinstance(cut.picture, Path) for cut in self._cuts):
            index.write(folder / index.FILE, faces, self._cuts, None if self._stream is not None else self._named())

    def _header(self, count: int) -> None:
        """Write numpy's header; its length is the same for every count that an array may have."""
        assert self._stream is not None
        shape = (count, self._side, self._side)
        np.lib.format.write_array_header_1_0(self._stream, {"descr": "|u1", "fortran_order": False, "shape": shape})

    @contextmanager
    def _given_up_when_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            assert self._file is not None
            log.warning("the pixels could not be kept: %s (%s); they are decoded on demand", self._file, error.strerror)
            self._stream = None
            self._file.unlink(missing_ok=True)


_current: ContextVar[PixelMemory] = ContextVar("pixel_memory", default=PixelMemory())  # noqa: B039  # without a limit it has no state


def current() -> PixelMemory:
    """Return the pixel memory of the reading under way."""
    return _current.get()


@contextmanager
def entered(memory: PixelMemory) -> Iterator[PixelMemory]:
    """Let the readers within the block use a memory; readers are called by their public signature."""
    token = _current.set(memory)
    try:
        yield memory
    finally:
        _current.reset(token)
