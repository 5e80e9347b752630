"""What is trained in the time that there is: epochs, order and times, from measured speeds. No torch here.

Times are seconds; a plan's begin at 0. Trainings of a phase run side by side, the longest first, each in the slot that
is free first.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fer.campaign.recipes import SMALL, SMALL_WIDTH, STUDENT, TEACHERS, WIDTHS, Kind, Roster
from fer.config.errors import FerError
from fer.system.text import clock

SLACK = 0.05  # of the time for training that is kept for epochs that take longer than measured
TEN_VIEWS = 10.0  # of a face in an evaluation with ten crops
IN_32_BITS = 1.6  # an evaluation's forward pass against a training's in half precision, on a CPU that has it
OPENING = 2.5  # s of an evaluation beside the network's work and the intervals: checkpoint, table, files
INTERVALS = 1e-3  # s a face that the intervals of all metrics take
IMPORTS = 0.8  # share of a training's fixed time that a process takes to start; evaluations share their processes
IMPORTS_GPU = 0.4  # on a GPU, whose fixed time includes cuDNN's start: 12 of 27 to 32 s beside an H100
GPU_EVALUATIONS = 8  # processes that evaluate on a GPU, of some 2 GB of its memory each at most
CLOSING = 10.0  # s for the choice of the ensemble, the page and the shared files
CROWDED = 1.32  # by which students' epochs take longer with the small network beside them: 6.95 against 5.25 s, an H100
MOST_SMALL = 150  # epochs of the small network, which goes on learning longer than the others


@dataclass(frozen=True)
class Pace:
    """How fast a kind of network trains here, with every slot busy.

    Args:
        train: seconds of an epoch's training steps.
        val: seconds of scoring val once, single view.
        fixed: seconds of a run beside its epochs: start, compiling, results.
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
        name: of its folder.
        role: "member", "student" or "small".
        overrides: of ``fer.train``, but for data, epochs and teachers.
        epochs: planned.
        seconds: that it is expected to take.
        begin: when it is expected to begin.
    """

    name: str
    role: str
    overrides: tuple[str, ...]
    epochs: int
    seconds: float
    begin: float = 0.0

    @property
    def end(self) -> float:
        """When it is expected to end."""
        return self.begin + self.seconds


@dataclass(frozen=True)
class Plan:
    """The trainings of a campaign and what is expected of the evaluations between and after them.

    Args:
        roster: what is trained.
        members: the first phase.
        taught: the second phase: students and the small network.
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
        """The expected time of all of it."""
        end = max(training.end for training in (*self.members, *self.taught))
        return end + self.closing


class Speeds:
    """The paces of all kinds, from those that were measured.

    Args:
        measured: name of a probe -> its pace. A CPU's student is measured at the largest of ``WIDTHS``, the small
            network is of width ``SMALL_WIDTH``; widths between them follow a power of the width.
        slots: trainings side by side.
        faces: of an evaluation.
        on_gpu: the networks are trained there.
    """

    def __init__(self, measured: Mapping[str, Pace], slots: int, faces: int, *, on_gpu: bool) -> None:
        self.measured, self.slots, self.faces, self.on_gpu = measured, slots, faces, on_gpu

    @property
    def slots_of_taught(self) -> int:
        """Trainings side by side in the second phase: the small network leaves a GPU mostly idle, and is one more."""
        return self.slots + self.on_gpu

    @property
    def evaluating(self) -> int:
        """Evaluations side by side."""
        return GPU_EVALUATIONS if self.on_gpu else self.slots

    @property
    def start(self) -> float:
        """Seconds until a process is there that evaluates."""
        share = IMPORTS_GPU if self.on_gpu else IMPORTS
        return share * min(pace.fixed for pace in self.measured.values())

    def times(self, ratio: float) -> "Speeds":
        """Return the speeds of a machine on which steps take ``ratio`` times as long."""
        paces = {name: pace.times(ratio) for name, pace in self.measured.items()}
        return Speeds(paces, self.slots, self.faces, on_gpu=self.on_gpu)

    def epoch(self, kind: Kind) -> float:
        """Return the seconds of an epoch of a GPU's kind; infinity where it cannot be trained."""
        pace = self.measured.get(kind.probe)
        return math.inf if pace is None else kind.ratio * pace.epoch

    def of(self, kind: Kind, roster: Roster) -> Pace:
        """Return the pace of a kind without teachers."""
        pace = self.measured[kind.probe].times(kind.ratio)
        return pace.times(self._narrower(roster.width)) if roster.width and kind.probe == STUDENT else pace

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
    """Return trainings with their times of beginning, the longest first, each in the slot that is free first."""
    free = [begin] * slots
    placed = []
    for training in sorted(trainings, key=lambda one: -one.seconds):
        start = heapq.heappop(free)
        placed.append(replace(training, begin=start))
        heapq.heappush(free, start + training.seconds)
    return placed


def end_of(trainings: Sequence[Training]) -> float:
    """Return when the last of some trainings ends."""
    return max(training.end for training in trainings)


def most_epochs(builds: Sequence["Build"], seconds: float, most: int) -> int:
    """Return the most epochs, up to ``most``, with which phases end within ``seconds``; 0 where not even one does.

    Every network of every phase gets as many: students are worth no less than the members that teach them.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if sum(end_of(build.placed(middle)) for build in builds) <= seconds:
            low = middle
        else:
            high = middle - 1
    return low


class Build:
    """Makes the trainings of a phase for a number of epochs.

    Args:
        rows: (name, role, overrides, pace) of each.
        most: name -> epochs beyond which it is not trained.
        slots: trainings side by side.
    """

    def __init__(
        self, rows: Sequence[tuple[str, str, tuple[str, ...], Pace]], most: Mapping[str, int], slots: int
    ) -> None:
        self.rows, self.most, self.slots = rows, most, slots

    def placed(self, epochs: int, begin: float = 0.0) -> list[Training]:
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
    """Return what makes the trainings of the members."""
    first = speeds.measured[SMALL].train if roster.first_teacher else 0.0  # the package's network is as small
    rows = [
        (kind.name, "member", (*kind.overrides, f"seed={kind.seed}"), speeds.of(kind, roster).taught(first))
        for kind in roster.members
    ]
    return Build(rows, {}, speeds.slots)


def taught_of(roster: Roster, speeds: Speeds, teachers: float, parts: Sequence[str]) -> Build:
    """Return what makes the trainings of the students and the small network.

    Args:
        roster: what is trained.
        speeds: measured.
        teachers: seconds of an epoch of training of the teachers together.
        parts: "students", "small" or both.
    """
    crowd = CROWDED if speeds.on_gpu and {"students", "small"} <= set(parts) else 1.0
    student, small = (speeds.of(kind, roster).taught(teachers) for kind in (roster.student, roster.small))
    student = student.times(crowd)  # the small network asks a busy GPU for less, and is not held up
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


def planned(rosters: Sequence[Roster], speeds: Speeds, seconds: float, parts: Sequence[str]) -> Plan:
    """Return the plan of the most ambitious roster whose networks are trained long enough.

    Args:
        rosters: the most ambitious first.
        speeds: measured.
        seconds: that there are for everything.
        parts: of "members", "students", "small".

    Raises:
        FerError: not one epoch of the least ambitious fits.
    """
    plans = [plan for roster in rosters if (plan := _plan(roster, speeds, seconds, parts)) is not None]
    if not plans:
        needed = _least_seconds(rosters[-1], speeds, parts)
        raise FerError(
            f"{clock(seconds)} are left, and one epoch of every network with its evaluation takes about "
            f"{clock(needed)} here: give --hours {math.ceil(100 * needed / 3600) / 100:g} or more"
        )
    return next((plan for plan in plans if _epochs(plan) >= plan.roster.least), plans[-1])


def _epochs(made: Plan) -> int:
    return min(training.epochs for training in (*made.members, *made.taught))


def _phases(roster: Roster, speeds: Speeds, parts: Sequence[str]) -> tuple[list[Build], list[Build]]:
    """Return what makes the trainings of the members, and of what they teach; empty where a phase has none."""
    taught = taught_of(roster, speeds, _teaching(roster, speeds), parts)
    return [members_of(roster, speeds)] if "members" in parts else [], [taught] if taught.rows else []


def _plan(roster: Roster, speeds: Speeds, seconds: float, parts: Sequence[str]) -> Plan | None:
    """Return a roster's plan; None where not one epoch fits."""
    first, second = _phases(roster, speeds, parts)
    choosing, closing = evaluation_seconds(roster, speeds, parts)
    left = (seconds - choosing - closing) * (1 - SLACK)
    epochs = most_epochs([*first, *second], left, roster.most)
    if epochs < 1:
        return None
    members = [training for build in first for training in build.placed(epochs)]
    begin = end_of(members) + choosing if members else 0.0
    taught = [one for build in second for one in taught_within(build, left + choosing - begin, begin)]
    return Plan(roster, members, taught, choosing, closing)


def taught_within(build: Build, seconds: float, begin: float) -> list[Training]:
    """Return the trainings of the second phase with the most epochs that fit, from ``begin`` on; none where none do.

    The small network, whose epochs are short, fills the time of the students where slots are left for it.
    """
    epochs = most_epochs([build], seconds, max(build.most.values()))
    if epochs < 1:
        return []
    trainings = build(epochs)
    for more in range(MOST_SMALL, epochs, -1):
        longer = [build(more)[place] if one.role == SMALL else one for place, one in enumerate(trainings)]
        if end_of(side_by_side(longer, build.slots)) <= seconds:
            return side_by_side(longer, build.slots, begin)
    return side_by_side(trainings, build.slots, begin)


def _teaching(roster: Roster, speeds: Speeds) -> float:
    """Return the seconds of an epoch of training of the teachers that may be chosen: the slowest."""
    costs = sorted((speeds.of(kind, roster).train for kind in roster.members), reverse=True)
    return sum(costs[:TEACHERS])


def evaluation_seconds(roster: Roster, speeds: Speeds, parts: Sequence[str]) -> tuple[float, float]:
    """Return the expected seconds of the evaluations that choose teachers, and of those at the end."""
    members = [speeds.evaluation(speeds.of(kind, roster)) for kind in roster.members] if "members" in parts else []
    taught = [roster.student] * len(roster.seeds) * ("students" in parts) + [roster.small] * ("small" in parts)
    ends = []
    for kind in taught:
        pace = speeds.of(kind, roster)
        ends += [speeds.evaluation(pace), speeds.evaluation(pace), speeds.evaluation(pace, 1)]  # val, test, single view
    best = speeds.of(roster.student, roster)  # a member may be the best network; its file and the small one's, on val
    ends += [speeds.evaluation(best, 1), speeds.evaluation(best, 1), speeds.evaluation(best, 1)]
    choosing = speeds.start + _spread(members, speeds.evaluating) if members else 0.0
    return choosing, speeds.start + _spread([*members, *ends], speeds.evaluating) + CLOSING


def _spread(seconds: Sequence[float], slots: int) -> float:
    return max([sum(seconds) / slots, *seconds]) if seconds else 0.0


def _least_seconds(roster: Roster, speeds: Speeds, parts: Sequence[str]) -> float:
    """Return the seconds that one epoch of every network takes, with everything around it."""
    choosing, closing = evaluation_seconds(roster, speeds, parts)
    builds = [build for held in _phases(roster, speeds, parts) for build in held]
    trained = sum(end_of(build.placed(1)) for build in builds)
    return choosing + closing + trained / (1 - SLACK)
