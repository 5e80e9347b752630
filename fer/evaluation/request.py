"""What is asked to be evaluated: networks, and the faces that they are scored on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fer.config.errors import FerError
from fer.config.schema import build
from fer.config.settings import DataSettings
from fer.data.datamodule import FERDataModule
from fer.data.locate import locate
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.inference import probabilities
from fer.models import EmotionClassifier, checkpoints
from fer.models.provenance import Dataset
from fer.runs import predictions
from fer.runs.predictions import Predictions

# data settings that say nothing of which faces are val and test, and under which labels
BESIDES = ("image_size", "crop", "batch_size", "cache", "exclude", "conflicts", "sampler", "on_bad")
TOLD = ("command", "seed", "epochs", "best_epoch")  # of a training, in its metrics.json
OF_PACKAGE = Path("outputs/pretrained")  # where networks of the package have what a run's folder has of others
OF_VOTES = ("votes", "ferplus_rule", "classes")  # mean something where labels are made of votes


@dataclass(frozen=True)
class Asked:
    """What is to be evaluated, and how.

    Args:
        networks: run folders or checkpoints; several are an ensemble, in which folders of predictions may stand too.
        split: "train", "val", "test", or "all" faces of a data set.
        data: path of other data than those of the training, or None.
        rule: how they are split, if not as in training.
        on_bad: what a bad row or picture does, if not as in training.
        votes: FER+'s file, to be joined by row.
        labels: whose labels to score against, "fer2013" or "ferplus", if not as in training.
        ferplus_rule: how votes become labels, if not as in training.
        views: of each face, a name of ``fer.inference.tta.VIEWS``.
        weights: of an ensemble, "equal" or fitted on "val".
        choose: which of the networks are in the ensemble, and their weights, greedily on val.
        against: run, checkpoint, or folder or file of predictions to compare with.
        error_rate: wanted share of wrong answers, for which to find the least confidence.
        batch_size: faces at a time.
        on_gpu: compute there.
    """

    networks: Sequence[str]
    split: str = "val"
    data: str | None = None
    rule: str | None = None
    on_bad: str | None = None
    votes: str | None = None
    labels: str | None = None
    ferplus_rule: str | None = None
    views: str = "none"
    weights: str = "equal"
    choose: bool = False
    against: str | None = None
    error_rate: float | None = None
    batch_size: int = 128
    on_gpu: bool = False


class Member(NamedTuple):
    """A network and the file that it came from."""

    file: Path
    model: EmotionClassifier

    @property
    def run(self) -> Path:
        """The folder of its run; of a checkpoint outside a run, the checkpoint's; of the package's, one in outputs."""
        if checkpoints.of_package(self.file):
            return OF_PACKAGE / self.file.stem
        folder = self.file.resolve().parent
        return folder.parent if folder.name == "checkpoints" else folder

    @property
    def trained(self) -> dict[str, Any] | None:
        """How it was trained, as its run's ``metrics.json`` tells of the best epoch; None where nothing tells."""
        if self.file.name != "best.ckpt":
            return None
        try:
            told = json.loads((self.run / "metrics.json").read_text(encoding="utf-8"))
            return {key: told[key] for key in TOLD} | {"commit": told.get("commit")}  # which older runs do not tell
        except (OSError, ValueError, LookupError, TypeError):  # a checkpoint may lie anywhere
            return None

    @property
    def trained_with(self) -> dict[str, Any]:
        """The data settings of its training."""
        return whole(self.model.provenance.dataset)


class PredictionsMember(NamedTuple):
    """A network of an ensemble whose predictions alone are at hand.

    Args:
        file: folder of the predictions.
        beside: a network of the same ensemble with its weights, which states data and emotions.
    """

    file: Path
    beside: Member

    def metrics(self, asked: Asked) -> dict[str, Any]:
        """Return what is recorded of it on the faces and views that are asked for.

        Raises:
            FerError: nothing is.
        """
        return predictions.recorded(self.file, asked.split, asked.views).metrics

    def refuse_other_val(self, views: str) -> None:
        """Raise unless its val is that of the network beside it, which was not trained on it.

        Raises:
            FerError: it is another, or nothing is recorded of it with these views.
        """
        dataset = predictions.recorded(self.file, "val", views).metrics["dataset"]
        theirs = self.beside.model.provenance.dataset
        if any(dataset.get(key) != theirs.get(key) for key in ("fingerprint", "split", "labels")):  # rows are compared
            raise FerError(f"{self.file}: its val is of other data or another split than that of {self.beside.file}")

    def probabilities(self, data: FERDataModule, split: str, views: str) -> Tensor:
        """Return its probabilities (N, C) of a split's faces, in their order.

        Raises:
            FerError: it has none of them, or they are of other faces, labels or emotions.
        """
        file = predictions.recorded(self.file, split, views).file
        return of_split(predictions.read(file), str(file), data, split)


Given = Member | PredictionsMember  # of an ensemble


def of_split(said: Predictions, name: str, data: FERDataModule, split: str) -> Tensor:
    """Return the probabilities (N, C) that predictions hold of a split's faces, in their order.

    Args:
        said: predictions, as read.
        name: of their file, for messages.
        data: set up for the split.
        split: its name.

    Raises:
        FerError: they are of other faces.
    """
    index_of = {row: index for index, row in enumerate(said.rows.tolist())}
    rows, targets = data.faces.rows[data.places(split)].tolist(), data.datasets[split].targets.tolist()
    labels = {row: said.targets[index] for row, index in index_of.items()}
    names = dict(enumerate(said.classes))  # which may be fewer than here
    expected = {row: names.get(target) for row, target in zip(rows, targets, strict=True)}
    if labels != expected:
        raise FerError(f"{name}: holds other faces or labels than {split} here; score both on the same")
    return torch.from_numpy(said.probabilities[[index_of[row] for row in rows]]).float()


def with_weights(given: Sequence[Given]) -> list[Member]:
    """Return the networks of an ensemble that have weights; where none has, one that is evaluated beside them."""
    members = [one for one in given if isinstance(one, Member)]
    return members or [one.beside for one in given[:1] if isinstance(one, PredictionsMember)]


def whole(dataset: Dataset) -> dict[str, Any]:
    """Return the data settings of a training that a checkpoint tells of; an older one did what is the default now."""
    return asdict(DataSettings()) | dict(dataset.get("settings", {}))


def same_split(settings: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two data settings mean the same faces of the same table in the same splits, labelled alike."""
    besides = {*BESIDES, *(() if "ferplus" in (settings["labels"], other["labels"]) else OF_VOTES)}
    return all(settings[key] == other[key] for key in settings.keys() - besides)


def members_of(networks: Sequence[str]) -> list[Member]:
    """Return the networks of run folders or checkpoints.

    Raises:
        FerError: one is bad or given twice, or they name different emotions.
    """
    members: list[Member] = []
    for network in networks:
        file = checkpoints.find(network)
        if any(file.resolve() == member.file.resolve() for member in members):
            raise FerError(f"{network}: given twice; name each network once")
        members.append(Member(file, checkpoints.load(file)))
    first = list(members[0].model.hparams["classes"])
    for member in members[1:]:
        if list(member.model.hparams["classes"]) != first:
            theirs = ", ".join(member.model.hparams["classes"])
            raise FerError(f"{member.file}: tells {theirs}; {members[0].file} tells {', '.join(first)}: no ensemble")
    return members


def given_of(networks: Sequence[str]) -> list[Given]:
    """Return the networks of run folders and checkpoints, and after them those of folders of predictions.

    Raises:
        FerError: as in ``members_of``; or none has weights, and so none states which faces to score.
    """
    folders = [Path(name).expanduser() for name in networks if predictions.holds_predictions(Path(name).expanduser())]
    others = [name for name in networks if Path(name).expanduser() not in folders]
    if not others:
        raise FerError(f"{folders[0]}: holds predictions without weights; name a run or checkpoint beside it")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise FerError("a folder of predictions is given twice; name each network once")
    members = members_of(others)
    return [*members, *(PredictionsMember(folder, members[0]) for folder in folders)]


@dataclass
class Faces:
    """The same faces at the size that each network takes.

    Args:
        settings: of the data, as plain values without the size.
        split: which are meant.
        batch_size: faces at a time.
    """

    settings: dict[str, Any]
    split: str
    batch_size: int
    _sizes: dict[int, FERDataModule] = field(default_factory=dict)

    def at(self, image_size: int) -> FERDataModule:
        """Return them at a size in pixels, their split laid in memory.

        Raises:
            FerError: the data are missing or bad, or have no such split.
        """
        if image_size not in self._sizes:
            wanted = self.settings | {"image_size": image_size, "batch_size": self.batch_size, "cache": "auto"}
            data = FERDataModule(build(DataSettings, wanted, "the checkpoint's data settings"))
            data.lay(self.split)
            self._sizes[image_size] = data
        return self._sizes[image_size]

    def predicted(self, given: Sequence[Given], asked: Asked) -> Tensor:
        """Return the probabilities of each network, (M, N, C).

        Raises:
            FerError: predictions that are to stand for a network are missing, damaged, or of other faces or emotions.
        """
        parts = [
            self._scored(one, asked) if isinstance(one, Member) else self._recorded(one, asked.views) for one in given
        ]
        return torch.stack(parts)

    def _scored(self, member: Member, asked: Asked) -> Tensor:
        return probabilities.probabilities(
            member.model, self.at(member.model.image_size).datasets[self.split], batch_size=self.batch_size,
            device=torch.device("cuda" if asked.on_gpu else "cpu"), views=asked.views,
        )  # fmt: skip

    def _recorded(self, member: PredictionsMember, views: str) -> Tensor:
        network = member.beside.model
        found = member.probabilities(self.at(network.image_size), self.split, views)
        if found.shape[1] != network.num_classes:
            counts = f"{found.shape[1]} emotions, {member.beside.file} predicts {network.num_classes}"
            raise FerError(f"{member.file}: predicts {counts}")
        return found


def settings_of(asked: Asked, members: Sequence[Member]) -> dict[str, Any]:
    """Return the data settings of the training, with what was asked for instead.

    Raises:
        FerError: the data are not found (drawn faces never stand in), or the networks were trained on different ones.
    """
    known = members[0].trained_with
    for member in members[1:]:
        if asked.data is None and not same_split(member.trained_with, known):
            raise FerError(
                f"{member.file}: was trained on other data or another split than {members[0].file}; name the data to "
                f"score all of them on with --data (what each was trained on is counted)"
            )
    if asked.data is not None:
        known |= {"votes": None, "labels": "fer2013", "classes": 7}
        known["path"], _ = locate(asked.data, drawn_faces_allowed=False)
    elif not present(known):
        raise FerError(f"trained on {known.get('path')}, which is not at hand; name the data with --data")
    told = {
        "split": asked.rule,
        "on_bad": asked.on_bad,
        "votes": asked.votes,
        "labels": asked.labels,
        "ferplus_rule": asked.ferplus_rule,
    }
    known |= {key: value for key, value in told.items() if value is not None} | {"exclude": None}  # of train alone
    if asked.ferplus_rule is not None and known["labels"] != "ferplus":
        raise FerError(f"--ferplus-rule {asked.ferplus_rule}: makes labels of votes; add --labels ferplus and --votes")
    known["classes"] = members[0].model.num_classes if known["labels"] == "ferplus" else 7
    return known


def find_again(members: Sequence[Member], data: FERDataModule) -> None:
    """Let networks whose training data are not where they were have been trained on these, if they are the same.

    A shared network knows its data by name and contents alone.
    """

    def found(dataset: Dataset) -> Dataset:
        if present(whole(dataset)) or dataset.get("fingerprint") != data.faces.fingerprint():
            return dataset
        return {**dataset, "settings": {**dataset.get("settings", {}), "path": data.data.path}}

    for member in members:
        made = member.model.provenance
        ancestors = [found(dataset) for dataset in made.ancestors]
        member.model.provenance = replace(made, dataset=found(made.dataset), ancestors=ancestors)


def present(settings: dict[str, Any]) -> bool:
    """Return whether the data that settings name are there."""
    return settings.get("path") == SYNTHETIC or Path(str(settings.get("path"))).exists()
