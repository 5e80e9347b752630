"""What a sweep's command line asks for, and what of it is still to be done.

The command line is expanded here, and every job composed and checked before the first one begins. A job is known by its
``fer.runs.run_folder.identity``: a sweep that is gone on with does what is missing, whatever its number was.
"""

import itertools
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fer.config.conf import plain, search_paths, spelled, unquoted
from fer.config.errors import FerError
from fer.config.hydra import alternatives, composed, composed_sweep, offer_networks
from fer.config.schema import build
from fer.config.settings import SweepSettings, TrainSettings
from fer.runs.run_folder import SWEEP, identity
from fer.sweeps import jobs
from fer.sweeps.jobs import Job
from fer.system.files import read_kept

FILE = SWEEP.mark
MANY = 20  # jobs, whose composition takes seconds
DONE, CUT_OFF = 2, 1  # ranks of jobs that a folder holds
HYDRAS = ("hydra.", "hydra/")
NO_SWEEPS = {  # key -> why a sweep refuses it
    "resume": "resume= continues one run; leave out -m. A sweep is gone on with by sweep.resume=",
    "hydra.run.dir": "hydra.run.dir is one run's folder; --out names a sweep's too",
    "hydra.sweep.subdir": "hydra.sweep.subdir: a sweep's folders are numbered",
    "hydra/sweeper": "hydra/sweeper: the jobs of a sweep are what its command line says",
    "sweep.over": "sweep.over is for files in conf/sweep; on a command line write key=value,value",
}


@dataclass(frozen=True)
class Asked:
    """What a command line asks for.

    Args:
        overrides: its own, and those of the sweep that it goes on with.
        values: key -> overrides of one value each, for the keys of runs.
        settings: of the sweep.
        hydra: Hydra's own overrides.
        folder: the sweep's.
    """

    overrides: Sequence[str]
    values: dict[str, list[str]]
    settings: SweepSettings
    hydra: Sequence[str]
    folder: Path

    @property
    def paths(self) -> list[str]:
        """Hydra's own overrides that a run's composition depends on."""
        return search_paths(self.hydra)

    @property
    def foreign(self) -> bool:
        """Whether one of Hydra's other launchers runs the jobs."""
        return any(text.startswith("hydra/launcher=") and text != "hydra/launcher=basic" for text in self.hydra)


@dataclass
class Plan:
    """The jobs of a sweep, each once.

    Args:
        jobs: in order; those that are done already have an exit code.
        accelerators: that they ask for.
        doubles: how many more the command line named that compute the same as others.
        again: (old folder, job) of those that left nothing to go on from.
        unasked: how many finished jobs the folder holds that are not among them.
        saved: folders of interrupted jobs that are not among them.
    """

    jobs: list[Job] = field(default_factory=list)
    accelerators: set[str] = field(default_factory=set)
    doubles: int = 0
    again: list[tuple[Path, Job]] = field(default_factory=list)
    unasked: int = 0
    saved: list[Path] = field(default_factory=list)


# --- what is asked for ----------------------------------------------------------------------------------------------


def read(arguments: Sequence[str]) -> Asked:
    """Return what a command line asks for.

    Raises:
        FerError: it is faulty.
    """
    overrides, resumed = _taken_up(arguments)
    values = alternatives(overrides)
    for key, why in NO_SWEEPS.items():
        if key in values:
            raise FerError(why)
    own = {key: values.pop(key) for key in list(values) if key.startswith((*HYDRAS, "sweep.")) or key == "sweep"}
    for key, given in own.items():
        if len(given) > 1:
            raise FerError(f"{key}: takes one value; what a sweep varies are the keys of runs")
    texts = [given[0] for given in own.values()]
    section, folder = composed_sweep(texts)
    _refuse_used(folder, resumed, own)
    asked = Asked(
        overrides=[text for text in overrides if not text.startswith("hydra.sweep.dir=")],
        values=values,
        settings=build(SweepSettings, section, "sweep"),
        hydra=[text for text in texts if text.startswith(HYDRAS) and not text.startswith("hydra.sweep.dir=")],
        folder=resumed or folder.absolute(),
    )
    if asked.foreign and "sweep.jobs" in own:
        raise FerError(f"{own['sweep.jobs'][0]}: Hydra's launchers have a key of their own for that: --cfg hydra")
    return asked


def _taken_up(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """Return the overrides, with those of the sweep that is gone on with, and that sweep's folder."""
    given = [text for text in arguments if text not in ("-m", "--multirun", "hydra.mode=MULTIRUN")]
    options = [text for text in given if text.startswith("-")]
    if options:
        raise FerError(f"{options[0]}: a sweep takes key=value and nothing else beside -m")
    resumed = _resumed(given)
    overrides = [text for text in given if not text.startswith("sweep.resume=")]
    if resumed is None:
        return overrides, None
    before = {text.partition("=")[0]: text for text in stored(resumed)["arguments"]}
    overrides = list((before | {text.partition("=")[0]: text for text in overrides}).values())
    offer_networks(overrides)
    return overrides, resumed


def _resumed(overrides: Sequence[str]) -> Path | None:
    """Return the folder of the sweep to go on with, if one is named."""
    given = [text.partition("=")[2] for text in overrides if text.startswith("sweep.resume=")]
    return Path(unquoted(given[-1])).expanduser().absolute() if given and given[-1] not in ("", "null") else None


def stored(folder: Path) -> dict[str, Any]:
    """Return what ``sweep.json`` holds.

    Raises:
        FerError: there is none, or it is damaged.
    """

    def sound(held: dict[str, Any]) -> bool:
        return all(isinstance(text, str) for text in held["arguments"]) and isinstance(held["jobs"], list)

    return read_kept(folder / FILE, "sweep", "sweep folder", sound)


def _refuse_used(folder: Path, resumed: Path | None, own: dict[str, list[str]]) -> None:
    if resumed is not None and "hydra.sweep.dir" in own:
        raise FerError("sweep.resume= goes on in the sweep's own folder; leave out --out (hydra.sweep.dir)")
    if resumed is None and ((folder / FILE).exists() or any(folder.glob("*/job.json"))):
        raise FerError(
            f"--out {folder}: holds a sweep already; choose another folder, or go on with "
            f"sweep.resume={shlex.quote(str(folder))}"
        )


def expanded(asked: Asked) -> list[list[str]]:
    """Return the overrides of every job: each alternative with every combination.

    Raises:
        FerError: the command line names a key that the alternatives set, or names no job.
    """
    settings = asked.settings
    for alternative in settings.each:
        for key in alternatives(alternative):
            if key in asked.values:
                raise FerError(f"{asked.values[key][0]}: {key} is what this sweep varies (sweep.each); leave it out")
    over: dict[str, list[str]] = {}
    for key, values in settings.over.items():
        listed = values if isinstance(values, str) else ",".join(map(spelled, values))
        over |= alternatives([f"{key}={listed}"])
    combinations = list(itertools.product(*{**over, **asked.values}.values()))
    if not combinations:
        raise FerError("the command line names no job: a key has no values")
    return [[*each, *combination] for each in settings.each or [[]] for combination in combinations]


# --- what is to be done ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """A job that a sweep's folder holds already.

    Args:
        folder: its.
        rank: how far it got: DONE; CUT_OFF, with something to go on from; or neither.
    """

    folder: Path
    rank: int


def planned(asked: Asked) -> Plan:
    """Compose, check and find every job.

    Raises:
        FerError: a choice or key that is not there; every job is refused; a job of the folder still runs.
    """
    held, numbers = _held(asked.folder), _free_numbers(asked.folder)
    plan, found = Plan(), dict[str, Job]()
    told = expanded(asked)
    if len(told) >= MANY:
        print(f"sweep: composing and checking {len(told)} jobs", flush=True)
    for overrides in told:
        config = plain(composed([*overrides, *asked.paths]))
        name = identity(config)
        if name in found:
            plan.doubles += 1
            continue
        plan.accelerators.add(config["trainer"]["accelerator"])
        found[name] = job = _job(overrides, config, name, asked, held.get(name), numbers)
        if name in held and held[name].folder != job.folder:
            plan.again.append((held[name].folder, job))
    plan.jobs = list(found.values())
    others = [before for name, before in held.items() if name not in found]
    plan.unasked = sum(before.rank == DONE for before in others)
    plan.saved = [before.folder for before in others if before.rank == CUT_OFF]
    if all(job.reason for job in plan.jobs):
        raise FerError(plan.jobs[0].reason)
    return plan


def _job(
    overrides: Sequence[str], config: dict[str, Any], name: str, asked: Asked, held: Held | None, numbers: Iterator[int]
) -> Job:
    """Return a job as it stands: done, to go on with, to run, or refused with a reason."""
    more = asked.paths
    epochs = config["trainer"]["max_epochs"]
    if held is not None and held.rank == DONE:
        job = Job(held.folder, overrides, {}, name, epochs, more)
        job.code, job.seconds = 0, float((jobs.recorded(held.folder) or {}).get("seconds") or 0)
        return job
    try:
        build(TrainSettings, config)
        environment, reason = jobs.environment(config["data"]["path"]), ""
    except FerError as error:
        environment, reason = {}, str(error)
    goes_on = held is not None and held.rank == CUT_OFF and not reason
    refused_again = held is not None and bool(reason) and not (held.folder / ".hydra").exists()
    folder = held.folder if held is not None and (goes_on or refused_again) else asked.folder / str(next(numbers))
    job = Job(folder, overrides, environment, name, epochs, more, resume=goes_on)
    job.reason = reason
    return job


def _folders(folder: Path) -> list[Path]:
    """Return the folders of a sweep's jobs, by number."""
    numbered = [entry for entry in folder.iterdir() if entry.name.isdecimal()] if folder.is_dir() else []
    return sorted(numbered, key=lambda entry: int(entry.name))


def finished(folder: Path) -> list[Path]:
    """Return the folders of a sweep's jobs that have ended well, by number."""
    return [entry for entry in _folders(folder) if _rank(entry, jobs.recorded(entry) or {}) == DONE]


def _free_numbers(folder: Path) -> Iterator[int]:
    used = _folders(folder)
    return itertools.count(int(used[-1].name) + 1 if used else 0)


def _held(folder: Path) -> dict[str, Held]:
    """Return the jobs that a sweep's folder holds, by their identity; of several with one, that which got furthest.

    Raises:
        FerError: one of them still runs.
    """
    found: dict[str, Held] = {}
    for entry in _folders(folder):
        record = jobs.recorded(entry)
        if record is None:
            continue
        if record.get("exit_code") is None and jobs.lives(entry):
            raise FerError(f"{folder}: its job {entry.name} still runs; wait for its end, or stop it")
        name, here = str(record.get("identity")), Held(entry, _rank(entry, record))
        if name not in found or here.rank >= found[name].rank:
            found[name] = here
    return found


def _rank(folder: Path, record: dict[str, Any]) -> int:
    code = record.get("exit_code")
    if code == 0 and jobs.has_result(folder):
        return DONE
    cut = code is None or code in jobs.SAVED or (isinstance(code, int) and code < 0)
    kept = all((folder / name).exists() for name in ("checkpoints/last.ckpt", ".hydra/config.yaml"))
    return CUT_OFF if cut and kept else 0
