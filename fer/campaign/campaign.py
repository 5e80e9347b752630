"""A campaign, from the request to the page.

Its steps: measure, plan, train, choose teachers, train students, evaluate, share. A campaign plans epochs from measured
speeds. A deadline that cut trainings short would cut off the low learning rates at the end of their schedule, which
improve a network the most.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from fer.campaign import plan, trainings
from fer.campaign.closing import Closing, write_results
from fer.campaign.evaluations import Evaluations
from fer.campaign.plan import Plan, Speeds, Training
from fer.campaign.progress import Progress
from fer.campaign.recipes import SLOW, SMALL, STUDENT, TEACHERS, Roster, rosters
from fer.campaign.record import Clock, Network, Phase, Record, called, keep
from fer.campaign.selection import Context, Selection
from fer.campaign.trainings import Times
from fer.config.conf import plain, quoted
from fer.config.errors import FerError
from fer.config.hydra import composed
from fer.config.schema import build
from fer.config.settings import TrainSettings
from fer.data.announce import log_notes
from fer.data.datamodule import FERDataModule
from fer.evaluation.request import same_split, whole
from fer.models import checkpoints
from fer.sweeps.fork_server import ForkServers, servers_for
from fer.system import machine
from fer.system.slots import Slots, slots
from fer.system.text import clock as worded
from fer.system.text import text_table
from fer.training.trainers import interruptible

log = logging.getLogger(__name__)

MOST_SLOTS = 64  # trainings side by side at most, on all GPUs together
CPU_SLOTS = 4  # trainings side by side on a CPU: as many as there are students and small networks
GPU_SLOTS = 3  # trainings side by side on each GPU: while one waits for its host, others use the GPU
OVERTIME = 1.03  # share of the time limit after which unfinished evaluations are stopped
GRACE = 6.0  # seconds after the planned end in which students write their results before they are stopped
FIRST = "tiny"  # the package's network, which teaches the members if it was trained on the same data
MINUTES = 900  # s; a shorter campaign on a GPU trains no kinds of ``SLOW``, and does not measure them
TAUGHT_BY = "distill.teachers="
CHOICE = "choice of teachers"  # name of a phase


class Campaign:
    """A campaign in its folder.

    Args:
        record: the request, and the progress before an interruption.
        folder: folder of the campaign.
    """

    def __init__(self, record: Record, folder: Path) -> None:
        self.record, self.folder = record, folder
        self.clock = Clock(record.spent)
        self.deadline = 3600 * record.request.hours
        self.progress = Progress(self.clock, self.deadline)
        self.servers: ForkServers | None = None

    # --- the machine and the data -----------------------------------------------------------------------------------

    @cached_property
    def data(self) -> FERDataModule:
        """The faces; reading them here puts them into the cache for the trainings."""
        data = FERDataModule(self._settings.data)
        data.setup("fit")
        return data

    @cached_property
    def _settings(self) -> TrainSettings:
        """The settings that all trainings share."""
        request = self.record.request
        common = trainings.overrides_for(request.data, request.rule, request.settings, request.device)
        return build(TrainSettings, plain(composed(["experiment=best/cpu", "stages=[]", *common])))

    @cached_property
    def _slots(self) -> Slots:
        """The slots for trainings; a resumed campaign has as many as before."""
        count = self.record.slots or self.record.request.slots
        if self.on_gpu:
            gpus = len(slots("auto", MOST_SLOTS, {"gpu"}).environments)
            available = slots(count or GPU_SLOTS * gpus, MOST_SLOTS, {"gpu"})
        else:  # more cores than trainings give each training more threads
            available = slots(count or "auto", count or CPU_SLOTS, {"cpu"})
        self.record.slots, self.record.where = len(available.environments), available.description
        return available

    @property
    def slots(self) -> Sequence[Mapping[str, str]]:
        """Environment variables of each slot for a training."""
        return self._slots.environments

    @cached_property
    def on_gpu(self) -> bool:
        """Whether the networks are trained on a GPU.

        Raises:
            FerError: a GPU is required but missing, or the campaign began on another kind of device.
        """
        has_gpu = machine.uses_gpu(self._settings.trainer, "--device")
        if self.record.measured and has_gpu != self.record.on_gpu:
            began, here = ("a GPU", "a CPU") if self.record.on_gpu else ("a CPU", "a GPU")
            raise FerError(f"{self.folder}: the campaign began on {began}, but this is {here}; start a new campaign")
        return has_gpu

    @property
    def common(self) -> list[str]:
        """Overrides that all trainings share."""
        request = self.record.request
        device = "gpu" if self.on_gpu else "cpu"
        return trainings.overrides_for(request.data, request.rule, request.settings, device)

    @cached_property
    def has_test(self) -> bool:
        """Whether test is evaluated: the split exists, and the request allows it."""
        return "test" in self.record.faces and self.record.request.test

    def begin(self) -> None:
        """Read the data, and record the data and the machine.

        Raises:
            FerError: the data are bad, or others than when the campaign began.
        """
        fingerprint = self.data.faces.fingerprint()
        if self.record.fingerprint not in ("", fingerprint):
            raise FerError(
                f"--resume {self.folder}: {self.record.request.data} has other contents than when the campaign began; "
                "restore the data, or start a new campaign"
            )
        self.record.fingerprint = fingerprint
        self.record.faces = {name: sum(by_class.values()) for name, by_class in self.data.describe().counts.items()}
        log_notes(self.data.notes, self.data.faces.source.skipped, self.data.missing)
        self.record.on_gpu = self.on_gpu
        self.record.provenance = machine.provenance()
        counts = ", ".join(f"{count:,} {split}" for split, count in self.record.faces.items())
        self.progress.report(f"data: {self.record.request.data}, {counts}; trainings {self._where()}")

    def _where(self) -> str:
        return self.record.where if self.slots else ""

    # --- the plan ---------------------------------------------------------------------------------------------------

    @cached_property
    def first_teacher(self) -> str:
        """Name of the package's network if it was trained on this train split; else empty."""
        dataset = checkpoints.load(FIRST).provenance.dataset
        settings = asdict(self.data.data)
        same = dataset.get("fingerprint") == self.data.faces.fingerprint() and same_split(
            {**whole(dataset), "path": settings["path"]}, settings
        )
        return FIRST if same else ""

    def rosters(self) -> list[Roster]:
        """Return the rosters for this machine, the most ambitious first."""
        bf16 = machine.multiplies_bf16() is True
        seconds = self._speeds().epoch if self.record.measured else None
        candidates = rosters(
            on_gpu=self.on_gpu, slots=len(self.slots), bf16=bf16, first_teacher=self.first_teacher, seconds=seconds
        )
        return [roster.from_seed(self.record.request.seed) for roster in candidates]

    def measure(self, scratch: Path) -> Speeds:
        """Return the speeds of all kinds of network, measured unless the record has them."""
        if not self.record.measured:
            most = self.rosters()[0]
            members = most.members if "members" in self.record.request.parts else ()
            kinds = {kind.probe: kind for kind in (*members, most.student, most.small) if kind.probe == kind.name}
            if self.on_gpu and self.deadline < MINUTES:
                kinds = {probe: kind for probe, kind in kinds.items() if probe not in SLOW}
            self.record.measured = trainings.measured(
                list(kinds.values()), scratch, [*self.common, f"{TAUGHT_BY}[]"], self.slots, self.record.faces,
                self.servers, on_gpu=self.on_gpu, progress=self.progress,
            )  # fmt: skip
        return self._speeds()

    def _speeds(self) -> Speeds:
        return Speeds(self.record.measured, len(self.slots), self.record.faces["val"], on_gpu=self.on_gpu)

    def plan(self, speeds: Speeds) -> Plan:
        """Return the plan for the remaining time."""
        known = speeds.measured
        usable = [
            replace(roster, members=tuple(kind for kind in roster.members if kind.probe in known))
            for roster in self.rosters()
        ]
        usable = [roster for roster in usable if roster.student.probe in known and roster.small.probe in known]
        if not usable:
            raise FerError("the student or the small network cannot be trained here; the lines above state the reason")
        spent = self.clock.now()
        earlier = sum(candidate.teaches for candidate in self.selection.before)
        return plan.planned(usable, speeds, self.deadline - spent, self.record.request.parts, spent, earlier)

    def plan_text(self, made: Plan) -> str:
        """Return a plan that starts now, as lines of text."""
        return plan_text(self.record, made, self.clock.now())

    def record_plan(self, made: Plan) -> None:
        """Record a plan's phases and members; students are planned again when their teachers are known."""
        now = self.clock.now()
        record = self.record
        record.width, record.first_teacher = made.roster.width, made.roster.first_teacher
        other_teachers = bool(made.members) or any(candidate.teaches for candidate in self.selection.before)
        if record.first_teacher and not other_teachers:
            record.chosen_teachers = [record.first_teacher]
        for training in made.members:
            record.networks.append(self._network(training, now, [made.roster.first_teacher]))
        ends = [training.end for training in made.members]
        if made.members:
            record.phases += [
                Phase("members", now, now + max(ends)),
                Phase(CHOICE, now + max(ends), now + max(ends) + made.choosing),
            ]
        if made.taught:
            begin, end = min(training.begin for training in made.taught), plan.end_of(made.taught)
            record.phases.append(Phase("students", now + begin, now + end))
        record.phases.append(Phase("evaluation", now + made.seconds - made.closing, now + made.seconds))

    def _network(self, training: Training, zero: float, teachers: Sequence[str]) -> Network:
        names = [name for name in teachers if name]
        overrides = [*training.overrides, *self.common, *trainings.QUIET, f"trainer.max_epochs={training.epochs}"]
        return Network.planned(replace(training, begin=zero + training.begin), overrides, names)

    def overrides_of(self, network: Network) -> list[str]:
        """Return all overrides of a network, its teachers where they are now: the campaign may have been moved."""
        given = [text for text in network.overrides if not text.startswith(TAUGHT_BY)]  # of a record of before
        return [*given, f"{TAUGHT_BY}[{','.join(quoted(self._path_of(name)) for name in network.teachers)}]"]

    def _path_of(self, name: str) -> str:
        if any(network.name == name for network in self.record.networks):
            return str((self.folder / name).absolute())
        network = next((candidate.network for candidate in self.selection.before if candidate.name == name), None)
        return name if network is None else str(network.absolute())

    # --- training ---------------------------------------------------------------------------------------------------

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record the begin and the end of a phase; one that goes on later keeps the time it took so far."""
        current = next((phase for phase in self.record.phases if phase.name == name), None)
        if current is None:
            current = Phase(name, self.clock.now(), self.clock.now())
            self.record.phases.append(current)
        if current.began is None:
            current.began = self.clock.now()
        elif current.ended is not None:
            current.began, current.ended = current.began + self.clock.now() - current.ended, None
        try:
            yield
        finally:
            current.ended = self.clock.now()
            self.keep()

    def keep(self) -> None:
        """Write ``best.json``."""
        keep(self.record, self.folder, self.clock)

    def train(self, networks: Sequence[Network], times: Times, after: str, slots: int) -> None:
        """Train networks side by side in some slots."""
        self.progress.after = after
        overrides = {network.name: self.overrides_of(network) for network in networks}
        phase = trainings.PhaseWatch(
            self.record, networks, overrides, self.folder, self.clock, times, self.progress, self.keep
        )
        phase.run([self.slots[index % len(self.slots)] for index in range(slots)], self.servers)

    def _longest(self, networks: Sequence[Network]) -> list[str]:
        """Return the names of networks that are planned with the most epochs that make sense."""
        most = self._roster().most
        return [one.name for one in networks if one.epochs >= (plan.MOST_SMALL if one.role == SMALL else most)]

    def closing(self, speeds: Speeds) -> float:
        """Return the expected seconds of the evaluations at the end."""
        expected = plan.evaluation_seconds(self._roster(), speeds, self.record.request.parts)[1]
        return expected * self._evaluation_slowdown()

    def _evaluation_slowdown(self) -> float:
        """Return actual by expected time of the evaluations that chose the teachers, 0.5 to 3; 1 if unknown."""
        for phase in self.record.phases:
            if phase.name == CHOICE and phase.began is not None and phase.ended is not None:
                expected = phase.planned_end - phase.planned_begin
                if expected < 1:  # none were planned
                    return 1.0
                return min(max((phase.ended - phase.began) / expected, 0.5), 3.0)
        return 1.0

    def _roster(self) -> Roster:
        """Return the roster of the plan."""
        planned = {network.name for network in self.record.of_role("member")}
        fitting = [roster for roster in self.rosters() if roster.width == self.record.width]
        holds_plan = (roster for roster in reversed(fitting) if planned <= {kind.name for kind in roster.members})
        roster = next(holds_plan, fitting[0])
        return replace(roster, members=tuple(kind for kind in roster.members if kind.name in planned or not planned))

    def train_members(self, speeds: Speeds) -> None:
        """Train the members; those that exceed their planned time by much are stopped."""
        members = self.record.of_role("member")
        if not self.record.unfinished("member"):
            return
        last = self.deadline - self.closing(speeds)
        unplanned = self.deadline - max(phase.planned_end for phase in self.record.phases)
        with self.phase("members"):
            times = Times.of_members(members, unplanned, last, self._longest(members), _start(speeds))
            self.train(members, times, "teachers chosen on val, then students", speeds.slots)

    def choose_teachers(self) -> None:
        """Choose the teachers on val."""
        if self.record.chosen_teachers or self.record.of_role(STUDENT) or self.record.of_role(SMALL):
            return
        with self.phase(CHOICE), interruptible(), self.selection.evaluations:
            self.record.chosen_teachers = self.selection.teachers(self._choice_timeout(), TEACHERS)
        if self.record.chosen_teachers:
            self.progress.report(f"teachers, chosen on val: {', '.join(self.record.chosen_teachers)}")
        else:
            self.record.note("no teacher could be chosen: students and the small network learn from the labels alone")
        self.keep()

    def _choice_timeout(self) -> float:
        """Return the time limit in seconds of the evaluations that choose teachers: three times the expected."""
        expected = sum(phase.planned_end - phase.planned_begin for phase in self.record.phases if phase.name == CHOICE)
        return min(self.seconds_left(), 60 + 3 * expected)

    def train_taught(self, speeds: Speeds) -> None:
        """Train the students and the small network with the chosen teachers, in the remaining time."""
        parts = [part for part in ("students", "small") if part in self.record.request.parts]
        if not parts:
            return
        now, last = self.clock.now(), self.deadline - self.closing(speeds)
        if not self.record.of_role(STUDENT) and not self.record.of_role(SMALL):
            made = self._plan_taught(speeds, parts, now, last)
            if not made:
                self.record.note("no time was left for students and the small network")
                return
            self.record.networks += [self._network(training, 0.0, self.record.chosen_teachers) for training in made]
            self.keep()
        if not self.record.unfinished(STUDENT, SMALL):
            return
        with self.phase("students"):
            taught = [*self.record.of_role(STUDENT), *self.record.of_role(SMALL)]
            times = Times(last, last + GRACE, self._longest(taught), _start(speeds))
            self.train(taught, times, "evaluation", speeds.slots_of_taught)

    def _plan_taught(self, speeds: Speeds, parts: Sequence[str], now: float, last: float) -> list[Training]:
        roster = self._roster()
        speeds = self._corrected(speeds, roster)
        known, slowest = plan.teaching_costs(roster, speeds)
        known[self.record.first_teacher] = speeds.first_teacher(roster)
        teaching = sum(known.get(name, slowest) for name in self.record.chosen_teachers)
        build = plan.students_of(roster, speeds, teaching, parts)
        return plan.students_within(build, (last - now) * (1 - plan.SLACK), now)

    def _corrected(self, speeds: Speeds, roster: Roster) -> Speeds:
        """Return the speeds multiplied by the ratio of the members' actual to their measured time per epoch."""
        ratios = []
        for kind in roster.members:
            network = next((member for member in self.record.usable("member") if member.name == kind.name), None)
            if network is None or not network.epochs_done or network.began is None or network.ended is None:
                continue
            pace = speeds.of(kind, roster).taught(speeds.first_teacher(roster))
            ratios.append((network.ended - network.began) / (pace.fixed + network.epochs_done * pace.epoch))
        if not ratios:
            return speeds
        ratio = sum(ratios) / len(ratios)
        self.progress.report(f"epochs took {ratio:.2f} times as long as measured before")
        # Fewer members may have shared the GPU than students will, so a higher speed is never assumed. A student that
        # is stopped early misses the low learning rates at the end of its schedule
        return speeds.times(max(ratio, 1.0) if self.on_gpu else ratio)

    # --- evaluation -------------------------------------------------------------------------------------------------

    @cached_property
    def selection(self) -> Selection:
        """The networks to evaluate, and the choices on val."""
        count = plan.GPU_EVALUATIONS if self.on_gpu else len(self.slots)
        processes = [self.slots[index % len(self.slots)] for index in range(count)]
        context = Context(self.record, self.folder, self.data, self.progress, self.seconds_left)
        return Selection(context, Evaluations(processes, on_gpu=self.on_gpu))

    def seconds_left(self) -> float:
        """Return the seconds until evaluations are stopped, a little after the campaign's deadline."""
        return self.deadline * OVERTIME - self.clock.now()

    def close(self) -> None:
        """Evaluate everything, choose the ensemble, and share the best networks."""
        with self.phase("evaluation"), interruptible(), self.selection.evaluations:
            closing = Closing(self.selection)
            closing.evaluate(with_test=self.has_test)
            closing.share(with_test=self.has_test)

    def run(self) -> None:
        """Run all steps that are not done yet.

        Raises:
            FerError: the data cannot be read, or the time is too short for one epoch of every network.
            Interrupted: a signal arrived; finished steps are kept.
        """
        with interruptible():
            self.record.forget_retried()
            self.begin()
            self.selection.read_earlier()
            self.keep()
        with servers_for(self._slots) as self.servers:
            self._train()
        self.close()
        self.record.finished = datetime.now(UTC).isoformat(timespec="seconds")
        write_results(self.record, self.folder)
        self.keep()

    def _train(self) -> None:
        """Measure the speeds, and train all networks.

        Raises:
            FerError: the time is too short for one epoch of every network, or no network could be trained.
            Interrupted: a signal arrived; finished steps are kept.
        """
        with interruptible():
            speeds = self.measure(self.folder / "speed")
            self.keep()  # a campaign whose time is too short may be resumed with more
        if not self.record.phases:
            made = self.plan(speeds)
            log.info("%s", self.plan_text(made))
            self.record_plan(made)
            self.keep()
        self.train_members(speeds)
        self.choose_teachers()
        self.train_taught(speeds)
        if not self.record.usable("member", STUDENT, SMALL) and not self.selection.before:
            raise FerError(f"{self.folder}: no network could be trained; console.log in each folder states the reason")


def _start(speeds: Speeds) -> float:
    """Return the seconds of a training before its first step, as measured on this machine."""
    return max(trainings.STARTING_S, speeds.start)


def plan_text(record: Record, made: Plan, zero: float) -> str:
    """Return a plan as a table: the times and epochs of each training and step.

    Args:
        record: record of the campaign.
        made: the plan.
        zero: time on the campaign's clock at which the plan begins.
    """
    members, students = bool(made.members), any(training.role == STUDENT for training in made.taught)
    wide = made.roster.width and (members or students) and not record.request.sets_width
    width = f", {called(members, students)} of width {made.roster.width}" if wide else ""
    taught = called(members, students and not members)
    first = f", {taught} taught by {made.roster.first_teacher}" if made.roster.first_teacher else ""
    rows = [("0:00", worded(zero), "speed measured", "")]
    rows += [_planned_row(training, zero) for training in sorted(made.members, key=lambda training: training.begin)]
    if made.members:
        end = zero + plan.end_of(made.members)
        rows.append((worded(end), worded(end + made.choosing), "teachers chosen on val", ""))
    rows += [_planned_row(training, zero) for training in sorted(made.taught, key=lambda training: training.begin)]
    whole = zero + made.seconds
    rows.append((worded(whole - made.closing), worded(whole), "evaluations, page, shared files", ""))
    table = text_table(("from", "to", "network or step", "epochs"), rows)
    return f"plan for {worded(3600 * record.request.hours)}, {record.where}{width}{first}:\n{table}"


def _planned_row(training: Training, zero: float) -> tuple[str, str, str, str]:
    return worded(zero + training.begin), worded(zero + training.end), training.name, str(training.epochs)
