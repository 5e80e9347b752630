"""Another network, laid beside the one that is evaluated, on the same faces."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fer.config.errors import FerError
from fer.data.datamodule import FERDataModule
from fer.data.duplicates import without_twin
from fer.evaluation.leakage import Training
from fer.evaluation.request import Asked, Faces, Member, members_of, of_split
from fer.metrics import classification
from fer.runs import predictions


class Rival(NamedTuple):
    """Another network's probabilities of the same faces.

    Args:
        name: where they came from.
        probabilities: (N, C).
        members: the network; none where predictions were read from a file.
        views: that it was given, as ``Asked.views``; None where a file does not tell.
    """

    name: str
    probabilities: Tensor
    members: Sequence[Member] = ()
    views: str | None = None

    @classmethod
    def of(cls, asked: Asked, faces: Faces, data: FERDataModule) -> "Rival | None":
        """Return what was asked to be compared with, predicted with the same views or read from its predictions.

        Raises:
            FerError: it is bad, of other faces, or tells other emotions.
        """
        if asked.against is None:
            return None
        given = Path(asked.against).expanduser()
        file = given / "predictions.csv" if given.is_dir() and not (given / "checkpoints").is_dir() else given
        if file.name.endswith((".csv", ".csv.gz")):
            return cls(str(given), read_predictions(file, data, asked.split))
        members = members_of([asked.against])
        return cls(str(given), faces.predicted(members, asked)[0], members, asked.views)

    def compared(
        self, predicted: Tensor, targets: Tensor, images: NDArray[np.uint8], kept: NDArray[np.bool_] | None
    ) -> dict[str, Any]:
        """Return the differences to it, as plain values; ``clean`` are those on faces that neither was trained on.

        Args:
            predicted: (N, C) probabilities of the network that is evaluated.
            targets: (N,) labels.
            images: (N, S, S) faces.
            kept: (N,), which of them it was not trained on; None where that is not known.

        Raises:
            FerError: it tells other emotions.
        """
        if self.probabilities.shape != predicted.shape:
            raise FerError(
                f"--against {self.name}: tells {self.probabilities.shape[1]} emotions, not {predicted.shape[1]}"
            )
        own = self._unseen(images)
        both = None if kept is None or own is None else torch.from_numpy(kept & own)
        return {
            "name": self.name,
            "tta": self.views,
            "seen_by_it": None if own is None else int((~own).sum()),
            **classification.paired(predicted, self.probabilities, targets),
            "clean": None
            if both is None or not both.any()
            else classification.paired(predicted[both], self.probabilities[both], targets[both]),
        }

    def _unseen(self, images: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
        """Return (N,) which faces it was not trained on; None where that is not known."""
        if not self.members:
            return None
        try:
            return without_twin(images, Training(self.members, len(images)).seen(images.shape[-1]))
        except FerError:
            return None


def read_predictions(file: Path, data: FERDataModule, split: str) -> Tensor:
    """Return the probabilities (N, C) that a ``predictions.csv`` holds of a split's faces, in their order.

    Raises:
        FerError: it is missing, damaged, or of other faces.
    """
    if not file.is_file():
        raise FerError(f"--against {file}: no such file; name a run, a checkpoint or an evaluation's folder")
    try:
        said = predictions.read(file)
    except FerError as error:
        raise FerError(f"--against {error}; name the predictions.csv of a run or an evaluation") from error
    return of_split(said, f"--against {file}", data, split)
