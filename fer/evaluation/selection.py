"""The choices on val of the training: networks and weights of an ensemble, temperature, threshold of confidence.

Everything is chosen on val, never on the scored faces. Where val is gone, or the networks were chosen on different val
faces, choices are refused or left out, with a message. The temperature changes no answer and so no accuracy: the tables
hold metrics without it, and ``model.probabilities`` divides by it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.evaluation.leakage import TrainingData
from fer.evaluation.request import EnsembleMember, Member, Request, Tables, with_weights
from fer.evaluation.scoring import Calibration, calibrated_sets
from fer.inference.ensemble import (
    Choice,
    chosen_greedily,
    each_tempered,
    equal_weights,
    fitted_weights,
    mixed,
    own_temperatures,
)
from fer.metrics.arrays import Array, doubled
from fer.metrics.calibration import Threshold, at_threshold, fitted_temperature, tempered, threshold_for
from fer.metrics.groups import of_part, share_interval
from fer.metrics.results import THESE_FACES, VAL, Answered, Answering, SelectionRecord, Step
from fer.runs.predictions import Scored
from fer.system.text import plural

log = logging.getLogger(__name__)

# probabilities (M, N, C), labels (N,), which have no duplicate in train; None where that is not known
OnVal = tuple[Array, Array, NDArray[np.bool_] | None]


@dataclass(frozen=True)
class Chosen:
    """The choices on val.

    Args:
        weights: (M,) of the networks.
        temperatures: (M,) of the networks, by which each one's logits are divided before they are mixed.
        temperature: of the mixture; None where val could not be read.
        fitted_on: the faces that it was fitted on, in words; empty where there is none.
        threshold: for the target error rate; None where none was asked for or none can promise it.
        kept: whether the temperature is the one in the network's checkpoint.
        chosen_on: the faces that the threshold was chosen on, in words.
        sets: thresholds of the prediction sets; None where the network's file has none and val was not read.
    """

    weights: Array
    temperatures: NDArray[np.float64]
    temperature: float | None
    fitted_on: str
    threshold: Threshold | None = None
    kept: bool = False
    chosen_on: str = ""
    sets: Calibration | None = None


@dataclass(frozen=True)
class Selection:
    """The networks of an ensemble that val has chosen among those given.

    Args:
        members: K networks.
        weights: (K,) of them.
        temperatures: (K,) of them.
        on_val: their predictions of val.
        report: networks given and left out, and the metrics of each step on val.
    """

    members: list[EnsembleMember]
    weights: NDArray[np.float64]
    temperatures: NDArray[np.float64]
    on_val: OnVal
    report: SelectionRecord


def selected(request: Request, given: Sequence[EnsembleMember], tables: Tables) -> Selection:
    """Return the networks that val of the training chooses among those given, and a report of the choice.

    Raises:
        FerError: val cannot be read.
    """
    training = TrainingData(with_weights(given), tables)
    why = training.missing if training.shared else "the networks were chosen on different val faces"
    if why:
        raise FerError(f"--choose chooses on the val split of the training, but {why}")
    predicted, targets, unseen = training.val(request, given)
    choice = chosen_greedily(predicted, targets)
    kept = np.flatnonzero(choice.weights).tolist()
    report = selection_report([str(member.file) for member in given], choice, predicted, targets)
    return Selection(
        [given[index] for index in kept],
        choice.weights[kept],
        choice.temperatures[kept],
        (predicted[kept], targets, unseen),
        report,
    )


def selection_report(names: Sequence[str], choice: Choice, predicted: Array, targets: Array) -> SelectionRecord:
    """Return the report of a choice among M networks, and log its outcome.

    Args:
        names: of the networks.
        choice: among them.
        predicted: (M, N, C) their probabilities of val, before any temperature.
        targets: (N,) labels of val.
    """
    steps, given = choice.picks, len(names)
    left_out = tuple(name for name, weight in zip(names, choice.weights.tolist(), strict=True) if not weight)
    best = float(doubled(predicted.argmax(2) == targets).mean(1).max())
    kept = given - len(left_out)
    log.info("chosen on val: %d of %s, in %s", kept, plural(given, "network"), plural(len(steps), "step"))
    if steps[-1].accuracy < best:
        log.warning(
            "the chosen ensemble lowers the NLL of val, but its accuracy there is %.2f %%, the best network's %.2f %%",
            100 * steps[-1].accuracy, 100 * best,
        )  # fmt: skip
    return SelectionRecord(
        given=given,
        left_out=left_out,
        steps=tuple(Step(names[pick.member], pick.nll, pick.accuracy) for pick in steps),
        best_alone_val=best,
        all_equal_val=float(doubled(predicted.mean(0).argmax(1) == targets).mean()),
    )


def chosen(
    request: Request,
    members: Sequence[EnsembleMember],
    training: TrainingData,
    scored: OnVal | None,
    selection: Selection | None = None,
) -> Chosen:
    """Return weights, temperatures, threshold of confidence and thresholds of prediction sets.

    Fitted weights weigh networks whose logits are divided by their own temperatures. Both are fitted on val. Equal
    weights need no val and take the networks as they are.

    The threshold is chosen on the faces of val without a duplicate in train. On the others networks are right more
    often than they will be on new faces.

    Args:
        request: what is to be evaluated.
        members: the networks.
        training: the faces that they were trained on.
        scored: the predictions of val where val itself is scored, else None.
        selection: of the networks, where they were chosen.

    Raises:
        FerError: val is needed and cannot be read.
    """
    fitted_on = VAL if scored is None else THESE_FACES
    given = _given(request, members, selection, fitted_on)
    needed = request.weights == "val" or request.error_rate is not None
    needed = needed or (given.sets is None and (request.coverage is not None or request.coverage_by == "class"))
    if given.kept and not needed:
        return given
    why = "" if training.shared else "the networks were chosen on different val faces"
    why = why or ("" if scored is not None else training.missing)
    if why and needed:
        raise FerError(
            f"{_choices_on_val(request)}: what it needs is chosen on the val split of the training, but {why}"
        )
    if why:
        log.warning("no temperature: %s", why)
        return given
    on_val = scored or (selection.on_val if selection else training.val(request, members))
    return _on_val(request, given, on_val, fitted_on)


def _given(request: Request, members: Sequence[EnsembleMember], selection: Selection | None, fitted_on: str) -> Chosen:
    """Return what is known before val is read: of one network with the views of its training, what its file has."""
    weights = equal_weights(len(members)) if selection is None else selection.weights
    temperatures = np.ones(len(members)) if selection is None else selection.temperatures
    alone = len(members) == 1 and request.views == "none"
    recorded = members[0].model.provenance.temperature if alone and isinstance(members[0], Member) else None
    if recorded is None:
        return Chosen(weights, temperatures, None, "")
    sets = _kept_sets(members[0], fitted_on)
    if request.coverage_by == "class" and sets is not None and not sets.thresholds.by_class:
        sets = None  # of an earlier version
    return Chosen(weights, temperatures, recorded, fitted_on, kept=True, sets=sets)


def _on_val(request: Request, given: Chosen, on_val: OnVal, fitted_on: str) -> Chosen:
    """Return the choices that val completes."""
    predicted, targets, unseen = on_val
    weights, temperatures = given.weights, given.temperatures
    if request.weights == "val":
        temperatures = own_temperatures(predicted, targets)
        weights = fitted_weights(each_tempered(predicted, temperatures), targets)
    chances, labels = np.asarray(mixed(predicted, weights, temperatures)), np.asarray(targets)
    temperature = fitted_temperature(chances, labels) if given.temperature is None else given.temperature
    threshold, chosen_on = None, "the faces of val without a duplicate in train"
    if unseen is None:
        unseen, chosen_on = np.ones(len(labels), np.bool_), "all of val, since its duplicates in train are not known"
    if request.error_rate is not None:
        threshold = threshold_for(request.error_rate, tempered(chances[unseen], temperature), labels[unseen])
    sets = given.sets or Calibration(calibrated_sets(chances, labels, unseen, temperature), fitted_on, kept=False)
    return Chosen(weights, temperatures, temperature, fitted_on, threshold, given.kept, chosen_on, sets)


def _kept_sets(network: EnsembleMember, fitted_on: str) -> Calibration | None:
    """Return the thresholds of prediction sets that a network's file has."""
    kept = network.model.provenance.sets if isinstance(network, Member) else None
    return None if kept is None else Calibration(kept, fitted_on, kept=True)


def _choices_on_val(request: Request) -> str:
    """Return the options of a request that need val, in words."""
    options = {
        "--weights val": request.weights == "val",
        "--error-rate": request.error_rate is not None,
        "--coverage": request.coverage is not None,
        "--coverage-by": request.coverage_by == "class",
    }
    return ", ".join(option for option, given in options.items() if given)


def answering(chosen: Chosen, target_error: float, scored: Scored) -> Answering:
    """Return coverage and error on these faces if only answers from the chosen confidence count."""
    threshold = chosen.threshold
    if threshold is None or chosen.temperature is None:
        return Answering(target_error=target_error, threshold=None, chosen_on=chosen.chosen_on)
    warm = tempered(scored.probabilities, chosen.temperature)
    answered, wrong = at_threshold(threshold.confidence, warm, scored.targets)
    groups = of_part(scored.groups, answered)
    outcome = Answered(
        coverage_there=threshold.coverage,
        error_there=threshold.error,
        bound_there=threshold.bound,
        coverage=float(answered.mean()),
        error=float(wrong.mean()) if wrong.size else None,
        error_ci95=share_interval(wrong, groups),
    )
    return Answering(
        target_error=target_error, threshold=threshold.confidence, chosen_on=chosen.chosen_on, answered=outcome
    )
