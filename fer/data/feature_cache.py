"""The cache of features, the outputs of a network's frozen layers.

They are computed once, stored on disk and memory-mapped. Frozen layers give the same output for a face in every epoch,
run and split. Features are found by the pixels of a face, not by its index in a table. Their key is everything else
that they depend on (layers, weights, normalisation, size, torch, device, memory format). Other seeds, splits and
layouts of the same faces therefore compute nothing again. Exact duplicates are computed once, and no test face is
computed by ``fer.train``. Features are stored in parts of ``PART`` faces; each part is written under a temporary name
and renamed as soon as it is computed. An interrupted computation continues with the missing parts, and a damaged part
is detected by its checksum and computed again.
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
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fer.data.duplicates import DIGEST, digests
from fer.data.rows import checksum
from fer.system.files import written_aside
from fer.system.text import clock

if TYPE_CHECKING:
    from fer.data.dataset import FaceDataset

log = logging.getLogger(__name__)

Compute = Callable[[Tensor], Tensor]  # faces (BATCH, C, S, S) uint8 -> their features (BATCH, ...) float32, on the CPU

FORMAT = 1  # raise it when the layout of a part, or the result of the same layers, changes
BATCH = 128  # faces computed at once, never fewer: kernels for small batches round differently
PART = 4096  # faces in a part
LARGEST = 4e9  # bytes of features: larger ones are not cached but computed at each step


@dataclass(frozen=True)
class Features:
    """Features of N faces, gathered from parts.

    Args:
        parts: each (n, ...) float32, memory-mapped if stored on disk.
        positions: (N, 2) int64, part and row in the part of each face.
    """

    parts: Sequence[NDArray[np.float32]]
    positions: NDArray[np.int64]

    def take(self, faces: Sequence[int]) -> Tensor:
        """Return the features of the faces at these indices, (B, ...) float32."""
        part, row = self.positions[faces].T
        features = np.empty((len(part), *self.parts[0].shape[1:]), np.float32)
        for index in np.unique(part):
            chosen = part == index
            features[chosen] = self.parts[index][row[chosen]]
        return torch.from_numpy(features)


class FeatureStore:
    """Features by the hash of a face's pixels.

    Args:
        key: hash of everything that the features depend on, except the faces.
        folder: of the cache; None keeps the features in memory only.
    """

    def __init__(self, key: str, folder: Path | None) -> None:
        self.folder = None if folder is None else folder / "features" / f"{FORMAT}-{key}"
        self._parts: list[NDArray[np.float32]] = []
        self._positions: dict[bytes, tuple[int, int]] = {}  # hash -> part, row
        if self.folder is not None and self.folder.is_dir():
            self._load(self.folder)

    def serve(self, datasets: Sequence["FaceDataset"], compute: Compute) -> None:
        """Let splits serve their faces with features, after computing those that are missing.

        Args:
            datasets: splits whose faces are not changed at random.
            compute: maps a batch of faces to features.
        """
        images = [dataset.images.numpy() for dataset in datasets]
        names = [digests(faces) for faces in images]
        splits = zip(names, images, strict=True)
        self.complete({name: face for split in splits for name, face in zip(*split, strict=True)}, compute)
        for dataset, of_split in zip(datasets, names, strict=True):
            dataset.features = self.of(of_split)

    def of(self, names: Sequence[bytes]) -> Features:
        """Return the features of the faces with these hashes, which must be known."""
        return Features(self._parts, np.array([self._positions[name] for name in names], np.int64))

    def complete(self, faces: Mapping[bytes, NDArray[np.uint8]], compute: Compute) -> None:
        """Compute the features of faces that are not in the store, and log the progress.

        Args:
            faces: hash -> (S, S), or (C, S, S).
            compute: maps a batch of faces to features.
        """
        missing = [name for name in faces if name not in self._positions]
        total, start = len(faces), time.perf_counter()
        if missing:
            log.info("features: computing %s faces, once", f"{len(missing):,}")
        for first in range(0, len(missing), PART):
            names = missing[first : first + PART]
            self._keep(names, computed(np.stack([faces[name] for name in names]), compute))
            done, spent = first + len(names), time.perf_counter() - start
            if done < len(missing):
                left = clock(spent * (len(missing) - done) / done)
                log.info("features: %s of %s faces, %s left", f"{done:,}", f"{len(missing):,}", left)
        known = total - len(missing)
        parts = [f"{known:,} from the cache"] if known else []
        parts += [f"{len(missing):,} computed in {clock(time.perf_counter() - start)}"] if missing else []
        where = "in memory only" if self.folder is None else str(self.folder.parent)
        log.info("features of %s different faces: %s (%s)", f"{total:,}", ", ".join(parts), where)

    def _load(self, folder: Path) -> None:
        """Add the parts stored in a folder; a damaged part is removed with a warning."""
        for entry in sorted(path for path in folder.iterdir() if re.fullmatch("[0-9a-f]{64}", path.name)):
            try:
                self._add(*_read(entry))
            except Exception as error:  # numpy raises nearly anything on a damaged header
                log.warning("the cached features %s are damaged (%s); computing again", entry, error)
                shutil.rmtree(entry, ignore_errors=True)

    def _keep(self, names: Sequence[bytes], features: NDArray[np.float32]) -> None:
        """Store a part on disk and add it memory-mapped; keep it in memory if it cannot be written."""
        if self.folder is not None:
            try:
                self._add(*_read(_written(names, features, self.folder)))
                return
            except OSError as error:
                path = error.filename or self.folder
                log.warning("features are kept in memory only: %s (%s)", path, error.strerror)
                self.folder = None
        self._add(names, features)

    def _add(self, names: Sequence[bytes], features: NDArray[np.float32]) -> None:
        self._positions |= {name: (len(self._parts), row) for row, name in enumerate(names)}
        self._parts.append(features)


def computed(images: NDArray[np.uint8], compute: Compute) -> NDArray[np.float32]:
    """Return the features (N, ...) of faces (N, S, S), or (N, C, S, S).

    The last batch is filled up to ``BATCH`` faces, so that the features of a face do not depend on the other faces.
    """
    faces = torch.from_numpy(images if images.ndim == 4 else images[:, None])
    batches = (torch.arange(start, start + BATCH) % len(faces) for start in range(0, len(faces), BATCH))
    features: NDArray[np.float32] = torch.cat([compute(faces[indices]) for indices in batches]).contiguous().numpy()
    return features[: len(faces)]


def _written(names: Sequence[bytes], features: NDArray[np.float32], folder: Path) -> Path:
    """Write a part and return its folder; the same part that another process has finished meanwhile is kept.

    Raises:
        OSError: the part cannot be written.
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
