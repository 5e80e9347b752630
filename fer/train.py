"""``python -m fer.train [-m] [group=name] [key=value]``: train a network.

With ``-m`` a sweep over settings is run.

``--info models`` lists the networks with their parameters, costs and speed on this machine.

Torch is imported only after the configuration has passed its checks: ``--help``, ``--cfg job`` and a mistyped key
answer at once. Drawn faces may replace missing data in a plain single run only. A sweep, a resumed run and an
evaluation never use them instead of other data.
"""

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fer.config import hydra
from fer.config.command import command
from fer.config.conf import plain, search_paths
from fer.config.errors import FerError
from fer.config.hydra import offer_registered, refuse_additions, refuse_keys_of_sweeps, tidied, with_folder
from fer.config.keys import settings_of_info_models, training_help
from fer.config.plugins import import_plugins
from fer.config.schema import build
from fer.config.settings import Origin, SweepSettings, TrainSettings
from fer.runs.run_folder import with_latest
from fer.sweeps import sweep
from fer.system import ranks
from fer.system.imports import first_of
from fer.system.parent import end_with_parent
from fer.system.slots import let_waiting_threads_sleep
from fer.system.terminal import shown
from fer.training import launch, loggers
from fer.training.resume import located_data, resuming, value_given, write_report_again
from fer.training.session import working_in

log = logging.getLogger(__name__)

HELP = {"--help", "-h"}
SHOWING = (
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--hydra-help",
    "--version",
    "--shell-completion",
    "-sc",
)  # print, run nothing


@command("fer.train")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    let_waiting_threads_sleep()
    given = sys.argv[1:] if argv is None else list(argv)
    if (settings := settings_of_info_models(given)) is not None:
        from fer.training.model_table import print_table  # imports torch

        print_table(settings)
        return 0
    asks_for_help = not HELP.isdisjoint(given)
    given = with_folder(given, "hydra.sweep.dir" if _several(given) else "hydra.run.dir")
    arguments = tidied([text for text in given if text not in HELP])
    refuse_additions(arguments)
    offer_registered(arguments)
    if asks_for_help:
        print(training_help([text for text in arguments if not text.startswith("-")]))
        return 0
    if not _shows(arguments) or value_given(arguments, "resume"):
        arguments = with_latest(arguments)
    if _shows(arguments):
        hydra.run(task, resuming(arguments) if value_given(arguments, "resume") else arguments, settings_of)
        return 0
    if _several(arguments):
        return sweep.run(arguments)
    refuse_keys_of_sweeps(arguments)
    if launch.PARENT in os.environ:
        end_with_parent()
    with launch.as_rank(arguments) as given:
        try:
            train(given)
        except launch.Needed as needed:
            return launch.start(needed, arguments)
    return 0


def train(arguments: Sequence[str]) -> None:
    """Run one training in this process.

    Raises:
        Needed: several processes are to share it.
    """
    resumed = bool(value_given(arguments, "resume"))
    arguments = resuming(list(arguments)) if resumed else arguments
    checked: list[TrainSettings] = []

    def check(config: DictConfig) -> None:
        checked.append(settings_of(config))
        launch.check_ranks(checked[0])
        loggers.require_packages(checked[0].logger)

    def within(folder: Path) -> AbstractContextManager[None]:
        finished = resumed and (folder / "metrics.json").exists()  # one process writes the missing files
        if checked and checked[0].trainer.ranks > 1 and not ranks.current().several and not finished:
            raise launch.Needed(checked[0], folder)
        return working_in(folder, resumed=resumed)

    hydra.run(task, arguments, check, within)


def task(config: DictConfig) -> None:
    """Run one training; Hydra calls it with the composed configuration."""
    hydra_config = HydraConfig.get()
    run(settings_of(config), Path(hydra_config.runtime.output_dir), _origin(config, hydra_config))


def settings_of(config: DictConfig) -> TrainSettings:
    """Return the settings of one run.

    Raises:
        FerError: they are faulty, or a key of sweeps is set.
    """
    settings = build(TrainSettings, plain(config))
    for key, value in vars(settings.sweep).items():
        if value != getattr(SweepSettings(), key):
            raise FerError(f"sweep.{key} applies to a sweep only: add -m, or leave it out")
    return settings


def _origin(config: DictConfig, hydra_config: Any) -> Origin:
    """Return the origin of a run; of a resumed one the first command line."""
    overrides = [text for text in hydra_config.overrides.task if not text.startswith("resume=")]
    choices = {group: choice for group, choice in hydra_config.runtime.choices.items() if "/" not in group}
    paths = search_paths(hydra_config.overrides.hydra)
    return Origin(
        command=shlex.join(["python", "-m", "fer.train", *overrides, *paths]),
        choices=choices,
        overridden=[text.partition("=")[0] for text in overrides],
        changes=partial(hydra.changes, {**plain(config), "resume": None}, choices, paths),
    )


def run(settings: TrainSettings, folder: Path, origin: Origin) -> None:
    """Train one run in ``folder``, and log the paths of its results and the next commands."""
    path = shown(folder)
    optional = {"report.html": settings.logger.report, "tensorboard/projector_config.pbtxt": settings.logger.projector}
    missing = [name for name, required in optional.items() if required and not (folder / name).exists()]
    finished = bool(settings.resume) and (folder / "metrics.json").exists()
    if finished and not missing:
        log.info("finished already, nothing to resume: %s", path)
        return
    import_plugins(settings.plugins)
    data, stand_in = located_data(settings, folder, drawn_faces_allowed=not origin.choices.get("experiment"))
    with first_of("torch"):
        from fer.training.run import fit  # imports torch, after all checks that need none

    settings, origin = replace(settings, data=data), replace(origin, stand_in=stand_in)
    if settings.lr_finder:
        from fer.training import lr_finder

        log.info("%s", lr_finder.report(lr_finder.find(settings, folder, origin), path))
        return
    if finished:
        log.info("finished already; writing the missing files: %s", ", ".join(missing))
        write_report_again(settings, folder, origin)
        return
    results = fit(settings, folder, origin)
    if results is not None:  # of several ranks, rank 0 has them
        from fer.reports.summary import files_and_commands

        for line in files_and_commands(settings, path, test="test" in results.dataset.counts):
            log.info("%s", line)


def _several(arguments: Sequence[str]) -> bool:
    """Return whether a command line is a sweep."""
    return bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))


def _shows(arguments: Sequence[str]) -> bool:
    """Return whether a command line makes Hydra print something and run nothing."""
    return any(argument.partition("=")[0] in SHOWING for argument in arguments)


if __name__ == "__main__":
    sys.exit(main(None))
