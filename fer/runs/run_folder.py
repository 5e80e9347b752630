"""Run folders as data: which there are, what each was told to do, which of them did the same."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from fer.config.conf import spelled, stored
from fer.config.errors import FerError
from fer.config.settings import DataSettings, TrainSettings, leaves

# key -> default, of what every run has been told; sections that choose by name have defaults of their own
DEFAULTS = dict(leaves(asdict(TrainSettings(data=DataSettings(), model={}, loss={}, optimizer={}, scheduler={}))))
# what changes where a run is done, shown or kept, and not what it computes: no part of its identity
BESIDES = ("resume", "sweep", "logger", "data.cache", "trainer.bar", "trainer.profile", "trainer.threads")
LATEST = "latest"  # stands for the newest folder of its kind
OUTPUTS = Path("outputs")  # in the current folder, where such folders are looked for


class Kind(NamedTuple):
    """A kind of folder that a command line may name.

    Args:
        name: in messages.
        mark: pattern of a file that each such folder holds; the newest of them is the latest's.
        depth: how far below the folder the file lies.
        beside: what such a folder holds too; empty for nothing.
    """

    name: str
    mark: str
    depth: int = 1
    beside: str = ""

    def folders(self) -> list[Path]:
        """Return those in ``outputs/``, the newest last."""
        marks = sorted(OUTPUTS.rglob(self.mark), key=lambda file: (file.stat().st_mtime_ns, file))
        found = [file.parents[self.depth - 1] for file in marks]
        return [folder for folder in found if (folder / self.beside).exists()]


TRAINED = Kind("run with a checkpoint", "checkpoints/best.ckpt", 2)
RESUMABLE = Kind("run with a checkpoint", "checkpoints/last.ckpt", 2)
FINISHED = Kind("finished run", "metrics.json", beside=".hydra")
EVALUATION = Kind("evaluation", "evaluations/*/metrics.json")
SWEEP = Kind("sweep", "sweep.json")
SEARCH = Kind("search", "tune.json")
CAMPAIGN = Kind("campaign", "best.json")
KINDS = {  # key of fer.train or fer.tune -> what it names
    "resume": RESUMABLE,
    "init_from": TRAINED,
    "distill.teachers": TRAINED,
    "sweep.resume": SWEEP,
    "tune.resume": SEARCH,
}


def named(given: str | Path, kind: Kind) -> Path:
    """Return the folder or file that a command line names: for "latest" the newest of its kind in ``outputs/``.

    A file or folder of that name, in the current folder, is meant before.

    Raises:
        FerError: there is none of its kind.
    """
    if str(given) != LATEST or Path(LATEST).exists():
        return Path(given)
    folders = kind.folders()
    if not folders:
        raise FerError(f"{LATEST}: there is no {kind.name} in {OUTPUTS.absolute()}; name a folder")
    return folders[-1]


def named_results(given: str | Path) -> Path:
    """Return the folder that a command line names; for "latest" that of the newest finished run, or of its sweep.

    Raises:
        FerError: there is no finished run.
    """
    folder = named(given, FINISHED)
    in_sweep = folder != Path(given) and (folder.parent / SWEEP.mark).is_file()
    return folder.parent if in_sweep else folder


def with_latest(arguments: Sequence[str]) -> list[str]:
    """Return overrides with paths in place of "latest", in the keys that name runs, sweeps and searches.

    Raises:
        FerError: there is none.
    """

    def resolved(text: str) -> str:
        key, _, value = text.partition("=")
        if key not in KINDS or LATEST not in value:
            return text
        pattern = rf"(?<![^\[,])(\s*)(['\"]?){LATEST}\2(?=\s*(?:[\],]|$))"  # a whole value, or one of a list
        return f"{key}={re.sub(pattern, lambda found: found[1] + spelled(str(named(LATEST, KINDS[key]))), value)}"

    return [resolved(text) for text in arguments]


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
