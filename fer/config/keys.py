"""The help of ``fer.train``: every key with its meaning; the command line of ``--info models``.

Meanings are read from the comments of ``conf/*.yaml``. No torch here. The comment beside a key is its meaning. The
comment at the top of a file describes that choice of its group.
"""

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fer.config.conf import choices_of, conf_folder, plain, spelled
from fer.config.errors import FerError, did_you_mean
from fer.config.hydra import composed, offer_registered, refuse_additions, tidied
from fer.config.schema import build
from fer.config.settings import TrainSettings

COLUMNS = 100  # longest line; a narrower terminal gets narrower lines
LEFT = 32  # columns of "key=value" before its meaning; the meaning of a longer one starts on the next line
KEY = re.compile(r"(?P<indent> *)(?P<key>[\w.]+):(?P<value>(?: [^#]*)?)(?:# (?P<meaning>.+))?$")

PURPOSE = """python -m fer.train [-m] [group=choice] [key=value]

Trains a network that predicts the emotion on a face, chooses its best epoch on val, and reports its metrics on val.
Without FER2013 it trains on drawn faces."""
OPTIONS = {
    "-m": "run a sweep: one run for each combination of key=a,b,c; hydra/launcher=slurm makes each a job of SLURM",
    "--info models": "list the networks with their parameters, costs and speed on this machine",
    "--help group": "describe the choices of one group, such as --help model",
    "--help group=choice": "print this help with the keys and defaults of that choice",
    "--cfg job": "print the configuration of a command line, and train nothing",
    "--out folder": "folder of the results; default: outputs/<date>/<time>, for a sweep outputs/sweeps/<date>_<time>",
    "--config-dir folder": "folder of further configuration files, such as the folder of a search by fer.tune",
}
EXAMPLES = """Examples:
  python -m fer.train model=cnn data.path=fer2013.csv
  python -m fer.train -m model=mlp,cnn scheduler=none,cosine seed=0,1,2
  python -m fer.train -m sweep=augmentation seed=0,1,2
  python -m fer.train -m sweep.resume=latest
  python -m fer.train resume=latest
  python -m fer.train model=cnn lr_finder=true"""


def training_help(arguments: Sequence[str]) -> str:
    """Return what ``fer.train --help`` prints: options, groups with their choices, every key with its meaning.

    Args:
        arguments: overrides, whose choices are described, or the name of one group.

    Raises:
        FerError: an override is faulty, or there is no such group.
    """
    overrides = [text for text in arguments if "=" in text]
    if named := [text for text in arguments if "=" not in text]:
        return group_help(named[0])
    lists = dict(text.split("=", 1) for text in overrides if re.match(r"\w+=\[", text))  # Hydra records no such choice
    config, choices = plain(composed(overrides)), {**lists, **choices_of(overrides)}
    options = "\n".join(row(option, meaning) for option, meaning in OPTIONS.items())
    listed = "\n".join(
        row(f"{group}={choices[group] or 'null'}", ", ".join(names)) for group, names in groups().items()
    )
    return "\n\n".join(
        [
            filled(PURPOSE),
            f"Options:\n{options}",
            f"Groups with their current choice, and all choices:\n{listed}",
            *(filled_section(title, rows) for title, rows in sections(config, choices)),
            EXAMPLES,
        ]
    )


def group_help(group: str) -> str:
    """Return the choices of a group, each with the first sentence of its file.

    Raises:
        FerError: there is no such group.
    """
    if group not in groups():
        raise FerError(
            f"--help {group}: no such group; use one of {', '.join(groups())}{did_you_mean(group, groups())}"
        )
    files = {choice: conf_folder() / group / f"{choice}.yaml" for choice in groups()[group] if choice != "null"}
    rows = [row(f"{group}={choice}", summary(file)) for choice, file in files.items()]
    return "\n".join([f"Choices of {group}; --help {group}=choice describes the keys of one:", *rows])


def groups() -> dict[str, list[str]]:
    """Return group -> its choices, in the order in which the configuration is composed."""
    choices = {}
    for group in default_groups():
        folder = conf_folder() / group
        choices[group] = sorted(str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml"))
    return choices


def default_groups() -> list[str]:
    """Return the groups that the defaults list of ``config.yaml`` names."""
    listed = re.search(r"^defaults:\n((?:  - .*\n)+)", (conf_folder() / "config.yaml").read_text("utf-8"), re.MULTILINE)
    assert listed is not None
    return re.findall(r"- (\w+):", listed.group(1))


def sections(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield a title and key=value -> meaning for each section: keys outside the groups first, then each group."""
    ungrouped = {key: value for key, value in config.items() if key not in groups()}
    yield "Keys with their current value and their meaning:", rows(ungrouped, meanings(conf_folder() / "config.yaml"))
    for group in groups():
        if group in config and (choice := choices[group]):
            file = conf_folder() / group / f"{choice.partition(':')[0]}.yaml"  # timm.yaml for model=timm:resnet18
            title = f"{group}={choice}: {summary(file)}".rstrip(": ")
            yield title, rows(config[group], meanings(file.with_stem("none")) | meanings(file), f"{group}.")


def rows(values: Mapping[str, Any], meaning_of: Mapping[str, str], prefix: str = "") -> dict[str, str]:
    """Return key=value -> meaning, without each group's ``name``: the choice of the group sets it."""
    return {
        f"{prefix}{key}={spelled(value)}": meaning_of.get(key, "")
        for key, value in flat(values)
        if not (prefix and key == "name")
    }


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested mappings; an empty mapping is a value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def meanings(file: Path) -> dict[str, str]:
    """Return dotted key -> the comment beside it, from a file and the files in its defaults list."""
    if not file.is_file():  # a plugin's network
        return {}
    text = file.read_text(encoding="utf-8")
    comments: dict[str, str] = {}
    for base in re.findall(r"^  - (?!_self_)([\w/]+)$", text, re.MULTILINE):
        comments |= meanings(file.parent / f"{base}.yaml")
    path: list[tuple[int, str]] = []  # (indent, key) of the sections around the line
    for line in text.splitlines():
        if match := KEY.match(line):
            path = [*((depth, key) for depth, key in path if depth < len(match["indent"]))]
            path.append((len(match["indent"]), match["key"]))
            if match["meaning"]:
                comments[".".join(key for _, key in path)] = match["meaning"]
    return comments


def summary(file: Path) -> str:
    """Return the first sentence of the comment at the top of a file, or an empty string."""
    if not file.is_file():
        return ""
    text = file.read_text(encoding="utf-8").removeprefix("# @package _global_\n")
    top = " ".join(line[2:] for line in re.match(r"(?:#.*\n)*", text)[0].splitlines() if not line.startswith("#  "))  # type: ignore[index]
    return re.split(r"(?<=\.)(?<! al\.) (?=[A-Z\d])", top)[0]


# --- --info models --------------------------------------------------------------------------------------------------


def settings_of_info_models(arguments: Sequence[str]) -> TrainSettings | None:
    """Return the settings of a command line with ``--info models``; None if it has none.

    Raises:
        FerError: the arguments are faulty.
    """
    rest = _beside_info_models(arguments)
    if rest is None:
        return None
    overrides = tidied(rest)
    options = [text for text in overrides if text.startswith("-")]
    if options:
        raise FerError(f"--info models takes only key=value; leave out {options[0]}")
    refuse_additions(overrides)
    offer_registered(overrides)
    return build(TrainSettings, plain(composed(overrides)))


def _beside_info_models(arguments: Sequence[str]) -> list[str] | None:
    """Return the command line without ``--info models``; None if it has none (Hydra handles any other ``--info``)."""
    rest = list(arguments)
    for index, argument in enumerate(rest):
        if argument in ("--info=models", "-i=models"):
            return rest[:index] + rest[index + 1 :]
        if argument in ("--info", "-i") and rest[index + 1 : index + 2] == ["models"]:
            return rest[:index] + rest[index + 2 :]
    return None


# --- lines ----------------------------------------------------------------------------------------------------------


def width() -> int:
    """Return the length of a line: the terminal's columns, within 60 and ``COLUMNS``."""
    return min(COLUMNS, max(60, shutil.get_terminal_size((COLUMNS, 24)).columns))


def filled(text: str) -> str:
    """Wrap each paragraph of a text."""
    return "\n\n".join(textwrap.fill(part, width()) for part in text.split("\n\n"))


def filled_section(title: str, meaning_of: Mapping[str, str]) -> str:
    """Return a section's title, then a row for each key."""
    return "\n".join([textwrap.fill(title, width()), *(row(left, meaning) for left, meaning in meaning_of.items())])


def row(left: str, meaning: str) -> str:
    """Return a line with ``left`` in the first column and its wrapped meaning in the second."""
    indent = " " * (2 + LEFT + 2)
    if not meaning:
        return f"  {left}"
    text = textwrap.fill(
        meaning,
        width(),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"  {left}\n{text}" if len(left) > LEFT else f"  {left:<{LEFT}}  {text.lstrip()}"
