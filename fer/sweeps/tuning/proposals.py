"""Optuna's part of a search.

It has the storage, the sampler and the pruner, importances, and the trials as plain values. The drawn values depend on
the seed, the trial's number and the trials before it. A resumed search with one trial at a time equals an uninterrupted
one. Optuna is used directly: Hydra's Optuna plugin pins optuna<3, cannot prune and breaks with sqlalchemy 2. Importance
is PED-ANOVA with intervals over samples of the trials: it needs no scikit-learn, and few trials give wide intervals.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fer.config.errors import FerError
from fer.config.settings import TuneSettings, mode
from fer.runs.trials import Share, State, Trial
from fer.sweeps.jobs import MOST_SAID
from fer.sweeps.tuning.space import Parameter
from fer.sweeps.tuning.workers import Workers
from fer.system.text import plural

log = logging.getLogger(__name__)

JOURNAL = "journal.log"
STUDY = "tune"  # the study's name in the journal of a search
CONFIGURED = "configured"  # note of a trial: its keys that have the configured values; the others are drawn
STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
FEWEST, BEST = 4, 5  # complete trials that importance needs; number of trials that count as the best
SAMPLES = 200  # samples of the trials, for the intervals of importance
REDUCTION = 3  # hyperband keeps one trial in three, as its authors do (Li et al. 2018)


def opened(
    workers: Workers,
    settings: TuneSettings,
    monitor: str,
    most_epochs: int,
    baseline: Mapping[str, object],
    *,
    begun: bool = True,
) -> optuna.Study:
    """Return the study of a new or resumed search.

    Args:
        workers: processes that work on the search; this one has its turn.
        settings: settings of the search.
        monitor: metric that the search optimises.
        most_epochs: largest number of epochs of a trial.
        baseline: key -> value of a new search's first trial; keys that are missing here are drawn.
        begun: whether the search may have trials already.

    Raises:
        FerError: the storage cannot be opened, or has trials of another search of this name.
    """
    if settings.storage is None and workers.alone():  # another process might be writing the line
        drop_partial_line(workers.search / JOURNAL)
    study = _opened(workers, settings, monitor, pruner(settings, most_epochs))
    if settings.storage is not None and not begun:
        _refuse_foreign(study, settings.storage, workers.search.name)
    if baseline and not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(baseline), user_attrs={CONFIGURED: sorted(baseline)})
    return study


def _refuse_foreign(study: optuna.Study, storage: str, name: str) -> None:
    """Refuse a study in a database that has trials before its search begins; one that waits may be left by a start."""
    count = sum(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False))
    if count:
        raise FerError(
            f"{storage}: has {plural(count, 'trial')} of another search named {name!r}; choose a folder of another "
            "name with --out"
        )


def _opened(workers: Workers, settings: TuneSettings, monitor: str, ends: optuna.pruners.BasePruner) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = StudyDirection.MINIMIZE if mode(monitor) == "min" else StudyDirection.MAXIMIZE
    if settings.storage is not None:
        name = f"{STUDY}-{workers.search.name}"
        with _usable(settings.storage):
            return optuna.create_study(
                storage=settings.storage, study_name=name, direction=direction, pruner=ends, load_if_exists=True
            )
    file = workers.search / JOURNAL
    with _usable(str(file)):
        journal = JournalStorage(JournalFileBackend(str(file), JournalLock(workers)))
        return optuna.create_study(
            storage=journal, study_name=STUDY, direction=direction, pruner=ends, load_if_exists=True
        )


class JournalLock(BaseJournalFileLock):
    """The lock of the journal; the system releases it when its process is killed, Optuna's own after 30 seconds.

    Args:
        workers: processes that work on the search.
    """

    def __init__(self, workers: Workers) -> None:
        self.workers, self._held = workers, ExitStack()

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._held.enter_context(self.workers.locked(JOURNAL))
        return True

    def release(self) -> None:
        """Release the lock."""
        self._held.close()


@contextmanager
def _usable(storage: str) -> Iterator[None]:
    """Turn an error of a storage into one line; every database has different errors."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        message = " ".join(str(error).split())[:MOST_SAID]
        raise FerError(f"{storage}: no storage for a search ({type(error).__name__}: {message})") from error


@contextmanager
def reachable(storage: str) -> Iterator[None]:
    """Turn the end of a database's connection during a search into one line.

    Raises:
        FerError: naming the database.
    """
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        cause = " ".join(str(error.__cause__ or error).split())[:MOST_SAID]
        raise FerError(f"{storage}: cannot be reached any more ({cause})") from error


def drop_partial_line(journal: Path) -> None:
    """Remove an incomplete last line, as a stopped machine leaves it: Optuna could not read lines after it."""
    written = journal.read_bytes() if journal.exists() else b""
    whole = written.rfind(b"\n") + 1
    if whole < len(written):
        with open(journal, "r+b") as stream:
            stream.truncate(whole)
        log.warning("%s: removed its incomplete last line", journal.name)


def sampler(settings: TuneSettings, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of trial ``number``."""
    seed = int(np.random.SeedSequence((settings.sampler_seed, number)).generate_state(1)[0])
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=settings.random_trials)


def prunes(settings: TuneSettings, most_epochs: int) -> bool:
    """Return whether the pruner can end any trial early: the warm-up must leave an epoch before the last one."""
    return settings.pruner != "none" and settings.warmup_epochs + 1 < most_epochs


def pruner(settings: TuneSettings, most_epochs: int) -> optuna.pruners.BasePruner:
    """Return Optuna's pruner; its steps are epochs, counted from 1."""
    first = settings.warmup_epochs + 1
    if not prunes(settings, most_epochs):
        return optuna.pruners.NopPruner()
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(first, most_epochs, REDUCTION)
    return optuna.pruners.MedianPruner(settings.startup_trials, first)


def drawn(trial: optuna.Trial, parameters: Sequence[Parameter]) -> dict[str, str]:
    """Return key -> text of a trial's values; a resumed trial gets the same values again."""
    texts: dict[str, str] = {}
    for parameter in parameters:
        if parameter.applies(texts):
            value = _value(trial, parameter)
            texts[parameter.key] = parameter.text(value, in_full=parameter.key in trial.user_attrs.get(CONFIGURED, ()))
    return texts


def _value(trial: optuna.Trial, parameter: Parameter) -> Any:
    key, span = parameter.key, parameter.span
    if parameter.choices:
        return trial.suggest_categorical(key, parameter.texts)
    if parameter.whole:
        return trial.suggest_int(key, int(span.low), int(span.high), step=int(span.step or 1), log=span.log)
    return trial.suggest_float(key, span.low, span.high, step=span.step, log=span.log)


def importances(study: optuna.Study) -> tuple[dict[str, Share], int]:
    """Return each parameter's importance for being among the best trials, and the number of those trials.

    The method is PED-ANOVA (Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces"). At least five trials count as the best, as its authors advise, and at most half. The interval
    is the middle 95 % over samples of the trials, drawn with replacement.
    """
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    complete = [trial for trial in ended if "same_as" not in trial.user_attrs]
    if len(complete) < FEWEST:
        return {}, 0
    quantile = min(0.5, max(0.1, BEST / len(complete)))
    value = _shares(complete, study.direction, quantile)
    chance = np.random.default_rng(0)
    sampled = [
        _shares([complete[index] for index in indices], study.direction, quantile)
        for indices in chance.integers(len(complete), size=(SAMPLES, len(complete)))
    ]
    ends = {key: np.quantile([shares.get(key, 0.0) for shares in sampled], (0.025, 0.975)) for key in value}
    return {key: Share(value[key], *map(float, ends[key])) for key in value}, math.ceil(quantile * len(complete))


def _shares(complete: Sequence[FrozenTrial], direction: StudyDirection, quantile: float) -> dict[str, float]:
    """Return key -> share of the importance in these trials."""
    with warnings.catch_warnings():  # Optuna warns of few trials; the page states their number
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction=direction)
        study.add_trials(complete)
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=quantile))


def trials(study: optuna.Study, parameters: Sequence[Parameter]) -> list[Trial]:
    """Return all trials that have started, in order."""
    begun = study.get_trials(deepcopy=False, states=tuple(STATES))
    return [_plain(frozen, study.direction, parameters) for frozen in begun]


def _plain(frozen: FrozenTrial, direction: StudyDirection, parameters: Sequence[Parameter]) -> Trial:
    attributes, measured = frozen.user_attrs, frozen.intermediate_values
    best = max if direction == StudyDirection.MAXIMIZE else min
    return Trial(
        number=frozen.number,
        state=STATES[frozen.state],
        texts={
            each.key: each.text(frozen.params[each.key], in_full=each.key in frozen.user_attrs.get(CONFIGURED, ()))
            for each in parameters
            if each.key in frozen.params
        },
        value=frozen.value if frozen.state == TrialState.COMPLETE else best(measured.values(), default=None),
        values=attributes.get("values", []),
        epochs=max(attributes.get("epochs", 0), *measured, 0),  # those of the first seed while it runs
        seconds=attributes.get("seconds", 0.0),
        folders=attributes.get("folders", []),
        reason=attributes.get("reason", ""),
        same_as=attributes.get("same_as"),
    )
