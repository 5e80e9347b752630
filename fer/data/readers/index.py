"""The index of a data set of pictures: a parquet file with a row for each face.

The pictures stay where they are. A row has everything but the pixels: file, box, labels, splits, group, size and time
of the file, and the hash of the face's pixels. By the hash, duplicates and leakage are found without decoding. The
index lies in an entry of the cache, so that its key is the contents of the pictures. With the index, faces are decoded
on demand, each time that they are asked for.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.data.crop import Box
from fer.data.duplicates import DIGEST
from fer.data.faces import Faces
from fer.data.readers import decoding
from fer.data.readers.decoding import Cut, Face

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "pictures.parquet"
VERSION = b"2"  # raise it when the meaning of a column changes
BOX = ("x", "y", "width", "height")
COMING = 16  # takes that may be under way
LEAST = 16  # pictures of a request: fewer would cost more on the way than in the decoder


def required() -> None:
    """Refuse to go on without pyarrow.

    Raises:
        FerError: it is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        key = setting("data.memory_limit_gb")
        raise FerError(
            f"{key}: an index of pictures needs pyarrow, which is not installed: pip install 'fer-lightning[large]', "
            "or leave the key out"
        ) from error


@dataclass(frozen=True)
class State:
    """Size in bytes and time of change in ns of N picture files, (N,) int64 each."""

    size: NDArray[np.int64]
    mtime: NDArray[np.int64]


def states(files: Sequence[bytes]) -> State:
    """Return the states of files.

    Raises:
        FerError: one is gone.
    """
    numbers = np.empty((2, len(files)), np.int64)
    for index, file in enumerate(files):
        try:
            stat = os.stat(file)
        except OSError as error:
            raise FerError(
                f"{os.fsdecode(file)}: was removed since the folder was scanned ({error.strerror}); start again"
            ) from error
        numbers[:, index] = stat.st_size, stat.st_mtime_ns
    return State(*numbers)


def write(file: Path, faces: Faces, cuts: Sequence[Cut], digests: NDArray[np.uint8] | None) -> None:
    """Write the index of N faces.

    Args:
        file: to write.
        faces: their columns; the pixels are not used.
        cuts: of the faces.
        digests: (N, 16) hashes of their pixels; None where these are kept beside the index.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    paths, boxes = [os.fsencode(cut.picture) for cut in cuts], [cut.box for cut in cuts]
    state = states(paths)
    columns: dict[str, Any] = {
        "path": pa.array(paths, pa.binary()),  # a name of a file need not be text
        "whole": [cut.whole for cut in cuts],
        **{side: pa.array([box and getattr(box, side) for box in boxes], pa.float64()) for side in BOX},
        "size": state.size,
        "mtime": state.mtime,
        "digest": pa.nulls(len(cuts), pa.binary(DIGEST))
        if digests is None
        else pa.array([digest.tobytes() for digest in digests], pa.binary(DIGEST)),
        **{name: getattr(faces, name) for name in ("targets", "official", "given", "rows")},
        "group": pa.nulls(len(cuts), pa.int32()) if faces.group is None else faces.group,
    }
    about = {b"fer_index": VERSION, b"side": str(faces.image_size).encode()}
    table = pa.table(columns).replace_schema_metadata(about)
    parquet.write_table(table, file)


class Pictures:
    """Faces that are decoded each time they are asked for, by the processes that all data sets share.

    Args:
        file: index of the pictures.

    Raises:
        OSError: the index is missing.
        ValueError: the index is damaged or of another version.
        FerError: a picture has gone.
    """

    def __init__(self, file: Path) -> None:
        table = _read(file)
        side = int(table.schema.metadata[b"side"])
        self.folder: Path | None = file.parent
        self._paths, self._whole = table["path"].combine_chunks(), table["whole"].to_numpy()
        self._boxes = np.stack([table[side].to_numpy() for side in BOX], 1)
        self.digests: NDArray[np.uint8] | None = np.frombuffer(b"".join(table["digest"].to_pylist()), np.uint8).reshape(
            -1, DIGEST
        )
        self.shape = (len(table), side, side)
        # not those of the index: a file that was copied or touched since is found by its contents
        self._state = states(self._paths.to_pylist())
        self._coming: dict[bytes, list[Future[list[Face]]]] = {}

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the faces at these indices, (K, S, S).

        Raises:
            FerError: a picture has gone or changed since the start.
        """
        coming = self._coming.pop(indices.tobytes(), None)
        faces = np.empty((len(indices), *self.shape[1:]), np.uint8)
        if coming is None and len(indices) < LEAST:
            decoded = decoding.here(self._cuts(indices), self.shape[1])
        else:
            decoded = (face for request in coming or self._requests(indices) for face in request.result())
        for position, face in enumerate(decoded):
            if face.pixels is None:
                path = os.fsdecode(self._paths[int(indices[position])].as_py())
                raise FerError(f"{path}: was readable when the folder was scanned, and is not now: {face.problem}")
            faces[position] = face.pixels
        return faces

    def ahead(self, indices: NDArray[np.int64]) -> None:
        """Begin to decode the faces that the same ``take`` will ask for soon."""
        if len(indices) >= LEAST:
            self._coming.setdefault(indices.tobytes(), self._requests(indices))
        if len(self._coming) > COMING:  # of a pass that was broken off
            self._coming.pop(next(iter(self._coming)))

    def _requests(self, indices: NDArray[np.int64]) -> "list[Future[list[Face]]]":
        decoders, cuts = decoding.shared(), self._cuts(indices)
        size = min(decoding.CHUNK, max(LEAST, -(-len(cuts) // decoders.count)))
        return [decoders.submit(cuts[start : start + size], self.shape[1]) for start in range(0, len(cuts), size)]

    def _cuts(self, indices: NDArray[np.int64]) -> list[Cut]:
        paths = [self._paths[row].as_py() for row in indices.tolist()]
        now = states(paths)
        changed = (now.size != self._state.size[indices]) | (now.mtime != self._state.mtime[indices])
        if changed.any():
            raise FerError(f"{os.fsdecode(paths[int(changed.argmax())])}: has changed since the start; start again")
        boxes = (None if np.isnan(box[0]) else Box(*box) for box in self._boxes[indices].tolist())
        whole = self._whole[indices].tolist()
        return [Cut(Path(os.fsdecode(path)), box, taken) for path, box, taken in zip(paths, boxes, whole, strict=True)]


def _read(file: Path) -> "pa.Table":
    """Return an index.

    Raises:
        OSError: it is missing.
        ValueError: it is damaged or of another version.
    """
    from pyarrow import parquet

    table = parquet.read_table(file)  # a damaged one raises a ValueError or an OSError
    if (table.schema.metadata or {}).get(b"fer_index") != VERSION:
        raise ValueError("an index of another version")
    return table
