"""The plan of a campaign: the epochs, order and times of its trainings.

It is made from measured speeds. No torch here. Times are in seconds; a plan starts at 0. Trainings of a phase run side
by side, the longest first, each in the slot that becomes free first. Of several rosters the plan takes the most
ambitious one whose networks are trained long enough. All members get equal epochs.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fer.campaign.recipes import SMALL, SMALL_WIDTH, STUDENT, TEACHERS, WIDTHS, Kind, Roster
from fer.config.errors import FerError
from fer.system.text import clock

SLACK = 0.05  # share of the training time reserved for epochs that take longer than measured
AGAIN = 1.1  # by which another measurement of the same machine may be slower
TEN_VIEWS = 10.0  # views of a face in an evaluation with ten crops
IN_32_BITS = 1.6  # time of a forward pass in 32 bits by that in half precision, on a CPU that has it
OPENING = 2.5  # s of an evaluation besides forward passes and intervals: checkpoint, table, files
INTERVALS = 1e-3  # s per face to compute the intervals of all metrics
IMPORTS = 0.8  # share of a training's fixed time to start a process; evaluations share their processes
IMPORTS_GPU = 0.4  # on a GPU, whose fixed time includes cuDNN's start: 12 of 27 to 32 s beside an H100
GPU_EVALUATIONS = 8  # processes that evaluate on a GPU; each takes at most some 2 GB of its memory
CLOSING = 10.0  # s for the choice of the ensemble, the page and the shared files
CONTENTION = 1.32  # slowdown of students by the small network on the same GPU: 6.95 s an epoch, not 5.25, on an H100
MOST_SMALL = 150  # epochs of the small network at most: it improves for longer than the others


@dataclass(frozen=True)
class Pace:
    """The measured speed of a kind of network on this machine, with every slot busy.

    Args:
        train: seconds of an epoch's training steps.
        val: seconds to score val once, single view.
        fixed: seconds of a run outside its epochs: start, compiling, results.
    """

    train: float
    val: float
    fixed: float

    @property
    def epoch(self) -> float:
        """Seconds of an epoch."""
        return self.train + self.val

    def times(self, ratio: float) -> "Pace":
        """Return the pace of a network whose steps take ``ratio`` times as long."""
        return Pace(ratio * self.train, ratio * self.val, self.fixed)

    def taught(self, teachers: float) -> "Pace":
        """Return the pace with teachers whose epochs of training take ``teachers`` seconds together.

        A forward pass is a third of a training step.
        """
        return replace(self, train=self.train + teachers / 3)


@dataclass(frozen=True)
class Training:
    """A training of a plan.

    Args:
        name: name of its folder.
        role: "member", "student" or "small".
        overrides: overrides of ``fer.train``, without data, epochs and teachers.
        epochs: planned epochs.
        seconds: expected duration.
        begin: expected start.
    """

    name: str
    role: str
    overrides: tuple[str, ...]
    epochs: int
    seconds: float
    begin: float = 0.0

    @property
    def end(self) -> float:
        """Expected end."""
        return self.begin + self.seconds


@dataclass(frozen=True)
class Plan:
    """The trainings of a campaign, and the expected times of the evaluations between and after them.

    Args:
        roster: networks to train.
        members: trainings of the first phase.
        taught: trainings of the second phase: students and the small network.
        choosing: seconds of the evaluations on val that choose the teachers.
        closing: seconds of the evaluations at the end, the page and the shared files included.
    """

    roster: Roster
    members: Sequence[Training]
    taught: Sequence[Training]
    choosing: float
    closing: float

    @property
    def seconds(self) -> float:
        """Expected duration of the whole plan."""
        end = max(training.end for training in (*self.members, *self.taught))
        return end + self.closing


class Speeds:
    """The paces of all kinds of network, from those that were measured.

    Args:
        measured: name of a probe -> its pace. A CPU's student is measured at the largest of ``WIDTHS``. The small
            network has width ``SMALL_WIDTH``. The time of widths in between is a power of the width.
        slots: trainings side by side.
        faces: faces of an evaluation.
        on_gpu: whether the networks are trained on a GPU.
    """

    def __init__(self, measured: Mapping[str, Pace], slots: int, faces: int, *, on_gpu: bool) -> None:
        self.measured, self.slots, self.faces, self.on_gpu = measured, slots, faces, on_gpu

    @property
    def slots_of_taught(self) -> int:
        """Trainings side by side in the second phase: one more on a GPU, which the small network leaves mostly idle."""
        return self.slots + self.on_gpu

    @property
    def evaluating(self) -> int:
        """Evaluations side by side."""
        return GPU_EVALUATIONS if self.on_gpu else self.slots

    @property
    def start(self) -> float:
        """Seconds to start a process for evaluations."""
        share = IMPORTS_GPU if self.on_gpu else IMPORTS
        return share * min(pace.fixed for pace in self.measured.values())

    def times(self, ratio: float) -> "Speeds":
        """Return the speeds of a machine on which steps take ``ratio`` times as long."""
        paces = {name: pace.times(ratio) for name, pace in self.measured.items()}
        return Speeds(paces, self.slots, self.faces, on_gpu=self.on_gpu)

    def epoch(self, kind: Kind) -> float:
        """Return the seconds of an epoch of a GPU's kind; infinity if it cannot be trained."""
        pace = self.measured.get(kind.probe)
        return math.inf if pace is None else kind.ratio * pace.epoch

    def of(self, kind: Kind, roster: Roster) -> Pace:
        """Return the pace of a kind without teachers."""
        pace = self.measured[kind.probe].times(kind.ratio)
        return pace.times(self._narrower(roster.width)) if roster.width and kind.probe == STUDENT else pace

    def first_teacher(self, roster: Roster) -> float:
        """Return the seconds of a training epoch of the package's network as a teacher; 0 where it does not teach.

        It is of the size of the small network.
        """
        return self.measured[SMALL].train if roster.first_teacher else 0.0

    def _narrower(self, width: int) -> float:
        """Return the time of a step at a width, as a share of that at the largest."""
        wide, small = self.measured[STUDENT].train, self.measured[SMALL].train
        power = math.log(max(wide / max(small, 1e-9), 1.0)) / math.log(WIDTHS[0] / SMALL_WIDTH)
        return float((width / WIDTHS[0]) ** min(max(power, 1.0), 2.0))

    def evaluation(self, pace: Pace, views: float = TEN_VIEWS) -> float:
        """Return the seconds of an evaluation."""
        return OPENING + INTERVALS * self.faces + views * IN_32_BITS * pace.val


# --- a phase --------------------------------------------------------------------------------------------------------


def side_by_side(trainings: Sequence[Training], slots: int, begin: float = 0.0) -> list[Training]:
    """Return trainings with their start times, the longest first, each in the slot that becomes free first."""
    free = [begin] * slots
    scheduled = []
    for training in sorted(trainings, key=lambda training: -training.seconds):
        start = heapq.heappop(free)
        scheduled.append(replace(training, begin=start))
        heapq.heappush(free, start + training.seconds)
    return scheduled


def end_of(trainings: Sequence[Training]) -> float:
    """Return the end of the last of some trainings."""
    return max(training.end for training in trainings)


def most_epochs(builds: Sequence["Build"], seconds: float, most: int) -> int:
    """Return the most epochs, up to ``most``, with which all phases end within ``seconds``; 0 if one epoch is too long.

    All networks of all phases get the same number: students matter no less than the members that teach them.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if sum(end_of(build.scheduled(middle)) for build in builds) <= seconds:
            low = middle
        else:
            high = middle - 1
    return low


class Build:
    """Builds the trainings of a phase for a number of epochs.

    Args:
        rows: (name, role, overrides, pace) of each training.
        most: name -> largest number of epochs.
        slots: trainings side by side.
    """

    def __init__(
        self, rows: Sequence[tuple[str, str, tuple[str, ...], Pace]], most: Mapping[str, int], slots: int
    ) -> None:
        self.rows, self.most, self.slots = rows, most, slots

    def scheduled(self, epochs: int, begin: float = 0.0) -> list[Training]:
        """Return the trainings with their times."""
        return side_by_side(self(epochs), self.slots, begin)

    def __call__(self, epochs: int) -> list[Training]:
        """Return the trainings."""
        return [self._training(*row, min(epochs, self.most.get(row[0], epochs))) for row in self.rows]

    @staticmethod
    def _training(name: str, role: str, overrides: tuple[str, ...], pace: Pace, epochs: int) -> Training:
        return Training(name, role, overrides, epochs, pace.fixed + epochs * pace.epoch)


# --- the plan -------------------------------------------------------------------------------------------------------


def members_of(roster: Roster, speeds: Speeds) -> Build:
    """Return the builder of the members' trainings."""
    first = speeds.first_teacher(roster)
    rows = [
        (kind.name, "member", (*kind.overrides, f"seed={kind.seed}"), speeds.of(kind, roster).taught(first))
        for kind in roster.members
    ]
    return Build(rows, {}, speeds.slots)


def students_of(roster: Roster, speeds: Speeds, teachers: float, parts: Sequence[str]) -> Build:
    """Return the builder of the trainings of the students and the small network.

    Args:
        roster: networks to train.
        speeds: measured speeds.
        teachers: seconds of a training epoch of all teachers together.
        parts: "students", "small" or both.
    """
    slowdown = CONTENTION if speeds.on_gpu and {"students", "small"} <= set(parts) else 1.0
    student, small = (speeds.of(kind, roster).taught(teachers) for kind in (roster.student, roster.small))
    student = student.times(slowdown)  # the small network needs less of a busy GPU, and is not slowed down
    rows = []
    if "students" in parts:
        rows += [
            (f"{STUDENT}_{seed}", STUDENT, (*roster.student.overrides, f"seed={seed}"), student)
            for seed in roster.seeds
        ]
    if "small" in parts:
        rows.append((SMALL, SMALL, (*roster.small.overrides, f"seed={roster.small.seed}"), small))
    most = {SMALL: MOST_SMALL} | {f"{STUDENT}_{seed}": roster.most for seed in roster.seeds}
    return Build(rows, most, speeds.slots_of_taught)


def planned(
    rosters: Sequence[Roster],
    speeds: Speeds,
    seconds: float,
    parts: Sequence[str],
    spent: float = 0.0,
    earlier: int = 0,
) -> Plan:
    """Return the plan of the most ambitious roster whose networks are trained long enough.

    Args:
        rosters: rosters, the most ambitious first.
        speeds: measured speeds.
        seconds: time for everything.
        parts: any of "members", "students", "small".
        spent: seconds of the campaign so far; the message about too short a time counts them.
        earlier: number of networks of earlier campaigns that may teach.

    Raises:
        FerError: the time is too short for one epoch of the least ambitious roster.
    """
    rosters = [roster for roster in rosters if roster.members or set(parts) - {"members"}]
    plans = [plan for roster in rosters if (plan := _plan(roster, speeds, seconds, parts, earlier)) is not None]
    if not plans:
        needed = _least_seconds(rosters[-1], speeds, parts, earlier)
        enough = (spent + needed) * AGAIN / 3600
        raise FerError(
            f"{clock(seconds)} are left, but one epoch of every network with its evaluation takes about "
            f"{clock(needed)} here: give --hours {math.ceil(100 * enough) / 100:g} or more"
        )
    return next((plan for plan in plans if _epochs(plan) >= plan.roster.least), plans[-1])


def _epochs(made: Plan) -> int:
    return min(training.epochs for training in (*made.members, *made.taught))


def _phases(roster: Roster, speeds: Speeds, parts: Sequence[str], earlier: int) -> tuple[list[Build], list[Build]]:
    """Return the builders of both phases, members and students; an empty list for a phase without trainings."""
    taught = students_of(roster, speeds, _teaching(roster, speeds, parts, earlier), parts)
    first = [members_of(roster, speeds)] if "members" in parts and roster.members else []
    return first, [taught] if taught.rows else []


def _plan(roster: Roster, speeds: Speeds, seconds: float, parts: Sequence[str], earlier: int) -> Plan | None:
    """Return a roster's plan; None if one epoch is too long."""
    first, second = _phases(roster, speeds, parts, earlier)
    choosing, closing = evaluation_seconds(roster, speeds, parts)
    left = (seconds - choosing - closing) * (1 - SLACK)
    epochs = most_epochs([*first, *second], left, roster.most)
    if epochs < 1:
        return None
    members = [training for build in first for training in build.scheduled(epochs)]
    begin = end_of(members) + choosing if members else 0.0
    taught = [training for build in second for training in students_within(build, left + choosing - begin, begin)]
    return Plan(roster, members, taught, choosing, closing)


def students_within(build: Build, seconds: float, begin: float) -> list[Training]:
    """Return the trainings of the second phase from ``begin`` on, with the most epochs that fit; empty if none fit.

    The small network, whose epochs are short, is trained as long as the students, if a slot is free.
    """
    epochs = most_epochs([build], seconds, max(build.most.values()))
    if epochs < 1:
        return []
    trainings = build(epochs)
    for more in range(MOST_SMALL, epochs, -1):
        longer = [
            build(more)[index] if training.role == SMALL else training for index, training in enumerate(trainings)
        ]
        if end_of(side_by_side(longer, build.slots)) <= seconds:
            return side_by_side(longer, build.slots, begin)
    return side_by_side(trainings, build.slots, begin)


def _teaching(roster: Roster, speeds: Speeds, parts: Sequence[str], earlier: int) -> float:
    """Return the seconds of a training epoch of all teachers, assuming that the slowest ones are chosen.

    A network of an earlier campaign is taken to be as slow as the slowest kind here.
    """
    known, slowest = teaching_costs(roster, speeds)
    members = known.values() if "members" in parts else ()
    costs: list[float] = [speeds.first_teacher(roster), *members, *[slowest] * min(earlier, TEACHERS)]
    return sum(sorted(costs, reverse=True)[:TEACHERS])


def teaching_costs(roster: Roster, speeds: Speeds) -> tuple[dict[str, float], float]:
    """Return member -> seconds of its training epoch, and those of the slowest kind, for networks of unknown cost."""
    known = {kind.name: speeds.of(kind, roster).train for kind in roster.members}
    return known, max([speeds.of(roster.student, roster).train, *known.values()])


def evaluation_seconds(roster: Roster, speeds: Speeds, parts: Sequence[str]) -> tuple[float, float]:
    """Return the expected seconds of the evaluations that choose teachers, and of those at the end."""
    members = [speeds.evaluation(speeds.of(kind, roster)) for kind in roster.members] if "members" in parts else []
    first = [speeds.evaluation(speeds.of(roster.small, roster))] if roster.first_teacher else []
    taught = [roster.student] * len(roster.seeds) * ("students" in parts) + [roster.small] * ("small" in parts)
    ends = []
    for kind in taught:
        pace = speeds.of(kind, roster)
        ends += [speeds.evaluation(pace), speeds.evaluation(pace), speeds.evaluation(pace, 1)]  # val, test, single view
    best = speeds.of(roster.student, roster)  # for a member as the best network, and for the two shared files on val
    ends += [speeds.evaluation(best, 1), speeds.evaluation(best, 1), speeds.evaluation(best, 1)]
    choosing = speeds.start + _spread([*members, *first], speeds.evaluating) if members else 0.0
    return choosing, speeds.start + _spread([*members, *ends], speeds.evaluating) + CLOSING


def _spread(seconds: Sequence[float], slots: int) -> float:
    return max([sum(seconds) / slots, *seconds]) if seconds else 0.0


def _least_seconds(roster: Roster, speeds: Speeds, parts: Sequence[str], earlier: int) -> float:
    """Return the seconds of a plan with one epoch of every network."""
    choosing, closing = evaluation_seconds(roster, speeds, parts)
    builds = [build for phase in _phases(roster, speeds, parts, earlier) for build in phase]
    trained = sum(end_of(build.scheduled(1)) for build in builds)
    return choosing + closing + trained / (1 - SLACK)
