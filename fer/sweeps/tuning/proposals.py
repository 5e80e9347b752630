"""Optuna's side of a search: its storage, what draws, what ends trials early, its trials as plain values.

What is drawn is a function of the seed, the trial's number and the trials before it, so that a search that was
interrupted goes on as it would have.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fer.config.errors import FerError
from fer.config.settings import TuneSettings, mode
from fer.runs.trials import Share, State, Trial
from fer.sweeps.jobs import MOST_SAID
from fer.sweeps.tuning.space import Parameter

log = logging.getLogger(__name__)

JOURNAL = "journal.log"
STUDY = "tune"  # its name in a journal of its own
STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
FEWEST, BEST = 4, 5  # complete trials that importance takes; those that are the best of many
SAMPLES = 200  # of the trials, for the intervals of importance
REDUCTION = 3  # hyperband keeps one of so many, as its authors do (Li et al. 2018)


def opened(
    folder: Path, settings: TuneSettings, monitor: str, most_epochs: int, baseline: Mapping[str, Any]
) -> optuna.Study:
    """Return the study of a search, new or gone on with.

    Args:
        folder: the search's.
        settings: of the search.
        monitor: the figure that is searched for.
        most_epochs: that a trial may have.
        baseline: key -> value of a new search's first trial, as far as that is not to be drawn.

    Raises:
        FerError: the storage cannot be opened.
    """
    study = _opened(folder, settings, monitor, pruner(settings, most_epochs))
    if baseline and not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(baseline))
    return study


def _opened(folder: Path, settings: TuneSettings, monitor: str, ends: optuna.pruners.BasePruner) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = StudyDirection.MINIMIZE if mode(monitor) == "min" else StudyDirection.MAXIMIZE
    if settings.storage is not None:
        name = f"{STUDY}-{folder.name}"
        with _usable(settings.storage):
            return optuna.create_study(
                storage=settings.storage, study_name=name, direction=direction, pruner=ends, load_if_exists=True
            )
    file = folder / JOURNAL
    mend(file)
    with _usable(str(file)):
        journal = JournalStorage(JournalFileBackend(str(file)))
        return optuna.create_study(
            storage=journal, study_name=STUDY, direction=direction, pruner=ends, load_if_exists=True
        )


@contextmanager
def _usable(storage: str) -> Iterator[None]:
    """Say in one line what is wrong with a storage; each data base has errors of its own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:MOST_SAID]
        raise FerError(f"{storage}: no storage for a search ({type(error).__name__}: {said})") from error


def mend(journal: Path) -> None:
    """Take away a last line that was being written when the machine stopped; Optuna could read nothing after it."""
    written = journal.read_bytes() if journal.exists() else b""
    whole = written.rfind(b"\n") + 1
    if whole < len(written):
        with open(journal, "r+b") as stream:
            stream.truncate(whole)
        log.warning("%s: its last line was cut off, and is taken away", journal.name)


def sampler(settings: TuneSettings, number: int) -> optuna.samplers.BaseSampler:
    """Return what draws the values of trial ``number``."""
    seed = int(np.random.SeedSequence((settings.sampler_seed, number)).generate_state(1)[0])
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=settings.random_trials)


def prunes(settings: TuneSettings, most_epochs: int) -> bool:
    """Return whether any trial can be ended early: none is where the warm-up leaves no epoch to do so after."""
    return settings.pruner != "none" and settings.warmup_epochs + 1 < most_epochs


def pruner(settings: TuneSettings, most_epochs: int) -> optuna.pruners.BasePruner:
    """Return what ends trials early; epochs count from 1, and are Optuna's steps."""
    first = settings.warmup_epochs + 1
    if not prunes(settings, most_epochs):
        return optuna.pruners.NopPruner()
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(first, most_epochs, REDUCTION)
    return optuna.pruners.MedianPruner(settings.startup_trials, first)


def drawn(trial: optuna.Trial, parameters: Sequence[Parameter]) -> dict[str, str]:
    """Return key -> text of what a trial is told; what it was told before it is told again."""
    texts: dict[str, str] = {}
    for parameter in parameters:
        if parameter.applies(texts):
            texts[parameter.key] = parameter.text(_value(trial, parameter))
    return texts


def _value(trial: optuna.Trial, parameter: Parameter) -> Any:
    key, span = parameter.key, parameter.span
    if parameter.choices:
        return trial.suggest_categorical(key, parameter.texts)
    if parameter.whole:
        return trial.suggest_int(key, int(span.low), int(span.high), step=int(span.step or 1), log=span.log)
    return trial.suggest_float(key, span.low, span.high, step=span.step, log=span.log)


def importances(study: optuna.Study) -> tuple[dict[str, Share], int]:
    """Return how much each parameter mattered for a place among the best, and how many those are.

    PED-ANOVA (Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
    Subspaces"), with at least five trials among the best, as its authors advise, and at most half. The interval is the
    middle 95 % over samples of the trials, drawn with replacement.
    """
    found = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    complete = [trial for trial in found if "same_as" not in trial.user_attrs]
    if len(complete) < FEWEST:
        return {}, 0
    quantile = min(0.5, max(0.1, BEST / len(complete)))
    value = _shares(complete, study.direction, quantile)
    chance = np.random.default_rng(0)
    sampled = [
        _shares([complete[place] for place in places], study.direction, quantile)
        for places in chance.integers(len(complete), size=(SAMPLES, len(complete)))
    ]
    ends = {key: np.quantile([shares.get(key, 0.0) for shares in sampled], (0.025, 0.975)) for key in value}
    return {key: Share(value[key], *map(float, ends[key])) for key in value}, math.ceil(quantile * len(complete))


def _shares(complete: Sequence[FrozenTrial], direction: StudyDirection, quantile: float) -> dict[str, float]:
    """Return key -> share of the importance, by these trials."""
    with warnings.catch_warnings():  # of few trials, which whoever shows this says
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction=direction)
        study.add_trials(complete)
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=quantile))


def trials(study: optuna.Study, parameters: Sequence[Parameter]) -> list[Trial]:
    """Return what became of each trial that has begun, in order."""
    begun = study.get_trials(deepcopy=False, states=tuple(STATES))
    return [_plain(frozen, study.direction, parameters) for frozen in begun]


def _plain(frozen: FrozenTrial, direction: StudyDirection, parameters: Sequence[Parameter]) -> Trial:
    noted, measured = frozen.user_attrs, frozen.intermediate_values
    best = max if direction == StudyDirection.MAXIMIZE else min
    return Trial(
        number=frozen.number,
        state=STATES[frozen.state],
        texts={each.key: each.text(frozen.params[each.key]) for each in parameters if each.key in frozen.params},
        value=frozen.value if frozen.state == TrialState.COMPLETE else best(measured.values(), default=None),
        values=noted.get("values", []),
        epochs=max(measured, default=0),
        seconds=noted.get("seconds", 0.0),
        folders=noted.get("folders", []),
        reason=noted.get("reason", ""),
        same_as=noted.get("same_as"),
    )
