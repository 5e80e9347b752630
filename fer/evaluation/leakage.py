"""What networks were trained and chosen on, read where it is still there: what they have seen, by pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fer.config.errors import FerError
from fer.data.duplicates import digests, without_twin
from fer.evaluation.request import Asked, Faces, Given, Member, PredictionsMember, present, same_split, whole
from fer.models.provenance import Dataset

MANY = 0.5  # share of the faces from which on having been trained on them is no accident
A_LOOK = 0.05  # share of the test faces from which on having scored them is no accident of twins


@dataclass
class Training:
    """What networks were trained and chosen on, each table read once.

    Args:
        members: the networks.
        batch_size: faces at a time.
    """

    members: Sequence[Member]
    batch_size: int
    _tables: dict[tuple[tuple[str, Any], ...], Faces] = field(default_factory=dict)

    def _val(self, settings: dict[str, Any]) -> Faces:
        """Return the val faces of data settings."""
        return self._tables.setdefault(tuple(sorted(settings.items())), Faces(settings, "val", self.batch_size))

    @cached_property
    def missing(self) -> str:
        """Why val cannot be read as it was; empty where it can."""
        for member in self.members:
            if why := self._gone(member.model.provenance.dataset):
                return why
        return ""

    def _gone(self, dataset: Dataset) -> str:
        """Return why the data of a training cannot be read as they were; empty where they can."""
        settings = whole(dataset)
        if not present(settings):
            return f"{dataset.get('path')} is not at hand"
        try:
            data = self._val(_without_votes(settings) | {"exclude": None}).at(settings["image_size"])
        except FerError as error:
            return str(error)
        changed = data.faces.fingerprint() != dataset.get("fingerprint")
        return f"{dataset.get('path')} has other contents than at the training" if changed else ""

    @property
    def shared(self) -> bool:
        """Whether all were chosen on the same val."""
        return all(same_split(member.trained_with, self.members[0].trained_with) for member in self.members)

    def seen(self, image_size: int) -> set[bytes]:
        """Return the hashes of all training faces' pixels at a size, of what the networks began from too.

        Raises:
            FerError: they cannot be told any more.
        """
        found: set[bytes] = set()
        datasets: list[Dataset] = []
        for member in self.members:
            for dataset in member.model.provenance.datasets:
                if dataset not in datasets:
                    datasets.append(dataset)
                    found |= self._trained_on(dataset, image_size)
        return found

    def _trained_on(self, dataset: Dataset, image_size: int) -> set[bytes]:
        if why := self._gone(dataset):
            raise FerError(why)
        settings = _without_votes(whole(dataset))
        data = self._val(settings).at(image_size)
        if (data.excluded or {}).get("rows_sha256") != (dataset.get("excluded") or {}).get("rows_sha256"):
            raise FerError(f"{settings['exclude']} leaves out other faces than at the training")
        return data.hashes("train")

    def hashes(self, split: str, image_size: int) -> set[bytes]:
        """Return the hashes of a split's pixels at a size, of all networks; empty where there is no such split."""
        found: set[bytes] = set()
        asked: list[dict[str, Any]] = []
        for member in self.members:
            settings = _without_votes(member.trained_with) | {"exclude": None}
            if settings not in asked and present(settings):
                asked.append(settings)
                try:
                    found |= self._val(settings).at(image_size).hashes(split)
                except FerError:  # no test split, or data that cannot be read as they were: ``missing`` tells
                    continue
        return found

    def val(self, asked: Asked, given: Sequence[Given]) -> tuple[Tensor, Tensor, NDArray[np.bool_] | None]:
        """Return probabilities (M, N, C) of val by the networks given, its labels, and (N,) those not trained on.

        Raises:
            FerError: predictions that are to stand for a network are of another val, or there are none of it.
        """
        first = self.members[0]
        faces = self._val(_without_votes(first.trained_with) | {"exclude": None})
        for one in given:
            if isinstance(one, PredictionsMember):
                one.refuse_other_val(asked.views)
        predicted = faces.predicted(given, asked)
        dataset = faces.at(first.model.image_size).datasets["val"]
        return predicted, dataset.targets, self.unseen(dataset.images[:, 0].numpy())

    def unseen(self, images: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
        """Return (N,) whether a face was not trained on; None where that cannot be told."""
        try:
            return without_twin(images, self.seen(images.shape[-1]))
        except FerError:
            return None


def _without_votes(settings: dict[str, Any]) -> dict[str, Any]:
    """Return data settings without votes that label nothing, which may have been moved since."""
    return settings if settings["labels"] == "ferplus" else settings | {"votes": None}


def overlap(images: NDArray[np.uint8], known: set[bytes]) -> int:
    """Return how many of the faces are among those known."""
    return sum(name in known for name in digests(images))


def is_a_look(images: NDArray[np.uint8], test: set[bytes]) -> bool:
    """Return whether scoring faces has opened the test split whose pixels are known, whatever it is called."""
    return bool(test) and len(set(digests(images)) & test) > A_LOOK * len(test)
