"""An ensemble made from predictions alone, without weights: chosen on val, mixed on test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fer.config.errors import FerError
from fer.evaluation import scoring
from fer.evaluation.selection import selection_report
from fer.inference.ensemble import Pick, chosen_greedily, mixed
from fer.metrics.calibration import fitted_temperature
from fer.metrics.results import SCHEMA, VAL, Measured, SelectionRecord
from fer.runs.predictions import Predictions
from fer.system.records import Object, plain


@dataclass(frozen=True)
class PredictionsChoice:
    """An ensemble of M networks, chosen on their predictions of val.

    Args:
        names: M, of the networks.
        weights: (M,) which sum to 1; 0 of a network that was left out.
        temperatures: (M,) by which each network's logits are divided before mixing.
        steps: of the greedy choice.
        temperature: of the mixture.
        probabilities: (N, C) of the mixture on val, before its temperature.
        report: how the choice went.
    """

    names: tuple[str, ...]
    weights: NDArray[np.float64]
    temperatures: NDArray[np.float64]
    steps: list[Pick]
    temperature: float
    probabilities: NDArray[np.float64]
    report: SelectionRecord


def chosen_from(val: Sequence[Predictions], names: Sequence[str] = ()) -> PredictionsChoice:
    """Choose an ensemble among M networks on val, greedily and with each network at its own temperature.

    Args:
        val: predictions of the same faces of val by each network, with the same views.
        names: M, for messages and the report; by default "predictions 1"...

    Raises:
        FerError: there are no predictions, or some are of other faces, labels or classes than the first.
    """
    names = _named(val, names)
    predicted, targets = _aligned(val, names)
    choice = chosen_greedily(predicted, targets)
    together = mixed(predicted, choice.weights, choice.temperatures).numpy()
    return PredictionsChoice(
        tuple(names),
        np.asarray(choice.weights),
        choice.temperatures,
        choice.picks,
        fitted_temperature(together, targets.numpy()),
        together,
        selection_report(names, choice, predicted, targets),
    )


def mixed_from(choice: PredictionsChoice, test: Sequence[Predictions]) -> NDArray[np.float64]:
    """Return the probabilities (N, C) of a chosen ensemble, before its temperature; faces as in the first predictions.

    Args:
        choice: of ``chosen_from``.
        test: predictions of the same faces, in the order of val's networks: of all M, or of those alone that have a
            weight.

    Raises:
        FerError: they are of another number of networks, or of other faces, labels or classes than the first.
    """
    kept = choice.weights > 0
    names = [name for name, weight in zip(choice.names, choice.weights, strict=True) if weight]
    predicted, _ = _aligned(_of_chosen(choice, test), names)
    weights, temperatures = (torch.from_numpy(values[kept]) for values in (choice.weights, choice.temperatures))
    together: NDArray[np.float64] = mixed(predicted, weights, temperatures).numpy()
    return together


def results_from(choice: PredictionsChoice, test: Sequence[Predictions], split: str) -> Object:
    """Return the metrics of a chosen ensemble on a split, named as in the ``metrics.json`` of ``fer.evaluate``.

    Args:
        choice: of ``chosen_from``.
        test: as ``mixed_from`` takes them.
        split: its name.

    Raises:
        FerError: as in ``mixed_from``.
    """
    first, predicted = _of_chosen(choice, test)[0], torch.from_numpy(mixed_from(choice, test).astype(np.float32))
    return results_of(choice, scoring.measured(predicted, _labels(first), first.classes, choice.temperature), split)


def results_of(choice: PredictionsChoice, measured: Measured, split: str) -> Object:
    """Return the metrics of a chosen ensemble, already computed, as ``results_from`` does.

    Args:
        choice: of ``chosen_from``.
        measured: metrics of the mixture at the temperature of the choice.
        split: name of the split that was measured.
    """
    values = zip(choice.names, choice.weights.tolist(), choice.temperatures.tolist(), strict=True)
    return {
        "schema": SCHEMA,
        "split": split,
        **plain(measured),
        "temperature_fitted_on": VAL,
        "members": [
            {"checkpoint": name, "weight": weight, "temperature": temperature}
            for name, weight, temperature in values
            if weight
        ],
        "weights": "chosen",
        "selection": plain(choice.report),
    }


def _named(predictions: Sequence[Predictions], names: Sequence[str]) -> Sequence[str]:
    if not predictions:
        raise FerError("no predictions to choose among: name those of at least one network")
    return names or [f"predictions {number}" for number in range(1, len(predictions) + 1)]


def _of_chosen(choice: PredictionsChoice, test: Sequence[Predictions]) -> Sequence[Predictions]:
    """Return the predictions of the networks that have a weight, given those of all or of these alone.

    Raises:
        FerError: they are of another number of networks.
    """
    kept = np.flatnonzero(choice.weights).tolist()
    if len(test) not in (len(kept), len(choice.weights)):
        expected = f"all {len(choice.weights)} or the {len(kept)} that were chosen"
        raise FerError(f"predictions of {len(test)} networks; expected {expected}")
    return test if len(test) == len(kept) else [test[index] for index in kept]


def _aligned(predictions: Sequence[Predictions], names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return probabilities (M, N, C) float64 in the order of the first predictions' faces, and the labels (N,).

    Raises:
        FerError: predictions are of no face, or of other faces, labels or classes than the first.
    """
    first = predictions[0]
    if not len(first.rows):
        raise FerError(f"{names[0]}: predictions of no face")
    known = dict(zip(first.rows.tolist(), first.targets, strict=True))
    parts = []
    for name, table in zip(names, predictions, strict=True):
        index_of = {row: index for index, row in enumerate(table.rows.tolist())}
        if table.classes != first.classes:
            theirs, expected = (", ".join(each.classes) for each in (table, first))
            raise FerError(f"{name}: predicts {theirs}; {names[0]} predicts {expected}")
        if index_of.keys() != known.keys():
            raise FerError(f"{name}: other rows than {names[0]}; predict the same split of the same data with both")
        if dict(zip(table.rows.tolist(), table.targets, strict=True)) != known:
            raise FerError(f"{name}: other labels than {names[0]}; predict with the same labels and FER+ rule")
        parts.append(torch.from_numpy(table.probabilities[[index_of[row] for row in known]]))
    return torch.stack(parts), torch.from_numpy(_labels(first))


def _labels(table: Predictions) -> NDArray[np.int64]:
    """Return the labels (N,) as class indices.

    Raises:
        FerError: one is none of the classes.
    """
    index_of = {name: index for index, name in enumerate(table.classes)}
    if unknown := sorted(set(table.targets) - index_of.keys()):
        raise FerError(f"label {unknown[0]!r} is none of the predicted classes {', '.join(table.classes)}")
    return np.array([index_of[name] for name in table.targets], np.int64)
