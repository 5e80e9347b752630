"""Networks scored on a split: which faces, what is chosen on val, what is told of them.

One network or several (the weighted mean of their probabilities), any split of any data set, one view of a face or
several. Whatever has to be chosen (weights, temperature, the confidence from which to answer) is chosen on the val
split of the training, never on the faces that are scored. What the networks have seen in training is counted.
"""

import csv
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fer import checkpoints, machine, measures, scoring
from fer.arguments import build
from fer.calibration import Threshold, at_threshold, fitted_temperature, tempered, threshold_for
from fer.data.crowd import agreement
from fer.data.datamodule import FERDataModule
from fer.data.locate import locate
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.data.twins import without_twin
from fer.ensemble import equal_weights, fitted_weights, mixed
from fer.errors import FerError
from fer.models import EmotionClassifier
from fer.reports.run import Scored
from fer.results import new_folder, read_list, write_json
from fer.settings import DataSettings
from fer.significance import wilson

log = logging.getLogger(__name__)

ENSEMBLES = Path("outputs/ensembles")
OPENED = "test_opened.json"  # in a run's folder: when its test split was looked at
OF_SERVING = ("image_size", "batch_size", "cache")  # data settings that say nothing of which faces
MANY = 0.5  # share of the faces from which on having been trained on them is no accident


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
        """The folder of its run; of a checkpoint outside a run, the checkpoint's."""
        folder = self.file.resolve().parent
        return folder.parent if folder.name == "checkpoints" else folder

    @property
    def trained_with(self) -> dict[str, Any]:
        """The data settings of its training but for the size of the faces and what was left out of train."""
        known = asdict(DataSettings()) | self.model.dataset.get("settings", {})
        return {key: value for key, value in known.items() if key not in (*OF_SERVING, "exclude")}

    @property
    def trained_without(self) -> str | None:
        """The list of faces that were left out of train."""
        file: str | None = self.model.dataset.get("settings", {}).get("exclude")
        return file


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


# --- which faces ----------------------------------------------------------------------------------------------------


def settings_of(asked: Asked, members: Sequence[Member]) -> dict[str, Any]:
    """Return the data settings of the training, with what was asked for instead.

    Raises:
        FerError: the data are not found (drawn faces never stand in), or the networks were trained on different ones.
    """
    known = members[0].trained_with
    for member in members[1:]:
        if asked.data is None and member.trained_with != known:
            raise FerError(
                f"{member.file}: was trained on other data or another split than {members[0].file}; name the data to "
                f"score all of them on with --data (what each was trained on is counted)"
            )
    if asked.data is not None:
        known |= {"votes": None, "labels": "fer2013", "classes": 7}
        known["path"], _ = locate(asked.data, drawn_faces_allowed=False)
    elif not present(known):
        raise FerError(f"trained on {known.get('path')}, which is not there any more; name the data with --data")
    told = {
        "split": asked.rule,
        "on_bad": asked.on_bad,
        "votes": asked.votes,
        "labels": asked.labels,
        "ferplus_rule": asked.ferplus_rule,
    }
    known |= {key: value for key, value in told.items() if value is not None}
    known["classes"] = members[0].model.num_classes if known["labels"] == "ferplus" else 7
    return known


def same_split(settings: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two settings mean the same faces in the same splits; votes that label nothing do not count."""
    besides = {"path", "on_bad", "sampler", *(() if "ferplus" in (settings["labels"], other["labels"]) else ("votes",))}
    return all(settings[key] == other[key] for key in settings.keys() - besides)


def present(settings: dict[str, Any]) -> bool:
    """Return whether the data that settings name are there."""
    return settings.get("path") == SYNTHETIC or Path(str(settings.get("path"))).exists()


# --- what the networks have seen ------------------------------------------------------------------------------------


@dataclass
class Training:
    """What networks were trained and chosen on, read where it is still there.

    Args:
        members: the networks.
        batch_size: faces at a time.
    """

    members: Sequence[Member]
    batch_size: int

    @cached_property
    def missing(self) -> str:
        """Why the training data cannot be read as they were; empty where they can."""
        for member in self.members:
            if not present(member.trained_with):
                return f"{member.model.dataset.get('path')} is not there any more"
            data = self._data(member, "val", member.model.image_size)
            if data.faces.fingerprint() != member.model.dataset.get("fingerprint"):
                return f"{member.model.dataset.get('path')} has other contents than at the training"
        return ""

    def _data(self, member: Member, split: str, image_size: int) -> FERDataModule:
        return Faces(member.trained_with, split, self.batch_size).at(image_size)

    def seen(self, image_size: int) -> set[bytes]:
        """Return the hashes of all training faces' pixels, at a size.

        Raises:
            FerError: they cannot be told any more.
        """
        if self.missing:
            raise FerError(self.missing)
        found: set[bytes] = set()
        told: list[dict[str, Any]] = []
        for member in self.members:
            settings = member.trained_with | {"exclude": member.trained_without}
            if settings not in told:
                told.append(settings)
                data = Faces(settings, "val", self.batch_size).at(image_size)
                if (data.excluded or {}).get("rows_sha256") != _left_out(member):
                    raise FerError(f"{member.trained_without} leaves out other faces than at the training")
                found |= data.trained_on()
        return found

    @property
    def shared(self) -> bool:
        """Whether all were chosen on the same val."""
        return all(member.trained_with == self.members[0].trained_with for member in self.members)

    def val(self, asked: Asked) -> tuple[Tensor, Tensor]:
        """Return the networks' probabilities (M, N, C) of val, and its labels (N,)."""
        faces = Faces(self.members[0].trained_with, "val", self.batch_size)
        predicted = faces.predicted(self.members, asked)
        return predicted, faces.at(self.members[0].model.image_size).datasets["val"].targets


def _left_out(member: Member) -> str | None:
    """Return the digest of the rows that were left out of a network's training; None where none were."""
    digest: str | None = (member.model.dataset.get("excluded") or {}).get("rows_sha256")
    return digest


# --- what is chosen on val ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """What val has decided.

    Args:
        weights: (M,) of the networks.
        temperature: None where val could not be had.
        fitted_on: the faces that it was fitted on, in words.
        threshold: for the wanted error rate; None where none was asked for or none can promise it.
    """

    weights: Tensor
    temperature: float | None
    fitted_on: str
    threshold: Threshold | None = None


def chosen(asked: Asked, members: Sequence[Member], training: Training, scored: tuple[Tensor, Tensor] | None) -> Chosen:
    """Return weights, temperature and threshold.

    Args:
        asked: what is to be evaluated.
        members: the networks.
        training: what they were trained on.
        scored: probabilities (M, N, C) and labels of val where val itself is scored, else None.

    Raises:
        FerError: val is needed and cannot be had.
    """
    alone = len(members) == 1 and asked.views == "none"
    needed = asked.weights == "val" or asked.error_rate is not None
    sealed = members[0].model.temperature
    if alone and sealed is not None and not needed:
        return Chosen(equal_weights(1), sealed, "val" if scored is None else "these faces")
    if scored is None:
        why = training.missing or ("" if training.shared else "the networks were chosen on different val faces")
        if why and needed:
            raise FerError(f"--weights val and --error-rate choose on the val split of the training, but {why}")
        if why:
            log.warning("no temperature: %s", why)
            return Chosen(equal_weights(len(members)), sealed if alone else None, "val" if alone and sealed else "")
        predicted, targets = training.val(asked)
    else:
        predicted, targets = scored
    weights = fitted_weights(predicted, targets) if asked.weights == "val" else equal_weights(len(members))
    chances, labels = mixed(predicted, weights).numpy(), targets.numpy()
    temperature = sealed if alone and sealed is not None else fitted_temperature(chances, labels)
    threshold = None
    if asked.error_rate is not None:
        threshold = threshold_for(asked.error_rate, tempered(chances, temperature), labels)
    return Chosen(weights, temperature, "val" if scored is None else "these faces", threshold)


def answering(chosen: Chosen, wanted: float, scored: Scored) -> dict[str, Any]:
    """Return what answering only above the chosen confidence does to these faces, as plain values."""
    if chosen.threshold is None or chosen.temperature is None:
        return {"wanted_error": wanted, "threshold": None}
    found = chosen.threshold
    answered, wrong = at_threshold(found.confidence, tempered(scored.probabilities, chosen.temperature), scored.targets)
    return {
        "wanted_error": wanted,
        "threshold": found.confidence,
        "chosen_on": chosen.fitted_on,
        "coverage_there": found.coverage,
        "error_there": found.error,
        "bound_there": found.bound,
        "coverage": answered / len(scored.targets),
        "error": wrong / answered if answered else None,
        "error_ci95": wilson(wrong, answered),
    }


# --- the evaluation -------------------------------------------------------------------------------------------------


def evaluate(asked: Asked, out: Path | None, command: str) -> tuple[dict[str, Any], Scored, Path]:
    """Score, write ``metrics.json`` and ``predictions.csv``, and return the figures, the faces and the folder.

    Args:
        asked: what is to be evaluated, and how.
        out: folder for the results; None is the run's own, or ``outputs/ensembles``.
        command: the command line, for the record.

    Raises:
        FerError: a bad checkpoint; data that are missing, bad or without the split; a choice that cannot be made.
    """
    members = members_of(asked.networks)
    size, classes = members[0].model.image_size, list(members[0].model.hparams["classes"])
    faces = Faces(settings_of(asked, members), asked.split, asked.batch_size)
    data = faces.at(size)
    described = data.describe(asked.split)
    check_classes(members[0], data)
    own = described["fingerprint"] == members[0].model.dataset.get("fingerprint")
    _announce(asked, members, described, own)
    training = Training(members, asked.batch_size)
    rival = Rival.of(asked, faces, data)
    predicted, targets = faces.predicted(members, asked), data.datasets[asked.split].targets
    on_val = own and asked.split == "val" and same_split(faces.settings, members[0].trained_with)
    choice = chosen(asked, members, training, (predicted, targets) if on_val else None)
    together = mixed(predicted, choice.weights)
    folder = results_folder(out, members, asked)
    results, scored = scoring.score_split(together, data, asked.split, folder, classes, choice.temperature)
    results |= {
        "temperature_fitted_on": choice.fitted_on or None,
        **what_was_seen(training, together, targets, data, asked.split, classes),
        **({} if asked.error_rate is None else {"answering": answering(choice, asked.error_rate, scored)}),
        **({} if rival is None else {"against": rival.compared(together, targets)}),
        **agreement_with_votes(data, asked.split, targets, together),
        **_about(asked, members, choice),
        "dataset": described,
        **machine.provenance(),
        "command": command,
    }
    if asked.split == "test":
        results["test_opened"] = max(opened(member, results) for member in members)
    write_json(folder / "metrics.json", results)
    return results, scored, folder


def check_classes(member: Member, data: FERDataModule) -> None:
    """Raise unless the emotions of the labels are those that a network tells, or the first of them.

    Raises:
        FerError: naming both.
    """
    told, labelled = list(member.model.hparams["classes"]), list(data.faces.classes)
    if told[: len(labelled)] != labelled:
        raise FerError(
            f"{member.file}: tells {', '.join(told)}; the labels of {data.data.path} are {', '.join(labelled)}"
        )


def agreement_with_votes(data: FERDataModule, split: str, targets: Tensor, predicted: Tensor) -> dict[str, Any]:
    """Return how labels and network agree with the annotators of FER+, where their votes are known."""
    if data.faces.votes is None:
        return {}
    votes = data.faces.votes[data.places(split)]
    answers = predicted.argmax(1).numpy()
    return {"crowd": agreement(votes, targets.numpy(), answers, predicted.shape[1])}


def _announce(asked: Asked, members: Sequence[Member], described: dict[str, Any], own: bool) -> None:
    if not own:
        trained = members[0].model.dataset.get("path")
        log.warning("these are not the data of the training: %s, trained on %s", described["path"], trained)
    for member in members:
        log.info("network: %s from %s", member.model.architecture, member.file)
    log.info("data:    %s, split %s: %s", described["path"], described["split"], asked.split)


def _about(asked: Asked, members: Sequence[Member], choice: Chosen) -> dict[str, Any]:
    """Return what was evaluated, as plain values."""
    begun = [member.model.pretrained for member in members if member.model.pretrained]
    names = ("name", "file", "sha256")
    together = {name: ", ".join(dict.fromkeys(str(one[name]) for one in begun)) for name in names}
    first = members[0]
    return {
        "architecture": " + ".join(dict.fromkeys(member.model.architecture for member in members)),
        "parameters": sum(parameter.numel() for member in members for parameter in member.model.parameters()),
        "pretrained": together if begun else None,
        "tta": asked.views,
        "checkpoint": str(first.file) if len(members) == 1 else f"{len(members)} networks",
        "members": [
            {"checkpoint": str(member.file), "architecture": member.model.architecture, "weight": float(weight)}
            for member, weight in zip(members, choice.weights, strict=True)
        ],
        "weights": asked.weights if len(members) > 1 else None,
    }


def what_was_seen(
    training: Training, predicted: Tensor, targets: Tensor, data: FERDataModule, split: str, classes: Sequence[str]
) -> dict[str, Any]:
    """Return how many of the faces are among those trained on, pixel for pixel, and the figures over the others."""
    try:
        known = training.seen(data.data.image_size)
    except FerError as error:
        log.warning("no clean figures: %s", error)
        return {"seen_in_training": None, "clean": None}
    kept = without_twin(data.datasets[split].images[:, 0].numpy(), known)
    seen = int((~kept).sum())
    if seen > MANY * len(kept):
        log.warning(
            "%s of these %s faces were trained on: the figures tell how well they are remembered",
            f"{seen:,}", f"{len(kept):,}",
        )  # fmt: skip
    return {"seen_in_training": seen, "clean": scoring.clean(predicted, targets, kept, classes)}


def results_folder(out: Path | None, members: Sequence[Member], asked: Asked) -> Path:
    """Make and return the folder for the results; no earlier one is overwritten."""
    name = asked.split + ("" if asked.views == "none" else f"_{asked.views}")
    if out is not None:
        return new_folder(out, name)
    if len(members) == 1:
        return new_folder(members[0].run / "evaluations", name)
    return new_folder(ENSEMBLES / f"{datetime.now():%Y-%m-%d_%H-%M-%S}", name)


def opened(member: Member, results: dict[str, Any]) -> int:
    """Record that a network's test split was looked at, and return how often by now.

    A figure on test is worth most the first time: what is chosen after a look is chosen on test.

    Args:
        member: the network.
        results: of the look.

    Raises:
        FerError: the record is damaged.
    """
    file = member.run / OPENED
    looks = read_list(file) if file.exists() else []
    looks.append(
        {
            "when": results["finished"],
            "data": results["dataset"]["path"] or results["dataset"]["name"],
            "fingerprint": results["dataset"]["fingerprint"],
            "accuracy": results["accuracy"],
            "tta": results["tta"],
            "networks": len(results["members"]),
            "command": results["command"],
        }
    )
    write_json(file, looks)
    return sum(look.get("fingerprint") == results["dataset"]["fingerprint"] for look in looks)


# --- against another ------------------------------------------------------------------------------------------------


class Rival(NamedTuple):
    """Another network's probabilities of the same faces.

    Args:
        name: where they came from.
        probabilities: (N, C).
    """

    name: str
    probabilities: Tensor

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
        if file.suffix == ".csv":
            return cls(str(given), read_predictions(file, data, asked.split))
        members = members_of([asked.against])
        return cls(str(given), faces.predicted(members, asked)[0])

    def compared(self, predicted: Tensor, targets: Tensor) -> dict[str, Any]:
        """Return the differences to it, as plain values."""
        if self.probabilities.shape != predicted.shape:
            raise FerError(
                f"--against {self.name}: tells {self.probabilities.shape[1]} emotions, not {predicted.shape[1]}"
            )
        return {"name": self.name, **measures.paired(predicted, self.probabilities, targets)}


def read_predictions(file: Path, data: FERDataModule, split: str) -> Tensor:
    """Return the probabilities (N, C) that a ``predictions.csv`` holds of a split's faces, in their order.

    Raises:
        FerError: it is missing, damaged, or of other faces.
    """
    if not file.is_file():
        raise FerError(f"--against {file}: no such file; name a run, a checkpoint or an evaluation's folder")
    try:
        with open(file, newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
        columns = [name for name in lines[0] if name.startswith("p_")]
        table = {int(line["row"]): [float(line[name]) for name in columns] for line in lines}
        labels = {int(line["row"]): line["target"] for line in lines}
    except (OSError, ValueError, LookupError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise FerError(f"--against {file}: no predictions of fer ({error})") from error
    rows = data.faces.rows[data.places(split)].tolist()
    targets = data.datasets[split].targets.tolist()
    names = [name.removeprefix("p_") for name in columns]
    if set(rows) != set(table) or any(labels[row] != names[target] for row, target in zip(rows, targets, strict=True)):
        raise FerError(f"--against {file}: holds other faces or labels than {split} here; score both on the same")
    return torch.tensor([table[row] for row in rows])
