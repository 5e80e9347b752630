"""The networks of an export.

They are one network, several whose calibrated probabilities are averaged, or an evaluated ensemble.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import fer
from fer.config.errors import FerError
from fer.config.paths import expand_home
from fer.data.crop import Crop
from fer.evaluation.request import Member, members_of
from fer.inference.ensemble import mixed
from fer.inference.exported import FORMAT, IN_COLOUR, IN_GREY, About, SourceNetwork
from fer.metrics import results as metrics_json
from fer.metrics.calibration import tempered
from fer.metrics.conformal import Thresholds
from fer.models import checkpoints, hub_folder
from fer.models.pretrained import sha256_of
from fer.models.share import without_folders, without_path, without_paths
from fer.system.files import contents, why
from fer.system.records import Json

log = logging.getLogger(__name__)

CARD = "model_card.md"
AT_ONCE = 256  # faces through the networks together


@dataclass(frozen=True)
class Source:
    """Networks to be exported as one.

    Args:
        members: M networks of one size and the same emotions.
        weights: (M,) in the mean of their probabilities.
        temperatures: (M,) by which their logits are divided before.
        temperature: by which the logits of the mean are divided after; 1 of a single network.
        sets: thresholds of prediction sets for these probabilities; None where there are none.
        card: the model card, Markdown; empty where there is none.
    """

    members: Sequence[Member]
    weights: Sequence[float]
    temperatures: Sequence[float]
    temperature: float = 1.0
    sets: Thresholds | None = None
    card: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if len({member.model.in_channels for member in self.members}) > 1:
            raise FerError(
                "some of the networks take faces in colour, others grey ones, and one graph takes one kind; export "
                "them one by one"
            )
        sizes = sorted({member.model.image_size for member in self.members})
        if len(sizes) > 1:
            raise FerError(
                f"the networks take faces of {' and '.join(map(str, sizes))} pixels, and one graph takes one size; "
                "export them one by one"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The emotions, in the order of the probabilities."""
        return tuple(self.members[0].model.hparams["classes"])

    @property
    def size(self) -> int:
        """Side of the faces, in pixels."""
        return self.members[0].model.image_size

    @property
    def channels(self) -> int:
        """1 for grey faces, 3 for faces in red, green and blue."""
        return self.members[0].model.in_channels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, S, S) of a face."""
        return self.channels, self.size, self.size

    @property
    def parameters(self) -> int:
        """Number of parameters of all networks."""
        return sum(member.model.parameter_count for member in self.members)

    def probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return calibrated probabilities (N, C) of faces (N, 1 or 3, S, S), as ``fer.evaluate`` computes them."""
        parts = [self._probabilities(faces[start : start + AT_ONCE]) for start in range(0, len(faces), AT_ONCE)]
        return np.concatenate(parts)

    @torch.inference_mode()
    def _probabilities(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        given = torch.from_numpy(faces)
        logits: list[Tensor] = [member.weighted(given).float() for member in self.members]
        if len(logits) == 1:
            alone: NDArray[np.float32] = (logits[0] / self.temperatures[0]).softmax(1).numpy()
            return alone
        predicted: Tensor = torch.stack([each.softmax(1) for each in logits])  # (M, N, C)
        together = mixed(predicted, torch.tensor(self.weights), torch.tensor(self.temperatures, dtype=torch.float64))
        return tempered(together.numpy(), self.temperature).astype(np.float32)

    def about(self, precision: str = "float32") -> About:
        """Return what an exported file states of these networks, before it is checked."""
        single = len(self.members) == 1
        return About(
            format=FORMAT,
            precision=precision,
            classes=self.classes,
            size=self.size,
            channels=3 if self.channels == 3 else None,
            faces=IN_COLOUR if self.channels == 3 else IN_GREY,
            crop=Crop().contract(self.size),
            architecture=" + ".join(dict.fromkeys(member.model.architecture for member in self.members)),
            parameters=self.parameters,
            networks=tuple(map(_network, self.members, self.weights, self.temperatures)),
            temperature=self.temperatures[0] if single else self.temperature,
            sets=self.sets,
            version=fer.__version__,
            card=without_folders(self.card),
        )


def _network(member: Member, weight: float, temperature: float) -> SourceNetwork:
    """Return the record of a network, without paths of this machine."""
    made = member.model.provenance
    return SourceNetwork(
        file=member.file.name,
        sha256=sha256_of(member.file),
        weights_sha256=member.model.weights_sha256,
        architecture=member.model.architecture,
        weight=weight,
        temperature=temperature,
        dataset=_without_folders(without_paths(made.dataset)),
        ancestors=tuple(_without_folders(without_paths(dataset)) for dataset in made.ancestors),
        pretrained=made.pretrained,
        teachers=tuple(map(without_path, made.teachers or ())) or None,
    )


def _without_folders(record: Json) -> Json:
    """Return a record whose notes name files without their folders."""
    cleaned: Json = json.loads(without_folders(json.dumps(record)))
    return cleaned


# --- what a command line names --------------------------------------------------------------------------------------


def source_of(networks: Sequence[str]) -> Source:
    """Return the networks that a command line names.

    Args:
        networks: run folders, checkpoints, shared files or names of the package's networks. Or one folder of an
            evaluation, whose weights, temperature and thresholds are exported with its networks.

    Raises:
        FerError: one is bad, given twice, of other emotions or another size; or an evaluation cannot be exported.
    """
    folder = expand_home(networks[0])
    if len(networks) == 1 and (folder / "metrics.json").is_file() and not (folder / "checkpoints").is_dir():
        return _evaluated(folder)
    members = members_of(networks)
    temperatures = [member.weighted.provenance.temperature or 1.0 for member in members]
    if len(members) == 1:
        return Source(members, (1.0,), temperatures, sets=members[0].model.provenance.sets, card=_card(members[0]))
    log.warning(
        "the networks count equally, and no prediction sets are exported; name the folder of their evaluation by "
        "python -m fer.evaluate for its weights, temperature and sets"
    )
    return Source(members, [1 / len(members)] * len(members), temperatures)


def _evaluated(folder: Path) -> Source:
    """Return the networks of an evaluation, mixed and tempered as there.

    Raises:
        FerError: it is damaged, of several views of a face, or a network is gone or has changed.
    """
    try:
        results = metrics_json.read(folder / "metrics.json")
    except (OSError, LookupError, ValueError, TypeError) as error:
        raise FerError(f"{folder}: no evaluation (its metrics.json cannot be read: {why(error)})") from error
    members = results.members
    if not members:
        raise FerError(f"{folder}: its metrics.json lists no networks; name a run, or a folder that fer.evaluate wrote")
    if results.tta != "none":
        raise FerError(
            f"{folder}: evaluated with --tta {results.tta}, and a graph sees each face once; evaluate without --tta"
        )
    if results.temperature is None:
        raise FerError(f"{folder}: has no temperature, since val was missing; evaluate again with --data")
    hashes = [member.network.weights_sha256 if member.network else None for member in members]
    opened = [
        Member(*checkpoints.evaluated(member.checkpoint, weights, folder))
        for member, weights in zip(members, hashes, strict=True)
    ]
    card = folder / CARD
    single = len(opened) == 1
    return Source(
        opened,
        [member.weight for member in members],
        [results.temperature] if single else [member.temperature for member in members],
        1.0 if single else results.temperature,
        results.sets.thresholds if results.sets else opened[0].model.provenance.sets if single else None,
        card.read_text(encoding="utf-8") if card.is_file() else "",
    )


def _card(member: Member) -> str:
    """Return the model card of a network: beside its file, or that of the newest evaluation of its run; else empty."""
    beside = hub_folder.card_beside(member.file)
    evaluated = sorted((member.run / "evaluations").glob(f"*/{CARD}"), key=lambda file: file.stat().st_mtime_ns)
    cards = [beside] if beside.is_file() else evaluated
    return contents(cards[-1]).decode("utf-8", "replace") if cards else ""
