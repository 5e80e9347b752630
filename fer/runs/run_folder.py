"""Run folders as data: which there are, what each was told to do, which of them did the same."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fer.config.conf import stored
from fer.config.errors import FerError
from fer.config.settings import DataSettings, TrainSettings, leaves

# key -> default, of what every run has been told; sections that choose by name have defaults of their own
DEFAULTS = dict(leaves(asdict(TrainSettings(data=DataSettings(), model={}, loss={}, optimizer={}, scheduler={}))))
# what changes where a run is done, shown or kept, and not what it computes: no part of its identity
BESIDES = ("resume", "sweep", "logger", "data.cache", "trainer.bar", "trainer.profile", "trainer.threads")


def identity(config: Mapping[str, Any]) -> str:
    """Return a name for what a configuration computes, 16 hexadecimal digits: equal for equal ones, its seed included.

    Args:
        config: of a run, as plain values.
    """
    return hashlib.sha256(json.dumps(sorted(told(config).items())).encode()).hexdigest()[:16]


def told(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted key -> value of what a configuration computes, its seed included.

    Args:
        config: of a run, as plain values.
    """
    return {key: value for key, value in leaves(config) if not _besides(key)}


def _besides(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in BESIDES)


def configuration_of(folder: Path) -> dict[str, Any]:
    """Return the configuration that a run was composed of, as plain values.

    Raises:
        FerError: the folder keeps none.
    """
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise FerError(f"{folder}: no run folder (it has no .hydra/config.yaml)")
    config: dict[str, Any] = stored(folder, "config.yaml")
    return config


def find(paths: Iterable[str | Path]) -> list[Path]:
    """Return the folders of finished runs that lie at or below ``paths``, each once, in order.

    Evaluations, which lie within runs and have a ``metrics.json`` too, are no runs.

    Raises:
        FerError: a path is not there, or holds no finished run.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise FerError(f"{path}: {'is a file, no folder' if path.exists() else 'no such folder'}")
        held = sorted(file.parent for file in path.rglob("metrics.json") if (file.parent / ".hydra").is_dir())
        if not held:
            begun = len(unfinished([path]))
            more = f"; {begun} not finished" if begun else ""
            raise FerError(f"{path}: holds no finished run (no metrics.json beside .hydra/){more}")
        found |= dict.fromkeys(held)
    return list(found)


def unfinished(paths: Iterable[str | Path]) -> dict[Path, str]:
    """Return the run folders at or below ``paths`` that hold no result, and why in words."""
    found = {}
    for path in map(Path, paths):
        for folder in sorted(file.parent.parent for file in path.rglob(".hydra/config.yaml")):
            if (folder / "lr_finder.json").exists():
                found[folder] = "a learning-rate finder, which trains nothing"
            elif not (folder / "metrics.json").exists():
                more = "; its console.log says why" if (folder / "console.log").exists() else ""
                found[folder] = f"not finished (no metrics.json{more})"
    return found
