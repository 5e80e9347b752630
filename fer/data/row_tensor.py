"""Faces outside memory in place of a tensor."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fer.data.rows import Rows, chunks


class RowTensor:
    """Faces outside memory, used like the tensor (N, 1, S, S) that they would be: an index gives a tensor.

    Args:
        rows: the faces.
    """

    device = torch.device("cpu")

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.shape = torch.Size((len(rows), 1, *rows.shape[1:]))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes that the tensor would take."""
        return self.rows.nbytes

    def __getitem__(self, key: Tensor | slice | NDArray[np.int64] | list[int]) -> Tensor:
        faces = self.rows[key if isinstance(key, slice) else np.asarray(key)]
        return torch.from_numpy(faces).unsqueeze(1)

    def to(self, device: torch.device) -> Tensor:
        """Return all faces on a device."""
        copied, start = torch.empty(self.shape, dtype=torch.uint8, device=device), 0
        for chunk in chunks(self.rows.array):
            copied[start : start + len(chunk), 0] = torch.from_numpy(chunk)
            start += len(chunk)
        return copied

    def numpy(self) -> NDArray[np.uint8]:
        """Return all faces in memory, (N, 1, S, S)."""
        return np.asarray(self.rows)[:, None]
