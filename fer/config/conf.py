"""The files of the configuration, and its values as text.

It finds ``conf/``, writes YAML, and quotes values for Hydra's grammar.
"""

import io
import math
import os
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
MOST_VALUES, MOST_BYTES, MOST_FILES = 100_000, 2**20, 1000  # of a file, aliases replaced; of a file; of a folder
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
RESERVED = "null|true|false|on|off|yes|no|nan|inf"
PLAIN_WORD = rf"(?!(?:{RESERVED})$)(?:\.{{0,2}}/)?[A-Za-z_][A-Za-z0-9_./-]*"  # text without need of quotes, or a path
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
    values: dict[str, Any] = _with_texts_as_keys(OmegaConf.to_container(config, resolve=True))
    return values


def as_yaml(values: Mapping[str, Any]) -> str:
    """Return plain values as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(values)))


def from_yaml(text: str) -> Any:
    """Return a YAML text, such as a stored configuration, as plain values; interpolations stay as they are.

    Raises:
        ValueError: it has aliases, too many levels, or a key that is neither a text nor a number. Ten lines of aliases
            can grow to a billion entries.
        yaml.YAMLError, OmegaConfBaseException: it is no configuration.
    """
    for event in yaml.parse(text, LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {event.start_mark.line + 1}: aliases are refused")
    _check_size(text)
    return _with_texts_as_keys(OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False))


def _with_texts_as_keys(values: Any) -> Any:
    """Return nested values with texts as keys: Hydra and YAML take the key of ``{1:happy}`` as a number.

    Raises:
        ValueError: a key is neither a text nor a finite number, such as YAML's empty key.
    """
    if isinstance(values, dict):
        return {_as_text(key): _with_texts_as_keys(value) for key, value in values.items()}
    return [_with_texts_as_keys(value) for value in values] if isinstance(values, list) else values


def _as_text(key: Any) -> str:
    if isinstance(key, str | int) or (isinstance(key, float) and math.isfinite(key)):
        return str(key)
    raise ValueError(f"the key {key!r} is no text")


def _check_size(text: str) -> None:
    """Raise unless a YAML text stays small once its aliases are replaced by what they name.

    Raises:
        ValueError: it has too many values or levels, or an alias within what it names.
        yaml.YAMLError: it is no YAML.
    """
    sizes: dict[str, int] = {}  # anchor -> values
    open_anchors: list[str | None] = []
    counts = [0]  # values of the document, and of each collection that is open
    for event in yaml.parse(text, LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            open_anchors.append(event.anchor)
            counts.append(0)
        elif isinstance(event, yaml.CollectionEndEvent):
            inside, anchor = 1 + counts.pop(), open_anchors.pop()
            counts[-1] += inside
            if anchor is not None:
                sizes[anchor] = inside
        elif isinstance(event, yaml.AliasEvent):
            counts[-1] += sizes.get(event.anchor, MOST_VALUES)  # without a size: within what it names, or of nothing
        elif isinstance(event, yaml.ScalarEvent):
            counts[-1] += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if len(counts) > DEEPEST:
            raise ValueError(f"it has more than {DEEPEST} levels")
        if counts[-1] >= MOST_VALUES:
            raise ValueError(f"line {event.start_mark.line + 1}: it has more than {MOST_VALUES:,} values")


def check_yaml(folder: Path) -> None:
    """Raise if Hydra could not compose a folder's files within bounds: ten lines of aliases can name a billion values.

    Raises:
        FerError: naming the file.
    """
    files = (Path(root) / name for root, _, names in os.walk(folder) for name in names if name.endswith(".yaml"))
    for count, file in enumerate(files, start=1):
        if count > MOST_FILES:
            raise FerError(f"{folder}: more than {MOST_FILES:,} files of YAML; expected a folder of configuration")
        try:
            if not file.is_file() or file.stat().st_size > MOST_BYTES:
                raise ValueError(f"is no file of at most {MOST_BYTES:,} bytes")
            _check_size(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):  # Hydra names what is wrong, if the file is chosen
            continue
        except ValueError as error:
            raise FerError(f"{file}: {error}; expected a configuration") from error


def search_paths(overrides: Sequence[str]) -> list[str]:
    """Return Hydra's overrides that name further folders of configuration, which a run's composition depends on."""
    return [text for text in overrides if text.startswith("hydra.searchpath=")]


def quoted(value: str) -> str:
    """Quote a text for Hydra's grammar.

    Raises:
        FerError: the text ends in a backslash, which the grammar cannot quote.
    """
    if value.endswith("\\"):
        raise FerError(f"{value}: ends in a backslash, which Hydra takes in no path; remove it")
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
