"""One split, served in whole batches by index, from memory or from outside it.

Faces lie on a GPU as bytes if they take at most a quarter of its free memory (``keep_on``). The indices of an epoch are
copied there once, so that no step waits for the device.
"""

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fer.data.feature_cache import Features
from fer.data.noise import Part
from fer.data.row_tensor import RowTensor
from fer.data.rows import outside, taken
from fer.data.table import Split

AHEAD = 4  # batches


class Batch(NamedTuple):
    """B faces.

    Args:
        images: (B, 1, S, S), or (B, 3, S, S) in colour, uint8 until they reach the device, then float in [0, 1].
        targets: (B,) int64.
        key: key of the batch's noise: the index of its first face in the split, or a checksum of all indices if faces
            repeat. Unlike the number of the batch, it is the same after a resume.
        features: (B, ...) float32 outputs of the network's frozen layers, if they are cached.
        soft: (B, C) float32 soft targets, if the labels are soft or faces are mixed.
        mixed: whether each face is a mix of two, with ``soft`` as its label; ``targets`` holds the first one's class.
        part: the part of the batch that these faces are, if ranks share it; the key is that of the whole batch.
    """

    images: Tensor
    targets: Tensor
    key: int
    features: Tensor | None = None
    soft: Tensor | None = None
    mixed: bool = False
    part: Part | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        soft = None if self.soft is None else self.soft.to(device)
        features = None if self.features is None else self.features.to(device)
        images, targets = self.images.to(device), self.targets.to(device)
        return self._replace(images=images, targets=targets, features=features, soft=soft)

    def of_part(self, part: Part) -> "Batch":
        """Return the part's faces of a whole batch."""
        soft = None if self.soft is None else part.rows(self.soft)
        features = None if self.features is None else part.rows(self.features)
        return self._replace(
            images=part.rows(self.images), targets=part.rows(self.targets), features=features, soft=soft, part=part
        )


@dataclass(frozen=True)
class Indices:
    """Indices of B faces in their split, on the CPU and on the device of the faces, so that no batch has to copy them.

    Args:
        host: (B,) int64, on the CPU.
        device: the same, on the device of the faces.
        whole: indices of the whole batch on the CPU, if ranks share it.
        part: the part of the whole batch that these faces are.
    """

    host: Tensor
    device: Tensor
    whole: Tensor | None = None
    part: Part | None = None

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, part: slice) -> "Indices":
        return Indices(self.host[part], self.device[part])

    def of_part(self, part: Part) -> "Indices":
        """Return the part's indices of a whole batch."""
        within = slice(part.start, part.stop)
        return Indices(self.host[within], self.device[within], self.host, part)


class FaceDataset(Dataset[Batch]):
    """One split; several indices give one batch.

    Args:
        images: (N, S, S) uint8, ``Rows`` where they stay outside memory.
        targets: (N,) class indices.
        soft: (N, C) soft targets, or None.
        colour: (N, 3, S, S) of the same faces, which are served in place of grey ones, or None.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[np.integer[Any]],
        soft: NDArray[np.float32] | None = None,
        colour: NDArray[np.uint8] | None = None,
    ) -> None:
        rows = outside(images)
        self.grey = np.ascontiguousarray(images) if rows is None else rows.array  # (N, S, S), for comparing faces
        self.images: Tensor = (  # (N, 1, S, S), or (N, 3, S, S) in colour
            cast(Tensor, RowTensor(rows))
            if rows is not None
            else torch.from_numpy(self.grey).unsqueeze(1)
            if colour is None
            else torch.from_numpy(np.ascontiguousarray(colour))
        )
        self.targets = torch.from_numpy(targets.astype(np.int64))
        self.soft = None if soft is None else torch.from_numpy(np.ascontiguousarray(soft))
        self.features: Features | None = None  # of all faces, in the order of the split
        self._served = (self.images, self.targets, self.soft)
        self.repeats = False  # whether a face may occur twice in an epoch: its index is then no key of a batch

    @classmethod
    def of(cls, split: Split) -> "FaceDataset":
        """Return a split of a table, with the same pixels in memory."""
        return cls(split.grey, split.targets, split.soft, split.colour)

    def __len__(self) -> int:
        return len(self.targets)

    def shuffled(self) -> "FaceDataset":
        """Return the same faces in a fixed random order."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0)).numpy()
        soft = None if self.soft is None else self.soft.numpy()[order]
        colour = None if self.colour is None else self.colour[order]
        return FaceDataset(taken(self.grey, order), self.targets.numpy()[order].astype(np.int8), soft, colour)

    @property
    def colour(self) -> NDArray[np.uint8] | None:
        """The faces (N, 3, S, S) in colour; None where they are grey."""
        return self.images.numpy() if self.images.shape[1] == 3 else None

    def keep_on(self, device: torch.device) -> None:
        """Serve batches from a copy of the split on a device."""
        images, targets, soft = self.images, self.targets, self.soft
        self._served = (images.to(device), targets.to(device), None if soft is None else soft.to(device))

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int] | Indices) -> Batch:
        images, targets, soft = self._served
        copied = indices if isinstance(indices, Indices) else self.on_device(torch.tensor(indices))
        index, host = copied.device, copied.host
        features = None if self.features is None else self.features.take(host.tolist())
        key = self.key(host if copied.whole is None else copied.whole)
        chosen = None if soft is None else soft[index]
        return Batch(images[index], targets[index], key, features, chosen, part=copied.part)

    def read_ahead(self, batches: Iterator[Indices]) -> Iterator[Indices]:
        """Yield batches; faces outside memory begin to be read ``AHEAD`` batches before they are served."""
        if not isinstance(self._served[0], RowTensor):
            yield from batches
            return
        waiting: deque[Indices] = deque()
        for batch in batches:
            self._served[0].rows.ahead(batch.host.numpy())
            waiting.append(batch)
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        yield from waiting

    def on_device(self, indices: Tensor) -> Indices:
        """Return indices (N,) of this split with a copy on the device of its faces."""
        return Indices(indices, indices.to(self._served[0].device))

    def key(self, indices: Tensor) -> int:
        """Return the key of a batch's noise from its indices (B,) on the CPU."""
        return zlib.crc32(indices.numpy().tobytes()) if self.repeats else int(indices[0])


def as_batch(batch: Any) -> Any:
    """Return the batch unchanged: ``__getitems__`` has collated it already."""
    return batch


def repeated(batch: Batch, times: int) -> Batch:
    """Return a batch with its labels repeated ``times`` times, one whole set after the other."""
    soft = None if batch.soft is None else batch.soft.repeat(times, 1)
    return batch._replace(targets=batch.targets.repeat(times), soft=soft)


def to_unit(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1]; float images unchanged."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images
