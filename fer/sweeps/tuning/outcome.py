"""The results of a search.

They are its record, the table of trials, the best trial as an experiment, and the page.
"""

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer.config.conf import choices_of, spelled
from fer.config.settings import leaves, worded
from fer.metrics import results as metrics_json
from fer.metrics.statistics import Difference, Interval, accuracy_interval, paired_difference
from fer.reports.summary import limits_of_val
from fer.runs import load
from fer.runs.run_folder import computed_settings, configuration_of
from fer.runs.trials import Trial, best, counted, counts, leading, write_csv
from fer.sweeps.tuning import experiment
from fer.sweeps.tuning.proposals import importances
from fer.sweeps.tuning.request import FILE, Request, SearchRecord
from fer.sweeps.tuning.search import Search
from fer.system import machine, records
from fer.system.files import write_json
from fer.system.machine import Hardware
from fer.system.terminal import shown
from fer.system.text import clock

log = logging.getLogger(__name__)

ACCURACY = "accuracy/val"


@dataclass(frozen=True)
class Outcome:
    """A search with its trials so far.

    Args:
        request: parsed command line.
        search: the search.
        folder: folder of the search.
        command: command line that repeats it.
    """

    request: Request
    search: Search
    folder: Path
    command: str

    @property
    def monitor(self) -> str:
        """The metric that the search optimises."""
        return self.search.task.monitor

    @property
    def best(self) -> Trial | None:
        """The best complete trial."""
        return best(self.search.trials(), self.monitor)

    def runs(self, trial: Trial) -> list[Path]:
        """Return the folders of a trial's runs, one for each seed."""
        return [self.folder / name for name in trial.folders]


# --- the record -----------------------------------------------------------------------------------------------------


def keep(outcome: Outcome) -> None:
    """Write ``tune.json`` and ``trials.csv``."""
    request, trials = outcome.request, outcome.search.trials()
    keys = [parameter.key for parameter in request.parameters]
    write_csv(outcome.folder / "trials.csv", trials, keys, outcome.monitor)
    record = SearchRecord(
        command=outcome.command,
        arguments=tuple(request.overrides),
        monitor=outcome.monitor,
        space=request.space,
        settings=request.settings,
        config=computed_settings(request.config),
        seconds=round(outcome.search.seconds(), 1),
        trials=counts(trials),
        best=outcome.best,
        versions=versions(),
        commit=machine.commit(),
        written=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(outcome.folder / FILE, records.plain(record))


def versions() -> dict[str, str]:
    """Return the versions of Python, of this library, of its main dependencies and of Optuna."""
    return machine.versions() | {"optuna": metadata.version("optuna")}


# --- the end --------------------------------------------------------------------------------------------------------


def conclude(outcome: Outcome) -> int:
    """Write all results, print a summary, and return the exit code: 1 if no trial is complete."""
    keep(outcome)
    trials, best_trial = outcome.search.trials(), outcome.best
    lines = {} if best_trial is None else _write_best(outcome, best_trial)
    show(outcome, lines)
    if best_trial is not None:
        log.info("\n%s", leading(trials, outcome.monitor))
    count = f"{len(trials)} trial{'' if len(trials) == 1 else 's'}"
    spent, folder = clock(outcome.search.seconds()), shown(outcome.folder)
    log.info("\nsearch: %s (%s) in %s: %s", count, counted(trials) or "none begun", spent, folder)
    if best_trial is None:
        reasons = [f"; the last one: {trial.reason}" for trial in trials if trial.reason]
        log.error("no trial is complete, so there is no best one%s", reasons[-1] if reasons else "")
        return 1
    for name, purpose in (
        ("tune.html", "the search on one page; its figures as PNG and SVG in figures/"),
        ("trials.csv", "a row for each trial"),
        ("experiment/best.yaml", f"trial {best_trial.number}, {_worth(outcome, best_trial)}"),
    ):
        log.info("  %-21s %s", name, purpose)
    for name, line in lines.items():
        log.info("%-23s %s", f"{name}:", line)
    return 0


def _write_best(outcome: Outcome, best_trial: Trial) -> dict[str, str]:
    """Write the best trial as an experiment, and return purpose -> command of the next steps."""
    run, paths = outcome.runs(best_trial)[0], outcome.request.paths
    beside = experiment.write(outcome.folder, run, paths, list(best_trial.texts), _opening(outcome, best_trial))
    if not experiment.composes_again(outcome.folder, run, paths, beside):
        log.warning("experiment/best.yaml differs from the best trial's configuration, which is in %s", shown(run))
    folder = str(shown(outcome.folder))
    words = ["--config-dir", folder, f"{experiment.FOLDER}={experiment.NAME}", *beside]
    return {
        "train it again": shlex.join(["python", "-m", "fer.train", *words]),
        "with other seeds": shlex.join(["python", "-m", "fer.train", "-m", *words]) + " seed=0,1,2",
        "compare all of them": shlex.join(["python", "-m", "fer.compare", folder]),
    }


def _worth(outcome: Outcome, best_trial: Trial) -> str:
    """Return the best value in words, with its 95 % interval where it is an accuracy."""
    ends = _interval(outcome, best_trial)
    interval = "" if ends is None else f" [{100 * ends[0]:.2f}, {100 * ends[1]:.2f}]"
    return f"{outcome.monitor} {worded(outcome.monitor, best_trial.value or 0.0)}{interval}"


def _opening(outcome: Outcome, best_trial: Trial) -> list[str]:
    """Return the experiment's opening comment: its value, the search, the command."""
    run, settings = outcome.runs(best_trial)[0], outcome.request.settings
    results = metrics_json.read(run / "metrics.json")
    training, hardware = results.training, results.machine.hardware
    assert training is not None  # a trial's file is a training's
    beside = "".join(f" {text.partition('=')[0]}=..." for text in experiment.beside(configuration_of(run)))
    seeds = f", the mean of {len(best_trial.values)} seeds" if len(best_trial.values) > 1 else ""
    trials = outcome.search.trials()
    same = "" if hardware.gpu else f", trainer.threads={hardware.threads} to the last digit"
    return [
        f"The best of {len(trials)} trials of fer.tune ({counted(trials)}), {(results.machine.finished or '')[:10]}:",
        f"{_worth(outcome, best_trial)} of {results.scores.n:,} faces{seeds}, epoch {training.best_epoch} of "
        f"{training.epochs}. The trial was chosen by this value, which is therefore optimistic.",
        f"{settings.sampler} (seed {settings.sampler_seed}), pruner {settings.pruner}, "
        f"{clock(outcome.search.seconds())} on {_machine(hardware)}.",
        f"To train it again, from the folder above this file's folder{same}:",
        f"  python -m fer.train --config-dir . experiment=best{beside}",
    ]


def _machine(about: Hardware) -> str:
    threads = f"{about.threads} thread{'' if about.threads == 1 else 's'} a run"
    return f"{about.gpu} ({about.cpu})" if about.gpu else f"{about.cpu}, {threads}, no GPU"


# --- the page -------------------------------------------------------------------------------------------------------


def show(outcome: Outcome, lines: Mapping[str, str]) -> None:
    """Write ``tune.html`` and ``figures/``; ``lines`` are purposes and commands of the next steps."""
    from fer.reports.tuning import page as page  # matplotlib takes half a second to import
    from fer.reports.tuning.figures import Axis

    request, trials, best_trial = outcome.request, outcome.search.trials(), outcome.best
    shares, top = importances(outcome.search.study)
    values = dict(leaves(request.config)) | choices_of(request.trial_overrides)
    page.write(
        page.SearchResults(
            subject=f"{request.config['model']['name']} on {_data(outcome)}",
            trials=trials,
            monitor=outcome.monitor,
            parameters={each.key: str(each) for each in request.parameters},
            configured={each.key: spelled(values[each.key]) for each in request.parameters if each.key in values},
            axes={each.key: Axis(each.texts, each.span.log) for each in request.parameters},
            baseline=bool(outcome.search.task.baseline()),
            shares=shares,
            top=top,
            interval=_interval(outcome, best_trial) if best_trial else None,
            gain=_gain(outcome, trials[0], best_trial) if best_trial else None,
            seconds=outcome.search.seconds(),
            about=_about(outcome),
            lines=lines,
        ),
        outcome.folder,
    )


def _data(outcome: Outcome) -> str:
    """Return the name of the data set, from the best run's metrics; "faces" before any trial is complete."""
    if outcome.best is None:
        return "faces"
    return metrics_json.read(outcome.runs(outcome.best)[0] / "metrics.json").dataset.name


def _about(outcome: Outcome) -> dict[str, str]:
    settings, hardware = outcome.request.settings, machine.hardware()
    pruned = f"{settings.pruner}, not before epoch {settings.warmup_epochs + 1}"
    return {
        "command": outcome.command,
        "budget": f"{settings.trials} trials" + (f", {settings.hours:g} hours" if settings.hours else ""),
        "seeds a trial": str(settings.seeds),
        "sampler": f"{settings.sampler}, seed {settings.sampler_seed}",
        "pruner": "none" if settings.pruner == "none" else pruned,
        "fixed, though in the space": ", ".join(outcome.request.fixed),
        "machine": hardware.gpu or f"{hardware.cpu}, {hardware.cores} cores, no GPU",
        "code": machine.commit() or "no checkout: the installed package",
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }


def _interval(outcome: Outcome, best_trial: Trial) -> Interval | None:
    """Return the 95 % interval of a trial's accuracy for other faces; None for another monitored metric."""
    correct = _correct(outcome, best_trial)
    return None if correct is None else accuracy_interval(correct)


def _gain(outcome: Outcome, first: Trial, best_trial: Trial) -> Difference | None:
    """Return the difference of the best trial to the configured values, on the same faces; None if unknown."""
    if not outcome.search.task.baseline() or first.state != "complete" or first.number == best_trial.number:
        return None
    best_correct, configured = _correct(outcome, best_trial), _correct(outcome, first)
    return None if best_correct is None or configured is None else paired_difference(best_correct, configured)


def _correct(outcome: Outcome, trial: Trial) -> NDArray[np.bool_] | None:
    """Return (K, N) whether each of K seeds is right on each of N faces; None for other searches."""
    if outcome.monitor != ACCURACY:
        return None
    runs = [load.load(run) for run in outcome.runs(trial)]
    trainer = outcome.request.config["trainer"]
    if any(limits_of_val(trainer, run.metrics.scores.n, run.metrics.batch_size) for run in runs):
        return None
    return np.stack([run.correct for run in runs])
