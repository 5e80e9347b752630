"""Run folders as data.

The functions find run folders and their configurations, and name what a configuration computes.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from fer.config.conf import spelled
from fer.config.errors import FerError
from fer.config.settings import Config, DataSettings, TrainSettings, leaves
from fer.runs import status
from fer.runs.stored import stored
from fer.system import hub

OF_SECTIONS = {"optimizer.layer_decay": 1.0, "model.freeze": False}  # younger keys of those four sections, see YOUNGER
# key -> default, for all keys but those of model, loss, optimizer and scheduler
DEFAULTS = OF_SECTIONS | dict(
    leaves(asdict(TrainSettings(data=DataSettings(), model={}, loss={}, optimizer={}, scheduler={})))
)
# keys and sections that do not change what a run computes; no part of its identity
BESIDES = (
    "resume", "sweep", "logger", "checkpoint", "data.cache", "data.memory_limit_gb", "trainer.bar",
    "trainer.halve_batch_on_oom", "trainer.profile", "trainer.threads", "trainer.devices", "trainer.nodes",
    "trainer.restarts", "trainer.gradient_checkpointing",
)  # fmt: skip
# younger keys: at their defaults no part of the identity, so that those of earlier runs hold
YOUNGER = (
    "data.class_names", "data.channels", "data.more", "data.weights", "data.val_of", "data.keep_duplicates_together",
    "trainer.sync_batchnorm", "trainer.lr_scaling", "trainer.accumulate", "trainer.freeze_trunk", "budget.until",
    *OF_SECTIONS,
)  # fmt: skip
LATEST = "latest"  # on a command line: the newest folder of its kind
OUTPUTS = Path("outputs")  # in the current folder; "latest" searches it


class Kind(NamedTuple):
    """A kind of folder that a command line may name.

    Args:
        name: name of the kind in messages.
        mark: pattern of a file in each such folder; the folder with the newest one is the latest.
        depth: number of levels from the folder to the file.
        beside: another file or folder that such a folder has; empty for none.
    """

    name: str
    mark: str
    depth: int = 1
    beside: str = ""

    def folders(self) -> list[Path]:
        """Return the folders of this kind in ``outputs/``, the newest last."""
        marks = sorted(OUTPUTS.rglob(self.mark), key=lambda file: (file.stat().st_mtime_ns, file))
        candidates = [file.parents[self.depth - 1] for file in marks]
        return [folder for folder in candidates if (folder / self.beside).exists()]


TRAINED = Kind("run with a checkpoint", "checkpoints/best.ckpt", 2)
RESUMABLE = Kind("run with a checkpoint", "checkpoints/last.ckpt", 2)
FINISHED = Kind("finished run", "metrics.json", beside=".hydra")
EVALUATION = Kind("evaluation", "evaluations/*/metrics.json")
SWEEP = Kind("sweep", "sweep.json")
SEARCH = Kind("search", "tune.json")
CAMPAIGN = Kind("campaign", "best.json")
KINDS = {  # key of fer.train or fer.tune -> kind of its folders
    "resume": RESUMABLE,
    "init_from": TRAINED,
    "distill.teachers": TRAINED,
    "sweep.resume": SWEEP,
    "tune.resume": SEARCH,
}


def named(given: str | Path, kind: Kind, *, download: bool = False) -> Path:
    """Return the folder or file that a command line names; for "latest" the newest of its kind in ``outputs/``.

    A file or folder in the current folder that is called "latest" comes first. ``hf://owner/name`` is a folder in the
    cache of the hub; with ``download`` the hub is asked.

    Raises:
        FerError: the name is empty, ``outputs/`` has no folder of this kind, or the network of the hub cannot be had.
    """
    if not str(given):  # would stand for the current folder; such is a variable of a script that was not set
        raise FerError(f"an empty name; expected a {kind.name}")
    if hub.is_reference(given):
        return hub.folder(str(given), download=download)
    if str(given) != LATEST or Path(LATEST).exists():
        return Path(given)
    folders = kind.folders()
    if not folders:
        raise FerError(f"{LATEST}: no {kind.name} in {OUTPUTS.absolute()}; name a folder")
    return folders[-1]


def named_results(given: str | Path) -> Path:
    """Return the folder that a command line names; for "latest" the newest finished run, or the sweep around it.

    Raises:
        FerError: ``outputs/`` has no finished run.
    """
    folder = named(given, FINISHED)
    in_sweep = folder != Path(given) and (folder.parent / SWEEP.mark).is_file()
    return folder.parent if in_sweep else folder


def with_latest(arguments: Sequence[str]) -> list[str]:
    """Replace "latest" by a path in the overrides that name runs, sweeps and searches.

    Raises:
        FerError: ``outputs/`` has no folder of the kind, or an override names nothing.
    """

    def resolved(text: str) -> str:
        key, _, value = text.partition("=")
        if key in KINDS and not value.strip("'\" "):  # an empty variable of a shell script must not begin a new run
            raise FerError(f"{text}: names no {KINDS[key].name}; name its folder, or {key}={LATEST}, or leave it out")
        if key not in KINDS or LATEST not in value:
            return text
        pattern = rf"(?<![^\[,])(\s*)(['\"]?){LATEST}\2(?=\s*(?:[\],]|$))"  # a whole value, or an item of a list
        return f"{key}={re.sub(pattern, lambda match: match[1] + spelled(str(named(LATEST, KINDS[key]))), value)}"

    return [resolved(text) for text in arguments]


def identity(config: Config) -> str:
    """Return a name of 16 hexadecimal digits; equal for two configurations that compute the same with the same seed.

    Args:
        config: a run's configuration, as plain values.
    """
    return hashlib.sha256(json.dumps(sorted(computed_settings(config).items())).encode()).hexdigest()[:16]


def computed_settings(config: Config) -> dict[str, Any]:
    """Return dotted key -> value of the settings that change what a run computes, the seed included.

    Args:
        config: a run's configuration, as plain values.
    """
    return {key: value for key, value in leaves(config) if not _besides(key, value)}


def _besides(key: str, value: Any) -> bool:
    if key in YOUNGER and value == DEFAULTS[key]:
        return True
    return any(key == name or key.startswith(f"{name}.") for name in BESIDES)


def configuration_of(folder: Path) -> Config:
    """Return a run's configuration, as plain values.

    Raises:
        FerError: the folder has no ``.hydra/config.yaml``, or a damaged one.
    """
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise FerError(f"{folder}: no run folder (it has no .hydra/config.yaml)")
    config: Config = stored(folder, "config.yaml")
    if not config or not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise FerError(f"{folder / '.hydra' / 'config.yaml'}: cannot be read (it has no keys)")
    return config


def find(paths: Iterable[str | Path]) -> list[Path]:
    """Return the folders of finished runs at or below ``paths``, each once, in order.

    Evaluations inside runs have a ``metrics.json`` too, but are no runs.

    Raises:
        FerError: a path does not exist, or contains no finished run.
    """
    folders: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise FerError(f"{path}: {'is a file, no folder' if path.exists() else 'no such folder'}")
        runs = sorted(file.parent for file in path.rglob("metrics.json") if (file.parent / ".hydra").is_dir())
        if not runs:
            begun = unfinished([path])
            more = f"; {len(begun)} not finished: {next(iter(begun.values()))}" if begun else ""
            raise FerError(f"{path}: no finished run in it (no metrics.json beside .hydra/){more}")
        folders |= dict.fromkeys(runs)
    return list(folders)


def unfinished(paths: Iterable[str | Path]) -> dict[Path, str]:
    """Return run folder -> reason for the runs at or below ``paths`` without a result."""
    reasons = {}
    for path in map(Path, paths):
        for folder in sorted(file.parent.parent for file in path.rglob(".hydra/config.yaml")):
            if (folder / "lr_finder.json").exists():
                reasons[folder] = "a learning-rate finder, which trains nothing"
            elif not (folder / "metrics.json").exists():
                more = "; see its console.log" if (folder / "console.log").exists() else ""
                words = status.in_words(folder)  # "finished" where its metrics.json was removed
                reasons[folder] = f"not finished (no metrics.json{more})" if words in ("", "finished") else words
    return reasons
