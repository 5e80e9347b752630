"""Leakage: which faces networks were trained and chosen on, found by their pixels.

A face counts as seen if its pixels were in a network's training, or in a training that its weights began from. So
neither another split of the same data nor a copy under another name can pass for new faces. For the same reason,
scoring the pixels of the training's test split counts as test access, whatever the split is called. The tables of the
trainings are opened again where they still exist. Faces of another table are also compared by content with FER2013's
training faces, where a network was trained on these. Size and compression change pixels, but not what they show.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.data.duplicates import digests, without_duplicate
from fer.data.known_faces import copies_of_training
from fer.data.locate import VARIABLE, locate
from fer.data.table import Table
from fer.evaluation.request import (
    OF_SETS,
    DataKeys,
    EnsembleMember,
    FacesBySize,
    Member,
    PredictionsMember,
    Request,
    Tables,
    further,
    is_at_hand,
    paths,
    present,
    same_split,
    whole,
)
from fer.metrics.arrays import Array, like
from fer.metrics.results import DatasetRecord
from fer.runs.provenance import Dataset

log = logging.getLogger(__name__)

MOST_OF_TRAINING = 20_000  # faces; FER+ labels, or an audit, may leave out some of the 28,709
MANY = 0.5  # of the faces: a network that has seen more was trained on them, and shows how well it remembers
TEST_ACCESS = 0.05  # of the test faces: scoring more is no accident of duplicates


@dataclass
class TrainingData:
    """The faces that networks were trained and chosen on.

    Args:
        members: the networks.
        tables: of the evaluation.
    """

    members: Sequence[Member]
    tables: Tables

    # --- val, which chose -------------------------------------------------------------------------------------------

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
            return f"{dataset.get('path')} was not found; put it back, or set ${VARIABLE} to where it is now"
        try:
            data = self._val(settings).at(settings["image_size"])
        except FerError as error:
            return str(error)
        changed = data.faces.fingerprint() != dataset.get("fingerprint")
        return f"{dataset.get('path')} has other contents than at the training" if changed else ""

    def _val(self, settings: DataKeys) -> FacesBySize:
        """Return val of data settings; ``exclude`` concerns train alone."""
        return FacesBySize({**_without_votes(settings), "exclude": None}, "val", self.tables)

    @property
    def shared(self) -> bool:
        """Whether all networks were chosen on the same val."""
        return all(same_split(member.trained_with, self.members[0].trained_with) for member in self.members)

    def val(self, request: Request, given: Sequence[EnsembleMember]) -> tuple[Array, Array, NDArray[np.bool_] | None]:
        """Return the networks' probabilities (M, N, C) of val, its labels, and (N,) which faces were not trained on.

        Raises:
            FerError: predictions that replace a network are of another val, or there are none of val.
        """
        first = self.members[0]
        faces = self._val(first.trained_with)
        for network in given:
            if isinstance(network, PredictionsMember):
                network.refuse_other_val(request.views)
        predicted = faces.predicted(given, request)
        val = faces.at(first.model.image_size).split("val")
        return predicted, like(predicted, val.targets), self.unseen(val.grey)

    # --- pixels -----------------------------------------------------------------------------------------------------

    def trained_on(self, image_size: int) -> set[bytes]:
        """Return the hashes of all training faces' pixels at a size, those of the networks' ancestors included.

        Raises:
            FerError: the data of a training are gone or changed.
        """
        return set[bytes]().union(*(self._trained_on(dataset, image_size) for dataset in self.datasets))

    @property
    def datasets(self) -> list[Dataset]:
        """The different data of the trainings, those of the networks' ancestors included."""
        listed: list[Dataset] = []
        for member in self.members:
            listed += [dataset for dataset in member.model.provenance.datasets if dataset not in listed]
        return listed

    def _trained_on(self, dataset: Dataset, image_size: int) -> set[bytes]:
        if why := self._gone(dataset):
            raise FerError(why)
        settings = _without_votes(whole(dataset))
        data = FacesBySize(settings, "val", self.tables).at(image_size)
        rows = data.excluded.rows_sha256 if data.excluded else None
        if rows != (dataset.get("excluded") or {}).get("rows_sha256"):
            raise FerError(f"{settings['exclude']} leaves out other faces than at the training")
        return data.hashes("train")

    def unseen(self, images: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
        """Return (N,) whether a face was not trained on; None where that is not known."""
        try:
            return without_duplicate(images, self.trained_on(images.shape[-1]))
        except FerError:
            return None

    def hashes(self, split: str, image_size: int) -> set[bytes]:
        """Return the hashes of a split's pixels at a size, of all networks; empty where there is no such split."""
        return set[bytes]().union(*self.hashes_of_sets(split, image_size))

    def hashes_of_sets(self, split: str, image_size: int) -> list[set[bytes]]:
        """Return the hashes of a split's pixels at a size, of each data set of each network."""
        hashes: list[set[bytes]] = []
        opened: list[DataKeys] = []
        for member in self.members:
            settings = member.trained_with
            if settings in opened or not present(settings):
                continue
            opened.append(settings)
            try:
                hashes += self._val(settings).at(image_size).hashes_of_sets(split)
            except FerError:  # no such split, or other data than at the training: ``missing`` says which
                continue
        return hashes

    def is_test(self, images: NDArray[np.uint8]) -> bool:
        """Return whether scoring these faces opens the networks' test split, under whatever name."""
        names, tests = set(digests(images)), self.hashes_of_sets("test", images.shape[-1])
        return any(len(names & test) > TEST_ACCESS * len(test) for test in tests)


def _without_votes(settings: DataKeys) -> DataKeys:
    """Return data settings without votes that label nothing, which may have been moved since."""
    return settings if settings["labels"] == "ferplus" else {**settings, "votes": None}


def overlap(images: NDArray[np.uint8], known: set[bytes]) -> int:
    """Return how many of the faces are among the known ones."""
    return sum(name in known for name in digests(images))


def not_trained_on(
    training: TrainingData, images: NDArray[np.uint8], copies: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_] | None:
    """Return (N,) which faces no network was trained on; None, with a warning, if that is unknown.

    Args:
        training: of the networks.
        images: (N, S, S).
        copies: (N,) the faces whose content is that of a training face, see ``copies_by_content``.
    """
    try:
        kept = known_unseen(training, images, copies)
    except FerError as error:
        log.warning("no clean metrics: %s", error)
        return None
    if (~kept).sum() > MANY * len(kept):
        log.warning(
            "%s of these %s faces were trained on: the metrics show how well they are remembered",
            f"{(~kept).sum():,}", f"{len(kept):,}",
        )  # fmt: skip
    return kept


def known_unseen(
    training: TrainingData, images: NDArray[np.uint8], copies: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Return (N,) which faces no network was trained on; arguments as of ``not_trained_on``.

    Raises:
        FerError: that is unknown, since the data of a training are gone or changed.
    """
    try:
        kept = without_duplicate(images, training.trained_on(images.shape[-1]))
    except FerError:
        if copies is None or not all(on_fer2013(dataset) and not dataset.get("sets") for dataset in training.datasets):
            raise
        kept = np.ones(len(images), np.bool_)
    return kept if copies is None else kept & ~copies


def on_fer2013(dataset: Dataset) -> bool:
    """Return whether a training was on FER2013's Training, or on most of it, or had it among several data sets."""
    if dataset.get("sets"):
        return any(on_fer2013(part) for part in dataset["sets"])
    faces = sum((dataset.get("counts", {}).get("train") or {}).values())
    return (dataset.get("name"), dataset.get("split")) == ("fer2013", "official") and faces >= MOST_OF_TRAINING


def copies_by_content(training: TrainingData, images: NDArray[np.uint8], fingerprint: str) -> NDArray[np.bool_] | None:
    """Return (N,) which faces are copies of FER2013's training faces by their content.

    None where no network was trained on these, or where the faces are of its table, whose pixels are compared.

    Args:
        training: of the networks.
        images: (N, S, S).
        fingerprint: of the table of the faces.
    """
    compared = [dataset for dataset in training.datasets if fingerprint not in fingerprints(dataset)]
    return copies_of_training(images) if any(on_fer2013(dataset) for dataset in compared) else None


def fingerprints(dataset: Dataset) -> list[str]:
    """Return the fingerprints of a training's data, and of each of several data sets."""
    return [str(part.get("fingerprint")) for part in (dataset, *(dataset.get("sets") or ()))]


def known_of_all(
    kept: NDArray[np.bool_] | None, request: Request, given: Sequence[EnsembleMember], described: DatasetRecord
) -> NDArray[np.bool_] | None:
    """Return (N,) which faces no network was trained on; None where predictions without weights leave that open.

    A network without weights counts as trained on the same faces as the others if its metrics say so. They have to be
    of the same data, and to state the same number of faces seen in training.

    Args:
        kept: (N,) which faces those with weights were not trained on; None where that is not known.
        request: what is evaluated.
        given: the networks.
        described: the data.
    """
    if kept is None:
        return None
    expected = (described.fingerprint, int((~kept).sum()))
    for network in given:
        if isinstance(network, Member):
            continue
        stated = network.results(request)
        if (stated.dataset.fingerprint, stated.seen_in_training) != expected:
            log.warning("no clean metrics: which of these faces %s was trained on is not known", network.file)
            return None
    return kept


def use_data_at_hand(members: Sequence[Member], data: Table) -> None:
    """Take these data for the training data of networks whose own have moved, if the contents are the same.

    A shared network knows its data by name and contents alone.
    """
    at_hand = {data.faces.fingerprint(): str(data.data.path)}
    if data.sets is not None:
        at_hand = dict(zip(data.sets.fingerprints, paths(asdict(data.data)), strict=True))

    def found(dataset: Dataset) -> Dataset:
        return dataset if present(whole(dataset)) else _moved(dataset, at_hand)

    for member in members:
        made = member.model.provenance
        ancestors = [found(dataset) for dataset in made.ancestors]
        member.model.provenance = replace(made, dataset=found(made.dataset), ancestors=ancestors)


def _moved(dataset: Dataset, at_hand: Mapping[str, str]) -> Dataset:
    """Return a training's data with the paths of those of its data sets that are at hand, fingerprint -> path."""
    settings = whole(dataset)
    before, sets = paths(settings), dataset.get("sets") or [dataset]
    saved = [str(part.get("fingerprint")) for part in sets]
    if len(saved) != len(before) or not at_hand.keys() & saved:
        return dataset
    now = [path if is_at_hand(path) else at_hand.get(known, path) for path, known in zip(before, saved, strict=True)]
    more = [{**asdict(part), "path": path} for part, path in zip(further(settings), now[1:], strict=True)]
    return {**dataset, "settings": {**dataset.get("settings", {}), "path": now[0], "more": more or None}}


def search_moved_data(members: Sequence[Member], tables: Tables) -> None:
    """Let networks whose training data have moved find them where a training would search, see ``fer.data.locate``."""
    moved = [whole(dataset) for member in members for dataset in member.model.provenance.datasets]
    moved = [settings for settings in moved if not present(settings)]
    if not moved:
        return
    try:
        path, _ = locate(None, drawn_faces_allowed=False)
        alone = _without_votes({**moved[0], **OF_SETS, "path": path})
        use_data_at_hand(members, tables.at(alone, moved[0]["image_size"]))
    except FerError:  # there are none, or they are of another kind: what is missing is reported where it is needed
        return
