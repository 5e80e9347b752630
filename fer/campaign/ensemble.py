"""The ensemble of a campaign, made from predictions.

It finds the networks that can be mixed, chooses among them on val, and gives the ensemble's results.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fer.campaign.earlier import VIEWS, Candidate
from fer.config.errors import FerError
from fer.data.datamodule import FERDataModule
from fer.data.duplicates import without_duplicate
from fer.data.labels import SPLITS
from fer.evaluation import scoring, test_log
from fer.evaluation.from_predictions import PredictionsChoice, chosen_from, mixed_from, results_of
from fer.evaluation.request import Member, of_split
from fer.metrics.conformal import COVERAGE, Thresholds
from fer.metrics.results import THESE_FACES, VAL, Results, of
from fer.models import checkpoints
from fer.runs import predictions
from fer.runs.predictions import Predictions, name_of
from fer.system import machine
from fer.system.files import read_json, write_json
from fer.system.records import Object, plain
from fer.training import distillation

log = logging.getLogger(__name__)


def mismatch(candidate: Candidate, data: FERDataModule) -> str:
    """Return why a network's predictions cannot be mixed with those of this data set; empty if they can.

    A network is refused, too, if it was trained on faces of val or test that have no duplicate in train.
    """
    for split, file in (("val", candidate.val), ("test", candidate.test)):
        if file is None or not (data.splits == SPLITS.index(split)).any():
            continue
        try:
            predicted = predictions.read(file)
            if predicted.classes != tuple(data.faces.classes):
                return f"predicts {', '.join(predicted.classes)}"
            of_split(predicted, str(file), data, split)
        except FerError as error:
            return str(error)
        count, expected = seen_in_training(file), int((~_without_duplicate(data, split)).sum())
        if count is None or count > expected:  # fewer where it left out some of train, such as conflicting faces
            stated = "does not state how many" if count is None else f"was trained on {count:,}"
            return f"{stated} of the {split} faces here, of which {expected:,} have a duplicate in train"
    return ""


def seen_in_training(file: Path) -> int | None:
    """Return how many faces of an evaluation were in its network's training, from its metrics; None if not stated."""
    packed = file.name.endswith(".csv.gz")
    beside = file.with_name(f"{file.name.removesuffix('.csv.gz')}.json") if packed else file.with_name("metrics.json")
    try:
        count = read_json(beside)["seen_in_training"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return count if isinstance(count, int) else None


def _without_duplicate(data: FERDataModule, split: str) -> NDArray[np.bool_]:
    """Return a mask (N,) of the faces of a split without an exact duplicate in train."""
    return without_duplicate(data.split(split).grey, data.hashes("train"))


def candidates_on_val(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Predictions]]:
    """Return the candidates with predictions of val, and these predictions."""
    available = [candidate for candidate in candidates if candidate.val is not None and candidate.val.is_file()]
    return available, [predictions.read(candidate.val) for candidate in available if candidate.val is not None]


def chosen(candidates: Sequence[Candidate]) -> tuple[list[Candidate], PredictionsChoice]:
    """Return the candidates with predictions of val, and the ensemble chosen among them.

    Raises:
        FerError: predictions are damaged or of different faces.
    """
    available, val = candidates_on_val(candidates)
    return available, chosen_from(val, [candidate.name for candidate in available])


def why_no_teacher(candidate: Candidate, data: FERDataModule) -> str:
    """Return why a network with weights cannot teach on these data; empty if it can."""
    if candidate.network is None:
        return ""
    try:
        teacher = checkpoints.load(checkpoints.find(candidate.network))
    except FerError as error:
        return str(error)
    return distillation.mismatch(teacher, data.faces.classes, data.data.channels)


def teachers(able: Sequence[Candidate], most: int) -> list[Candidate]:
    """Return at most ``most`` teachers: the networks with the highest weights in the ensemble chosen on val."""
    if not able:
        return []
    available, choice = chosen(able)
    order = sorted(range(len(available)), key=lambda index: -choice.weights[index])
    return [available[index] for index in order if choice.weights[index] > 0][:most]


def write(
    candidates: Sequence[Candidate], choice: PredictionsChoice, split: str, data: FERDataModule, out: Path, command: str
) -> Path:
    """Write ``metrics.json`` and ``predictions.csv`` of the ensemble on a split, and return their folder.

    On test, the access is recorded in the run folder of each network of the ensemble that has one.

    Args:
        candidates: candidates in the order of ``choice``.
        choice: chosen ensemble.
        split: "val" or "test".
        data: data of the campaign.
        out: folder of the ensemble's evaluations.
        command: command line of the campaign.

    Raises:
        FerError: predictions are damaged, of different faces, or missing.
    """
    kept = [candidate for candidate, weight in zip(candidates, choice.weights, strict=True) if weight > 0]
    files = [candidate.val if split == "val" else candidate.test for candidate in kept]
    predicted = [predictions.read(file) for file in files if file is not None]
    together = predicted[0]._replace(probabilities=mixed_from(choice, predicted))
    scored = scoring.scored_faces(of_split(together, "ensemble", data, split), data, split, list(together.classes))
    chances = torch.from_numpy(scored.probabilities)
    measured = scoring.measured(chances, scored.targets, scored.classes, choice.temperature, scored.groups)
    results = results_of(choice, measured, split)
    fitted_on = results["temperature_fitted_on"] = THESE_FACES if split == "val" else VAL
    results["members"] = [
        {**member, "name": candidate.name, "checkpoint": str(_checkpoint(candidate) or file)}
        for member, candidate, file in zip(results["members"], kept, files, strict=True)
    ]
    calibration = scoring.Calibration(_thresholds(candidates, choice, data), fitted_on, kept=False)
    unseen = _without_duplicate(data, split)
    results["sets"] = plain(scoring.prediction_sets(scored, choice.temperature, unseen, calibration, COVERAGE))
    results |= _about(scored, data, split) | {"tta": VIEWS, "command": command, **plain(machine.provenance())}
    folder = out / name_of(split, VIEWS)
    folder.mkdir(parents=True, exist_ok=True)
    predictions.write(folder / "predictions.csv", split, scored)
    if split == "test":
        results["test_opened"] = _recorded(kept, of(results))
    write_json(folder / "metrics.json", results)
    return folder


def _thresholds(candidates: Sequence[Candidate], choice: PredictionsChoice, data: FERDataModule) -> Thresholds:
    """Return the thresholds of the ensemble's prediction sets, calibrated on val as those of a single network."""
    (_, (first, *_)) = candidates_on_val(candidates)  # whose order of faces that of the mixture is
    faces = data.split("val")
    together = of_split(first._replace(probabilities=choice.probabilities), "ensemble", data, "val")
    unseen = _without_duplicate(data, "val")
    return scoring.calibrated_sets(together, faces.targets, unseen, choice.temperature)


def _checkpoint(candidate: Candidate) -> Path | None:
    return None if candidate.network is None else checkpoints.find(candidate.network)


def _about(scored: predictions.Scored, data: FERDataModule, split: str) -> Object:
    """Return the metrics over the faces without an exact duplicate in train, and the description of the data."""
    kept = _without_duplicate(data, split)
    predicted, targets = torch.from_numpy(scored.probabilities), torch.from_numpy(scored.targets)
    clean = scoring.clean(predicted, targets, kept, scored.classes, scored.groups)
    return {
        "seen_in_training": int((~kept).sum()),
        "clean": None if clean is None else plain(clean),
        "dataset": plain(data.describe(split)),
    }


def _recorded(kept: Sequence[Candidate], results: Results) -> int:
    """Record the test access for each network of an ensemble, and return the largest number of accesses."""
    members = []
    for candidate in kept:
        if candidate.network is not None:
            file = checkpoints.find(candidate.network)
            members.append(Member(file, checkpoints.load(file)))
    opened = [(member, test_log.access(member, results)) for member in members]
    return test_log.record(opened, test_log.so_far(members)) if members else 1
