"""What a network's frozen layers make of faces: computed once, kept on disk, memory-mapped.

Layers that never change make the same of a face in every epoch, run and split. Features are found by the pixels of a
face, not by its place in a table: another seed, another split and another layout of the same faces compute nothing
again, exact twins are computed once, and a face that no split serves is never computed. They lie in parts of ``PART``
faces, each written aside and renamed as soon as it is computed: an interrupted computation goes on where it was, and a
damaged part is found by its checksum and computed anew.
"""

import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fer.data.cache import checksum, written_aside
from fer.data.duplicates import DIGEST
from fer.system.text import clock

log = logging.getLogger(__name__)

Compute = Callable[[Tensor], Tensor]  # faces (BATCH, 1, S, S) uint8 -> their features (BATCH, ...) float32, on the CPU

FORMAT = 1  # raise it when the layout of a part, or what is computed from the same layers, changes
BATCH = 128  # faces at a time, never fewer: kernels for small batches round differently
PART = 4096  # faces a part
LARGEST = 4e9  # bytes of features that are kept; more are computed anew at each step


@dataclass(frozen=True)
class Features:
    """Features of N faces, gathered from parts.

    Args:
        parts: each (n, ...) float32, memory-mapped where they lie on disk.
        places: (N, 2) int64, part and row in it of each face.
    """

    parts: Sequence[NDArray[np.float32]]
    places: NDArray[np.int64]

    def take(self, faces: Sequence[int]) -> Tensor:
        """Return the features of these faces, (B, ...) float32."""
        part, row = self.places[faces].T
        taken = np.empty((len(part), *self.parts[0].shape[1:]), np.float32)
        for index in np.unique(part):
            here = part == index
            taken[here] = self.parts[index][row[here]]
        return torch.from_numpy(taken)


class FeatureStore:
    """Features by the hash of a face's pixels.

    Args:
        key: of all that they depend on but the faces.
        folder: of the cache; None keeps them in memory alone.
    """

    def __init__(self, key: str, folder: Path | None) -> None:
        self.folder = None if folder is None else folder / "features" / f"{FORMAT}-{key}"
        self._parts: list[NDArray[np.float32]] = []
        self._places: dict[bytes, tuple[int, int]] = {}  # hash -> part, row
        if self.folder is not None and self.folder.is_dir():
            self._load(self.folder)

    def of(self, names: Sequence[bytes]) -> Features:
        """Return the features of known faces, by their hashes."""
        return Features(self._parts, np.array([self._places[name] for name in names], np.int64))

    def complete(self, faces: Mapping[bytes, NDArray[np.uint8]], compute: Compute) -> None:
        """Compute the features of faces that are not known yet, and say what was done.

        Args:
            faces: hash -> (S, S).
            compute: gives the features of a batch.
        """
        missing = [name for name in faces if name not in self._places]
        total, start = len(faces), time.perf_counter()
        if missing:
            log.info("features: computing those of %s faces, once", f"{len(missing):,}")
        for first in range(0, len(missing), PART):
            chosen = missing[first : first + PART]
            self._keep(chosen, computed(np.stack([faces[name] for name in chosen]), compute))
            done, spent = first + len(chosen), time.perf_counter() - start
            if done < len(missing):
                left = clock(spent * (len(missing) - done) / done)
                log.info("features: %s of %s faces, %s left", f"{done:,}", f"{len(missing):,}", left)
        known = total - len(missing)
        parts = [f"{known:,} from the cache"] if known else []
        parts += [f"{len(missing):,} computed in {clock(time.perf_counter() - start)}"] if missing else []
        where = "in memory alone" if self.folder is None else str(self.folder.parent)
        log.info("features of %s different faces: %s (%s)", f"{total:,}", ", ".join(parts), where)

    def _load(self, folder: Path) -> None:
        """Take up the parts that lie there; a damaged one is told and removed."""
        for entry in sorted(path for path in folder.iterdir() if re.fullmatch("[0-9a-f]{64}", path.name)):
            try:
                self._take_up(*_read(entry))
            except Exception as error:  # numpy raises nearly anything on a damaged header
                log.warning("the cached features %s are damaged (%s); computing anew", entry, error)
                shutil.rmtree(entry, ignore_errors=True)

    def _keep(self, names: Sequence[bytes], features: NDArray[np.float32]) -> None:
        """Take up a part, from the disk if it can be written there."""
        if self.folder is not None:
            try:
                self._take_up(*_read(_written(names, features, self.folder)))
                return
            except OSError as error:
                path = error.filename or self.folder
                log.warning("features are kept in memory alone: %s (%s)", path, error.strerror)
                self.folder = None
        self._take_up(names, features)

    def _take_up(self, names: Sequence[bytes], features: NDArray[np.float32]) -> None:
        self._places |= {name: (len(self._parts), row) for row, name in enumerate(names)}
        self._parts.append(features)


def computed(images: NDArray[np.uint8], compute: Compute) -> NDArray[np.float32]:
    """Return the features (N, ...) of faces (N, S, S).

    The last batch is filled up, so that what comes out is a function of each face alone.
    """
    faces = torch.from_numpy(images)[:, None]
    filled = (torch.arange(start, start + BATCH) % len(faces) for start in range(0, len(faces), BATCH))
    features: NDArray[np.float32] = torch.cat([compute(faces[places]) for places in filled]).contiguous().numpy()
    return features[: len(faces)]


def _written(names: Sequence[bytes], features: NDArray[np.float32], folder: Path) -> Path:
    """Write a part, or leave the same one that another process has finished meanwhile; return its folder.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, NDArray[np.generic]] = {
        "faces": np.frombuffer(b"".join(names), np.uint8).reshape(-1, DIGEST),
        "features": features,
    }
    entry = folder / hashlib.sha256(columns["faces"].data).hexdigest()
    with written_aside(entry) as part:
        part.mkdir()
        for name, column in columns.items():
            np.save(part / f"{name}.npy", column, allow_pickle=False)
        checksums = {name: checksum(column) for name, column in columns.items()}
        (part / "about.json").write_text(json.dumps({"checksums": checksums}))
    return entry


def _read(entry: Path) -> tuple[list[bytes], NDArray[np.float32]]:
    """Return the hashes of a part's faces and their features, memory-mapped.

    Raises:
        OSError: a file is missing.
        ValueError: a file is damaged.
    """
    faces = np.load(entry / "faces.npy", allow_pickle=False)
    features = np.load(entry / "features.npy", mmap_mode="r", allow_pickle=False)
    checksums = json.loads((entry / "about.json").read_text())["checksums"]
    for name, column in (("faces", faces), ("features", features)):
        if checksum(column) != checksums[name]:
            raise ValueError(f"checksum of {name}")
    return [face.tobytes() for face in faces], features
