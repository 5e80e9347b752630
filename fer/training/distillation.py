"""Distillation (Hinton et al. 2015): a network that learns from other networks.

The predictions of these teachers are soft targets beside the labels. At each step the teachers predict the same
augmented and mixed faces that the student sees. Predictions computed once, for faces that the teachers were trained on,
teach little (Beyer et al. 2022).

A resumed run needs the same teachers: hashes of their files are recorded. Their training data count as training data
of the student, and a teacher that was trained on the student's val faces is refused.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fer.config.errors import FerError
from fer.config.paths import expand_home
from fer.config.settings import ALL_SPLIT_KEYS, SPLIT_KEYS, DataSettings, DistillSettings
from fer.data.datamodule import FERDataModule
from fer.data.dataset import to_unit
from fer.data.transforms.size import middle
from fer.evaluation.leakage import TrainingData, use_data_at_hand
from fer.evaluation.request import Member, Tables
from fer.models import EmotionClassifier, checkpoints
from fer.models.folding import folded
from fer.models.pretrained import sha256_of
from fer.models.trainable import Trainable
from fer.runs.provenance import Dataset
from fer.system.files import read_json

log = logging.getLogger(__name__)


class TeacherFile(NamedTuple):
    """A teacher's file, its weight in the mean, and its temperature in the evaluation that lists it."""

    path: Path
    weight: float
    temperature: float = 1.0


class Teachers:
    """Trained networks whose predictions a student learns from.

    Teachers are not modules of the student: they are neither saved nor averaged with it.

    Args:
        networks: at least one.
        files: the file of each network, weights summing to 1.
        settings: weight and temperature of the distillation.
        share: part of a face's side that the student sees; below 1 if it is trained on crops.
    """

    def __init__(
        self,
        networks: Sequence[EmotionClassifier],
        files: Sequence[TeacherFile],
        settings: DistillSettings,
        share: float = 1.0,
    ) -> None:
        # on a CPU, kernels in the memory order of convolutions halve the time of a forward pass
        self.networks = [
            folded(network).requires_grad_(False).to(memory_format=torch.channels_last) for network in networks
        ]
        self.weights = [file.weight for file in files]
        self.temperatures = [file.temperature for file in files]
        self.settings = settings
        self.share = share
        self.records = [
            {
                "checkpoint": str(file.path),
                "sha256": sha256_of(file.path),
                "architecture": network.architecture,
                "weight": file.weight,
                "temperature": file.temperature,
            }
            for file, network in zip(files, networks, strict=True)
        ]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teachers":
        """Return the teachers themselves: copies of a student share them."""
        return self

    @property
    def datasets(self) -> list[Dataset]:
        """The data sets that influenced the teachers' weights."""
        return [dataset for network in self.networks for dataset in network.provenance.datasets]

    def compile(self) -> None:
        """Let torch compile the teachers at their first step."""
        for network in self.networks:
            network.net.compile(dynamic=False)

    @torch.no_grad()
    def answers(self, images: Tensor) -> Tensor:
        """Return the teachers' weighted mean probabilities (B, C) at the temperature of the distillation.

        Each teacher's logits are also divided by its own temperature, so that an ensemble predicts as in its
        evaluation. Faces are resized for each teacher, see ``resized_for``.

        Args:
            images: (B, 1, T, T) faces, already cropped, uint8 or float in [0, 1].
        """
        images = to_unit(images)
        total = torch.zeros((), device=images.device)
        for network, weight, temperature in zip(self.networks, self.weights, self.temperatures, strict=True):
            if next(network.parameters()).device != images.device:
                network.to(images.device)
            logits = network.logits_of_crops(resized_for(network, images, self.share)).float()
            total = total + weight * (logits / (temperature * self.settings.temperature)).softmax(1)
        return total

    def blended(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Return the weighted sum of the loss on the labels and the loss on the teachers' predictions.

        The latter is the Kullback-Leibler divergence times the squared temperature, which keeps its gradients about as
        large as at a temperature of 1.

        Args:
            loss: loss on the labels, a scalar.
            logits: (B, C) logits of the student.
            images: (B, 1, T, T) faces that the student saw.
        """
        temperature, weight = self.settings.temperature, self.settings.weight
        logs = (logits.float() / temperature).log_softmax(1)
        divergence = functional.kl_div(logs, self.answers(images), reduction="batchmean") * temperature**2
        return (1 - weight) * loss + weight * divergence


def resized_for(network: EmotionClassifier, images: Tensor, share: float) -> Tensor:
    """Return a student's images (B, 1, T, T) as the input (B, 1, S, S) of a teacher.

    A teacher that was trained on crops gets the middle of larger images, at the scale of its training. A teacher of
    whole faces gets enlarged crops, since the pixels around a crop are gone.

    Args:
        network: the teacher.
        images: faces or crops of them.
        share: part of a face's side that the images show.
    """
    scaled = max(network.input_size, round(network.image_size * share))
    cropped: Tensor = middle(resized(images, scaled), network.input_size)
    return cropped


def resized(images: Tensor, side: int) -> Tensor:
    """Return images (B, 1, T, T) as (B, 1, side, side), bilinear."""
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def load(settings: DistillSettings, model: EmotionClassifier, data: FERDataModule) -> Teachers:
    """Return the teachers that ``distill.teachers`` names.

    Args:
        settings: settings with at least one teacher.
        model: the student, whose ``provenance.dataset`` is set.
        data: the student's data.

    Raises:
        FerError: a teacher is bad, has other classes, or was trained on faces that are val here.
    """
    listed = [member for name in settings.teachers for member in members(name)]
    networks = [network for _, network in listed]
    total = sum(file.weight for file, _ in listed)
    files = [file._replace(weight=file.weight / total) for file, _ in listed]
    for file, network in zip(files, networks, strict=True):
        _refuse_unfit(file.path, network, model, data)
    return Teachers(networks, files, settings, model.input_size / model.image_size)


def members(name: str) -> list[tuple[TeacherFile, EmotionClassifier]]:
    """Return the networks of one entry of ``distill.teachers``, with their weights and temperatures.

    Args:
        name: a run folder, a checkpoint, or the folder of an evaluation of several networks.

    Raises:
        FerError: it is none of these, or a network has changed since the evaluation.
    """
    metrics = expand_home(name) / "metrics.json"
    if (metrics.parent / "checkpoints").is_dir() or not metrics.is_file():
        path = checkpoints.find(name)
        return [(TeacherFile(path, 1.0), checkpoints.load(path))]
    used = [(file, weights) for file, weights in _listed(metrics) if file.weight > 0]
    loaded = [(checkpoints.evaluated(file.path, weights, metrics.parent), file) for file, weights in used]
    return [(file._replace(path=path), network) for (path, network), file in loaded]


def _listed(metrics: Path) -> list[tuple[TeacherFile, str | None]]:
    """Return the networks of an evaluation in ``metrics.json``, each with the digest of its weights, if it has one.

    Raises:
        FerError: the file lists no networks, or a weight or temperature is not valid.
    """
    try:
        listed = read_json(metrics)["members"]
        files = [  # evaluations of older versions have no temperatures and no digests
            TeacherFile(Path(record["checkpoint"]), float(record["weight"]), float(record.get("temperature", 1.0)))
            for record in listed
        ]
        hashes = [record.get("weights_sha256") for record in listed]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FerError(
            f"distill.teachers: {metrics}: lists no networks with weights; name the folder of an evaluation"
        ) from error
    if not all(0 <= file.weight < math.inf for file in files) or not sum(file.weight for file in files):
        raise FerError(f"distill.teachers: {metrics}: weights of networks are numbers from 0, and not all 0")
    if not all(0 < file.temperature < math.inf for file in files):
        raise FerError(f"distill.teachers: {metrics}: temperatures of networks are numbers above 0")
    return list(zip(files, hashes, strict=True))


def mismatch(teacher: EmotionClassifier, classes: Sequence[str], channels: int) -> str:
    """Return why a network cannot teach one of these classes and channels of a face; empty if it can."""
    known = list(teacher.hparams["classes"])
    if known != list(classes):
        return f"its classes are {', '.join(known)}; expected {', '.join(classes)}"
    if teacher.in_channels != channels:
        return f"takes {teacher.in_channels} channels of a face; expected {channels}, as data.channels"
    return ""


def _refuse_unfit(path: Path, teacher: EmotionClassifier, model: EmotionClassifier, data: FERDataModule) -> None:
    """Raise if a teacher has other classes, or was trained on another split of the student's table."""
    if why := mismatch(teacher, model.hparams["classes"], model.in_channels):
        raise FerError(f"distill.teachers: {path}: {why}")
    for dataset in teacher.provenance.datasets:
        same = dataset.get("fingerprint") == model.provenance.dataset.get("fingerprint")
        if same and _split_settings(dataset) != _split_settings(model.provenance.dataset):
            raise FerError(
                f"distill.teachers: {path} was trained on data.split={dataset.get('split')} of the same faces. Some of "
                f"its training faces are val here, by data.split={data.data.split}; use the split of the teacher"
            )


def _split_settings(dataset: Dataset) -> list[Any]:
    settings = asdict(DataSettings()) | (dataset.get("settings") or {})  # older checkpoints lack some keys
    if not settings["more"]:
        return [settings["split"], *(settings[key] for key in SPLIT_KEYS.get(settings["split"], settings))]
    rules = [one.get("split") for one in dataset.get("sets") or ()]  # each data set has its own
    return [*rules, *(settings[key] for key in ALL_SPLIT_KEYS)]


def _refuse_val(teachers: Teachers, model: Trainable, data: FERDataModule) -> None:
    """Raise if teachers were trained on faces that are val here; faces are compared by pixels across tables."""
    if all(dataset.get("fingerprint") == model.provenance.dataset.get("fingerprint") for dataset in teachers.datasets):
        return  # the same table, whose split settings were compared already
    files = [Path(str(record["checkpoint"])) for record in teachers.records]
    members = [Member(file, network) for file, network in zip(files, teachers.networks, strict=True)]
    use_data_at_hand(members, data)
    try:
        tables = Tables(data.data.faces_a_step, data.data.cache)
        trained_on = TrainingData(members, tables).trained_on(data.data.image_size)
    except FerError as error:
        log.warning("distill.teachers: could not check whether they were trained on faces that are val here: %s", error)
        return
    if known := (data.hashes("val") & trained_on) - data.hashes("train"):
        raise FerError(
            f"distill.teachers: trained on {len(known):,} of the faces that are val here; use the data.split and "
            "data.split_seed of the teachers"
        )


def teach(settings: DistillSettings, model: Trainable, data: FERDataModule) -> None:
    """Load the teachers, check them, and add them to the network."""
    teachers = load(settings, model, data)
    _refuse_val(teachers, model, data)
    model.learn_from(teachers)
    count = len(teachers.networks)
    log.info(
        "distill.teachers: learning from the predictions of %d network%s (weight %g, temperature %g)",
        count, "" if count == 1 else "s", settings.weight, settings.temperature,
    )  # fmt: skip
