"""Faces by whole batches of indices, and what a batch holds."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fer.data.feature_cache import Features


class Batch(NamedTuple):
    """B faces.

    Args:
        images: (B, 1, S, S), uint8 until they reach the device, then float in [0, 1].
        targets: (B,) int64.
        key: place of the first face in its split (where faces repeat, a checksum of all places); unlike the number of
            the batch it survives a resume.
        features: (B, ...) float32, what a network's frozen layers make of the faces, where that is known.
        soft: (B, C) float32 soft targets, where the labels are of that kind or faces are mixed.
        mixed: whether each face is of two, its label by their shares; ``targets`` holds its own.
    """

    images: Tensor
    targets: Tensor
    key: int
    features: Tensor | None = None
    soft: Tensor | None = None
    mixed: bool = False


@dataclass(frozen=True)
class Indices:
    """Indices of B faces in their split, on the host and where the faces lie, so that no batch has to move any.

    Args:
        host: (B,) int64, on the CPU.
        device: the same, beside the faces.
    """

    host: Tensor
    device: Tensor

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, part: slice) -> "Indices":
        return Indices(self.host[part], self.device[part])


class FaceDataset(Dataset[Batch]):
    """One split in memory; a loader that asks for several faces gets them as one batch.

    Args:
        images: (N, S, S) uint8.
        targets: (N,) class indices.
        soft: (N, C) soft targets, or None.
    """

    def __init__(
        self, images: NDArray[np.uint8], targets: NDArray[np.int8], soft: NDArray[np.float32] | None = None
    ) -> None:
        self.images = torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1)  # (N, 1, S, S)
        self.targets = torch.from_numpy(targets.astype(np.int64))
        self.soft = None if soft is None else torch.from_numpy(np.ascontiguousarray(soft))
        self.features: Features | None = None  # of all faces, in their order
        self._served = (self.images, self.targets, self.soft)
        self.repeats = False  # whether an epoch may hold a face twice, so that the first does not tell a batch

    def __len__(self) -> int:
        return len(self.targets)

    def mixed(self) -> "FaceDataset":
        """Return the same faces in a fixed random order."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0)).numpy()
        soft = None if self.soft is None else self.soft.numpy()[order]
        return FaceDataset(self.images[:, 0].numpy()[order], self.targets.numpy()[order].astype(np.int8), soft)

    def keep_on(self, device: torch.device) -> None:
        """Serve batches from a copy on a device."""
        images, targets, soft = self.images, self.targets, self.soft
        self._served = (images.to(device), targets.to(device), None if soft is None else soft.to(device))

    def __getitem__(self, place: int) -> Batch:
        return self.__getitems__([place])

    def __getitems__(self, places: Sequence[int] | Indices) -> Batch:
        images, targets, soft = self._served
        chosen = places if isinstance(places, Indices) else self.located(torch.tensor(places))
        index, host = chosen.device, chosen.host
        features = None if self.features is None else self.features.take(host.tolist())
        return Batch(images[index], targets[index], self.key(host), features, None if soft is None else soft[index])

    def located(self, places: Tensor) -> Indices:
        """Return indices (N,) of this split with a copy beside its faces."""
        return Indices(places, places.to(self._served[0].device))

    def key(self, places: Tensor) -> int:
        """Return what the noise of a batch is keyed by, whose indices are (B,) on the CPU."""
        return zlib.crc32(places.numpy().tobytes()) if self.repeats else int(places[0])


def as_batch(batch: Any) -> Any:
    """Return the batch that ``__getitems__`` has put together already, where a loader would collate a list."""
    return batch


def taken(column: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """Return a copy of a column (N, ...) at places in rising order, (K, ...): in one piece where they are in one piece.

    Gathering FER2013's training faces one by one takes a tenth of a second on memory that is fresh.
    """
    first, count = int(places[0]), len(places)
    if int(places[-1]) - first == count - 1:
        return np.array(column[first : first + count])
    gathered: NDArray[Any] = column[places]
    return gathered


def repeated(batch: Batch, times: int) -> Batch:
    """Return a batch whose labels stand there several times over, one set after the other."""
    soft = None if batch.soft is None else batch.soft.repeat(times, 1)
    return batch._replace(targets=batch.targets.repeat(times), soft=soft)


def to_unit(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1]; others as they are."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images
