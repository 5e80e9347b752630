"""Hydra's errors as one line with the nearest valid key or choice.

Hydra is made to raise its errors (``HYDRA_FULL_ERROR``), since it prints them over many lines otherwise.
"""

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException, OverrideParseException

from fer.config.conf import FAULTS, VERSION_BASE, conf_folder, plain, quoted
from fer.config.errors import did_you_mean

# launcher -> extra to install
EXTRAS = {"joblib": "sweep", "slurm": "slurm", "submitit_slurm": "slurm", "submitit_local": "slurm"}


def explain(error: Exception, arguments: Sequence[str], name: str = "config") -> str:
    """Return Hydra's error on composing ``name`` as one line that names the nearest valid key or choice."""
    text = str(error)
    if isinstance(error, MissingConfigException):
        return _explain_choice(error, arguments)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not understood ({text.splitlines()[0]}); {_quoting(str(error.override))}"
    if "Ambiguous value" in text:
        match = re.search(r"argument '([^']+)'", text)
        given = match.group(1) if match else text
        return f"{given}: several values are a sweep, which needs -m; quote one value with a comma: key='\"a,b\"'"
    if "group override must be" in text:
        return _explain_group(text, arguments)
    missing = re.search(r"Could not override '([^']+)'", text)
    if missing:
        key = missing.group(1)
        if "No match in the defaults list" in text or "/" in key:
            return f"{key}: no such group{nearest(key, ())}"
        return f"{key}: no such key{nearest(key, arguments, name)}"
    return text.splitlines()[0] + (f" ({str(error.__cause__).splitlines()[0]})" if error.__cause__ else "")


def _quoting(override: str) -> str:
    """Return the advice for an override that Hydra's grammar refuses; for a path, the words that a shell takes."""
    key, _, value = override.partition("=")
    if "/" in value and not value.startswith(("[", "{", "'", '"')):
        return f"write {shlex.quote(f'{key}={quoted(value)}')}"
    return "quote values with commas, spaces or brackets"


def _explain_group(text: str, arguments: Sequence[str]) -> str:
    """Return the message for a group whose value is no choice's name, as in ``model=null``."""
    for argument in arguments:
        group, _, value = argument.partition("=")
        choices = sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))
        if choices and "." not in group and value not in choices:
            return f"{argument}: expected one of {', '.join(choices)}"
    return text.splitlines()[0]


def _explain_choice(error: MissingConfigException, arguments: Sequence[str]) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    options = [str(option) for option in error.options or ()]
    if not options:
        match = re.search(r"Could not find '([^']+)'", str(error))
        missing = match.group(1) if match else str(error.missing_cfg_file)
        group, _, name = missing.rpartition("/")
        folder = conf_folder() / group
        options = sorted(file.stem for file in folder.glob("*.yaml")) if folder.is_dir() else []
    extra = f"; install it: pip install 'fer-lightning[{EXTRAS[name]}]'" if name in EXTRAS else ""
    known = f"use one of {', '.join(options)}" if options else f"{group} has none"
    near = did_you_mean(name, options)
    return f"{group}={name}: no such choice; {known}{extra or near}"


def nearest(key: str, arguments: Sequence[str], name: str = "config") -> str:
    """Return ``"; did you mean 'optimizer.lr'?"`` with the nearest key, or an empty string.

    Args:
        key: unknown key.
        arguments: command line, whose groups choose the keys that exist.
        name: configuration that the key is missing from, as of ``composed``.
    """
    groups = {path.name for path in conf_folder().iterdir() if path.is_dir()}
    chosen = [argument for argument in arguments if argument.split("=")[0] in groups and "," not in argument]
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
            keys = list(_flat(plain(compose(name, chosen))))
    except FAULTS:
        return ""
    section, _, last = key.rpartition(".")
    siblings = [name for name in keys if name.rpartition(".")[0] == section]
    same = [name for name in keys if name.rpartition(".")[2] == last]
    if same:
        return f"; did you mean {same[0]!r}?"
    close = difflib.get_close_matches(last, [name.rpartition(".")[2] for name in siblings], n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{section + '.' if section else ''}{close[0]}'?"
    known = f"; {section} has {', '.join(name.rpartition('.')[2] for name in siblings)}" if siblings and section else ""
    return known or did_you_mean(key, keys)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
