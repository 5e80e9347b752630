"""``best.json``: what a campaign was asked for, planned, measured, trained and found. No torch here."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from fer.campaign.plan import Pace, Training
from fer.config.errors import FerError
from fer.runs.run_folder import CAMPAIGN
from fer.system.files import read_kept, write_json

FILE = CAMPAIGN.mark
SCHEMA = 1
PARTS = ("members", "students", "small")
ROLES = ("member", "student", "small")
# key=value of fer.train; neither Hydra's own keys nor modules to import: a campaign's folder may be a stranger's
SETTING = re.compile(r"(?!hydra\b|plugins\b)[a-z_]+(?:[./][a-z0-9_]+)*=.*", re.DOTALL)
State = Literal["waiting", "running", "done", "stopped", "failed", "left out"]
STATES: tuple[State, ...] = ("waiting", "running", "done", "stopped", "failed", "left out")
USABLE: tuple[State, ...] = ("done", "stopped")  # states of networks that have a best epoch


@dataclass(frozen=True)
class Request:
    """What a campaign is asked for.

    Args:
        hours: for everything.
        data: path of the data set, from the root.
        rule: how it is split.
        settings: overrides of ``fer.train`` for every network.
        device: "auto", "cpu" or "gpu".
        slots: trainings side by side; None leaves it to the machine.
        parts: of ``PARTS``, what is trained.
        earlier: folders of earlier campaigns, runs or results.
        seed: first of the students; the members' are higher by as much too.
        test: open the test split at the end.
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


@dataclass
class Network:
    """A training of a campaign: planned, and what became of it. Times are seconds of the campaign's clock.

    Args:
        name: of its folder below the campaign's.
        role: "member", "student" or "small".
        overrides: of ``fer.train``, all of them.
        epochs: planned.
        planned_begin: expected time of its beginning.
        planned_end: expected time of its end.
        teachers: names of the networks that teach it.
        state: how far it is; "stopped" at a deadline has a best epoch that counts.
        reason: why it failed or was left out.
        began: when it began.
        ended: when it ended.
        epochs_done: epochs that it has done.
        accuracy_val: of its best epoch, in training, single view, 0 to 1.
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
    def of(cls, training: Training, overrides: list[str], teachers: list[str]) -> "Network":
        """Return the record of a training that has not begun."""
        times = training.begin, training.end
        return cls(training.name, training.role, overrides, training.epochs, *times, teachers)


@dataclass
class Phase:
    """A part of the campaign's time: planned and real, in seconds of its clock; None where it has not come yet."""

    name: str
    planned_begin: float
    planned_end: float
    began: float | None = None
    ended: float | None = None


@dataclass
class Line:
    """A line of the table: one network or ensemble, on one split in one view.

    Args:
        name: of the network, or "ensemble".
        role: "member", "student", "small" or "ensemble".
        split: "val" or "test".
        views: "none" or "ten_crop".
        folder: of its evaluation, below the campaign's.
    """

    name: str
    role: str
    split: str
    views: str
    folder: str


@dataclass
class Record:
    """All of ``best.json``.

    Args:
        request: what was asked for.
        command: the command line.
        started: when, UTC.
        spent: seconds of the campaign's clock so far; what it stood still is not counted.
        slots: trainings side by side; 0 before they are known.
        where: the machine's part that trains, in words.
        on_gpu: whether that is a GPU.
        width: of a CPU's networks; 0 on a GPU.
        first_teacher: network that teaches the members; empty for none.
        faces: split -> faces of the data set.
        measured: kind -> its pace.
        phases: in order.
        networks: in the order of the plan.
        chosen_teachers: names, chosen on val.
        lines: of the table.
        ensemble: what the choice on val came to; None where there was none.
        shared: name of a shared file -> the network in it and its accuracy.
        notes: what a reader must know: what was left out, failed or replaced.
        finished: when all was written, UTC; None before.
        provenance: versions, commit, hardware.
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
    measured: dict[str, Pace] = field(default_factory=dict)
    phases: list[Phase] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)
    chosen_teachers: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    ensemble: dict[str, Any] | None = None
    shared: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    finished: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def of(self, role: str) -> list[Network]:
        """Return the networks of a role."""
        return [network for network in self.networks if network.role == role]

    def usable(self, *roles: str) -> list[Network]:
        """Return the networks of some roles that have a best epoch."""
        return [network for network in self.networks if network.role in roles and network.state in USABLE]

    def note(self, text: str) -> None:
        """Keep a note, once."""
        if text not in self.notes:
            self.notes.append(text)


class Clock:
    """The campaign's clock: it stands still between an interruption and ``--resume``.

    Args:
        spent: seconds so far.
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
    write_json(folder / FILE, {"schema": SCHEMA, **asdict(record)})


def read(folder: Path) -> Record:
    """Return the record of a campaign.

    Raises:
        FerError: the folder holds none, or a damaged one.
    """

    def sound(contents: dict[str, Any]) -> bool:
        if contents["schema"] != SCHEMA:
            raise ValueError(f"schema {contents['schema']}, expected {SCHEMA}")
        try:
            return _sound(_record(contents))
        except AttributeError as error:
            raise ValueError(f"it is not laid out as it should be: {error}") from error

    return _record(read_kept(folder / FILE, "campaign", "campaign's folder", sound))


def _record(contents: Mapping[str, Any]) -> Record:
    values = {name: contents[name] for name in (one.name for one in fields(Record))}
    if not isinstance(values["request"], dict):
        raise ValueError("request is no object")
    request: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values["request"].items()
    }
    record = Record(**{**values, "request": Request(**request)})
    record.measured = {name: Pace(**pace) for name, pace in values["measured"].items()}
    record.phases = [Phase(**phase) for phase in values["phases"]]
    record.networks = [Network(**network) for network in values["networks"]]
    record.lines = [Line(**line) for line in values["lines"]]
    if not all(_plain_name(network.name) for network in record.networks):
        raise ValueError("a network's name is no name of a folder")
    return record


def _sound(record: Record) -> bool:
    """Return whether a record holds what it should; what is passed on to ``fer.train`` holds its settings alone."""
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
    allowed = all(SETTING.fullmatch(text) for text in (*overrides, *record.request.settings))
    sound = all(isinstance(number, int | float) for number in numbers) and all(isinstance(one, str) for one in texts)
    return sound and allowed and record.request.hours > 0


def _plain_name(name: object) -> bool:
    """Return whether a name from a file names a folder below the campaign's and nothing else."""
    return isinstance(name, str) and name.replace("_", "").isalnum()


def metrics_of(folder: Path) -> dict[str, Any]:
    """Return what an evaluation or a run has found.

    Raises:
        FerError: there is nothing, or it is damaged.
    """
    file = folder / "metrics.json"
    try:
        contents: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(contents, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise FerError(f"{file}: cannot be read ({error})") from error
    return contents
