"""What is asked to be evaluated: networks, and the faces that they are scored on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fer import checkpoints, scoring
from fer.arguments import build
from fer.data.datamodule import FERDataModule
from fer.data.locate import locate
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.errors import FerError
from fer.models import EmotionClassifier
from fer.settings import DataSettings

# data settings that say nothing of which faces are val and test, and under which labels
BESIDES = ("image_size", "crop", "batch_size", "cache", "exclude", "conflicts", "sampler", "on_bad")
TOLD = ("command", "seed", "epochs", "best_epoch")  # of a training, in its metrics.json
OF_PACKAGE = Path("outputs/pretrained")  # where networks of the package have what a run's folder has of others
OF_VOTES = ("votes", "ferplus_rule", "classes")  # mean something where labels are made of votes


@dataclass(frozen=True)
class Asked:
    """What is to be evaluated, and how.

    Args:
        networks: run folders or checkpoints; several are an ensemble.
        split: "train", "val", "test", or "all" faces of a data set.
        data: path of other data than those of the training, or None.
        rule: how they are split, if not as in training.
        on_bad: what a bad row or picture does, if not as in training.
        votes: FER+'s file, to be joined by row.
        labels: whose labels to score against, "fer2013" or "ferplus", if not as in training.
        ferplus_rule: how votes become labels, if not as in training.
        views: of each face, a name of ``fer.views.VIEWS``.
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
        return whole(self.model.dataset)


def whole(dataset: dict[str, Any]) -> dict[str, Any]:
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

    def predicted(self, members: Sequence[Member], asked: Asked) -> Tensor:
        """Return the probabilities of each network, (M, N, C)."""
        device = torch.device("cuda" if asked.on_gpu else "cpu")
        return torch.stack(
            [
                scoring.probabilities(
                    member.model, self.at(member.model.image_size).datasets[self.split],
                    batch_size=self.batch_size, device=device, views=asked.views,
                )
                for member in members
            ]
        )  # fmt: skip


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
    told = [dataset for member in members for dataset in (member.model.dataset, *member.model.ancestors)]
    for dataset in told:
        if not present(whole(dataset)) and dataset.get("fingerprint") == data.faces.fingerprint():
            dataset["settings"] = {**dataset.get("settings", {}), "path": data.data.path}


def present(settings: dict[str, Any]) -> bool:
    """Return whether the data that settings name are there."""
    return settings.get("path") == SYNTHETIC or Path(str(settings.get("path"))).exists()
