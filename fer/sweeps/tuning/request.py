"""The command line of ``fer.tune``.

It is parsed, checked, and compared with the search that it resumes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fer.config.conf import plain, search_paths, spelled, unquoted
from fer.config.errors import FerError
from fer.config.hydra import alternatives, composed, offer_registered, refuse_additions, value_of
from fer.config.paths import expand_home
from fer.config.schema import build
from fer.config.settings import Config, TrainSettings, TuneSettings
from fer.config.trust import taken
from fer.runs.run_folder import SEARCH, computed_settings, with_latest
from fer.runs.trials import State, Trial
from fer.sweeps.tuning import space
from fer.sweeps.tuning.space import PLANNED, Parameter, Ranges
from fer.sweeps.tuning.workers import FOLDER as WORKERS
from fer.system import records
from fer.system.files import read_record
from fer.system.records import Json

FILE = SEARCH.mark
SCHEMA = 1  # of tune.json
BEGUN = {WORKERS, "tune.log", "journal.log"}  # in a folder before tune.json, as another process makes them
OF_SEARCH = ("tune.", "space=", "space.")  # start of an override that trials do not get
NOT_HERE = {  # start of an override -> reason why a search refuses it
    "hydra": "a search makes its folders itself; name its folder with --out",
    "sweep": "belongs to fer.train -m",
    "resume=": "continues one run; tune.resume= continues a search",
    "budget.": PLANNED,
    "lr_finder=true": "trains nothing that could be compared",
}


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """The contents of ``tune.json``.

    Args:
        schema: version of the file.
        command: command line that repeats the search.
        arguments: its overrides.
        monitor: metric that the search optimises.
        space: key -> range or choices, as in YAML.
        settings: of the search.
        config: key -> value that all trials share.
        seconds: duration, earlier parts included.
        trials: state -> number of trials.
        best: the best complete trial; None without one.
        versions: of Python, of this library and of its main dependencies.
        commit: of the code.
        written: time of the writing, UTC.
    """

    schema: int = SCHEMA
    command: str = ""
    arguments: tuple[str, ...]
    monitor: str = ""
    space: Ranges
    settings: TuneSettings = field(default_factory=TuneSettings)
    config: Mapping[str, object]
    seconds: float = 0.0
    trials: Mapping[State, int] = field(default_factory=dict)
    best: Trial | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    written: str = ""


@dataclass(frozen=True)
class Request:
    """A command line of ``fer.tune``.

    Args:
        overrides: overrides of the command line, after those stored in ``tune.json`` when a search is resumed.
        trial_overrides: overrides that all trials share.
        config: configuration that these give, as plain values.
        settings: section ``tune``.
        space: key -> range or choices, as in YAML.
        parameters: the space after its check.
        fixed: keys of the space that do not vary, since ``trial_overrides`` set them.
        folder: folder of the search; None for a new one with the date as its name.
        before: contents of ``tune.json`` of a resumed search.
    """

    overrides: Sequence[str]
    trial_overrides: Sequence[str]
    config: Config
    settings: TuneSettings
    space: Ranges
    parameters: Sequence[Parameter]
    fixed: Sequence[str]
    folder: Path | None
    before: SearchRecord | None

    @property
    def paths(self) -> list[str]:
        """Overrides that name further folders of configuration."""
        return search_paths(self.trial_overrides)


def read(arguments: Sequence[str]) -> Request:
    """Parse the command line of a search, with all checks that need no training.

    Raises:
        FerError: the command line is faulty, or would change the search that it resumes.
    """
    options = [text for text in arguments if text.startswith("-")]
    if options:
        raise FerError(f"{options[0]}: a search takes only key=value and --config-dir; --help lists its keys")
    refuse_additions(arguments)
    overrides = _merged(with_latest(arguments))
    offer_registered(overrides)
    of_search = [text for text in overrides if text.startswith(OF_SEARCH)]
    of_trials = [text for text in overrides if text not in of_search]
    paths = search_paths(of_trials)
    _refuse(of_trials)
    config = plain(composed(of_trials))
    build(TrainSettings, config)
    section = plain(composed([*(text for text in of_search if not text.startswith("space.")), *paths], "tune"))
    settings = build(TuneSettings, section["tune"], "tune")
    varied = _space(section.get("space") or {}, of_search)
    fixed = {text.partition("=")[0]: spelled(value_of(text)) for text in of_trials if text not in paths}
    folder, before = settings.resume or settings.folder, _before(settings)
    parameters = space.read(varied, fixed)
    print("search: checking the space", flush=True)  # composing its corners takes seconds, and so does importing torch
    request = Request(
        overrides=[text for text in overrides if not text.startswith(("tune.resume=", "tune.folder="))],
        trial_overrides=of_trials,
        config=config,
        settings=settings,
        space=varied,
        parameters=space.checked(parameters, of_trials),
        fixed=[key for key in varied if key in fixed],
        folder=expand_home(folder).absolute() if folder else None,
        before=before,
    )
    if before is not None:
        _refuse_changes(request, before)
    return request


def joined(request: Request, folder: Path) -> Request:
    """Return the request, after another process has begun the same search in the folder since it was read.

    Raises:
        FerError: the other process's search has other settings.
    """
    if request.before is not None or not (folder / FILE).exists():
        return request
    before = stored(folder)
    _refuse_changes(request, before)
    return replace(request, before=before)


def _merged(arguments: Sequence[str]) -> list[str]:
    """Return the overrides of the command line, after those stored in a resumed search."""
    given = [text.partition("=")[2] for text in arguments if text.startswith("tune.resume=")]
    path = unquoted(given[-1]) if given else ""
    if path in ("", "null"):
        return list(arguments)
    folder = expand_home(path)
    before = taken(stored(folder).arguments, folder / FILE, arguments)
    return list({text.partition("=")[0]: text for text in (*before, *arguments)}.values())


def stored(folder: Path) -> SearchRecord:
    """Return the contents of a search's ``tune.json``.

    Raises:
        FerError: the file is missing or damaged.
    """

    def of(contents: Json) -> SearchRecord:
        if not isinstance(contents["arguments"], list):
            raise ValueError("its arguments are no list")
        return records.read(SearchRecord, contents)

    return read_record(folder / FILE, "search", "search", of)


def _before(settings: TuneSettings) -> SearchRecord | None:
    """Return the record of the search in the folder; None for a new search, which needs an empty folder."""
    if settings.resume is not None:
        return stored(expand_home(settings.resume))
    folder = expand_home(settings.folder) if settings.folder else None
    if folder is None or not folder.exists() or {entry.name for entry in folder.iterdir()} <= BEGUN:
        return None
    if not (folder / FILE).exists():
        raise FerError(f"--out {settings.folder}: is not empty; choose another folder")
    return stored(folder)


def _refuse(of_trials: Sequence[str]) -> None:
    for text in of_trials:
        for start, why in NOT_HERE.items():
            if text.startswith(start) and text not in search_paths(of_trials):
                raise FerError(f"{text}: {why}")
    for key, texts in alternatives(of_trials).items():
        if len(texts) > 1:
            values = ",".join(text.partition("=")[2] for text in texts)
            raise FerError(f"{key}: takes one value for all trials; to search over several: space.{key}=[{values}]")


def _space(section: Ranges, of_search: Sequence[str]) -> Ranges:
    """Return the chosen space with the changes of the command line."""
    given = [(text.partition("=")[0].removeprefix("space."), text) for text in of_search if text.startswith("space.")]
    changed = {**section, **{key: value_of(text) for key, text in given}}
    return {key: values for key, values in changed.items() if values is not None}


def _refuse_changes(request: Request, before: SearchRecord) -> None:
    now = {**{f"space.{key}": values for key, values in request.space.items()}, **computed_settings(request.config)}
    then = {**{f"space.{key}": values for key, values in before.space.items()}, **before.config}
    same = ["seeds", "baseline"]
    if request.settings.resume is None:  # another process may be at work; a search that is resumed may have moved
        same.append("storage")
    for name in same:
        now[f"tune.{name}"], then[f"tune.{name}"] = (getattr(of, name) for of in (request.settings, before.settings))
    for key in sorted(now | then):
        if now.get(key) != then.get(key):
            here, there = (spelled(values.get(key)) for values in (now, then))
            raise FerError(
                f"{key}={here}: the search in {request.folder} has {key}={there}; give the same, or start another "
                "search with --out"
            )
