"""Hydra's side: where ``conf/`` lies, running it, and its errors in one line.

Hydra prints its errors over many lines and does not name the nearest key. With ``HYDRA_FULL_ERROR`` set it raises them
instead, and ``explain`` says them in this library's way.
"""

import difflib
import functools
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.arguments import keyword_parameters
from fer.errors import FerError, did_you_mean

VERSION_BASE = "1.3"


def conf_folder() -> Path:
    """Return the folder of the shipped configuration: ``fer/conf`` in a wheel, ``conf`` beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def run(task: Callable[[DictConfig], Any], arguments: Sequence[str]) -> Any:
    """Run ``task`` under Hydra with these command-line arguments, and return what it returns (None in a sweep).

    Raises:
        FerError: the command line or the configuration is faulty, or the task says so.
    """
    refuse_additions(arguments)
    raised: list[Exception] = []

    @functools.wraps(task)
    def caught(config: DictConfig) -> Any:
        try:
            return task(config)
        except Exception as error:  # passed round Hydra, which would print it in its own way
            raised.append(error)

    main = hydra.main(version_base=VERSION_BASE, config_path=str(conf_folder()), config_name="config")(caught)
    with _command_line(arguments), _raising():
        try:
            result = main()
        except (HydraException, OmegaConfBaseException) as error:
            raise FerError(explain(error, arguments)) from error
    if raised:
        raise raised[0]
    return result


def composed(overrides: Sequence[str]) -> DictConfig:
    """Return the configuration that these overrides give, without running anything.

    Raises:
        FerError: an override is faulty.
    """
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
            return compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise FerError(explain(error, overrides)) from error


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain values, interpolations resolved, without the experiment group's empty key."""
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return {key: value for key, value in values.items() if key not in ("experiment", "hydra")}


def refuse_additions(arguments: Sequence[str]) -> None:
    """Raise if an override adds (+key) or deletes (~key): every key there is has a default.

    Raises:
        FerError: with the nearest valid key.
    """
    for argument in arguments:
        if re.match(r"\+{1,2}(?!hydra)[\w./@]+", argument):
            key = argument.lstrip("+").split("=")[0]
            raise FerError(f"{argument}: keys cannot be added; every key has a default{_nearest(key, ())}")
        if argument.startswith("~"):
            raise FerError(f"{argument}: keys cannot be deleted; set another value instead")


def import_plugins(names: Sequence[str]) -> None:
    """Import modules that register networks and readers, from the current folder or wherever Python finds them.

    Raises:
        FerError: one cannot be imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a plugin is the user's code: whatever it raises is theirs to mend
            raise FerError(f"plugins={name}: could not be imported ({type(error).__name__}: {error})") from error


def offer_plugins(arguments: Sequence[str]) -> None:
    """Import the command line's plugins and let Hydra offer their networks as ``model=<name>``.

    The keys and defaults are those of the network's own arguments, so that a plugin needs no YAML.

    Raises:
        FerError: a plugin cannot be imported.
    """
    given = [argument.split("=", 1)[1] for argument in arguments if argument.startswith("plugins=")]
    if not given:
        return
    import_plugins([name.strip() for name in given[-1].strip("[]").split(",") if name.strip()])
    from fer.models import MODELS

    for name in MODELS.names():
        if not (conf_folder() / "model" / f"{name}.yaml").exists():
            node = {"name": name, **_defaults(MODELS.get(name))}
            ConfigStore.instance().store(group="model", name=name, node=node, provider="plugins")


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    required = inspect.Parameter.empty
    values = {name: default for name, (_, default) in keyword_parameters(function).items()}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not required
    }


# --- errors ---------------------------------------------------------------------------------------------------------


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """Return Hydra's error as one line that names the nearest valid key or choice."""
    text = str(error)
    if isinstance(error, MissingConfigException):
        return _explain_choice(error, arguments)
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: not understood ({text.splitlines()[0]}); quote values with commas, spaces or brackets"
        )
    if "Ambiguous value" in text:
        several = re.search(r"argument '([^']+)'", text)
        given = several.group(1) if several else text
        return f"{given}: several values make a sweep, which needs -m; quote a value that holds a comma: key='\"a,b\"'"
    missing = re.search(r"Could not override '([^']+)'", text)
    if missing:
        key = missing.group(1)
        if "No match in the defaults list" in text or "/" in key:
            return f"{key}: no such group{_nearest(key, ())}"
        return f"{key}: no such key{_nearest(key, arguments)}"
    return text.splitlines()[0] + (f" ({str(error.__cause__).splitlines()[0]})" if error.__cause__ else "")


def _explain_choice(error: MissingConfigException, arguments: Sequence[str]) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    options = [str(option) for option in error.options or ()]
    if not options:
        found = re.search(r"Could not find '([^']+)'", str(error))
        wanted = found.group(1) if found else str(error.missing_cfg_file)
        group, _, name = wanted.rpartition("/")
        folder = conf_folder() / group
        options = sorted(file.stem for file in folder.glob("*.yaml")) if folder.is_dir() else []
    return f"{group}={name}: no such choice; there is {', '.join(options) or 'none'}{did_you_mean(name, options)}"


def _nearest(key: str, arguments: Sequence[str]) -> str:
    """Return the valid key nearest to ``key`` in words, under the groups that the arguments choose."""
    groups = {path.name for path in conf_folder().iterdir() if path.is_dir()}
    chosen = [argument for argument in arguments if argument.split("=")[0] in groups and "," not in argument]
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
            keys = list(_flat(plain(compose("config", chosen))))
    except (HydraException, OmegaConfBaseException):
        return ""
    section, _, last = key.rpartition(".")
    siblings = [name for name in keys if name.rpartition(".")[0] == section]
    within = difflib.get_close_matches(last, [name.rpartition(".")[2] for name in siblings], n=1, cutoff=0.5)
    if within:
        return f"; did you mean '{section + '.' if section else ''}{within[0]}'?"
    same = [name for name in keys if name.rpartition(".")[2] == last]
    if same:
        return f"; did you mean {same[0]!r}?"
    known = f"; {section} has {', '.join(name.rpartition('.')[2] for name in siblings)}" if siblings and section else ""
    return known or did_you_mean(key, keys)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")


@contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, ["fer.train", *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _raising() -> Iterator[None]:
    """Let Hydra raise its errors rather than print them."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before
