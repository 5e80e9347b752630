"""A run's configuration as an experiment: YAML that ``fer.train`` runs, the same on any machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer.config.conf import as_yaml, plain, quoted, spelled, stored
from fer.config.hydra import changes, composed
from fer.config.settings import leaves
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.runs.run_folder import configuration_of, identity, told
from fer.system.files import written_whole

FOLDER, NAME = "experiment", "best"
ONE_MACHINE = ("data.path", "data.votes", "init_from")  # they hold a path of it
THREADS = "trainer.threads"  # decides the last bits, and nothing else
EARLY = "plugins"  # needed before an experiment is read


def write(folder: Path, run: Path, paths: Sequence[str], named: Sequence[str], about: Sequence[str]) -> list[str]:
    """Write ``experiment/best.yaml`` to a folder, and return the overrides that a command line must hold beside it.

    Args:
        folder: that ``fer.train --config-dir`` is to name.
        run: whose configuration it is to be.
        paths: overrides that say where else configuration lies.
        named: keys that it is to hold even where their value is the default.
        about: lines of its opening comment.

    Raises:
        OSError: it cannot be written.
    """
    config = configuration_of(run)
    file = folder / FOLDER / f"{NAME}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as stream:
        stream.write(text(run, config, paths, named, about))
    return beside(config)


def text(run: Path, config: Mapping[str, Any], paths: Sequence[str], named: Sequence[str], about: Sequence[str]) -> str:
    """Return the experiment: every group's choice, and the keys that differ from what those bring."""
    chosen = stored(run, "hydra.yaml")["hydra"]["runtime"]["choices"]
    choices = {group: choice for group, choice in chosen.items() if group != FOLDER and choice is not None}
    groups = sorted(group for group in choices if group in config and group not in ("logger", "sweep"))
    differs = changes(config, choices, paths)
    values = dict(leaves(config))
    wanted = {*differs, *named} & {*told(config), THREADS} - {*_apart(config)}
    kept = {key: value for key, value in values.items() if key in wanted}
    lines = [
        "# @package _global_",
        *(f"# {line}".rstrip() for line in about),
        "defaults:",
        *(f"  - override /{group}: {choices[group]}" for group in groups),
    ]
    return "\n".join(lines) + "\n" + (f"\n{as_yaml(nested(kept))}" if kept else "")


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as sections."""
    made: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        place = made
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return made


def _apart(config: Mapping[str, Any]) -> list[str]:
    """Return the keys that an experiment does not hold."""
    values = told(config)
    held = [key for key in ONE_MACHINE if values[key] is not None and values[key] != SYNTHETIC]
    return [*held, *([EARLY] if values[EARLY] else [])]


def beside(config: Mapping[str, Any]) -> list[str]:
    """Return the overrides that go beside an experiment."""
    values = told(config)
    return [f"{key}={spelled(values[key])}" for key in _apart(config)]


def composes_again(folder: Path, run: Path, paths: Sequence[str], more: Sequence[str]) -> bool:
    """Return whether the experiment gives the configuration that it was written for."""
    places = [text.partition("=")[2].strip("[]") for text in paths]
    search = f"hydra.searchpath=[{','.join([quoted(f'file://{folder}'), *places])}]"
    again = plain(composed([f"{FOLDER}={NAME}", *more, search]))
    return identity(again) == identity(configuration_of(run))
