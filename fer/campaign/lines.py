"""The lines of a campaign's table: what val chooses for the ensemble, and what test says of it."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fer.campaign.earlier import VIEWS, Candidate
from fer.config.errors import FerError
from fer.data.datamodule import FERDataModule
from fer.data.duplicates import without_twin
from fer.data.labels import SPLITS
from fer.evaluation import scoring, test_log
from fer.evaluation.from_predictions import PredictionsChoice, chosen_from, mixed_from, results_from
from fer.evaluation.request import Member, of_split
from fer.models import checkpoints
from fer.runs import predictions
from fer.runs.predictions import Predictions, name_of
from fer.system import machine
from fer.system.files import write_json

log = logging.getLogger(__name__)


def unfit(candidate: Candidate, data: FERDataModule) -> str:
    """Return why a network's predictions cannot be mixed with those of this data set; empty where they can.

    A network that was trained on other faces of val or test than those with a duplicate in train is refused too.
    """
    for split, file in (("val", candidate.val), ("test", candidate.test)):
        if file is None or not (data.splits == SPLITS.index(split)).any():
            continue
        try:
            said = predictions.read(file)
            if said.classes != tuple(data.faces.classes):
                return f"predicts {', '.join(said.classes)}"
            data.lay(split)
            of_split(said, str(file), data, split)
        except FerError as error:
            return str(error)
        seen, expected = seen_in_training(file), int((~_unseen(data, split)).sum())
        if seen != expected:
            stated = "does not state how many" if seen is None else f"was trained on {seen:,}"
            return f"{stated} of the {split} faces here, of which {expected:,} have a duplicate in train"
    return ""


def seen_in_training(file: Path) -> int | None:
    """Return how many faces of an evaluation its network was trained on, as the metrics beside it state."""
    packed = file.name.endswith(".csv.gz")
    beside = file.with_name(f"{file.name.removesuffix('.csv.gz')}.json") if packed else file.with_name("metrics.json")
    try:
        seen = json.loads(beside.read_text(encoding="utf-8"))["seen_in_training"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return seen if isinstance(seen, int) else None


def _unseen(data: FERDataModule, split: str) -> NDArray[np.bool_]:
    """Return (N,) which faces of a split have no exact duplicate in train."""
    return without_twin(data.lay(split).images[:, 0].numpy(), data.hashes("train"))


def candidates_on_val(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Predictions]]:
    """Return the candidates whose predictions of val are there, and these predictions."""
    held = [one for one in candidates if one.val is not None and one.val.is_file()]
    return held, [predictions.read(one.val) for one in held if one.val is not None]


def choose(candidates: Sequence[Candidate]) -> tuple[list[Candidate], PredictionsChoice]:
    """Return the candidates that val was given, and what it chose among them.

    Raises:
        FerError: predictions are damaged or of different faces.
    """
    held, val = candidates_on_val(candidates)
    return held, chosen_from(val, [one.name for one in held])


def teachers(candidates: Sequence[Candidate], most: int) -> list[Candidate]:
    """Return the candidates of most weight in the ensemble that val chooses, those whose weights are there."""
    able = [one for one in candidates if one.teaches]
    if not able:
        return []
    held, choice = choose(able)
    order = sorted(range(len(held)), key=lambda index: -choice.weights[index])
    return [held[index] for index in order if choice.weights[index] > 0][:most]


def write_ensemble(
    held: Sequence[Candidate], choice: PredictionsChoice, split: str, data: FERDataModule, out: Path, command: str
) -> Path:
    """Write ``metrics.json`` and ``predictions.csv`` of the ensemble on a split, and return their folder.

    On test, the access is recorded in the run folder of each network of the ensemble that has one.

    Args:
        held: the candidates, as ``choice`` knows them.
        choice: of the ensemble.
        split: "val" or "test".
        data: of the campaign.
        out: folder of the ensemble's evaluations.
        command: the campaign's.

    Raises:
        FerError: predictions are damaged, of different faces, or missing.
    """
    kept = [one for one, weight in zip(held, choice.weights, strict=True) if weight > 0]
    files = [one.val if split == "val" else one.test for one in kept]
    said = [predictions.read(file) for file in files if file is not None]
    results = results_from(choice, said, split)
    results["temperature_fitted_on"] = "these faces" if split == "val" else "val"
    data.lay(split)
    together = said[0]._replace(probabilities=mixed_from(choice, said))
    scored = scoring.scored_faces(of_split(together, "ensemble", data, split), data, split, list(together.classes))
    results["members"] = [
        {**member, "name": one.name, "checkpoint": str(file if one.network is None else checkpoints.find(one.network))}
        for member, one, file in zip(results["members"], kept, files, strict=True)
    ]
    results |= _about(scored, data, split) | {"tta": VIEWS, "command": command, **machine.provenance()}
    folder = out / name_of(split, VIEWS)
    folder.mkdir(parents=True, exist_ok=True)
    predictions.write(folder / "predictions.csv", split, scored)
    if split == "test":
        results["test_opened"] = _recorded(kept, results)
    write_json(folder / "metrics.json", results)
    return folder


def _about(scored: predictions.Scored, data: FERDataModule, split: str) -> dict[str, Any]:
    """Return the metrics over the faces without an exact duplicate in train, and the data."""
    kept = _unseen(data, split)
    predicted, targets = torch.from_numpy(scored.probabilities), torch.from_numpy(scored.targets)
    return {
        "seen_in_training": int((~kept).sum()),
        "clean": scoring.clean(predicted, targets, kept, scored.classes),
        "dataset": data.describe(split),
    }


def _recorded(kept: Sequence[Candidate], results: dict[str, Any]) -> int:
    """Record the access to test for each network of an ensemble; return the largest count of them."""
    members = []
    for one in kept:
        if one.network is not None:
            file = checkpoints.find(one.network)
            members.append(Member(file, checkpoints.load(file)))
    return test_log.record(members, results, test_log.so_far(members)) if members else 1
