"""Configurations composed with Hydra, and tasks run under it.

Besides this package only ``train`` and ``sweeps`` know Hydra. A run without options is composed once, checked, and
given to Hydra's ``run_job``. ``hydra.main`` would compose twice and make the run's folder before anything can be
refused. Overrides with ``+key`` and ``~key`` are refused, since every key has a default. Networks of plugins become
choices of ``model`` with the defaults of their own arguments.
"""

import argparse
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import MISSING
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from fer.config.command import Shown, folder_named
from fer.config.conf import FAULTS, VERSION_BASE, check_yaml, conf_folder, plain, quoted
from fer.config.errors import FerError
from fer.config.explain import explain, nearest
from fer.config.paths import expand_home
from fer.config.plugins import import_plugins
from fer.config.registry import GROUPS, REGISTRIES
from fer.config.schema import REQUIRED, keyword_parameters
from fer.config.settings import leaves
from fer.config.trust import refuse_code

HYDRAS_OWN = ("hydra._internal.core_plugins.", "hydra_plugins.")  # packages of launchers and sweepers
SWEEPS_ALONE = ("hydra/launcher", "hydra.launcher.", "hydra/sweeper", "hydra.sweeper.", "hydra.sweep.")  # keys of Hydra
OF_A_RUN = (
    "overrides.",
    "runtime.",
    "job.override_dirname",
    "mode",
)  # keys of Hydra that depend on the run's overrides


def run(
    task: Callable[[DictConfig], Any],
    arguments: Sequence[str],
    check: Callable[[DictConfig], Any] | None = None,
    within: Callable[[Path], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Run ``task`` under Hydra with these command-line arguments.

    Args:
        task: function of the composed configuration.
        arguments: command line.
        check: function of the configuration, called before the run's folder is made; it raises to refuse the run.
        within: function of the run's folder that returns a context, entered before Hydra writes into the folder.

    Raises:
        FerError: the command line or the configuration is faulty, or the task or the check raises it.
    """
    raised: list[Exception] = []

    @functools.wraps(task)
    def caught(config: DictConfig) -> Any:
        try:
            return task(config)
        except Exception as error:  # raised again below: Hydra would print it over many lines
            raised.append(error)
            return None

    @functools.wraps(task)
    def caught_within(config: DictConfig) -> Any:
        stack.enter_context(within(Path(HydraConfig.get().runtime.output_dir)))
        return caught(config)

    with ExitStack() as stack:
        stack.enter_context(_handlers_restored())
        if any(argument.startswith("-") for argument in arguments):
            _run_with_options(caught_within, arguments)
        else:
            _run_plainly(caught, arguments, check, lambda folder: stack.enter_context(within(folder)))
        if raised:
            raise raised[0]


def run_by_launcher(task: Callable[[DictConfig], Any], arguments: Sequence[str]) -> None:
    """Run ``task`` once for each value of a sweep by one of Hydra's launchers, perhaps in other processes.

    Args:
        task: function of a module, since launchers send it to other processes; it raises nothing.
        arguments: command line of the sweep.

    Raises:
        FerError: the command line is faulty.
    """
    with _handlers_restored():
        _run_with_options(task, arguments)


@contextmanager
def _handlers_restored() -> Iterator[None]:
    """Give the root logger its earlier handlers and level back: those of Hydra hold the run's ``train.log`` open."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        yield
    finally:
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)
            handler.close()
        for handler in before:
            root.addHandler(handler)  # Hydra has removed it
        root.setLevel(level)


def _run_with_options(task: Callable[[DictConfig], Any], arguments: Sequence[str]) -> None:
    main = hydra.main(version_base=VERSION_BASE, config_path=str(conf_folder()), config_name="config")(task)
    with _command_line(arguments), _raising():
        try:
            _check_beforehand(arguments)
            main()
        except FAULTS as error:
            raise FerError(explain(error, arguments)) from error


def _run_plainly(
    task: Callable[[DictConfig], Any],
    overrides: Sequence[str],
    check: Callable[[DictConfig], Any] | None,
    enter: Callable[[Path], None],
) -> None:
    """Run a task as ``hydra.main`` does, but compose once, and check before the run's folder is made."""
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
            config = compose("config", [*overrides, "hydra.mode=RUN"], return_hydra_config=True)
            _refuse_foreign(config, overrides)
            if check:
                check(_without_hydra(config))
            enter(Path(config.hydra.run.dir))
            callbacks = Callbacks(config)
            callbacks.on_run_start(config=config, config_name="config")
            context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=callbacks)
            ended = run_job(task, config, job_dir_key="hydra.run.dir", job_subdir_key=None, hydra_context=context)
            callbacks.on_run_end(config=config, config_name="config", job_return=ended)
    except FAULTS as error:
        raise FerError(explain(error, overrides)) from error


def _check_beforehand(arguments: Sequence[str]) -> None:
    """Check the settings of Hydra as ``_refuse_foreign`` does, before ``hydra.main`` acts on them."""
    given = get_args_parser().parse_intermixed_args(list(arguments)).overrides
    overrides = [text for text in given if not text.startswith("sweep.job=")]  # a list, which only a sweep takes
    with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
        _refuse_foreign(compose("config", overrides, return_hydra_config=True), overrides)


def _refuse_foreign(config: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse settings of Hydra from files outside ``conf/``: Hydra calls what its callbacks and loggers name.

    Raises:
        FerError: a file of a search path sets a key of Hydra, or a launcher is none of Hydra's.
    """
    kinds = [str(config.hydra[name].get("_target_")) for name in ("launcher", "sweeper")]
    if foreign := [kind for kind in kinds if not kind.startswith(HYDRAS_OWN)]:
        raise FerError(f"hydra/launcher: {foreign[0]} is refused; only launchers and sweepers of Hydra are called")
    if not any("hydra.searchpath" in text or ".." in text for text in overrides):
        return  # every file is one of conf/
    own = compose("config", [text for text in overrides if text.startswith("hydra")], return_hydra_config=True)
    before, after = (_of_hydra(each) for each in (own, config))
    changed = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
    if changed:
        raise FerError(
            f"hydra.{changed[0]}: a file of the search path sets it; settings of Hydra are taken from the command line "
            "alone"
        )


def _of_hydra(config: DictConfig) -> dict[str, Any]:
    """Return key -> value of Hydra's settings, without those that depend on the overrides of the run."""
    values: Any = OmegaConf.to_container(config.hydra, resolve=False)
    return {key: value for key, value in leaves(values) if not key.startswith(OF_A_RUN)}


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def composed(overrides: Sequence[str], name: str = "config") -> DictConfig:
    """Return the configuration that overrides give, without running anything.

    Args:
        overrides: overrides of a command line.
        name: configuration to override: "config" for a run, "tune" for a search.

    Raises:
        FerError: an override is faulty.
    """
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
            return compose(name, list(overrides))
    except FAULTS as error:
        raise FerError(explain(error, overrides, name)) from error


def composed_sweep(overrides: Sequence[str]) -> tuple[dict[str, Any], Path]:
    """Return the section ``sweep`` as plain values, and the folder of a sweep with these overrides.

    Raises:
        FerError: an override is faulty.
    """
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
            config = compose("config", list(overrides), return_hydra_config=True)
            return plain(config.sweep), Path(config.hydra.sweep.dir)
    except FAULTS as error:
        raise FerError(explain(error, overrides)) from error


def composed_folder(overrides: Sequence[str]) -> Path:
    """Return the folder of a run with these overrides.

    Raises:
        FerError: an override is faulty.
    """
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
            return Path(compose("config", list(overrides), return_hydra_config=True).hydra.run.dir)
    except FAULTS as error:
        raise FerError(explain(error, overrides)) from error


def alternatives(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Return key -> overrides of one value each; a swept key has several.

    Raises:
        FerError: an override is faulty, or is a range without steps.
    """
    overrides_of: dict[str, list[str]] = {}
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            for text, override in zip(overrides, parser.parse_overrides(list(overrides)), strict=True):
                key = override.get_key_element()
                if not override.is_sweep_override():
                    overrides_of[key] = [text]
                elif override.is_discrete_sweep():
                    overrides_of[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
                else:
                    raise FerError(f"{text}: a sweep takes no range without steps; list values: {key}=1,2,3")
    except FAULTS as error:
        raise FerError(explain(error, overrides)) from error
    return overrides_of


def changes(
    config: Mapping[str, Any], choices: Mapping[str, str], paths: Sequence[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Return key -> (value, default) of all differences from the defaults: groups first, then single keys.

    Keys are compared with the defaults of the chosen groups: ``optimizer=sgd`` is one change, not one for each key.

    Args:
        config: composed configuration, as plain values.
        choices: group -> choice, as Hydra reports them of a run.
        paths: overrides that name further folders of configuration.
    """
    defaults = _default_choices()
    chosen = {group: choice for group, choice in choices.items() if group in defaults and choice is not None}
    given = [f"{group}={choice}" for group, choice in chosen.items()]
    with _beside_a_run(), initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
        default = dict(leaves(plain(compose("config", [*given, *paths]))))
    groups = {group: (choice, defaults[group]) for group, choice in chosen.items() if defaults[group] != choice}
    keys = {key: (value, default.get(key)) for key, value in leaves(config) if value != default.get(key)}
    return {**groups, **keys}


def _default_choices() -> dict[str, str | None]:
    entries: Any = OmegaConf.to_object(OmegaConf.load(conf_folder() / "config.yaml").defaults)
    return {group: choice for entry in entries if not isinstance(entry, str) for group, choice in entry.items()}


def tidied(arguments: Sequence[str]) -> list[str]:
    """Return the command line with options first, as Hydra requires, and ``--config-dir`` as a search path.

    A search path is an override, so that a sweep's jobs and a resumed run keep it.

    Raises:
        FerError: an unknown option, or a search path with a file that grows without end.
    """
    parser = get_args_parser()
    parser.error = _refuse_option  # type: ignore[method-assign]
    parser.exit = _end_shown  # type: ignore[method-assign]
    parsed = parser.parse_intermixed_args(list(arguments))
    for option in ("config_path", "config_name", "experimental_rerun"):  # other files, or a pickled object
        if getattr(parsed, option) is not None:
            raise FerError(f"--{option.replace('_', '-')}: refused; name a folder of configuration with --config-dir")
    overrides: list[str] = parsed.overrides
    rest = list(arguments)
    for override in overrides:
        rest.remove(override)
    for override in overrides:
        if override.startswith("hydra.searchpath="):
            for path in re.findall(r"file://([^'\",\]]+)", override):
                check_yaml(Path(path))
    if parsed.config_dir is None:
        return [*rest, *overrides]
    index = next(index for index, option in enumerate(rest) if option.startswith(("--config-dir", "-cd")))
    del rest[index : index + (1 if "=" in rest[index] else 2)]
    folder = expand_home(parsed.config_dir).absolute()
    if not folder.is_dir():
        raise FerError(f"--config-dir {parsed.config_dir}: no such folder")
    check_yaml(folder)
    return [*rest, *overrides, f"hydra.searchpath=[{quoted(f'file://{folder}')}]"]


def with_folder(arguments: Sequence[str], key: str) -> list[str]:
    """Return the command line with ``--out FOLDER``, the folder of the results, as an override of ``key``.

    Raises:
        FerError: ``--out`` has no folder, or ``key`` is set as well.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--out", nargs="?", const="")
    parsed, rest = parser.parse_known_args(list(arguments))
    if parsed.out is None:
        return rest
    if override := next((text for text in rest if text.startswith(f"{key}=")), None):
        raise FerError(f"--out {parsed.out}: {override} names the folder too; leave one out")
    try:
        folder = folder_named(parsed.out)
    except argparse.ArgumentTypeError as error:
        raise FerError(f"--out: {error}; such as --out outputs/first") from error
    return [*rest, f"{key}={quoted(str(folder))}"]


def _end_shown(status: int = 0, message: str | None = None) -> NoReturn:
    raise Shown(status)


def _refuse_option(message: str) -> NoReturn:
    message = message.replace("(choose from 'all'", "(choose from 'models', 'all'")  # Hydra does not know 'models'
    raise FerError(f"{message}; python -m fer.train --help lists options and keys")


def value_of(override: str) -> Any:
    """Return the plain value of an override.

    Raises:
        FerError: the override is faulty.
    """
    try:
        return OverridesParser.create().parse_overrides([override])[0].value()
    except FAULTS as error:
        raise FerError(explain(error, [override])) from error


def refuse_additions(arguments: Sequence[str]) -> None:
    """Refuse overrides that add (+key) or delete (~key), since every valid key has a default, or that name code.

    Raises:
        FerError: an override adds or deletes; the message names the nearest valid key. See ``trust.refuse_code`` too.
    """
    refuse_code(arguments)
    for argument in arguments:
        if re.match(r"\+{1,2}[\w./@]+", argument):
            key = argument.lstrip("+").split("=")[0]
            raise FerError(f"{argument}: keys cannot be added; every key has a default{nearest(key, ())}")
        if argument.startswith("~"):
            raise FerError(f"{argument}: keys cannot be deleted; set another value instead")


def refuse_keys_of_sweeps(arguments: Sequence[str]) -> None:
    """Raise if a single run is given one of Hydra's keys for sweeps, which Hydra itself would ignore.

    Raises:
        FerError: naming the override.
    """
    for text in arguments:
        if text.lstrip("+").startswith(SWEEPS_ALONE):
            raise FerError(f"{text}: works only with -m, which runs a sweep; add -m, or leave it out")


def offer_registered(arguments: Sequence[str]) -> None:
    """Make what plugins register choices, such as ``model=<name>`` and ``loss=<name>``; also ``model=timm:<name>``.

    Keys and defaults are the arguments of the registered function and their defaults, so that it needs no YAML.

    Raises:
        FerError: a plugin cannot be imported.
    """
    for argument in arguments:
        for network in re.findall(r"\btimm\\?:([\w.]+)", argument) if argument.startswith("model=") else ():
            node = OmegaConf.merge(OmegaConf.load(conf_folder() / "model" / "timm.yaml"), {"network": network})
            ConfigStore.instance().store(group="model", name=f"timm:{network}", node=node, provider="timm")
    given = [argument for argument in arguments if argument.startswith("plugins=")]
    if not given:
        return
    names = value_of(given[-1])
    if not isinstance(names, list):
        raise FerError(f"{given[-1]}: expected a list, such as plugins=[my_nets]")
    import_plugins([str(name) for name in names])
    for group in sorted(GROUPS & REGISTRIES.keys()):
        entries = REGISTRIES[group]
        for name in entries.names():
            if not (conf_folder() / group / f"{name}.yaml").exists():
                defaults = {"name": name, **_defaults(entries.get(name))}
                ConfigStore.instance().store(group=group, name=name, node=defaults, provider="plugins")


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Return argument -> default of a registered function or class, without defaults that YAML cannot hold."""
    defaults = {name: default for name, (_, default) in keyword_parameters(function).items()}
    values = {name: REQUIRED if value is MISSING else value for name, value in defaults.items()}
    kinds = (bool, int, float, str, list, tuple, dict, type(None))
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if isinstance(value, kinds)
    }


# --- Hydra's global state -------------------------------------------------------------------------------------------


@contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, ["fer.train", *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _beside_a_run() -> Iterator[None]:
    """Allow a second composition while Hydra runs a task, which its global state forbids."""
    state = GlobalHydra.instance()
    running, state.hydra = state.hydra, None
    try:
        yield
    finally:
        state.hydra = running


@contextmanager
def _raising() -> Iterator[None]:
    """Make Hydra raise its errors instead of printing them."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before
