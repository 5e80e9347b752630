"""Faces outside this process's memory.

They are rows of a memory-mapped file, or of pictures that are decoded on demand. ``Rows`` stands where an array of
faces stands otherwise. An index gives an array; a pass over all of them goes in chunks. Values that need such a pass,
such as the fingerprint, are stored beside the faces once they are known.
"""

import hashlib
import logging
import mmap
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from fer.config.errors import FerError
from fer.system.files import UNREADABLE, read_json, write_json

log = logging.getLogger(__name__)

T = TypeVar("T")
CHUNK_BYTES = 16 << 20  # of faces that a pass over all of them holds at a time
COUNTED_AT_ONCE = 1 << 24  # pixels; Pillow's images have less than 2 GB
VALUES = "values.json"  # beside the faces: name -> value that needed a pass over all of them
Key = int | np.integer[Any] | slice | NDArray[Any]


class PixelSource(Protocol):
    """Where rows come from.

    Args:
        shape: (N, S, S).
        digests: (N, 16) uint8 hashes of the faces, or None where they are not known.
        folder: of the cache's entry, for ``VALUES``; None stores nothing.
    """

    shape: tuple[int, int, int]
    digests: NDArray[np.uint8] | None
    folder: Path | None

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the faces at these indices, (K, S, S)."""

    def ahead(self, indices: NDArray[np.int64]) -> None:
        """Begin to read the faces that the same ``take`` will ask for soon."""


class Mapped:
    """Faces of a memory-mapped file.

    Args:
        images: (N, S, S), an ``np.memmap``.
        folder: see ``PixelSource``.
    """

    def __init__(self, images: NDArray[np.uint8], folder: Path | None = None) -> None:
        self.images, self.folder = images, folder
        self.digests: NDArray[np.uint8] | None = None
        self.shape = (images.shape[0], images.shape[1], images.shape[2])
        self._file: IO[bytes] | None = None

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return a copy of the faces at these indices, (K, S, S)."""
        if not len(indices) or int(indices[-1]) - int(indices[0]) == len(indices) - 1 or not hasattr(os, "preadv"):
            faces: NDArray[np.uint8] = np.array(self.images[indices])
            released(self.images)
            return faces
        return self._scattered(indices)

    def _scattered(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read single faces: touching one in the map would map up to 2 MB around it into this process."""
        file: Any = self.images  # an np.memmap
        self._file = self._file or open(file.filename, "rb")
        faces = np.empty((len(indices), *self.shape[1:]), np.uint8)
        size, descriptor = faces[0].nbytes, self._file.fileno()
        for face, row in zip(faces, indices.tolist(), strict=True):
            if os.preadv(descriptor, [face.data], file.offset + row * size) != size:
                raise FerError(f"{file.filename}: cut short since the start; start again")
        return faces

    def ahead(self, indices: NDArray[np.int64]) -> None:
        """Do nothing: the system reads a page faster than a thread would start."""


def released(images: NDArray[np.generic]) -> None:
    """Give the pages of a mapped file back: they stay in the system's cache, and count no longer as this process's."""
    pages = getattr(images, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def checksum(column: NDArray[np.generic]) -> int:
    """Return a checksum that changes with nearly any damage; pages of a mapped file are given back on the way."""
    value, step = 1, max(1, CHUNK_BYTES * len(column) // max(1, column.nbytes))
    for start in range(0, len(column), step):
        # adler32 reads 2 to 3 GB/s, several times crc32, and finds any flipped byte
        value = zlib.adler32(np.ascontiguousarray(column[start : start + step]).data, value)
        released(column)
    return value


class Rows:
    """Faces outside memory, used like an array (N, S, S) uint8.

    Args:
        source: of the faces.
        indices: (N,) rows of the source; None is all of them.
    """

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(self, source: PixelSource, indices: NDArray[np.int64] | None = None) -> None:
        self.source, self.indices = source, indices
        self.shape = (source.shape[0] if indices is None else len(indices), *source.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes that all faces would take in memory."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: Key) -> NDArray[np.uint8]:
        rows = self._rows(key)
        faces = self.source.take(np.atleast_1d(rows))
        return faces if np.ndim(rows) else cast(NDArray[np.uint8], faces[0])

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for chunk in chunks(self.array):
            yield from chunk

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        log.info("  %s faces are read into memory: %.1f GB", f"{len(self):,}", self.nbytes / 1e9)
        return np.concatenate([np.empty((0, *self.shape[1:]), np.uint8), *chunks(self.array)]).astype(dtype or np.uint8)

    @property
    def array(self) -> NDArray[np.uint8]:
        """These rows, typed as the array that they stand for."""
        return cast(NDArray[np.uint8], self)

    def taken(self, indices: NDArray[np.int64]) -> "Rows":
        """Return the rows at some indices, still outside memory."""
        return Rows(self.source, self._rows(indices))

    def ahead(self, indices: NDArray[np.int64]) -> None:
        """Begin to read the rows at these indices, which are asked for soon."""
        self.source.ahead(self._rows(indices))

    @property
    def digests(self) -> NDArray[np.uint8] | None:
        """(N, 16) hashes of the faces, where they are known without reading them."""
        known = self.source.digests
        return known if known is None or self.indices is None else known[self.indices]

    def remembered(self, name: str, compute: Callable[[], T]) -> T:
        """Return a value that needs a pass over these rows, from beside the faces where it is known.

        Args:
            name: of the value, with everything that it depends on besides the source.
            compute: makes the value, which JSON can hold.
        """
        file = None if self.source.folder is None else self.source.folder / VALUES
        selected = "all" if self.indices is None else hashlib.sha256(self.indices.tobytes()).hexdigest()
        known, name = _known(file), f"{name} of {selected}"
        if name not in known:
            value = compute()
            known = {**_known(file), name: value}  # another process may have added values meanwhile
            _keep(file, known)
        return cast(T, known[name])

    def _rows(self, key: Key) -> NDArray[np.int64]:
        if self.indices is not None:
            return np.asarray(self.indices[key])
        if isinstance(key, slice):
            return np.arange(*key.indices(len(self)))
        rows = np.asarray(key)
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
        if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"a row is out of range; there are {len(self)}")
        return np.where(rows < 0, rows + len(self), rows)


def _known(file: Path | None) -> dict[str, Any]:
    if file is None or not file.is_file():
        return {}
    try:
        values = read_json(file)
    except UNREADABLE:
        return {}
    return values if isinstance(values, dict) else {}


def _keep(file: Path | None, values: dict[str, Any]) -> None:
    if file is None:
        return
    try:
        write_json(file, values)
    except OSError as error:
        log.warning("  not kept for the next start: %s (%s)", file, error.strerror)


def outside(images: object) -> Rows | None:
    """Return faces as rows outside memory if they are; None for an array."""
    return images if isinstance(images, Rows) else None


def chunks(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield faces (N, S, S) in order: an array as a whole, rows outside memory in parts."""
    rows = outside(images)
    if rows is None:
        yield images
        return
    size = max(1, CHUNK_BYTES // max(1, images.shape[1] * images.shape[2]))
    starts = list(range(0, len(images), size))
    parts = [np.arange(start, min(start + size, len(images))) for start in starts]
    for number, part in enumerate(parts):
        if number + 1 < len(parts):
            rows.ahead(parts[number + 1])
        yield rows[part]


def taken(images: NDArray[np.uint8], indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the faces at some indices: of an array a copy, of rows outside memory others outside memory."""
    rows = outside(images)
    return images[indices] if rows is None else rows.taken(indices).array


def gathered(column: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[Any]:
    """Return a copy (K, ...) of a column (N, ...) at rising indices; consecutive indices are copied as one slice.

    Gathering FER2013's training faces one by one takes a tenth of a second on fresh memory.
    """
    if outside(column) is not None:
        return taken(column, indices)
    first, count = int(indices[0]), len(indices)
    if int(indices[-1]) - first == count - 1:
        return np.array(column[first : first + count])
    rows: NDArray[Any] = column[indices]
    return rows


def statistics(images: NDArray[np.uint8]) -> tuple[float, float]:
    """Return mean and standard deviation of the pixels of faces (N, ...), as values in [0, 1].

    The deviation is never 0, also for black faces: normalisation divides by it.
    """
    rows = outside(images)
    known = None if rows is None else rows.remembered("histogram", lambda: _histogram(images).tolist())
    histogram = _histogram(images) if known is None else np.array(known)
    values = np.arange(256) / 255
    mean = float((histogram * values).sum() / histogram.sum())
    variance = float((histogram * (values - mean) ** 2).sum() / histogram.sum())
    return mean, max(variance**0.5, 1 / 255)


def _histogram(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each value occurs among the pixels of faces (N, ...), (256,)."""
    counted = np.zeros(256, np.int64)
    for chunk in chunks(images):
        pixels = chunk.reshape(-1)
        for start in range(0, pixels.size, COUNTED_AT_ONCE):
            part = Image.fromarray(pixels[None, start : start + COUNTED_AT_ONCE])
            counted += np.array(part.histogram())  # in half the time of np.bincount, which copies bytes as int64
    return counted


class Built:
    """Faces that a reader has just decoded and that no entry of the cache holds yet; they cannot be read before.

    Args:
        shape: (N, S, S).
        digests: (N, 16) hashes of the faces, where they are known.
        checksums: name of a column of the cache's entry -> its checksum, for what ``write`` writes.
        write: writes the files of the faces into the entry's folder.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        digests: NDArray[np.uint8] | None,
        checksums: dict[str, int],
        write: Callable[[Path, Any], None],
    ) -> None:
        self.shape, self.checksums, self.write = shape, checksums, write
        self.digests: NDArray[np.uint8] | None = digests
        self.folder: Path | None = None

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Refuse: the entry is read instead."""
        raise AssertionError("faces of an entry that is not written yet")

    def ahead(self, indices: NDArray[np.int64]) -> None:
        """Do nothing."""


def built(images: NDArray[np.uint8]) -> Built | None:
    """Return the pixels that a reader has just decoded and that no entry of the cache holds; None for others."""
    rows = outside(images)
    return rows.source if rows is not None and isinstance(rows.source, Built) else None
