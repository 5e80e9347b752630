"""The configuration's files and its values as text: where ``conf/`` is, YAML, quoting for Hydra's grammar."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.config.errors import FerError

VERSION_BASE = "1.3"
DEEPEST = 50  # levels of a configuration in YAML; a run's has five
PLAIN_WORD = r"(?!(?:null|true|false|on|off|yes|no|nan|inf)$)[A-Za-z_][A-Za-z0-9_./-]*"  # text without need of quotes
FAULTS = (HydraException, OmegaConfBaseException, ValueError)  # Hydra's exceptions for a faulty command line


def conf_folder() -> Path:
    """Return the folder of the shipped configuration: ``fer/conf`` in a wheel, ``conf`` beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def choices_of(overrides: Sequence[str]) -> dict[str, str | None]:
    """Return group -> choice for overrides that were checked before."""
    with initialize_config_dir(version_base=VERSION_BASE, config_dir=str(conf_folder())):
        return dict(compose("config", list(overrides), return_hydra_config=True).hydra.runtime.choices)


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain values, interpolations resolved."""
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return values


def as_yaml(values: Mapping[str, Any]) -> str:
    """Return plain values as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(values)))


def from_yaml(text: str) -> Any:
    """Return a YAML text, such as a stored configuration, as plain values; interpolations stay as they are.

    Raises:
        ValueError: it has aliases, of which ten lines can grow to a billion entries, or too many levels.
        yaml.YAMLError, OmegaConfBaseException: it is no configuration.
    """
    depth = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {event.start_mark.line + 1}: aliases are refused")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it has more than {DEEPEST} levels")
    return OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)


def search_paths(overrides: Sequence[str]) -> list[str]:
    """Return Hydra's overrides that name further folders of configuration, which a run's composition depends on."""
    return [text for text in overrides if text.startswith("hydra.searchpath=")]


def quoted(value: str) -> str:
    """Quote a text for Hydra's grammar.

    Raises:
        FerError: the text ends in a backslash, which the grammar cannot quote.
    """
    if value.endswith("\\"):
        raise FerError(f"{value}: a path that ends in a backslash cannot be passed to Hydra")
    return "'" + value.replace("'", "\\'") + "'"


def spelled(value: Any) -> str:
    """Return a plain value as text for an override.

    Raises:
        FerError: Hydra's grammar cannot quote a text in it.
    """
    if isinstance(value, list):
        return f"[{','.join(map(spelled, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{spelled(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        return value if re.fullmatch(PLAIN_WORD, value) else quoted(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def unquoted(value: str) -> str:
    """Return an override's value without the quotes around it."""
    quotes = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1].replace("\\'", "'") if quotes else value
