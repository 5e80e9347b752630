"""What a search leaves: its record, the table of its trials, the best one as an experiment, the page."""

import json
import logging
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.config.conf import choices_of, spelled
from fer.config.settings import leaves, worded
from fer.metrics.statistics import Difference, Interval, of_faces, paired_difference
from fer.runs import load
from fer.runs.run_folder import configuration_of
from fer.runs.run_folder import told as computed
from fer.runs.trials import Trial, best, counted, counts, leading, write_csv
from fer.sweeps.tuning import experiment
from fer.sweeps.tuning.proposals import importances
from fer.sweeps.tuning.request import FILE, Request
from fer.sweeps.tuning.search import Search
from fer.system import machine
from fer.system.files import write_json
from fer.system.terminal import shown
from fer.system.text import clock

log = logging.getLogger(__name__)

SCHEMA = 1
ACCURACY = "accuracy/val"


@dataclass(frozen=True)
class Outcome:
    """A search as it stands.

    Args:
        request: what was asked for.
        search: that ran.
        folder: the search's.
        command: line that makes it again.
    """

    request: Request
    search: Search
    folder: Path
    command: str

    @property
    def monitor(self) -> str:
        """The figure that was searched for."""
        return self.search.task.monitor

    @property
    def best(self) -> Trial | None:
        """The best complete trial."""
        return best(self.search.trials(), self.monitor)

    def runs(self, trial: Trial) -> list[Path]:
        """Return the folders of a trial's runs, a seed each."""
        return [self.folder / name for name in trial.folders]


# --- the record, kept up to date ------------------------------------------------------------------------------------


def keep(outcome: Outcome) -> None:
    """Write ``tune.json`` and ``trials.csv``."""
    request, trials = outcome.request, outcome.search.trials()
    keys = [parameter.key for parameter in request.parameters]
    write_csv(outcome.folder / "trials.csv", trials, keys, outcome.monitor)
    found = outcome.best
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "command": outcome.command,
        "arguments": list(request.overrides),
        "monitor": outcome.monitor,
        "space": request.space,
        "settings": asdict(request.settings),
        "config": computed(request.config),
        "seconds": round(outcome.search.seconds(), 1),
        "trials": counts(trials),
        "best": None if found is None else asdict(found),
        "versions": machine.versions() | {"optuna": metadata.version("optuna")},
        "commit": machine.commit(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(outcome.folder / FILE, record)


# --- the end --------------------------------------------------------------------------------------------------------


def conclude(outcome: Outcome) -> int:
    """Write everything, say what came out, and return the exit code: 1 if no trial is complete."""
    keep(outcome)
    trials, found = outcome.search.trials(), outcome.best
    lines = {} if found is None else _write_best(outcome, found)
    show(outcome, lines)
    if found is not None:
        log.info("\n%s", leading(trials, outcome.monitor))
    count = f"{len(trials)} trial{'' if len(trials) == 1 else 's'}"
    spent, folder = clock(outcome.search.seconds()), shown(outcome.folder)
    log.info("\nsearch: %s (%s) in %s: %s", count, counted(trials) or "none begun", spent, folder)
    if found is None:
        reasons = [f"; the last one: {trial.reason}" for trial in trials if trial.reason]
        log.error("no trial is complete, so that none is best%s", reasons[-1] if reasons else "")
        return 1
    for name, purpose in (
        ("tune.html", "the search on one page; its figures as PNG and SVG in figures/"),
        ("trials.csv", "a row a trial"),
        ("experiment/best.yaml", f"trial {found.number}, {_worth(outcome, found)}"),
    ):
        log.info("  %-21s %s", name, purpose)
    for name, line in lines.items():
        log.info("%-23s %s", f"{name}:", line)
    return 0


def _write_best(outcome: Outcome, found: Trial) -> dict[str, str]:
    """Write the best trial as an experiment, and return name -> command that goes on from there."""
    run, paths = outcome.runs(found)[0], outcome.request.paths
    beside = experiment.write(outcome.folder, run, paths, list(found.texts), _opening(outcome, found))
    if not experiment.composes_again(outcome.folder, run, paths, beside):
        log.warning("experiment/best.yaml gives another configuration than the best trial's, which is %s", shown(run))
    folder = str(shown(outcome.folder))
    words = ["--config-dir", folder, f"{experiment.FOLDER}={experiment.NAME}", *beside]
    return {
        "train it again": shlex.join(["python", "-m", "fer.train", *words]),
        "with other seeds": shlex.join(["python", "-m", "fer.train", "-m", *words]) + " seed=0,1,2",
        "compare all of them": shlex.join(["python", "-m", "fer.compare", folder]),
    }


def _worth(outcome: Outcome, found: Trial) -> str:
    """Return the best value in words, with its 95 % interval where it is an accuracy."""
    ends = _interval(outcome, found)
    told = "" if ends is None else f" [{100 * ends[0]:.2f}, {100 * ends[1]:.2f}]"
    return f"{outcome.monitor} {worded(outcome.monitor, found.value or 0.0)}{told}"


def _opening(outcome: Outcome, found: Trial) -> list[str]:
    """Return the experiment's opening comment: what it is worth, how it was found, how it is run."""
    run, settings = outcome.runs(found)[0], outcome.request.settings
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    beside = "".join(f" {text.partition('=')[0]}=..." for text in experiment.beside(configuration_of(run)))
    seeds = f", the mean of {len(found.values)} seeds" if len(found.values) > 1 else ""
    trials = outcome.search.trials()
    same = "" if metrics["hardware"]["gpu"] else f", trainer.threads={metrics['hardware']['threads']} to the last digit"
    return [
        f"The best of {len(trials)} trials of fer.tune ({counted(trials)}), {metrics['finished'][:10]}:",
        f"{_worth(outcome, found)} of {metrics['n']:,} faces{seeds}, epoch {metrics['best_epoch']} of "
        f"{metrics['epochs']}. It was picked by this figure, which flatters it.",
        f"{settings.sampler} (seed {settings.sampler_seed}), pruner {settings.pruner}, "
        f"{clock(outcome.search.seconds())} on {_machine(metrics['hardware'])}.",
        f"Again, from the folder that holds this one's folder{same}:",
        f"  python -m fer.train --config-dir . experiment=best{beside}",
    ]


def _machine(about: Mapping[str, Any]) -> str:
    threads = f"{about['threads']} thread{'' if about['threads'] == 1 else 's'} a run"
    return f"{about['gpu']} ({about['cpu']})" if about["gpu"] else f"{about['cpu']}, {threads}, no GPU"


# --- the page -------------------------------------------------------------------------------------------------------


def show(outcome: Outcome, lines: Mapping[str, str]) -> None:
    """Write ``tune.html`` and ``figures/``; ``lines`` are commands that go on from here."""
    from fer.reports.tuning import page as page  # matplotlib takes half a second to import
    from fer.reports.tuning.figures import Axis

    request, trials, found = outcome.request, outcome.search.trials(), outcome.best
    shares, top = importances(outcome.search.study)
    values = dict(leaves(request.config)) | choices_of(request.told)
    page.write(
        page.Found(
            subject=f"{request.config['model']['name']} on {_data(outcome)}",
            trials=trials,
            monitor=outcome.monitor,
            parameters={each.key: str(each) for each in request.parameters},
            configured={each.key: spelled(values[each.key]) for each in request.parameters if each.key in values},
            axes={each.key: Axis(each.texts, each.span.log) for each in request.parameters},
            baseline=request.settings.baseline,
            shares=shares,
            top=top,
            interval=_interval(outcome, found) if found else None,
            gain=_gain(outcome, trials[0], found) if found else None,
            seconds=outcome.search.seconds(),
            about=_about(outcome),
            lines=lines,
        ),
        outcome.folder,
    )


def _data(outcome: Outcome) -> str:
    """Return the name of the faces, of which the best run's figures tell."""
    if outcome.best is None:
        return "faces"
    metrics = json.loads((outcome.runs(outcome.best)[0] / "metrics.json").read_text(encoding="utf-8"))
    return str(metrics["dataset"]["name"])


def _about(outcome: Outcome) -> dict[str, str]:
    settings, hardware = outcome.request.settings, machine.hardware()
    pruned = f"{settings.pruner}, not before epoch {settings.warmup_epochs + 1}"
    versions = machine.versions() | {"optuna": metadata.version("optuna")}
    return {
        "command": outcome.command,
        "budget": f"{settings.trials} trials" + (f", {settings.hours:g} hours" if settings.hours else ""),
        "seeds a trial": str(settings.seeds),
        "sampler": f"{settings.sampler}, seed {settings.sampler_seed}",
        "pruner": "none" if settings.pruner == "none" else pruned,
        "fixed, though in the space": ", ".join(outcome.request.fixed),
        "machine": hardware["gpu"] or f"{hardware['cpu']}, {hardware['cores']} cores, no GPU",
        "code": machine.commit() or "no checkout: the installed package",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _interval(outcome: Outcome, found: Trial) -> Interval | None:
    """Return the 95 % interval of a trial's accuracy for other faces; None where something else was searched for."""
    correct = _correct(outcome, found)
    return None if correct is None else of_faces(correct)


def _gain(outcome: Outcome, first: Trial, found: Trial) -> Difference | None:
    """Return by how much the best trial is better than the configured values, on the same faces."""
    if not outcome.request.settings.baseline or first.state != "complete" or first.number == found.number:
        return None
    best_one, configured = _correct(outcome, found), _correct(outcome, first)
    return None if best_one is None or configured is None else paired_difference(best_one, configured)


def _correct(outcome: Outcome, trial: Trial) -> NDArray[np.bool_] | None:
    """Return (K, N), whether each of K seeds is right on each of N faces, if that is what was searched for."""
    told = outcome.request.config["trainer"]
    if outcome.monitor != ACCURACY or told["limit_val"] != 1 or told["overfit_batches"]:
        return None
    return np.stack([load.load(run).correct for run in outcome.runs(trial)])
