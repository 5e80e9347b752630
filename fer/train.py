"""``python -m fer.train [-m] [group=name] [key=value]``: fit a network, or sweep over settings with ``-m``.

``--info models`` lists the networks, with what they cost and how fast they are here.

Nothing here imports torch before the configuration has been found good: ``--help``, ``--cfg job`` and a mistyped key
answer at once.
"""

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fer import configuration, sweep
from fer.arguments import build
from fer.configuration import (
    composed,
    import_plugins,
    offer_networks,
    plain,
    quoted,
    refuse_additions,
    search_paths,
    stored,
    tidied,
    unquoted,
)
from fer.data.locate import locate
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.errors import FerError, command
from fer.places import let_waiting_threads_sleep
from fer.runs import DEFAULTS
from fer.settings import DataSettings, Origin, SweepSettings, TrainSettings, leaves
from fer.terminal import shown

log = logging.getLogger(__name__)

SHOWING = ("--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help", "--version", "--shell-completion", "-sc")


@command("fer.train")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    let_waiting_threads_sleep()
    given = sys.argv[1:] if argv is None else list(argv)
    if (beside := beside_info_models(given)) is not None:
        list_models(beside)
        return 0
    arguments = tidied(given)
    refuse_additions(arguments)
    offer_networks(arguments)
    if _several(arguments) and not _shows(arguments):
        return sweep.run(arguments)
    arguments = resuming(arguments) if _value(arguments, "resume") else arguments
    refuse_used_folder(arguments)
    configuration.run(task, arguments, check=settings_of)
    return 0


def task(config: DictConfig) -> None:
    """What Hydra calls with the composed configuration of a run."""
    hydra_config = HydraConfig.get()
    run(settings_of(config), Path(hydra_config.runtime.output_dir), _origin(config, hydra_config))


def settings_of(config: DictConfig) -> TrainSettings:
    """Return the settings of one run.

    Raises:
        FerError: they are faulty, or those of a sweep.
    """
    settings = build(TrainSettings, plain(config))
    for key, value in vars(settings.sweep).items():
        if value != getattr(SweepSettings(), key):
            raise FerError(f"sweep.{key} is set, which is of several runs: a sweep needs -m")
    return settings


def _origin(config: DictConfig, hydra_config: Any) -> Origin:
    """Return how the run came about; a resumed one as it began."""
    overrides = [text for text in hydra_config.overrides.task if not text.startswith("resume=")]
    choices = {group: choice for group, choice in hydra_config.runtime.choices.items() if "/" not in group}
    paths = search_paths(hydra_config.overrides.hydra)
    return Origin(
        command=shlex.join(["python", "-m", "fer.train", *overrides, *paths]),
        choices=choices,
        asked=[text.partition("=")[0] for text in overrides],
        changes=partial(configuration.changes, {**plain(config), "resume": None}, choices, paths),
    )


def run(settings: TrainSettings, folder: Path, origin: Origin) -> None:
    """Fit one run in ``folder`` and say where everything lies."""
    place = shown(folder)
    shows = {"report.html": settings.logger.report, "tensorboard/projector_config.pbtxt": settings.logger.projector}
    missing = [name for name, wanted in shows.items() if wanted and not (folder / name).exists()]
    finished = bool(settings.resume) and (folder / "metrics.json").exists()
    if finished and not missing:
        log.info("finished already, nothing to resume: %s", place)
        return
    import_plugins(settings.plugins)
    data, stand_in = _data(settings, folder, drawn_faces_allowed=not origin.choices.get("experiment"))
    from fer.training import fit  # torch comes in here, with everything checked that can be

    settings, origin = replace(settings, data=data), replace(origin, stand_in=stand_in)
    if settings.lr_finder:
        from fer import lr_finder

        log.info("%s", lr_finder.told(lr_finder.find(settings, folder, origin), place))
        return
    if finished:
        from fer.training import show_again

        log.info("finished already; writing what is missing of it: %s", ", ".join(missing))
        show_again(settings, folder, origin)
        return
    results = fit(settings, folder, origin)
    log.info("results:  %s", place)
    for name, purpose in (
        ("report.html", "the whole on one page; its figures as PNG and SVG in figures/"),
        ("tensorboard/", f"tensorboard --logdir {_log_folder(place)}"),
        ("profile.json", "where a step's time went; profile_trace.json.gz opens in ui.perfetto.dev"),
        ("metrics.json", "the figures"),
        ("predictions.csv", "a row a face"),
        ("history.csv", "a row an epoch"),
        ("checkpoints/best.ckpt", "the network: fer.load(path)"),
    ):
        if (folder / name).exists():
            log.info("  %-22s %s", name, purpose)
    if "test" in results["dataset"]["counts"]:
        plugins = f" --plugins {','.join(settings.plugins)}" if settings.plugins else ""
        log.info("next:     python -m fer.evaluate %s --split test%s", shlex.quote(str(place)), plugins)


def _data(settings: TrainSettings, folder: Path, *, drawn_faces_allowed: bool) -> tuple[DataSettings, bool]:
    """Return the data, files named from the root, and whether drawn faces stand in.

    A run is resumed and evaluated from other folders too; a resumed one goes on with what it had, where that is there.
    """
    data = settings.data
    known: dict[str, Any] = {}
    if settings.resume:
        from fer.checkpoints import newest

        about = newest(folder)[1]["fer"]
        known, stand_in = about["dataset"]["settings"], about["dataset"]["stand_in"]
        if data.batch_size == "auto":  # the order of the steps hangs on what was found then, on another GPU perhaps
            data = replace(data, batch_size=about["batch_size"])
    data = replace(data, votes=_file(data.votes, known, "votes"), exclude=_file(data.exclude, known, "exclude"))
    if known and (known["path"] == SYNTHETIC or Path(known["path"]).exists()):
        return replace(data, path=known["path"]), stand_in
    path, stand_in = locate(data.path, drawn_faces_allowed=drawn_faces_allowed and not settings.resume)
    return replace(data, path=path), stand_in


def _file(given: str | None, known: Mapping[str, Any], key: str) -> str | None:
    """Return a file's path from the root: where a resumed run had it, if it is still there."""
    before = known.get(key)
    if given is not None and before is not None and Path(before).exists():
        return str(before)
    return None if given is None else str(Path(given).expanduser().absolute())


def _log_folder(place: Path) -> str:
    """Return what TensorBoard is to open: all of ``outputs`` where the run lies in it, else the run alone."""
    return "outputs" if place.parts[:1] == ("outputs",) else shlex.quote(str(place))


# --- before Hydra, which writes into the folder that it is given ----------------------------------------------------


def beside_info_models(arguments: Sequence[str]) -> list[str] | None:
    """Return what a command line holds beside ``--info models``; None if it has none: other ``--info`` are Hydra's."""
    rest = list(arguments)
    for place, argument in enumerate(rest):
        if argument in ("--info=models", "-i=models"):
            return rest[:place] + rest[place + 1 :]
        if argument in ("--info", "-i") and rest[place + 1 : place + 2] == ["models"]:
            return rest[:place] + rest[place + 2 :]
    return None


def list_models(arguments: Sequence[str]) -> None:
    """Print every network, those of plugins too, with its costs and times.

    Raises:
        FerError: the arguments are faulty.
    """
    overrides = tidied(arguments)
    options = [text for text in overrides if text.startswith("-")]
    if options:
        raise FerError(f"--info models takes key=value and nothing else; leave out {options[0]}")
    refuse_additions(overrides)
    offer_networks(overrides)
    settings = build(TrainSettings, plain(composed(overrides)))
    import_plugins(settings.plugins)
    from fer.inventory import listing

    print(listing(settings))


def refuse_used_folder(arguments: Sequence[str]) -> None:
    """Raise if a run would be written over another.

    Raises:
        FerError: naming the folder and the way to go on with it.
    """
    run_folder = _value(arguments, "hydra.run.dir")
    used = run_folder and any((Path(run_folder) / name).exists() for name in ("checkpoints", "lr_finder.json"))
    if used and not _value(arguments, "resume"):
        raise FerError(
            f"hydra.run.dir={run_folder}: holds a run already; choose another folder, or go on with resume={run_folder}"
        )


def resuming(arguments: list[str]) -> list[str]:
    """Return the command line that continues the run named by ``resume=`` in its own folder.

    The run's own overrides are taken up.

    Raises:
        FerError: there is no such run, or the other arguments, or the library's defaults, would change it.
    """
    path = _value(arguments, "resume")
    folder = Path(path).expanduser().resolve()
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise FerError(f"resume={path}: no run folder (it has no .hydra/config.yaml)")
    if _value(arguments, "hydra.run.dir"):
        raise FerError(f"resume={path} goes on in the run's own folder; leave out hydra.run.dir")
    before = stored(folder, "overrides.yaml")
    paths = search_paths(stored(folder, "hydra.yaml")["hydra"]["overrides"]["hydra"])
    merged = {text.partition("=")[0]: text for text in (*before, *paths, *arguments) if not text.startswith("resume=")}
    overrides = [text for key, text in merged.items() if not key.startswith("-")]
    offer_networks(overrides)
    _refuse_changes(folder, path, plain(composed(overrides)))
    flags = [text for text in arguments if text.startswith("-")]
    return [*flags, *overrides, f"resume={quoted(str(folder))}", f"hydra.run.dir={quoted(str(folder))}"]


def _value(arguments: Sequence[str], key: str) -> str:
    """Return the last value given for a key, unquoted; empty if none, or null, is given."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{key}=")]
    return "" if not given or given[-1] == "null" else unquoted(given[-1])


def _several(arguments: Sequence[str]) -> bool:
    """Return whether a command line asks for a sweep."""
    return bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))


def _shows(arguments: Sequence[str]) -> bool:
    """Return whether a command line asks Hydra to show something, and to run nothing."""
    return any(argument.partition("=")[0] in SHOWING for argument in arguments)


def _refuse_changes(folder: Path, path: str, now: Mapping[str, Any]) -> None:
    # an older run does not name every key: it did what is the default now
    before, after = DEFAULTS | dict(leaves(stored(folder, "config.yaml"))), DEFAULTS | dict(leaves(now))
    own = [key for key in sorted(before | after) if key != "resume" and not key.startswith("sweep.")]
    changed = [key for key in own if before.get(key) != after.get(key)]
    if changed:
        key = changed[0]
        more = f" (and {len(changed) - 1} more keys)" if len(changed) > 1 else ""
        raise FerError(
            f"resume={path}: the run has {key}={before.get(key)}, now it is {after.get(key)}{more}; a run goes on as "
            f"it began. To train on from its weights with other settings: init_from={path}"
        )


if __name__ == "__main__":
    sys.exit(main(None))
