"""Distillation (Hinton et al. 2015): a network learns from the answers of others, its teachers, beside the labels.

The teachers see each face as the network itself does, changed and mixed alike, and answer anew: a teacher that is asked
once and for all, about faces that it was trained on, has little to tell (Beyer et al. 2022).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fer.config.errors import FerError
from fer.config.settings import DataSettings, DistillSettings
from fer.data.datamodule import FERDataModule
from fer.data.dataset import to_unit
from fer.data.transforms.crop import middle
from fer.models import EmotionClassifier, checkpoints
from fer.models.pretrained import sha256_of
from fer.models.provenance import Dataset

DIVIDED_BY = {  # split of ``data`` -> the other keys that say who is val
    "official": (),
    "as_given": ("split_seed", "val_fraction"),
    "holdout": ("split_seed",),
    "folds": ("split_seed", "folds", "fold"),
}


class Named(NamedTuple):
    """A teacher's file, its part in the answer, and the temperature at which an evaluation mixed it."""

    file: Path
    weight: float
    temperature: float = 1.0


class Teachers:
    """Networks that do not learn any more.

    No module of the network that learns: they are neither saved nor averaged with it.

    Args:
        networks: at least one.
        named: where they come from, weights summing to 1.
        settings: how their answers count.
        share: of a face's side, what the network that learns is shown; below 1 where it is trained on crops.
    """

    def __init__(
        self,
        networks: Sequence[EmotionClassifier],
        named: Sequence[Named],
        settings: DistillSettings,
        share: float = 1.0,
    ) -> None:
        # half of a forward pass's time on a CPU: kernels in the order in which convolutions read them
        self.networks = [
            network.eval().requires_grad_(False).to(memory_format=torch.channels_last) for network in networks
        ]
        self.weights = [one.weight for one in named]
        self.temperatures = [one.temperature for one in named]
        self.settings = settings
        self.share = share
        self.about = [
            {
                "checkpoint": str(one.file),
                "sha256": sha256_of(one.file),
                "architecture": network.architecture,
                "weight": one.weight,
                "temperature": one.temperature,
            }
            for one, network in zip(named, networks, strict=True)
        ]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teachers":
        """Return the same: copies of a network that learns have the same teachers."""
        return self

    @property
    def datasets(self) -> list[Dataset]:
        """What they were trained on, and what they began from."""
        return [dataset for network in self.networks for dataset in network.provenance.datasets]

    def compile(self) -> None:
        """Let torch compile them at their first step."""
        for network in self.networks:
            network.net.compile(dynamic=False)

    @torch.no_grad()
    def answers(self, images: Tensor) -> Tensor:
        """Return their mean probabilities (B, C) at the temperature of the faces (B, 1, T, T), cropped already.

        Each teacher's logits are divided by its own temperature too, so that an ensemble teaches as it was evaluated.

        A teacher of crops is shown the middle of larger ones, at the scale that it was trained at; one of whole faces
        is shown crops enlarged, since what is around them is gone.
        """
        images = to_unit(images)
        total = torch.zeros((), device=images.device)
        for network, weight, own in zip(self.networks, self.weights, self.temperatures, strict=True):
            if next(network.parameters()).device != images.device:
                network.to(images.device)
            logits = network.look(seen_by(network, images, self.share)).float()
            total = total + weight * (logits / (own * self.settings.temperature)).softmax(1)
        return total

    def blended(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Return the loss of the labels and that of the answers, by their weights.

        The latter is the Kullback-Leibler divergence times the temperature's square, whose gradients are then about as
        large as at a temperature of 1.

        Args:
            loss: of the labels, a scalar.
            logits: (B, C) of the network that learns.
            images: (B, 1, T, T) what it has seen.
        """
        warm, part = self.settings.temperature, self.settings.weight
        logs = (logits.float() / warm).log_softmax(1)
        away = functional.kl_div(logs, self.answers(images), reduction="batchmean") * warm**2
        return (1 - part) * loss + part * away


def seen_by(network: EmotionClassifier, images: Tensor, share: float) -> Tensor:
    """Return images (B, 1, T, T), which show a share of a face's side, as (B, 1, S, S) that a network looks at."""
    scaled = max(network.input_size, round(network.image_size * share))
    return middle(sized(images, scaled), network.input_size)


def sized(images: Tensor, side: int) -> Tensor:
    """Return images (B, 1, T, T) as (B, 1, side, side)."""
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def read(settings: DistillSettings, model: EmotionClassifier, data: FERDataModule) -> Teachers:
    """Return the teachers that the settings name.

    Args:
        settings: with at least one.
        model: the network that is to learn from them, its ``dataset`` known.
        data: that it learns on.

    Raises:
        FerError: one is bad, knows other classes, or has been trained on faces that are val here.
    """
    known = [one for given in settings.teachers for one in members(given)]
    networks = [network for _, network in known]
    share = sum(one.weight for one, _ in known)
    named = [one._replace(weight=one.weight / share) for one, _ in known]
    for one, network in zip(named, networks, strict=True):
        _refuse_others(one.file, network, model, data)
    return Teachers(networks, named, settings, model.input_size / model.image_size)


def members(given: str) -> list[tuple[Named, EmotionClassifier]]:
    """Return the networks that a name of ``distill.teachers`` stands for, their weights and temperatures.

    Args:
        given: a run folder, a checkpoint, or the folder of an evaluation of several networks.

    Raises:
        FerError: it is none of these, or a network has changed since the evaluation.
    """
    about = Path(given).expanduser() / "metrics.json"
    if (about.parent / "checkpoints").is_dir() or not about.is_file():
        file = checkpoints.find(given)
        return [(Named(file, 1.0), checkpoints.load(file))]
    found = [(checkpoints.evaluated(one), mixed) for one, mixed in _evaluated(about) if mixed.weight > 0]
    return [(mixed._replace(file=file), network) for (file, network), mixed in found]


def _evaluated(about: Path) -> list[tuple[dict[str, Any], Named]]:
    """Return the members of an evaluation as its ``metrics.json`` lists them, and how it mixed them.

    Raises:
        FerError: it lists none, or a weight or temperature is none.
    """
    try:
        listed = json.loads(about.read_text(encoding="utf-8"))["members"]
        members = [{**one, "checkpoint": Path(one["checkpoint"])} for one in listed]
        mixed = [  # evaluations from before networks were tempered have no temperatures
            Named(one["checkpoint"], float(one["weight"]), float(one.get("temperature", 1.0))) for one in members
        ]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FerError(f"distill.teachers: {about}: tells of no networks and their weights") from error
    if not all(0 <= one.weight < math.inf for one in mixed) or not sum(one.weight for one in mixed):
        raise FerError(f"distill.teachers: {about}: weights of networks are numbers from 0, and not all 0")
    if not all(0 < one.temperature < math.inf for one in mixed):
        raise FerError(f"distill.teachers: {about}: temperatures of networks are numbers above 0")
    return list(zip(members, mixed, strict=True))


def _refuse_others(file: Path, teacher: EmotionClassifier, model: EmotionClassifier, data: FERDataModule) -> None:
    known, classes = list(teacher.hparams["classes"]), list(model.hparams["classes"])
    if known != classes:
        raise FerError(f"distill.teachers: {file}: its classes are {', '.join(known)}; expected {', '.join(classes)}")
    for dataset in teacher.provenance.datasets:
        same = dataset.get("fingerprint") == model.provenance.dataset.get("fingerprint")
        if same and _division(dataset) != _division(model.provenance.dataset):
            raise FerError(
                f"distill.teachers: {file} was trained on data.split={dataset.get('split')} of the same faces; some of "
                f"them are val in data.split={data.data.split} as it is drawn here"
            )


def _division(dataset: Mapping[str, Any]) -> list[Any]:
    settings = asdict(DataSettings()) | (dataset.get("settings") or {})  # which older checkpoints do not tell in full
    return [settings["split"], *(settings[key] for key in DIVIDED_BY.get(settings["split"], settings))]
