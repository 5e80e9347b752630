"""``best.json``: the record of a campaign.

It has the request, plan, measurements, trainings and results. No torch here.
"""

import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from fer.campaign.plan import Pace, Training
from fer.config.trust import settable
from fer.metrics.results import SelectionRecord
from fer.runs.run_folder import CAMPAIGN
from fer.system import records
from fer.system.files import read_record, write_json
from fer.system.machine import MachineRecord
from fer.system.records import Json

FILE = CAMPAIGN.mark
SCHEMA = 1
PARTS = ("members", "students", "small")
ROLES = ("member", "student", "small")
State = Literal["waiting", "running", "done", "stopped", "failed", "left out"]
STATES: tuple[State, ...] = ("waiting", "running", "done", "stopped", "failed", "left out")
UNFINISHED: tuple[State, ...] = ("waiting", "running")
USABLE: tuple[State, ...] = ("done", "stopped")  # states of networks that have a best epoch
RETRIED = (  # in notes on steps that --resume repeats
    "no time was left",
    "was not evaluated on ",
    "teachers could not be chosen: ",
    "no teacher could be chosen",
    "no ensemble: ",
    "no predictions on test",
    "could not be shared: ",
)


@dataclass(frozen=True)
class Request:
    """The request for a campaign.

    Args:
        hours: time limit for everything.
        data: absolute path of the data set.
        rule: split rule.
        settings: overrides of ``fer.train`` for every network.
        device: "auto", "cpu" or "gpu".
        slots: trainings side by side; None for a number that fits the machine.
        parts: parts to train, of ``PARTS``.
        earlier: folders of earlier campaigns, runs or results.
        seed: seed of the first student; it is also added to the seeds of the members.
        test: whether the test split is evaluated at the end.
    """

    hours: float
    data: str
    rule: str = "official"
    settings: tuple[str, ...] = ()
    device: str = "auto"
    slots: int | None = None
    parts: tuple[str, ...] = PARTS
    earlier: tuple[str, ...] = ()
    seed: int = 0
    test: bool = True

    @property
    def sets_width(self) -> bool:
        """Whether the settings name a width for all networks, in place of the one that fits the time."""
        return any(text.lstrip("+").partition("=")[0] == "model.width" for text in self.settings)


@dataclass
class Network:
    """A training of a campaign, planned and actual. Times are in seconds of the campaign's clock.

    Args:
        name: name of its folder inside the campaign's.
        role: "member", "student" or "small".
        overrides: overrides of ``fer.train``, but for its teachers.
        epochs: planned epochs.
        planned_begin: planned start.
        planned_end: planned end.
        teachers: names of its teachers.
        state: state, of ``STATES``; a training "stopped" at a deadline has a best epoch, which is used.
        reason: reason why it failed or was left out.
        began: actual start; None before.
        ended: actual end; None before.
        epochs_done: finished epochs.
        accuracy_val: val accuracy of its best epoch, single view, 0 to 1.
    """

    name: str
    role: str
    overrides: list[str]
    epochs: int
    planned_begin: float
    planned_end: float
    teachers: list[str] = field(default_factory=list)
    state: State = "waiting"
    reason: str = ""
    began: float | None = None
    ended: float | None = None
    epochs_done: int = 0
    accuracy_val: float | None = None

    @classmethod
    def planned(cls, training: Training, overrides: list[str], teachers: list[str]) -> "Network":
        """Return the record of a training that has not begun."""
        times = training.begin, training.end
        return cls(training.name, training.role, overrides, training.epochs, *times, teachers)


@dataclass
class Phase:
    """A phase of a campaign: planned and actual times in seconds of its clock; None before they are known."""

    name: str
    planned_begin: float
    planned_end: float
    began: float | None = None
    ended: float | None = None


@dataclass
class Line:
    """A line of the table: one network or ensemble, on one split in one view.

    Args:
        name: name of the network, or "ensemble".
        role: "member", "student", "small" or "ensemble".
        split: "val" or "test".
        views: "none" or "ten_crop".
        folder: folder of its evaluation, relative to the campaign's.
    """

    name: str
    role: str
    split: str
    views: str
    folder: str


@dataclass(frozen=True)
class Member:
    """A network of the ensemble: its weight, and the temperature that divides its logits."""

    name: str
    weight: float
    temperature: float


@dataclass(frozen=True)
class Ensemble:
    """The ensemble chosen on val: its members, the temperature of their mixture, how they were chosen."""

    members: tuple[Member, ...]
    temperature: float
    selection: SelectionRecord


@dataclass(frozen=True)
class SharedFile:
    """A shared file: name of its network, size in bytes, accuracy on val, single view; None if not evaluated."""

    network: str
    bytes: int
    accuracy_val: float | None


@dataclass
class Record:
    """The contents of ``best.json``.

    Args:
        request: the request.
        command: command line.
        started: time of the start, UTC.
        spent: seconds of the campaign's clock so far, without interruptions.
        slots: trainings side by side; 0 before the number is known.
        where: cores or GPUs that train, in words.
        on_gpu: whether the networks are trained on a GPU.
        width: width of a CPU's networks; 0 on a GPU.
        first_teacher: network that teaches the members; empty for none.
        faces: split -> number of faces.
        fingerprint: hash of the faces, of their labels and splits; empty before they were read.
        measured: kind -> its pace.
        phases: phases in order.
        networks: trainings in the order of the plan.
        chosen_teachers: names of the teachers, chosen on val.
        lines: lines of the table.
        ensemble: the ensemble chosen on val; None without one.
        shared: name of a shared file -> its network, size and accuracy.
        notes: warnings: what was left out, failed or replaced.
        finished: time of the end, UTC; None before.
        provenance: versions, commit, hardware; None before the campaign has begun.
    """

    request: Request
    command: str
    started: str
    spent: float = 0.0
    slots: int = 0
    where: str = ""
    on_gpu: bool = False
    width: int = 0
    first_teacher: str = ""
    faces: dict[str, int] = field(default_factory=dict)
    fingerprint: str = ""
    measured: dict[str, Pace] = field(default_factory=dict)
    phases: list[Phase] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)
    chosen_teachers: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    ensemble: Ensemble | None = None
    shared: dict[str, SharedFile] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    finished: str | None = None
    provenance: MachineRecord | None = None

    def of_role(self, role: str) -> list[Network]:
        """Return the networks of a role."""
        return [network for network in self.networks if network.role == role]

    def usable(self, *roles: str) -> list[Network]:
        """Return the networks of some roles with a best epoch."""
        return [network for network in self.networks if network.role in roles and network.state in USABLE]

    def unfinished(self, *roles: str) -> list[Network]:
        """Return the networks of some roles that wait, or whose training was interrupted."""
        return [network for network in self.networks if network.role in roles and network.state in UNFINISHED]

    def note(self, text: str) -> None:
        """Add a note, unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)

    def forget_retried(self) -> None:
        """Remove the notes on steps that a resumed campaign tries again."""
        self.notes = [text for text in self.notes if not any(words in text for words in RETRIED)]

    def forget(self, network: str) -> None:
        """Remove the notes on a training that did not end well, after another try did."""
        self.notes = [text for text in self.notes if not text.startswith((f"{network}: ", f"{network} failed: "))]


def called(members: bool, students: bool) -> str:
    """Return the trainings of a campaign in words; the small network is named only where there are no others."""
    words = [word for word, some in (("members", members), ("students", students)) if some]
    return " and ".join(words) or "small network"


class Clock:
    """The campaign's clock, which stops between an interruption and ``--resume``.

    Args:
        spent: seconds before the interruption.
    """

    def __init__(self, spent: float = 0.0) -> None:
        self._zero = time.monotonic() - spent

    def now(self) -> float:
        """Return the seconds so far."""
        return time.monotonic() - self._zero


def keep(record: Record, folder: Path, clock: Clock) -> None:
    """Write ``best.json``.

    Raises:
        OSError: it cannot be written.
    """
    record.spent = round(clock.now(), 1)
    write_json(folder / FILE, {"schema": SCHEMA, **records.plain(record)})


def read(folder: Path) -> Record:
    """Return the record of a campaign.

    Raises:
        FerError: the record is missing or damaged.
    """
    return read_record(folder / FILE, "campaign", "campaign's folder", _record)


def _record(contents: Json) -> Record:
    """Return a record as its file holds it.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: it is damaged.
    """
    if contents["schema"] != SCHEMA:
        raise ValueError(f"schema {contents['schema']}, expected {SCHEMA}")
    _refuse_other_keys(contents)
    record = records.read(Record, contents)
    if not all(_plain_name(network.name) for network in record.networks):
        raise ValueError("a network's name is no name of a folder")
    if not _sound(record):
        raise ValueError("it has an unknown layout")
    return record


def _refuse_other_keys(contents: Json) -> None:
    """Raise unless a file has all keys of a record, and its requests, networks, phases and lines no others."""
    missing = [item.name for item in fields(Record) if item.name not in contents]
    if missing:
        raise KeyError(missing[0])
    parts = [
        (Request, [contents["request"]]),
        (Pace, contents["measured"].values()),
        (Phase, contents["phases"]),
        (Network, contents["networks"]),
        (Line, contents["lines"]),
    ]
    for kind, objects in parts:
        known = {item.name for item in fields(kind)}
        if unknown := next((key for each in objects for key in each if key not in known), None):
            raise ValueError(f"{kind.__name__.lower()} has no {unknown}")


def _sound(record: Record) -> bool:
    """Return whether a record has valid values, and overrides that set nothing but keys of ``fer.train``."""
    numbers = [record.request.hours, record.spent, record.slots]
    texts = [*record.notes, *record.chosen_teachers, *record.request.settings, *record.request.earlier]
    for network in record.networks:
        numbers += [network.epochs, network.planned_begin, network.planned_end, network.epochs_done]
        numbers += [time for time in (network.began, network.ended) if time is not None]
        texts += [*network.overrides, *network.teachers, network.reason]
        if network.state not in STATES or network.role not in ROLES:
            return False
    for pace in record.measured.values():
        numbers += [pace.train, pace.val, pace.fixed]
    overrides = [text for network in record.networks for text in network.overrides]
    allowed = all(map(settable, (*overrides, *record.request.settings)))
    sound = all(isinstance(number, int | float) for number in numbers) and all(isinstance(text, str) for text in texts)
    return sound and allowed and record.request.hours > 0


def _plain_name(name: object) -> bool:
    """Return whether a name from a file is a plain folder name, and no path."""
    return isinstance(name, str) and name.replace("_", "").isalnum()
