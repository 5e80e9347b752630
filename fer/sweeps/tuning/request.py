"""What a command line of ``fer.tune`` asks for, and whether a folder's search can go on with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer.config.conf import plain, search_paths, spelled, unquoted
from fer.config.errors import FerError
from fer.config.hydra import alternatives, composed, offer_networks, refuse_additions, value_of
from fer.config.schema import build
from fer.config.settings import TrainSettings, TuneSettings
from fer.runs.run_folder import SEARCH, with_latest
from fer.runs.run_folder import told as computed
from fer.sweeps.tuning import space
from fer.sweeps.tuning.space import Parameter
from fer.system.files import read_kept

FILE = SEARCH.mark
OWN = ("tune.", "space=", "space.")
NOT_HERE = {  # beginning of an override -> why a search refuses it
    "hydra": "a search has folders of its own; --out names it",
    "sweep": "belongs to fer.train -m",
    "resume=": "continues one run; a search is gone on with by tune.resume=",
    "budget.": "gives each trial epochs of its own, which pruning could not compare; tune.hours= ends a search",
    "lr_finder=true": "trains nothing that could be compared",
}


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Args:
        overrides: of the command line, and of the search that it goes on with.
        told: those of all trials.
        config: what those give, as plain values.
        settings: of the search.
        space: key -> what varies, as in YAML.
        parameters: the same, checked.
        fixed: keys of the space that do not vary since ``told`` sets them.
        folder: the search's; None for a new one with the date as its name.
        before: what ``tune.json`` holds, of a search that is gone on with.
    """

    overrides: Sequence[str]
    told: Sequence[str]
    config: Mapping[str, Any]
    settings: TuneSettings
    space: Mapping[str, Any]
    parameters: Sequence[Parameter]
    fixed: Sequence[str]
    folder: Path | None
    before: Mapping[str, Any] | None

    @property
    def paths(self) -> list[str]:
        """The overrides that say where else configuration lies."""
        return search_paths(self.told)


def read(arguments: Sequence[str]) -> Request:
    """Return what a command line asks for, everything checked that can be without a training.

    Raises:
        FerError: it is faulty, or would change a search that it goes on with.
    """
    options = [text for text in arguments if text.startswith("-")]
    if options:
        raise FerError(f"{options[0]}: a search takes key=value, --config-dir and nothing else; --help lists its keys")
    refuse_additions(arguments)
    overrides = _merged(with_latest(arguments))
    offer_networks(overrides)
    own = [text for text in overrides if text.startswith(OWN)]
    told = [text for text in overrides if text not in own]
    paths = search_paths(told)
    _refuse(told)
    config = plain(composed(told))
    build(TrainSettings, config)
    section = plain(composed([*(text for text in own if not text.startswith("space.")), *paths], "tune"))
    settings = build(TuneSettings, section["tune"], "tune")
    varied = _space(section.get("space") or {}, own)
    fixed = {text.partition("=")[0]: spelled(value_of(text)) for text in told if text not in paths}
    folder, before = settings.resume or settings.folder, _before(settings)
    parameters = space.read(varied, fixed)
    print("search: checking the space", flush=True)  # composing each of its corners takes seconds, and so does torch
    asked = Request(
        overrides=[text for text in overrides if not text.startswith(("tune.resume=", "tune.folder="))],
        told=told,
        config=config,
        settings=settings,
        space=varied,
        parameters=space.checked(parameters, told),
        fixed=[key for key in varied if key in fixed],
        folder=Path(folder).expanduser().absolute() if folder else None,
        before=before,
    )
    if before is not None:
        _refuse_changes(asked, before)
    return asked


def _merged(arguments: Sequence[str]) -> list[str]:
    """Return the command line's overrides, and of those of the search to go on with the ones it does not name."""
    given = [text.partition("=")[2] for text in arguments if text.startswith("tune.resume=")]
    path = unquoted(given[-1]) if given else ""
    if path in ("", "null"):
        return list(arguments)
    before = stored(Path(path).expanduser())["arguments"]
    return list({text.partition("=")[0]: text for text in (*before, *arguments)}.values())


def stored(folder: Path) -> dict[str, Any]:
    """Return what a search's ``tune.json`` holds.

    Raises:
        FerError: there is none, or it is damaged.
    """

    def sound(held: dict[str, Any]) -> bool:
        return isinstance(held["arguments"], list) and isinstance(held["config"], dict) and "space" in held

    return read_kept(folder / FILE, "search", "search", sound)


def _before(settings: TuneSettings) -> dict[str, Any] | None:
    """Return what the folder holds of a search already; a new one begins in an empty folder alone."""
    if settings.resume is not None:
        return stored(Path(settings.resume).expanduser())
    folder = Path(settings.folder).expanduser() if settings.folder else None
    if folder is None or not folder.exists() or not any(folder.iterdir()):
        return None
    if not (folder / FILE).exists():
        raise FerError(f"--out {settings.folder}: holds something else already; choose another folder")
    return stored(folder)


def _refuse(told: Sequence[str]) -> None:
    for text in told:
        for beginning, why in NOT_HERE.items():
            if text.startswith(beginning) and text not in search_paths(told):
                raise FerError(f"{text}: {why}")
    for key, texts in alternatives(told).items():
        if len(texts) > 1:
            values = ",".join(text.partition("=")[2] for text in texts)
            raise FerError(
                f"{key}: takes one value, which all trials have; to search over several: space.{key}=[{values}]"
            )


def _space(section: Mapping[str, Any], own: Sequence[str]) -> dict[str, Any]:
    """Return the space that was chosen, with what the command line changes in it."""
    given = [(text.partition("=")[0].removeprefix("space."), text) for text in own if text.startswith("space.")]
    changed = {**section, **{key: value_of(text) for key, text in given}}
    return {key: held for key, held in changed.items() if held is not None}


def _refuse_changes(asked: Request, before: Mapping[str, Any]) -> None:
    now = {**{f"space.{key}": held for key, held in asked.space.items()}, **computed(asked.config)}
    then = {**{f"space.{key}": held for key, held in before["space"].items()}, **before["config"]}
    now["tune.seeds"], then["tune.seeds"] = asked.settings.seeds, before["settings"]["seeds"]
    for key in sorted(now | then):
        if now.get(key) != then.get(key):
            raise FerError(
                f"{asked.folder}: the search has {key}={then.get(key)}, now it is {now.get(key)}; a search goes on as "
                f"it began: leave that out, or begin another with --out"
            )
