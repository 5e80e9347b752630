"""A run's configuration as an experiment.

An experiment is a YAML file for ``fer.train``; it has no paths of this machine. The groups of an experiment are
overridden from the root (``override /model: cnn``). A relative name would change its meaning for Hydra when another
experiment inherits the file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fer.config.conf import as_yaml, plain, quoted, spelled
from fer.config.hydra import changes, composed
from fer.config.settings import Config, Section, leaves
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.runs import stored
from fer.runs.run_folder import computed_settings, configuration_of, identity
from fer.system.files import written_whole

FOLDER, NAME = "experiment", "best"
ONE_MACHINE = ("data.path", "data.more", "data.votes", "data.exclude", "init_from")  # keys with paths of one machine
THREADS = "trainer.threads"  # changes only the last bits
EARLY = "plugins"  # must be known before Hydra reads an experiment


def write(folder: Path, run: Path, paths: Sequence[str], named: Sequence[str], about: Sequence[str]) -> list[str]:
    """Write ``experiment/best.yaml`` to a folder, and return the overrides that a command line needs beside it.

    Args:
        folder: folder for ``fer.train --config-dir``.
        run: run folder with the configuration.
        paths: overrides that name further folders of configuration.
        named: keys to write even if their value is the default.
        about: lines of the opening comment.

    Raises:
        OSError: the file cannot be written.
    """
    config = configuration_of(run)
    file = folder / FOLDER / f"{NAME}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as stream:
        stream.write(text(run, config, paths, named, about))
    return beside(config)


def text(run: Path, config: Config, paths: Sequence[str], named: Sequence[str], about: Sequence[str]) -> str:
    """Return the experiment's YAML: every group's choice, and the keys that differ from the choices' defaults."""
    choices = {group: choice for group, choice in stored.choices(run).items() if group != FOLDER and choice is not None}
    groups = sorted(group for group in choices if group in config and group not in ("logger", "sweep"))
    differs = changes(config, choices, paths)
    values = dict(leaves(config))
    keys = {*differs, *named} & {*computed_settings(config), THREADS} - {*_apart(config)}
    written = {key: value for key, value in values.items() if key in keys}
    lines = [
        "# @package _global_",
        *(f"# {line}".rstrip() for line in about),
        "defaults:",
        *(f"  - override /{group}: {choices[group]}" for group in groups),
    ]
    return "\n".join(lines) + "\n" + (f"\n{as_yaml(nested(written))}" if written else "")


def nested(values: Mapping[str, object]) -> Section:
    """Return values with dotted keys as nested sections."""
    tree: Section = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[last] = value
    return tree


def _apart(config: Config) -> list[str]:
    """Return the keys that an experiment leaves to the command line."""
    values = computed_settings(config)
    # younger keys are missing at their defaults
    of_machine = [key for key in ONE_MACHINE if values.get(key) is not None and values[key] != SYNTHETIC]
    return [*of_machine, *([EARLY] if values[EARLY] else [])]


def beside(config: Config) -> list[str]:
    """Return the overrides that a command line needs beside an experiment."""
    values = computed_settings(config)
    return [f"{key}={spelled(values[key])}" for key in _apart(config)]


def composes_again(folder: Path, run: Path, paths: Sequence[str], more: Sequence[str]) -> bool:
    """Return whether the written experiment gives the run's configuration again."""
    folders = [text.partition("=")[2].strip("[]") for text in paths]
    search = f"hydra.searchpath=[{','.join([quoted(f'file://{folder}'), *folders])}]"
    again = plain(composed([f"{FOLDER}={NAME}", *more, search]))
    return identity(again) == identity(configuration_of(run))
