"""The plan of a sweep: the jobs of a command line, and which of them are done already.

The command line is expanded here, and every job is composed and checked before the first one starts. Jobs are compared
by ``fer.runs.run_folder.identity`` in ``job.json``, not by number: a resumed sweep runs what is missing. Hydra takes
launchers only from the package ``hydra_plugins`` and writes into job folders before our code runs. They get
``sweep.job=0,1,...`` and run the same plan.
"""

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fer.config.conf import plain, search_paths, spelled, unquoted
from fer.config.errors import FerError
from fer.config.hydra import alternatives, composed, composed_sweep, offer_registered
from fer.config.paths import expand_home
from fer.config.schema import build
from fer.config.settings import Config, SweepSettings, TrainSettings
from fer.config.trust import taken
from fer.runs.run_folder import SWEEP, configuration_of, identity
from fer.sweeps import jobs
from fer.sweeps.jobs import Job, JobRecord
from fer.system import records
from fer.system.files import read_record
from fer.system.records import Json
from fer.training.loggers import require_packages

FILE = SWEEP.mark
SCHEMA = 1  # of sweep.json
MANY = 20  # jobs; composing as many takes seconds
DONE, CUT_OFF = 2, 1  # ranks of a sweep's earlier jobs
HYDRAS = ("hydra.", "hydra/")
NO_SWEEPS = {  # key -> message of a sweep that refuses it
    "resume": "resume= continues one run; leave out -m. sweep.resume= continues a sweep",
    "hydra.run.dir": "hydra.run.dir is the folder of one run; name the sweep's folder with --out",
    "hydra.sweep.subdir": "hydra.sweep.subdir: the folders of a sweep are numbered; leave it out",
    "hydra/sweeper": "hydra/sweeper: the command line lists the jobs of a sweep; leave it out",
    "sweep.over": "sweep.over is for files in conf/sweep; on a command line write key=value,value",
}


@dataclass(frozen=True)
class SweepRequest:
    """A command line of a sweep.

    Args:
        overrides: overrides given on this command line, after those stored in ``sweep.json`` when a sweep is resumed.
        values: key -> overrides of one value each, for the keys of runs.
        settings: section ``sweep`` of the configuration.
        hydra: Hydra's own overrides.
        folder: folder of the sweep.
    """

    overrides: Sequence[str]
    values: dict[str, list[str]]
    settings: SweepSettings
    hydra: Sequence[str]
    folder: Path

    @property
    def paths(self) -> list[str]:
        """Overrides that name further folders of configuration."""
        return search_paths(self.hydra)

    @property
    def foreign(self) -> bool:
        """Whether one of Hydra's other launchers runs the jobs."""
        return any(text.startswith("hydra/launcher=") and text != "hydra/launcher=basic" for text in self.hydra)


@dataclass(frozen=True)
class Entry:
    """A job in ``sweep.json``: everything that another process needs to run it, see ``Job``."""

    folder: str
    overrides: tuple[str, ...]
    identity: str = ""
    epochs: int = 1
    more: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False

    @classmethod
    def for_job(cls, job: Job) -> "Entry":
        """Return the entry of a job."""
        return cls(
            str(job.folder),
            tuple(job.overrides),
            job.identity,
            job.epochs,
            tuple(job.more),
            job.environment,
            job.resume,
        )

    def job(self) -> Job:
        """Return the job, which has not begun."""
        named = self.identity, self.epochs, self.more, self.resume
        return Job(Path(self.folder), self.overrides, self.environment, *named)


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """The contents of ``sweep.json``: the overrides of the command line, and the jobs."""

    schema: int = SCHEMA
    arguments: tuple[str, ...]
    jobs: tuple[Entry, ...]


@dataclass
class Plan:
    """The jobs of a sweep, each once.

    Args:
        jobs: jobs in order; finished ones have an exit code.
        accelerators: values of ``trainer.accelerator`` among the jobs.
        devices: largest ``trainer.devices`` among the jobs.
        doubles: number of jobs on the command line that compute the same as another one.
        again: (old folder, job) of jobs that start anew, since they left no checkpoint.
        unasked: number of finished jobs in the folder that the command line does not name.
        saved: folders of interrupted jobs that the command line does not name.
        unreadable: folders whose job is unknown, since ``job.json`` and the configuration are missing or damaged.
    """

    jobs: list[Job] = field(default_factory=list)
    accelerators: set[str] = field(default_factory=set)
    devices: int = 1
    doubles: int = 0
    again: list[tuple[Path, Job]] = field(default_factory=list)
    unasked: int = 0
    saved: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)


# --- the command line -----------------------------------------------------------------------------------------------


def read(arguments: Sequence[str]) -> SweepRequest:
    """Parse the command line of a sweep.

    Raises:
        FerError: the command line is faulty.
    """
    overrides, resumed = _with_stored(arguments)
    values = alternatives(overrides)
    for key, why in NO_SWEEPS.items():
        if key in values:
            raise FerError(why)
    of_sweep = {key: values.pop(key) for key in list(values) if key.startswith((*HYDRAS, "sweep.")) or key == "sweep"}
    for key, given in of_sweep.items():
        if len(given) > 1:
            raise FerError(f"{key}: takes one value; a sweep varies keys of runs only")
    texts = [given[0] for given in of_sweep.values()]
    section, folder = composed_sweep(texts)
    _refuse_used(folder, resumed, of_sweep)
    request = SweepRequest(
        overrides=[text for text in overrides if not text.startswith("hydra.sweep.dir=")],
        values=values,
        settings=build(SweepSettings, section, "sweep"),
        hydra=[text for text in texts if text.startswith(HYDRAS) and not text.startswith("hydra.sweep.dir=")],
        folder=resumed or folder.absolute(),
    )
    if request.foreign and "sweep.jobs" in of_sweep:
        raise FerError(
            f"{of_sweep['sweep.jobs'][0]}: a launcher of Hydra has another key for that; --cfg hydra prints its keys"
        )
    return request


def _with_stored(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """Return the overrides, after those stored in a resumed sweep, and the folder of the resumed sweep."""
    given = [text for text in arguments if text not in ("-m", "--multirun", "hydra.mode=MULTIRUN")]
    options = [text for text in given if text.startswith("-")]
    if options:
        raise FerError(f"{options[0]}: a sweep takes only key=value beside -m")
    resumed = _resumed(given)
    overrides = [text for text in given if not text.startswith("sweep.resume=")]
    if resumed is None:
        return overrides, None
    kept = taken(stored(resumed).arguments, resumed / FILE, overrides)
    before = {text.partition("=")[0]: text for text in kept}
    overrides = list((before | {text.partition("=")[0]: text for text in overrides}).values())
    offer_registered(overrides)
    return overrides, resumed


def _resumed(overrides: Sequence[str]) -> Path | None:
    """Return the folder of the sweep to resume; None for a new sweep."""
    given = [text.partition("=")[2] for text in overrides if text.startswith("sweep.resume=")]
    return expand_home(unquoted(given[-1])).absolute() if given and given[-1] not in ("", "null") else None


def stored(folder: Path) -> SweepRecord:
    """Return the contents of ``sweep.json``.

    Raises:
        FerError: the file is missing or damaged.
    """

    def of(contents: Json) -> SweepRecord:
        record = records.read(SweepRecord, contents)
        if not all(isinstance(text, str) for text in record.arguments):
            raise ValueError("it has an unknown layout")
        return record

    return read_record(folder / FILE, "sweep", "sweep folder", of)


def _refuse_used(folder: Path, resumed: Path | None, of_sweep: dict[str, list[str]]) -> None:
    if resumed is not None and "hydra.sweep.dir" in of_sweep:
        raise FerError("sweep.resume= continues in the sweep's folder; leave out --out (hydra.sweep.dir)")
    if resumed is None and ((folder / FILE).exists() or any(folder.glob("*/job.json"))):
        raise FerError(
            f"--out {folder}: a sweep is in it already; choose another folder, or resume it: "
            f"sweep.resume={shlex.quote(str(folder))}"
        )


def expanded(request: SweepRequest) -> list[list[str]]:
    """Return the overrides of every job: each alternative with every combination of values.

    Raises:
        FerError: the command line sets a key of the alternatives, or has no job.
    """
    settings = request.settings
    for alternative in settings.each:
        for key in alternatives(alternative):
            if key in request.values:
                raise FerError(f"{request.values[key][0]}: this sweep varies {key} itself (sweep.each); leave it out")
    over: dict[str, list[str]] = {}
    for key, values in settings.over.items():
        listed = values if isinstance(values, str) else ",".join(map(spelled, values))
        over |= alternatives([f"{key}={listed}"])
    combinations = list(itertools.product(*{**over, **request.values}.values()))
    if not combinations:
        raise FerError("a sweep without jobs: a key has no values; list some, such as seed=0,1,2")
    return [[*each, *combination] for each in settings.each or [[]] for combination in combinations]


# --- the jobs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Earlier:
    """A job that an earlier start of the sweep left in its folder.

    Args:
        folder: folder of the job.
        rank: DONE; CUT_OFF, with a checkpoint to resume from; or 0.
    """

    folder: Path
    rank: int


def planned(request: SweepRequest) -> Plan:
    """Compose and check every job, and match it with the jobs in the folder.

    Raises:
        FerError: a choice or key does not exist; every job is refused; a job of the folder still runs.
    """
    earlier, numbers = _earlier(request.folder), _free_numbers(request.folder)
    plan, by_identity = Plan(), dict[str, Job]()
    combinations = expanded(request)
    if len(combinations) >= MANY:
        print(f"sweep: composing and checking {len(combinations)} jobs", flush=True)
    for overrides in combinations:
        config = plain(composed([*overrides, *request.paths]))
        name = identity(config)
        if name in by_identity:
            plan.doubles += 1
            continue
        plan.accelerators.add(config["trainer"]["accelerator"])
        plan.devices = max(plan.devices, config["trainer"]["devices"])
        by_identity[name] = job = _job(overrides, config, name, request, earlier.get(name), numbers)
        if name in earlier and earlier[name].folder != job.folder:
            plan.again.append((earlier[name].folder, job))
    plan.jobs = list(by_identity.values())
    left = [before for name, before in earlier.items() if name not in by_identity]
    plan.unasked = sum(before.rank == DONE for before in left)
    plan.saved = [before.folder for before in left if before.rank == CUT_OFF]
    plan.unreadable = [entry for entry in _folders(request.folder) if record_of(entry) is None]
    if all(job.reason for job in plan.jobs):
        raise FerError(plan.jobs[0].reason)
    return plan


def _job(
    overrides: Sequence[str],
    config: Config,
    name: str,
    request: SweepRequest,
    earlier: Earlier | None,
    numbers: Iterator[int],
) -> Job:
    """Return a job in its state: done, to resume, to run, or refused with a reason."""
    more = request.paths
    epochs = config["trainer"]["max_epochs"]
    if earlier is not None and earlier.rank == DONE:
        job = Job(earlier.folder, overrides, {}, name, epochs, more)
        job.code, job.seconds = 0, jobs.seconds_of(earlier.folder)
        return job
    try:
        require_packages(build(TrainSettings, config).logger)
        environment, reason = jobs.environment(config["data"]["path"]), ""
    except FerError as error:
        environment, reason = {}, str(error)
    resume = earlier is not None and earlier.rank == CUT_OFF and not reason
    refused_again = earlier is not None and bool(reason) and not (earlier.folder / ".hydra").exists()
    same_folder = earlier is not None and (resume or refused_again)
    folder = earlier.folder if earlier is not None and same_folder else request.folder / str(next(numbers))
    job = Job(folder, overrides, environment, name, epochs, more, resume=resume)
    job.reason = reason
    return job


def _folders(folder: Path) -> list[Path]:
    """Return the folders of a sweep's jobs, by number."""
    numbered = [entry for entry in folder.iterdir() if entry.name.isdecimal()] if folder.is_dir() else []
    return sorted(numbered, key=lambda entry: int(entry.name))


def finished(folder: Path) -> list[Path]:
    """Return the folders of a sweep's successful jobs, by number."""
    return [entry for entry in _folders(folder) if _rank(entry, record_of(entry) or JobRecord()) == DONE]


def record_of(folder: Path) -> JobRecord | None:
    """Return the record of a job: of its ``job.json``, or of its configuration and results where that is damaged.

    None if neither can be read.
    """
    if (record := jobs.recorded(folder)) is not None:
        return record
    try:
        name = identity(configuration_of(folder))
    except FerError:
        return None
    return JobRecord(identity=name, exit_code=0 if jobs.has_result(folder) else None)


def _free_numbers(folder: Path) -> Iterator[int]:
    used = _folders(folder)
    return itertools.count(int(used[-1].name) + 1 if used else 0)


def _earlier(folder: Path) -> dict[str, Earlier]:
    """Return identity -> job in a sweep's folder; of several with one identity the one of the highest rank.

    Raises:
        FerError: a job still runs.
    """
    by_identity: dict[str, Earlier] = {}
    for entry in _folders(folder):
        record = record_of(entry)
        if record is None:
            continue
        if record.exit_code is None and jobs.lives(entry):
            raise FerError(f"{folder}: its job {entry.name} still runs; wait for its end, or stop it")
        name, job = record.identity, Earlier(entry, _rank(entry, record))
        if name not in by_identity or job.rank >= by_identity[name].rank:
            by_identity[name] = job
    return by_identity


def continued(job: Job) -> bool:
    """Let a job resume that was begun and cut off; return whether it is done already."""
    record = record_of(job.folder)
    rank = 0 if record is None else _rank(job.folder, record)
    job.resume = job.resume or rank == CUT_OFF
    return rank == DONE


def _rank(folder: Path, record: JobRecord) -> int:
    code = record.exit_code
    if code == 0 and jobs.has_result(folder):
        return DONE
    cut_off = code is None or code in jobs.SAVED or code < 0
    resumable = all((folder / name).exists() for name in ("checkpoints/last.ckpt", ".hydra/config.yaml"))
    return CUT_OFF if cut_off and resumable else 0
