"""A baseline, compared with the evaluated network on the same faces."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.config.paths import expand_home
from fer.data.table import Table
from fer.evaluation.leakage import TrainingData, copies_by_content, known_unseen, search_moved_data, use_data_at_hand
from fer.evaluation.request import FacesBySize, Member, Request, Tables, members_of, of_split
from fer.metrics import classification
from fer.metrics.arrays import Array, like
from fer.metrics.groups import Groups, of_part
from fer.metrics.results import BaselineComparison, Paired
from fer.runs import predictions

log = logging.getLogger(__name__)


class Baseline(NamedTuple):
    """A baseline's probabilities of the evaluated faces.

    Args:
        name: the run, checkpoint or file that they are from.
        probabilities: (N, C).
        members: the network; none where predictions were read from a file.
        views: of each face, as ``Request.views``; None where a file does not state them.
    """

    name: str
    probabilities: Array
    members: Sequence[Member] = ()
    views: str | None = None

    @classmethod
    def of(cls, request: Request, faces: FacesBySize, data: Table) -> "Baseline | None":
        """Return the requested baseline, predicted with the same views or read from its stored predictions.

        A warning states other views of stored predictions.

        Raises:
            FerError: it is bad, of other faces, or predicts other emotions.
        """
        if request.baseline is None:
            return None
        given = expand_home(request.baseline)
        file = given / "predictions.csv" if given.is_dir() and not predictions.holds_weights(given) else given
        if file.name.endswith((".csv", ".csv.gz")):
            views = predictions.views_of(file)
            if views not in (None, request.views):
                log.warning(
                    "--against %s: its predictions were made with --tta %s, those of the evaluated network with --tta "
                    "%s, so that the difference is one of views too",
                    given, views, request.views,
                )  # fmt: skip
            return cls(str(given), read_predictions(file, data, request.split), views=views)
        members = members_of([request.baseline])
        channels = members[0].model.in_channels
        if channels != data.data.channels:
            raise FerError(
                f"--against {given}: takes {channels} channels of a face, the evaluated network {data.data.channels}; "
                "name a network that takes as many"
            )
        use_data_at_hand(members, data)
        search_moved_data(members, faces.tables)
        return cls(str(given), faces.predicted(members, request)[0], members, request.views)

    def besides(self, evaluated: Sequence[Member]) -> list[Member]:
        """Return its networks that are not evaluated themselves."""
        files = {member.file.resolve() for member in evaluated}
        return [member for member in self.members if member.file.resolve() not in files]

    def accuracy(self, targets: NDArray[np.integer[Any]]) -> float:
        """Return its accuracy on the evaluated faces, labels (N,)."""
        return float((np.asarray(self.probabilities).argmax(1) == targets).mean())

    def compared(
        self,
        predicted: Array,
        targets: Array,
        images: NDArray[np.uint8],
        kept: NDArray[np.bool_] | None,
        fingerprint: str,
        tables: Tables,
        groups: Groups | None,
    ) -> BaselineComparison:
        """Return the differences to it; ``clean`` are those on faces that neither network was trained on.

        Args:
            predicted: (N, C) probabilities of the evaluated network.
            targets: (N,) labels.
            images: (N, S, S) faces.
            kept: (N,) True for faces that the network was not trained on; None where that is not known.
            fingerprint: of the table of the faces.
            tables: of the evaluation.
            groups: of the faces.

        Raises:
            FerError: the baseline predicts other emotions.
        """
        if self.probabilities.shape != predicted.shape:
            counts = f"{self.probabilities.shape[1]} emotions, not {predicted.shape[1]}"
            raise FerError(f"--against {self.name}: predicts {counts}")
        unseen = self._unseen(images, fingerprint, tables) if self.members else None
        both = None if kept is None or unseen is None else kept & unseen
        return BaselineComparison(
            name=self.name,
            tta=self.views,
            seen_by_it=None if unseen is None else int((~unseen).sum()),
            paired=self._paired(predicted, targets, groups),
            clean=None if both is None or not both.any() else self._paired(predicted, targets, groups, both),
        )

    def _unseen(self, images: NDArray[np.uint8], fingerprint: str, tables: Tables) -> NDArray[np.bool_] | None:
        """Return (N,) which faces it was not trained on; None, with a warning, if that is unknown."""
        training = TrainingData(self.members, tables)
        try:
            return known_unseen(training, images, copies_by_content(training, images, fingerprint))
        except FerError as error:
            log.warning("--against %s: no clean differences: %s", self.name, error)
            return None

    def _paired(
        self, predicted: Array, targets: Array, groups: Groups | None, kept: NDArray[np.bool_] | None = None
    ) -> Paired:
        """Return the differences on all N faces, or on those kept, (N,)."""
        own = like(predicted, self.probabilities)
        if kept is None:
            return classification.paired(predicted, own, targets, groups)
        chosen = like(predicted, kept)
        return classification.paired(predicted[chosen], own[chosen], targets[chosen], of_part(groups, kept))


def read_predictions(file: Path, data: Table, split: str) -> NDArray[np.float32]:
    """Return the probabilities (N, C) of a split's faces from a ``predictions.csv``, in the order of the faces.

    Raises:
        FerError: it is missing, damaged, or of other faces.
    """
    if not file.is_file():
        raise FerError(f"--against {file}: no such file; name a run, a checkpoint or an evaluation's folder")
    try:
        stored = predictions.read(file)
    except FerError as error:
        raise FerError(f"--against {error}; name the predictions.csv of a run or an evaluation") from error
    return of_split(stored, f"--against {file}", data, split)
