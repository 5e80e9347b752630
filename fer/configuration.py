"""Hydra's side: where ``conf/`` lies, running it, and its errors in one line.

Hydra prints its errors over many lines and does not name the nearest key. With ``HYDRA_FULL_ERROR`` set it raises them
instead, and ``explain`` says them in this library's way.
"""

import difflib
import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import run_job
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.arguments import REQUIRED, keyword_parameters
from fer.errors import FerError, did_you_mean
from fer.settings import leaves

VERSION_BASE = "1.3"
PLAIN_WORD = r"(?!(?:null|true|false|on|off|yes|no|nan|inf)$)[A-Za-z_][A-Za-z0-9_./-]*"  # a text that needs no quotes
EXTRAS = {"joblib": "sweep", "submitit_slurm": "slurm", "submitit_local": "slurm"}  # launcher -> what brings it
FAULTS = (HydraException, OmegaConfBaseException, ValueError)  # what Hydra raises on a faulty command line


def conf_folder() -> Path:
    """Return the folder of the shipped configuration: ``fer/conf`` in a wheel, ``conf`` beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def run(
    task: Callable[[DictConfig], Any], arguments: Sequence[str], check: Callable[[DictConfig], Any] | None = None
) -> None:
    """Run ``task`` under Hydra with these command-line arguments.

    Args:
        task: takes the configuration.
        arguments: of the command line.
        check: takes the configuration of a run before its folder is made; it may raise.

    Raises:
        FerError: the command line or the configuration is faulty, or the task or the check says so.
    """
    raised: list[Exception] = []

    @functools.wraps(task)
    def caught(config: DictConfig) -> Any:
        try:
            return task(config)
        except Exception as error:  # passed round Hydra, which would print it in its own way
            raised.append(error)
            return None

    if any(argument.startswith("-") for argument in arguments):
        _run_with_options(caught, arguments)
    else:
        _run_plainly(caught, arguments, check)
    if raised:
        raise raised[0]


def _run_with_options(task: Callable[[DictConfig], Any], arguments: Sequence[str]) -> None:
    main = hydra.main(version_base=VERSION_BASE, config_path=str(conf_folder()), config_name="config")(task)
    with _command_line(arguments), _raising():
        try:
            main()
        except FAULTS as error:
            raise FerError(explain(error, arguments)) from error


def _run_plainly(
    task: Callable[[DictConfig], Any], overrides: Sequence[str], check: Callable[[DictConfig], Any] | None
) -> None:
    """Run as ``hydra.main`` does, which composes twice, and makes the run's folder before anything can be refused."""
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
            config = compose("config", [*overrides, "hydra.mode=RUN"], return_hydra_config=True)
            if check:
                check(_without_hydra(config))
            callbacks = Callbacks(config)
            callbacks.on_run_start(config=config, config_name="config")
            context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=callbacks)
            ended = run_job(task, config, job_dir_key="hydra.run.dir", job_subdir_key=None, hydra_context=context)
            callbacks.on_run_end(config=config, config_name="config", job_return=ended)
    except FAULTS as error:
        raise FerError(explain(error, overrides)) from error


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def composed(overrides: Sequence[str], name: str = "config") -> DictConfig:
    """Return the configuration that these overrides give, without running anything.

    Args:
        overrides: of a command line.
        name: of what they override: "config" is a run's, "tune" a search's.

    Raises:
        FerError: an override is faulty.
    """
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
            return compose(name, list(overrides))
    except FAULTS as error:
        raise FerError(explain(error, overrides, name)) from error


def choices_of(overrides: Sequence[str]) -> dict[str, str | None]:
    """Return the choice of each group that these overrides, found good before, give."""
    with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
        return dict(compose("config", list(overrides), return_hydra_config=True).hydra.runtime.choices)


def composed_sweep(overrides: Sequence[str]) -> tuple[dict[str, Any], Path]:
    """Return the section ``sweep``, as plain values, and the folder that these overrides give a sweep.

    Raises:
        FerError: an override is faulty.
    """
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
            config = compose("config", list(overrides), return_hydra_config=True)
            return plain(config.sweep), Path(config.hydra.sweep.dir)
    except FAULTS as error:
        raise FerError(explain(error, overrides)) from error


def alternatives(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Return, for each key that is set, the overrides that it stands for: several of one value each where it is swept.

    Raises:
        FerError: an override is faulty, or gives a range without steps.
    """
    found: dict[str, list[str]] = {}
    try:
        with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            for text, override in zip(overrides, parser.parse_overrides(list(overrides)), strict=True):
                key = override.get_key_element()
                if not override.is_sweep_override():
                    found[key] = [text]
                elif override.is_discrete_sweep():
                    found[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
                else:
                    raise FerError(f"{text}: a range without steps is searched, not swept; list values: {key}=1,2,3")
    except FAULTS as error:
        raise FerError(explain(error, overrides)) from error
    return found


def changes(
    config: Mapping[str, Any], choices: Mapping[str, str], paths: Sequence[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Return what differs from the defaults, key -> (value, default): groups first, then keys within what they chose.

    Another choice brings defaults of its own: ``optimizer=sgd`` is one change, not one for each of its keys.

    Args:
        config: composed, as plain values.
        choices: group -> choice, as Hydra tells them of a run.
        paths: overrides that say where else configuration lies.
    """
    usual = _default_choices()
    chosen = {group: choice for group, choice in choices.items() if group in usual and choice is not None}
    given = [f"{group}={choice}" for group, choice in chosen.items()]
    with _beside_a_run(), initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
        default = dict(leaves(plain(compose("config", [*given, *paths]))))
    groups = {group: (choice, usual[group]) for group, choice in chosen.items() if usual[group] != choice}
    keys = {key: (value, default.get(key)) for key, value in leaves(config) if value != default.get(key)}
    return {**groups, **keys}


def _default_choices() -> dict[str, str | None]:
    entries: Any = OmegaConf.to_object(OmegaConf.load(conf_folder() / "config.yaml").defaults)
    return {group: choice for entry in entries if entry != "_self_" for group, choice in entry.items()}


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain values, interpolations resolved."""
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return values


def as_yaml(values: Mapping[str, Any]) -> str:
    """Return plain values as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(values)))


def stored(folder: Path, name: str) -> Any:
    """Return what a run folder keeps of its configuration, as plain values.

    Args:
        folder: the run's.
        name: "config.yaml", "hydra.yaml" or "overrides.yaml".
    """
    return OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / name), resolve=False)


def search_paths(overrides: Sequence[str]) -> list[str]:
    """Return those of Hydra's own overrides that a run's composition depends on: where else configuration lies."""
    return [text for text in overrides if text.startswith("hydra.searchpath=")]


def tidied(arguments: Sequence[str]) -> list[str]:
    """Return the command line with options first, as Hydra needs it, and ``--config-dir`` as a search path.

    A search path is an override like others: a sweep's jobs and a resumed run take it along.

    Raises:
        FerError: an unknown option.
    """
    parser = get_args_parser()
    parser.error = _refuse_option  # type: ignore[method-assign]
    parsed = parser.parse_intermixed_args(list(arguments))
    overrides: list[str] = parsed.overrides
    rest = list(arguments)
    for override in overrides:
        rest.remove(override)
    if parsed.config_dir is None:
        return [*rest, *overrides]
    place = next(index for index, option in enumerate(rest) if option.startswith(("--config-dir", "-cd")))
    del rest[place : place + (1 if "=" in rest[place] else 2)]
    folder = Path(parsed.config_dir).expanduser().absolute()
    if not folder.is_dir():
        raise FerError(f"--config-dir {parsed.config_dir}: no such folder")
    return [*rest, *overrides, f"hydra.searchpath=[{quoted(f'file://{folder}')}]"]


def _refuse_option(message: str) -> NoReturn:
    message = message.replace("(choose from 'all'", "(choose from 'models', 'all'")  # which is ours, not Hydra's
    raise FerError(f"{message}; python -m fer.train --help lists options and keys")


def quoted(value: str) -> str:
    """Return a value as Hydra's grammar takes it whatever characters it holds.

    Raises:
        FerError: it ends in a backslash, which the grammar cannot quote.
    """
    if value.endswith("\\"):
        raise FerError(f"{value}: a path that ends in a backslash cannot be passed to Hydra")
    return "'" + value.replace("'", "\\'") + "'"


def spelled(value: Any) -> str:
    """Return a plain value as an override spells it.

    Raises:
        FerError: a text that Hydra's grammar cannot quote.
    """
    if isinstance(value, list):
        return f"[{','.join(map(spelled, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{spelled(held)}' for key, held in value.items())}}}"
    if isinstance(value, str):
        return value if re.fullmatch(PLAIN_WORD, value) else quoted(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def value_of(override: str) -> Any:
    """Return the plain value that an override gives.

    Raises:
        FerError: it is faulty.
    """
    try:
        return OverridesParser.create().parse_overrides([override])[0].value()
    except FAULTS as error:
        raise FerError(explain(error, [override])) from error


def unquoted(value: str) -> str:
    """Return an override's value without the quotes around it."""
    quotes = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1].replace("\\'", "'") if quotes else value


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


def offer_networks(arguments: Sequence[str]) -> None:
    """Let Hydra offer networks of the command line's plugins as ``model=<name>`` and timm's as ``model=timm:<name>``.

    The keys and defaults of a plugin are those of the network's own arguments, so that it needs no YAML.

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
    from fer.models import MODELS

    for name in MODELS.names():
        if not (conf_folder() / "model" / f"{name}.yaml").exists():
            defaults = {"name": name, **_defaults(MODELS.get(name))}
            ConfigStore.instance().store(group="model", name=name, node=defaults, provider="plugins")


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the defaults that a configuration can hold; a network keeps the others to itself."""
    defaults = {name: default for name, (_, default) in keyword_parameters(function).items()}
    held = {name: REQUIRED if value is MISSING else value for name, value in defaults.items()}
    kinds = (bool, int, float, str, list, tuple, dict, type(None))
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in held.items()
        if isinstance(value, kinds)
    }


# --- errors ---------------------------------------------------------------------------------------------------------


def explain(error: Exception, arguments: Sequence[str], name: str = "config") -> str:
    """Return Hydra's error on composing ``name`` as one line that names the nearest valid key or choice."""
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
    if "group override must be" in text:
        return _explain_group(text, arguments)
    missing = re.search(r"Could not override '([^']+)'", text)
    if missing:
        key = missing.group(1)
        if "No match in the defaults list" in text or "/" in key:
            return f"{key}: no such group{_nearest(key, ())}"
        return f"{key}: no such key{_nearest(key, arguments, name)}"
    return text.splitlines()[0] + (f" ({str(error.__cause__).splitlines()[0]})" if error.__cause__ else "")


def _explain_group(text: str, arguments: Sequence[str]) -> str:
    """Return which group was given no choice's name, as in ``model=null``."""
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
        found = re.search(r"Could not find '([^']+)'", str(error))
        wanted = found.group(1) if found else str(error.missing_cfg_file)
        group, _, name = wanted.rpartition("/")
        folder = conf_folder() / group
        options = sorted(file.stem for file in folder.glob("*.yaml")) if folder.is_dir() else []
    extra = f"; it comes with pip install 'fer-lightning[{EXTRAS[name]}]'" if name in EXTRAS else ""
    near = did_you_mean(name, options)
    return f"{group}={name}: no such choice; there is {', '.join(options) or 'none'}{extra or near}"


def _nearest(key: str, arguments: Sequence[str], name: str = "config") -> str:
    """Return the key of ``name`` nearest to ``key`` in words, under the groups that the arguments choose."""
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
    within = difflib.get_close_matches(last, [name.rpartition(".")[2] for name in siblings], n=1, cutoff=0.5)
    if within:
        return f"; did you mean '{section + '.' if section else ''}{within[0]}'?"
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
def _beside_a_run() -> Iterator[None]:
    """Let Hydra compose while it runs a task, which its one global state forbids."""
    state = GlobalHydra.instance()
    running, state.hydra = state.hydra, None
    try:
        yield
    finally:
        state.hydra = running


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
