"""The evaluation itself: faces scored, what they were seen before, everything written."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fer.config.errors import FerError
from fer.data.datamodule import FERDataModule, tell_notes
from fer.data.duplicates import without_twin
from fer.data.votes import agreement
from fer.evaluation import scoring, test_log
from fer.evaluation.comparison import Rival
from fer.evaluation.leakage import MANY, Training, is_a_look, overlap
from fer.evaluation.request import (
    Asked,
    Faces,
    Given,
    Member,
    find_again,
    given_of,
    same_split,
    settings_of,
    with_weights,
)
from fer.evaluation.selection import Chosen, answering, chosen, selected
from fer.inference.ensemble import disagreement, mixed
from fer.models import checkpoints
from fer.runs import predictions
from fer.runs.predictions import Scored
from fer.system import machine
from fer.system.files import new_folder, write_json

log = logging.getLogger(__name__)

ENSEMBLES = Path("outputs/ensembles")


def evaluate(asked: Asked, out: Path | None, command: str) -> tuple[dict[str, Any], Scored, Path]:
    """Score, write ``metrics.json`` and ``predictions.csv``, and return the figures, the faces and the folder.

    Args:
        asked: what is to be evaluated, and how.
        out: folder for the results; None is the run's own, or ``outputs/ensembles``.
        command: the command line, for the record.

    Raises:
        FerError: a bad checkpoint; data that are missing, bad or without the split; a choice that cannot be made.
    """
    given = given_of(asked.networks)
    members = with_weights(given)
    if asked.choose and asked.data:  # among shared networks too, whose val is known by its contents
        find_again(members, _faces(asked, members).at(members[0].model.image_size))
    selection = selected(asked, given) if asked.choose else None
    given = selection.members if selection else given
    members = with_weights(given)
    size, classes = members[0].model.image_size, list(members[0].model.hparams["classes"])
    faces = _faces(asked, members)
    data = faces.at(size)
    described = data.describe(asked.split)
    check_classes(members[0], data)
    find_again(members, data)
    own = described["fingerprint"] == members[0].model.provenance.dataset.get("fingerprint")
    _announce(asked, given, described, own)
    tell_notes(described["notes"], described["skipped"])
    training = Training(members, asked.batch_size)
    rival = Rival.of(asked, faces, data)
    predicted, targets = faces.predicted(given, asked), data.datasets[asked.split].targets
    images = data.datasets[asked.split].images[:, 0].numpy()
    kept = known_of_all(not_trained_on(training, images), asked, given, described)
    on_val = own and asked.split == "val" and same_split(faces.settings, members[0].trained_with)
    choice = chosen(asked, given, training, (predicted, targets, kept) if on_val else None, selection)
    together = mixed(predicted, choice.weights, choice.temperatures)
    scored = scoring.scored_faces(together, data, asked.split, classes)
    results = scoring.split_figures(scored, data, asked.split, choice.temperature)
    results |= {
        "temperature_fitted_on": choice.fitted_on or None,
        "temperature_kept": choice.kept,
        "seen_in_training": None if kept is None else int((~kept).sum()),
        "seen_in_choice": overlap(images, training.hashes("val", size)),
        "clean": None if kept is None else scoring.clean(together, targets, kept, classes),
        **({} if asked.error_rate is None else {"answering": answering(choice, asked.error_rate, scored)}),
        **({} if rival is None else {"against": rival.compared(together, targets, images, kept)}),
        **agreement_with_votes(data, asked.split, targets, together),
        **_about(asked, given, choice),
        **({} if selection is None else {"selection": selection.told}),
        **diversity(predicted, targets),
        "dataset": described,
        **machine.provenance(),
        "command": command,
    }
    everyone = [*(one for one in given if isinstance(one, Member)), *(rival.members if rival else ())]
    at_test = asked.split == "test" or is_a_look(images, Training(everyone, asked.batch_size).hashes("test", size))
    before = test_log.so_far(everyone) if at_test else {}
    folder = results_folder(out, given, asked)
    predictions.write(folder / "predictions.csv", asked.split, scored, data.datasets[asked.split].soft)
    if at_test and everyone:  # a look is one once there is something to be seen of it
        results["test_opened"] = test_log.record(everyone, results, before)
    write_json(folder / "metrics.json", results)
    return results, scored, folder


def _faces(asked: Asked, members: Sequence[Member]) -> Faces:
    return Faces(settings_of(asked, members), asked.split, asked.batch_size)


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


def _announce(asked: Asked, given: Sequence[Given], described: dict[str, Any], own: bool) -> None:
    trained = with_weights(given)[0].model.provenance.dataset
    if not own:
        for key, name in (("path", "data"), ("labels", "labels")):
            if described[key] != trained.get(key):
                here = described[key], trained.get(key)
                log.warning("these are not the %s of the training: %s, trained on %s", name, *here)
                break
        else:
            log.warning("%s has other contents than at the training", described["path"])
    for one in given:
        architecture = one.model.architecture if isinstance(one, Member) else "predictions"
        log.info("network: %s from %s", architecture, one.file)
    log.info("data:    %s, split %s: %s", described["path"], described["split"], asked.split)


def _about(asked: Asked, given: Sequence[Given], choice: Chosen) -> dict[str, Any]:
    """Return what was evaluated, as plain values."""
    members = [_record(one, asked) for one in given]
    begun = [member["pretrained"] for member in members if member["pretrained"]]
    names = ("name", "file", "sha256")
    together = {name: ", ".join(dict.fromkeys(str(one[name]) for one in begun)) for name in names}
    taught = list({one["sha256"]: one for member in members for one in member["teachers"]}.values())
    mixed_at = zip(members, choice.weights.tolist(), choice.temperatures.tolist(), strict=True)
    kept = ("checkpoint", "weights_sha256", "architecture", "trained")
    return {
        "architecture": " + ".join(dict.fromkeys(member["architecture"] for member in members)),
        "parameters": sum(member["parameters"] for member in members),
        "pretrained": together if begun else None,
        **({"teachers": taught} if taught else {}),
        "tta": asked.views,
        "checkpoint": members[0]["checkpoint"] if len(members) == 1 else f"{len(members)} networks",
        "members": [
            {**{key: member[key] for key in kept}, "weight": weight, "temperature": temperature}
            for member, weight, temperature in mixed_at
        ],
        "weights": ("chosen" if asked.choose else asked.weights) if len(members) > 1 else None,
    }


def _record(one: Given, asked: Asked) -> dict[str, Any]:
    """Return what is known of a network; of one whose predictions alone are at hand, what its metrics state."""
    if isinstance(one, Member):
        return {
            "checkpoint": str(one.file),
            "weights_sha256": checkpoints.weights_sha256(one.model),
            "architecture": one.model.architecture,
            "parameters": sum(parameter.numel() for parameter in one.model.parameters()),
            "pretrained": one.model.provenance.pretrained,
            "teachers": list(one.model.provenance.teachers or []),
            "trained": one.trained,
        }
    metrics = one.metrics(asked)
    return {
        "checkpoint": str(one.file),
        "weights_sha256": None,
        "architecture": str(metrics.get("architecture", "predictions")),
        "parameters": int(metrics.get("parameters", 0)),
        "pretrained": metrics.get("pretrained"),
        "teachers": metrics.get("teachers") or [],
        "trained": None,
    }


def diversity(predicted: Tensor, targets: Tensor) -> dict[str, Any]:
    """Return how good the networks (M, N, C) of an ensemble are alone, and how they differ; empty of a single one."""
    if len(predicted) == 1:
        return {}
    alone = (predicted.argmax(2) == targets).double().mean(1)
    return {"diversity": {"accuracy": alone.tolist(), "disagreement": disagreement(predicted).tolist()}}


def not_trained_on(training: Training, images: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Return (N,) which faces are not among those trained on, pixel for pixel; None where that cannot be told."""
    try:
        known = training.seen(images.shape[-1])
    except FerError as error:
        log.warning("no clean figures: %s", error)
        return None
    kept = without_twin(images, known)
    if (~kept).sum() > MANY * len(kept):
        log.warning(
            "%s of these %s faces were trained on: the figures tell how well they are remembered",
            f"{(~kept).sum():,}", f"{len(kept):,}",
        )  # fmt: skip
    return kept


def known_of_all(
    kept: NDArray[np.bool_] | None, asked: Asked, given: Sequence[Given], described: Mapping[str, Any]
) -> NDArray[np.bool_] | None:
    """Return (N,) which faces no network was trained on; None where predictions without weights leave that open.

    A network without weights is known to have been trained on the same faces as the others where its metrics, of the
    same data, count as many of them.

    Args:
        kept: (N,) which faces those with weights were not trained on; None where that is not known.
        asked: what is evaluated.
        given: the networks.
        described: the data, as ``FERDataModule.describe`` does.
    """
    if kept is None:
        return None
    seen = (described["fingerprint"], int((~kept).sum()))
    for one in given:
        if isinstance(one, Member):
            continue
        metrics = one.metrics(asked)
        if (metrics["dataset"].get("fingerprint"), metrics.get("seen_in_training")) != seen:
            log.warning("no clean figures: which of these faces %s was trained on is not known", one.file)
            return None
    return kept


def results_folder(out: Path | None, given: Sequence[Given], asked: Asked) -> Path:
    """Make and return the folder for the results; no earlier one is overwritten."""
    name = predictions.name_of(asked.split, asked.views)
    if out is not None:
        return new_folder(out, name)
    if len(given) == 1 and isinstance(given[0], Member):
        return new_folder(given[0].run / "evaluations", name)
    return new_folder(ENSEMBLES / f"{datetime.now():%Y-%m-%d_%H-%M-%S}", name)
