"""Which run is gone on with, and what may be changed about it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fer.config.conf import plain, quoted, search_paths, stored, unquoted
from fer.config.errors import FerError
from fer.config.hydra import composed, offer_networks
from fer.config.settings import DataSettings, TrainSettings, leaves
from fer.data.locate import locate
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.runs.run_folder import DEFAULTS


def _data(settings: TrainSettings, folder: Path, *, drawn_faces_allowed: bool) -> tuple[DataSettings, bool]:
    """Return the data, files named from the root, and whether drawn faces stand in.

    A run is resumed and evaluated from other folders too; a resumed one goes on with what it had, where that is there.
    """
    data = settings.data
    known: dict[str, Any] = {}
    if settings.resume:
        from fer.training.callbacks.checkpointing import newest

        about = newest(folder)[1]["fer"]
        known, stand_in = about["dataset"]["settings"], about["dataset"]["stand_in"]
        if data.batch_size == "auto":  # the order of the steps hangs on what was found then, on another GPU perhaps
            data = replace(data, batch_size=about["batch_size"])
    data = replace(data, votes=_file(data.votes, known, "votes"), exclude=_file(data.exclude, known, "exclude"))
    if known and (known["path"] == SYNTHETIC or Path(known["path"]).exists()):
        return replace(data, path=known["path"]), stand_in
    path, stand_in = locate(data.path, drawn_faces_allowed=drawn_faces_allowed and not settings.resume)
    return replace(data, path=path), stand_in


def _file(given: str | None, known: Mapping[str, Any], key: str) -> str | None:
    """Return a file's path from the root: where a resumed run had it, if it is still there."""
    before = known.get(key)
    if given is not None and before is not None and Path(before).exists():
        return str(before)
    return None if given is None else str(Path(given).expanduser().absolute())


def refuse_used_folder(arguments: Sequence[str]) -> None:
    """Raise if a run would be written over another.

    Raises:
        FerError: naming the folder and the way to go on with it.
    """
    run_folder = _value(arguments, "hydra.run.dir")
    used = run_folder and any((Path(run_folder) / name).exists() for name in ("checkpoints", "lr_finder.json"))
    if used and not _value(arguments, "resume"):
        raise FerError(
            f"--out {run_folder}: holds a run already; choose another folder, or go on with resume={run_folder}"
        )


def resuming(arguments: list[str]) -> list[str]:
    """Return the command line that continues the run named by ``resume=`` in its own folder.

    The run's own overrides are taken up.

    Raises:
        FerError: there is no such run, or the other arguments, or the library's defaults, would change it.
    """
    path = _value(arguments, "resume")
    folder = Path(path).expanduser().resolve()
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise FerError(f"resume={path}: no run folder (it has no .hydra/config.yaml)")
    if _value(arguments, "hydra.run.dir"):
        raise FerError(f"resume={path} goes on in the run's own folder; leave out --out (hydra.run.dir)")
    before = stored(folder, "overrides.yaml")
    paths = search_paths(stored(folder, "hydra.yaml")["hydra"]["overrides"]["hydra"])
    merged = {text.partition("=")[0]: text for text in (*before, *paths, *arguments) if not text.startswith("resume=")}
    overrides = [text for key, text in merged.items() if not key.startswith("-")]
    offer_networks(overrides)
    _refuse_changes(folder, path, plain(composed(overrides)))
    flags = [text for text in arguments if text.startswith("-")]
    return [*flags, *overrides, f"resume={quoted(str(folder))}", f"hydra.run.dir={quoted(str(folder))}"]


def _value(arguments: Sequence[str], key: str) -> str:
    """Return the last value given for a key, unquoted; empty if none, or null, is given."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{key}=")]
    return "" if not given or given[-1] == "null" else unquoted(given[-1])


def _refuse_changes(folder: Path, path: str, now: Mapping[str, Any]) -> None:
    # an older run does not name every key: it did what is the default now
    before, after = DEFAULTS | dict(leaves(stored(folder, "config.yaml"))), DEFAULTS | dict(leaves(now))
    own = [key for key in sorted(before | after) if key != "resume" and not key.startswith("sweep.")]
    changed = [key for key in own if before.get(key) != after.get(key)]
    if changed:
        key = changed[0]
        more = f" (and {len(changed) - 1} more keys)" if len(changed) > 1 else ""
        raise FerError(
            f"resume={path}: the run has {key}={before.get(key)}, now it is {after.get(key)}{more}; a run goes on as "
            f"it began. To train on from its weights with other settings: init_from={path}"
        )
