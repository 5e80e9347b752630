"""A campaign from its request to its page: measure, plan, train, choose, teach, evaluate, share."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from fer.campaign import plan, trainings
from fer.campaign.board import Board
from fer.campaign.closing import Closing, write_results
from fer.campaign.evaluations import Evaluations
from fer.campaign.plan import Plan, Speeds, Training
from fer.campaign.recipes import SMALL, STUDENT, TEACHERS, Roster, rosters
from fer.campaign.record import Clock, Network, Phase, Record, keep
from fer.campaign.selection import Context, Selection
from fer.config.conf import plain, quoted
from fer.config.errors import FerError
from fer.config.hydra import composed
from fer.config.schema import build
from fer.config.settings import TrainSettings
from fer.data.datamodule import FERDataModule, tell_notes
from fer.evaluation.request import same_split, whole
from fer.models import checkpoints
from fer.system import machine
from fer.system.slots import places
from fer.system.text import clock as worded
from fer.system.text import text_table
from fer.training.trainers import interruptible

log = logging.getLogger(__name__)

MOST_SLOTS = 64  # trainings side by side, on however many GPUs
CPU_SLOTS = 4  # trainings side by side on a CPU: as many as there are students and small networks
GPU_SLOTS = 3  # trainings side by side on each GPU: one's steps fill the others' waits for their host
OVERTIME = 1.03  # of the time, for evaluations at the end that take longer than expected
LATE = 0.35  # of the members' time by which they may be late before they are stopped
FIRST = "tiny"  # the package's network, which teaches a CPU's members where it fits the data
CHOICE = "choice of teachers"  # name of a phase


class Campaign:
    """A campaign in its folder.

    Args:
        record: of the request, and of what was done before an interruption.
        folder: of the campaign.
    """

    def __init__(self, record: Record, folder: Path) -> None:
        self.record, self.folder = record, folder
        self.clock = Clock(record.spent)
        self.deadline = 3600 * record.request.hours
        self.board = Board(self.clock, self.deadline)

    # --- the machine and the data -----------------------------------------------------------------------------------

    @cached_property
    def data(self) -> FERDataModule:
        """The faces, read once here, so that the trainings find them in the cache."""
        data = FERDataModule(self._settings.data)
        data.setup("fit")
        return data

    @cached_property
    def _settings(self) -> TrainSettings:
        """What all trainings have in common, as settings."""
        request = self.record.request
        common = trainings.overrides_for(request.data, request.rule, request.settings, request.device)
        return build(TrainSettings, plain(composed(["experiment=best/cpu", "stages=[]", *common])))

    @cached_property
    def slots(self) -> Sequence[Mapping[str, str]]:
        """What each of the trainings side by side adds to its environment; a resumed campaign has as many as before."""
        asked = self.record.slots or self.record.request.slots
        if self.on_gpu:
            gpus = len(places("auto", MOST_SLOTS, {"gpu"}).environments)
            found = places(asked or GPU_SLOTS * gpus, MOST_SLOTS, {"gpu"})
        else:  # more cores than trainings give each training more threads
            found = places(asked or "auto", asked or CPU_SLOTS, {"cpu"})
        self.record.slots, self.record.where = len(found.environments), found.told
        return found.environments

    @cached_property
    def on_gpu(self) -> bool:
        """Whether the networks are trained on a GPU.

        Raises:
            FerError: a GPU is demanded, or the campaign began on one, and there is none.
        """
        found = machine.uses_gpu(self._settings.trainer, "--device")
        if self.record.measured and found != self.record.on_gpu:
            began, here = ("a GPU", "a CPU") if self.record.on_gpu else ("a CPU", "a GPU")
            raise FerError(f"{self.folder}: the campaign began on {began}, and this is {here}; begin another one")
        return found

    @property
    def common(self) -> list[str]:
        """Overrides of all trainings."""
        request = self.record.request
        device = "gpu" if self.on_gpu else "cpu"
        return trainings.overrides_for(request.data, request.rule, request.settings, device)

    @cached_property
    def has_test(self) -> bool:
        """Whether there is a test split, and it is to be opened."""
        return "test" in self.record.faces and self.record.request.test

    def begin(self) -> None:
        """Read the data, and record them and the machine."""
        self.record.faces = {name: sum(held.values()) for name, held in self.data.describe()["counts"].items()}
        tell_notes(self.data.notes, self.data.faces.source.skipped)
        self.record.on_gpu = self.on_gpu
        self.record.provenance = machine.provenance()
        counts = ", ".join(f"{count:,} {split}" for split, count in self.record.faces.items())
        self.board.say(f"data: {self.record.request.data}, {counts}; trainings {self._where()}")

    def _where(self) -> str:
        return self.record.where if self.slots else ""

    # --- the plan ---------------------------------------------------------------------------------------------------

    @cached_property
    def first_teacher(self) -> str:
        """The package's network, if it was trained on this train split; else nothing."""
        if self.on_gpu:
            return ""
        dataset = checkpoints.load(FIRST).provenance.dataset
        own = asdict(self.data.data)
        same = dataset.get("fingerprint") == self.data.faces.fingerprint() and same_split(
            whole(dataset) | {"path": own["path"]}, own
        )
        return FIRST if same else ""

    def rosters(self) -> list[Roster]:
        """Return what may be trained here, the most ambitious first."""
        bf16 = machine.multiplies_bf16() is True
        seconds = self._speeds().epoch if self.record.measured else None
        held = rosters(
            on_gpu=self.on_gpu, slots=len(self.slots), bf16=bf16, first_teacher=self.first_teacher, seconds=seconds
        )
        return [roster.from_seed(self.record.request.seed) for roster in held]

    def measure(self, scratch: Path) -> Speeds:
        """Measure the speed of every kind that is to be trained, unless it is known, and return all."""
        if not self.record.measured:
            most = self.rosters()[0]
            members = most.members if "members" in self.record.request.parts else ()
            kinds = {kind.probe: kind for kind in (*members, most.student, most.small) if kind.probe == kind.name}
            self.record.measured = trainings.measured(
                list(kinds.values()), scratch, [*self.common, "distill.teachers=[]"], self.slots, self.record.faces,
                on_gpu=self.on_gpu, board=self.board,
            )  # fmt: skip
        return self._speeds()

    def _speeds(self) -> Speeds:
        return Speeds(self.record.measured, len(self.slots), self.record.faces["val"], on_gpu=self.on_gpu)

    def plan(self, speeds: Speeds) -> Plan:
        """Return the plan for the time that is left."""
        known = speeds.measured
        usable = [
            replace(roster, members=tuple(kind for kind in roster.members if kind.probe in known))
            for roster in self.rosters()
        ]
        usable = [roster for roster in usable if roster.student.probe in known and roster.small.probe in known]
        if not usable:
            raise FerError("the student or the small network cannot be trained here; the lines above say why")
        left = self.deadline - self.clock.now()
        return plan.planned(usable, speeds, left, self.record.request.parts)

    def plan_text(self, made: Plan) -> str:
        """Return a plan from now in lines of text."""
        return plan_text(self.record, made, self.clock.now())

    def take_up(self, made: Plan) -> None:
        """Keep a plan's phases and members; what is taught is planned again when its teachers are known."""
        now = self.clock.now()
        record = self.record
        record.width, record.first_teacher = made.roster.width, made.roster.first_teacher
        for training in made.members:
            record.networks.append(self._network(training, now, [made.roster.first_teacher]))
        ends = [training.end for training in made.members]
        if made.members:
            record.phases += [
                Phase("members", now, now + max(ends)),
                Phase(CHOICE, now + max(ends), now + max(ends) + made.choosing),
            ]
        if made.taught:
            begin, end = min(one.begin for one in made.taught), plan.end_of(made.taught)
            record.phases.append(Phase("students", now + begin, now + end))
        record.phases.append(Phase("evaluation", now + made.seconds - made.closing, now + made.seconds))

    def _network(self, training: Training, zero: float, teachers: Sequence[str]) -> Network:
        named = [name for name in teachers if name]
        paths = ",".join(quoted(self._path_of(name)) for name in named)
        overrides = [
            *training.overrides, *self.common, *trainings.QUIET,
            f"trainer.max_epochs={training.epochs}", f"distill.teachers=[{paths}]",
        ]  # fmt: skip
        placed = replace(training, begin=zero + training.begin)
        return Network.of(placed, overrides, named)

    def _path_of(self, name: str) -> str:
        if any(network.name == name for network in self.record.networks):
            return str((self.folder / name).absolute())
        network = next((one.network for one in self.selection.before if one.name == name), None)
        return name if network is None else str(network.absolute())

    # --- training ---------------------------------------------------------------------------------------------------

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note when a phase begins and ends."""
        held = next((phase for phase in self.record.phases if phase.name == name), None)
        if held is None:
            held = Phase(name, self.clock.now(), self.clock.now())
            self.record.phases.append(held)
        held.began = self.clock.now() if held.began is None else held.began
        try:
            yield
        finally:
            held.ended = self.clock.now()
            self.keep()

    def keep(self) -> None:
        """Write ``best.json``."""
        keep(self.record, self.folder, self.clock)

    def train(self, networks: Sequence[Network], deadline: float, after: str, slots: int) -> None:
        """Train networks side by side, so many at a time, until a time of the campaign's clock."""
        self.board.after = after
        phase = trainings.Phase(self.record, networks, self.folder, self.clock, deadline, self.board, self.keep)
        phase.run([self.slots[index % len(self.slots)] for index in range(slots)])

    def closing(self, speeds: Speeds) -> float:
        """Return the seconds that the evaluations at the end are expected to take."""
        expected = plan.evaluation_seconds(self._roster(), speeds, self.record.request.parts)[1]
        return expected * self._evaluations_went()

    def _evaluations_went(self) -> float:
        """Return how long the evaluations that chose the teachers took against what was expected of them."""
        for phase in self.record.phases:
            if phase.name == CHOICE and phase.began is not None and phase.ended is not None:
                expected = phase.planned_end - phase.planned_begin
                return min(max((phase.ended - phase.began) / max(expected, 1e-9), 0.5), 3.0)
        return 1.0

    def _roster(self) -> Roster:
        """Return the roster that was planned."""
        planned = {network.name for network in self.record.of("member")}
        held = [roster for roster in self.rosters() if roster.width == self.record.width]
        found = next((one for one in reversed(held) if planned <= {kind.name for kind in one.members}), held[0])
        return replace(found, members=tuple(kind for kind in found.members if kind.name in planned or not planned))

    def train_members(self, speeds: Speeds) -> None:
        """Train the members; those that are late by more than a little are stopped."""
        members = self.record.of("member")
        if not members:
            return
        ends = max(network.planned_end for network in members)
        begins = min(network.planned_begin for network in members)
        last = self.deadline - self.closing(speeds)
        with self.phase("members"):
            until = min(ends + LATE * (ends - begins), last)
            self.train(members, until, "teachers chosen on val, then students", speeds.slots)

    def choose_teachers(self) -> None:
        """Choose on val which networks teach."""
        if self.record.chosen_teachers:
            return
        with self.phase(CHOICE), interruptible(), self.selection.evaluations:
            self.record.chosen_teachers = self.selection.teachers(self._patience(), TEACHERS)
        if self.record.chosen_teachers:
            self.board.say(f"teachers, chosen on val: {', '.join(self.record.chosen_teachers)}")
        else:
            self.record.note("no network could teach: students and the small network learn from the labels alone")
        self.keep()

    def _patience(self) -> float:
        """Return the seconds after which evaluations that choose teachers are given up: three times the expected."""
        expected = sum(phase.planned_end - phase.planned_begin for phase in self.record.phases if phase.name == CHOICE)
        return min(self.seconds_left(), 60 + 3 * expected)

    def train_taught(self, speeds: Speeds) -> None:
        """Train the students and the small network with the time that is left, taught by the chosen networks."""
        parts = [part for part in ("students", "small") if part in self.record.request.parts]
        if not parts:
            return
        now, last = self.clock.now(), self.deadline - self.closing(speeds)
        if not self.record.of(STUDENT) and not self.record.of(SMALL):
            made = self._plan_taught(speeds, parts, now, last)
            if not made:
                self.record.note("no time was left for students and the small network")
                return
            self.record.networks += [self._network(one, 0.0, self.record.chosen_teachers) for one in made]
            self.keep()
        with self.phase("students"):
            taught = [*self.record.of(STUDENT), *self.record.of(SMALL)]
            self.train(taught, last, "evaluation", speeds.slots_of_taught)

    def _plan_taught(self, speeds: Speeds, parts: Sequence[str], now: float, last: float) -> list[Training]:
        roster = self._roster()
        speeds = self._as_it_went(speeds, roster)
        known = {kind.name: speeds.of(kind, roster).train for kind in roster.members}
        slowest = max(known.values(), default=0.0)
        teaching = sum(known.get(name, slowest) for name in self.record.chosen_teachers)
        build = plan.taught_of(roster, speeds, teaching, parts)
        return plan.taught_within(build, (last - now) * (1 - plan.SLACK), now)

    def _as_it_went(self, speeds: Speeds, roster: Roster) -> Speeds:
        """Return the speeds corrected by how long the members' epochs took against what was measured before."""
        ratios = []
        for kind in roster.members:
            network = next((one for one in self.record.usable("member") if one.name == kind.name), None)
            if network is None or not network.epochs_done or network.began is None or network.ended is None:
                continue
            taught = speeds.measured[SMALL].train if roster.first_teacher else 0.0
            pace = speeds.of(kind, roster).taught(taught)
            ratios.append((network.ended - network.began) / (pace.fixed + network.epochs_done * pace.epoch))
        if not ratios:
            return speeds
        went = sum(ratios) / len(ratios)
        self.board.say(f"epochs took {went:.2f} times what was measured before")
        # a GPU's members may have had it to fewer than will be there now; a student stopped early misses its low rates
        return speeds.times(max(went, 1.0) if self.on_gpu else went)

    # --- evaluation -------------------------------------------------------------------------------------------------

    @cached_property
    def selection(self) -> Selection:
        """The networks that are evaluated, and what val chooses among them."""
        count = plan.GPU_EVALUATIONS if self.on_gpu else len(self.slots)
        processes = [self.slots[index % len(self.slots)] for index in range(count)]
        context = Context(self.record, self.folder, self.data, self.board, self.seconds_left)
        return Selection(context, Evaluations(processes, on_gpu=self.on_gpu))

    def seconds_left(self) -> float:
        """Return the seconds after which evaluations are given up: a little beyond the campaign's deadline."""
        return self.deadline * OVERTIME - self.clock.now()

    def close(self) -> None:
        """Evaluate everything, choose the ensemble, and share the best networks."""
        with self.phase("evaluation"), interruptible(), self.selection.evaluations:
            closing = Closing(self.selection)
            closing.evaluate(with_test=self.has_test)
            closing.share(with_test=self.has_test)

    def run(self) -> None:
        """Do everything that is not done yet.

        Raises:
            FerError: the data are bad, or the time is too short for anything.
            Interrupted: a signal came; what is done is kept.
        """
        with interruptible():
            self.begin()
            self.selection.read_earlier()
            self.keep()
            speeds = self.measure(self.folder / "speed")
        if not self.record.phases:
            made = self.plan(speeds)
            log.info("%s", self.plan_text(made))
            self.take_up(made)
            self.keep()
        self.train_members(speeds)
        self.choose_teachers()
        self.train_taught(speeds)
        if not self.record.usable("member", STUDENT, SMALL) and not self.selection.before:
            raise FerError(f"{self.folder}: no network could be trained; console.log in each folder says why")
        self.close()
        self.record.finished = datetime.now(UTC).isoformat(timespec="seconds")
        write_results(self.record, self.folder)
        self.keep()


def plan_text(record: Record, made: Plan, zero: float) -> str:
    """Return a plan in lines: what is trained when, and for how many epochs.

    Args:
        record: of the campaign.
        made: the plan.
        zero: time of the campaign's clock at which it begins.
    """
    width = f", networks of width {made.roster.width}" if made.roster.width else ""
    first = f", members taught by {made.roster.first_teacher}" if made.roster.first_teacher else ""
    rows = [("0:00", worded(zero), "speed measured", "")]
    rows += [_planned_row(one, zero) for one in sorted(made.members, key=lambda one: one.begin)]
    if made.members:
        end = zero + plan.end_of(made.members)
        rows.append((worded(end), worded(end + made.choosing), "teachers chosen on val", ""))
    rows += [_planned_row(one, zero) for one in sorted(made.taught, key=lambda one: one.begin)]
    whole = zero + made.seconds
    rows.append((worded(whole - made.closing), worded(whole), "evaluations, page, shared files", ""))
    table = text_table(("from", "to", "what", "epochs"), rows)
    return f"plan for {worded(3600 * record.request.hours)}, {record.where}{width}{first}:\n{table}"


def _planned_row(training: Training, zero: float) -> tuple[str, str, str, str]:
    return worded(zero + training.begin), worded(zero + training.end), training.name, str(training.epochs)
