"""What is chosen on val of the training: an ensemble's networks and weights, temperature, confidence to answer from."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fer.config.errors import FerError
from fer.evaluation.leakage import Training
from fer.evaluation.request import Asked, Given, Member, with_weights
from fer.inference.ensemble import (
    Choice,
    chosen_greedily,
    each_tempered,
    equal_weights,
    fitted_weights,
    mixed,
    own_temperatures,
)
from fer.metrics.calibration import Threshold, at_threshold, fitted_temperature, tempered, threshold_for
from fer.metrics.statistics import wilson
from fer.runs.predictions import Scored

log = logging.getLogger(__name__)

# probabilities (M, N, C), labels (N,), which have no twin in train; None where that cannot be told
OnVal = tuple[Tensor, Tensor, NDArray[np.bool_] | None]


@dataclass(frozen=True)
class Chosen:
    """What val has decided.

    Args:
        weights: (M,) of the networks.
        temperatures: (M,) of the networks, by which each one's logits are divided before they are mixed.
        temperature: of the mixture; None where val could not be had.
        fitted_on: the faces that it was fitted on, in words.
        threshold: for the wanted error rate; None where none was asked for or none can promise it.
        kept: whether the temperature is the one in the network's checkpoint.
        chosen_on: the faces that the threshold was chosen on, in words.
    """

    weights: Tensor
    temperatures: Tensor
    temperature: float | None
    fitted_on: str
    threshold: Threshold | None = None
    kept: bool = False
    chosen_on: str = ""


@dataclass(frozen=True)
class Selection:
    """The networks of an ensemble that val has chosen among those given.

    Args:
        members: K networks.
        weights: (K,) of them.
        temperatures: (K,) of them.
        on_val: what they made of val.
        told: how it went, as plain values: who was given, left out, and each step's figures on val.
    """

    members: list[Given]
    weights: Tensor
    temperatures: Tensor
    on_val: OnVal
    told: dict[str, Any]


def selected(asked: Asked, given: Sequence[Given]) -> Selection:
    """Return the networks that val of the training chooses among those given, and how it went.

    Raises:
        FerError: val cannot be had.
    """
    training = Training(with_weights(given), asked.batch_size)
    why = training.missing if training.shared else "the networks were chosen on different val faces"
    if why:
        raise FerError(f"--choose chooses on the val split of the training, but {why}")
    predicted, targets, unseen = training.val(asked, given)
    choice = chosen_greedily(predicted, targets)
    kept = choice.weights.nonzero().flatten().tolist()
    told = selection_report([str(member.file) for member in given], choice, predicted, targets)
    return Selection(
        [given[index] for index in kept],
        choice.weights[kept],
        choice.temperatures[kept],
        (predicted[kept], targets, unseen),
        told,
    )


def selection_report(names: Sequence[str], choice: Choice, predicted: Tensor, targets: Tensor) -> dict[str, Any]:
    """Return how a choice among M networks went, as plain values, and log what matters of it.

    Args:
        names: of the networks.
        choice: among them.
        predicted: (M, N, C) their probabilities of val, as the networks gave them.
        targets: (N,) labels of val.
    """
    steps, given = choice.picks, len(names)
    left_out = [name for name, weight in zip(names, choice.weights.tolist(), strict=True) if not weight]
    best = float((predicted.argmax(2) == targets).double().mean(1).max())
    log.info("chosen on val: %d of %d networks, in %d steps", given - len(left_out), given, len(steps))
    if steps[-1].accuracy < best:
        log.warning(
            "what was chosen lowers val's NLL, but reads %.2f %% of val, the best network alone %.2f %%",
            100 * steps[-1].accuracy, 100 * best,
        )  # fmt: skip
    return {
        "given": given,
        "left_out": left_out,
        "steps": [{"added": names[pick.member], "nll_val": pick.nll, "accuracy_val": pick.accuracy} for pick in steps],
        "best_alone_val": best,
        "all_equal_val": float((predicted.mean(0).argmax(1) == targets).double().mean()),
    }


def chosen(
    asked: Asked,
    members: Sequence[Given],
    training: Training,
    scored: OnVal | None,
    selection: Selection | None = None,
) -> Chosen:
    """Return weights, temperatures and threshold.

    Weights that are fitted on val weigh networks whose logits are divided by their own temperatures, fitted there too;
    equal weights need no val and take the networks as they are.

    The threshold is chosen on the faces of val without a twin in train: on the others networks are right more often
    than they will be on faces they have not met.

    Args:
        asked: what is to be evaluated.
        members: the networks.
        training: what they were trained on.
        scored: what is known of val where val itself is scored, else None.
        selection: of the networks, where they were chosen.

    Raises:
        FerError: val is needed and cannot be had.
    """
    alone = len(members) == 1 and asked.views == "none"
    needed = asked.weights == "val" or asked.error_rate is not None
    weights = equal_weights(len(members)) if selection is None else selection.weights
    own = torch.ones_like(weights) if selection is None else selection.temperatures
    sealed = members[0].model.provenance.temperature if isinstance(members[0], Member) else None
    if alone and sealed is not None and not needed:
        return Chosen(weights, own, sealed, "val" if scored is None else "these faces", kept=True)
    why = "" if training.shared else "the networks were chosen on different val faces"
    why = why or ("" if scored is not None else training.missing)
    if why and needed:
        raise FerError(f"--weights val and --error-rate choose on the val split of the training, but {why}")
    if why:
        log.warning("no temperature: %s", why)
        kept_one = alone and sealed is not None
        return Chosen(weights, own, sealed if alone else None, "val" if kept_one else "", kept=kept_one)
    predicted, targets, kept = scored or (selection.on_val if selection else training.val(asked, members))
    if asked.weights == "val":
        own = own_temperatures(predicted, targets)
        weights = fitted_weights(each_tempered(predicted, own), targets)
    chances, labels = mixed(predicted, weights, own).numpy(), targets.numpy()
    temperature = sealed if alone and sealed is not None else fitted_temperature(chances, labels)
    threshold, chosen_on = None, "the faces of val without a twin in train"
    if kept is None:
        kept, chosen_on = np.ones(len(labels), np.bool_), "all of val, since its twins in train could not be told"
    if asked.error_rate is not None:
        threshold = threshold_for(asked.error_rate, tempered(chances[kept], temperature), labels[kept])
    fitted_on = "val" if scored is None else "these faces"
    return Chosen(weights, own, temperature, fitted_on, threshold, alone and sealed is not None, chosen_on)


def answering(chosen: Chosen, wanted: float, scored: Scored) -> dict[str, Any]:
    """Return what answering only above the chosen confidence does to these faces, as plain values."""
    if chosen.threshold is None or chosen.temperature is None:
        return {"wanted_error": wanted, "threshold": None, "chosen_on": chosen.chosen_on}
    found = chosen.threshold
    answered, wrong = at_threshold(found.confidence, tempered(scored.probabilities, chosen.temperature), scored.targets)
    return {
        "wanted_error": wanted,
        "threshold": found.confidence,
        "chosen_on": chosen.chosen_on,
        "coverage_there": found.coverage,
        "error_there": found.error,  # there: on the faces that it was chosen on
        "bound_there": found.bound,
        "coverage": answered / len(scored.targets),
        "error": wrong / answered if answered else None,
        "error_ci95": wilson(wrong, answered),
    }
