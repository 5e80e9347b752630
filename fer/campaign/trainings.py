"""The trainings of a campaign's phase, side by side until a deadline.

Short trainings that measure speed are here too. No torch.
"""

import csv
import math
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from fer.campaign.plan import Pace
from fer.campaign.progress import Progress
from fer.campaign.recipes import Kind
from fer.campaign.record import UNFINISHED, Clock, Network, Record
from fer.config.conf import quoted
from fer.config.errors import FerError
from fer.metrics import results as metrics_json
from fer.sweeps import jobs
from fer.sweeps.fork_server import ForkServers
from fer.sweeps.jobs import Job
from fer.system.files import read_history
from fer.system.text import plural

KEEP_S = 10.0  # seconds between two writings of best.json during training
SAVING_S = 20.0  # seconds for a training to save its checkpoint after a deadline, before it is killed
LATE = 0.35  # delay after which members are stopped, as a share of their planned time
STARTING_S = 5.0  # seconds of a training before its first step at least
ROUNDING_S = 1e-3  # seconds by which a planned start differs at most from the end that it follows
QUIET = ("logger=none", "trainer.bar=false")  # the TensorBoard figures of twelve runs would take minutes
PROBE_STEPS = 8  # steps of an epoch that measures a CPU's speed
PROBE_EPOCHS = 2  # epochs on a CPU
PROBE_EPOCHS_GPU = 3  # epochs on a GPU, of seconds each: starts differ by 5 s, and all kinds must train at once
PROBE_VAL = 0.25  # share of val that a CPU scores


class Times(NamedTuple):
    """The times of a phase on the campaign's clock.

    Args:
        end: time at which the trainings end by themselves: their numbers of epochs follow the speed.
        deadline: time at which those that still run are stopped.
        fixed: names of trainings whose number of epochs is fixed, since more would improve little.
        start: seconds of a training before its first step: one that must end sooner would fail.
    """

    end: float
    deadline: float
    fixed: Collection[str] = ()
    start: float = STARTING_S

    @classmethod
    def of_members(
        cls, members: Sequence[Network], unplanned: float, last: float, fixed: Collection[str], start: float
    ) -> "Times":
        """Return the times of the members' phase.

        Late members may exceed their planned time by the share ``LATE``, by the time to start a process, or by the
        time for which nothing is planned, whichever is longest.

        Args:
            members: trainings of the phase.
            unplanned: seconds of the campaign for which nothing is planned.
            last: time at which all trainings must have ended.
            fixed: as in ``Times``.
            start: as in ``Times``.
        """
        end = max(network.planned_end for network in members)
        begin = min(network.planned_begin for network in members)
        delay = max(LATE * (end - begin), start, unplanned)
        return cls(min(end, last), min(end + delay, last), fixed, start)


class PhaseWatch(jobs.Watch):
    """Runs the trainings of a phase; those that still run at the deadline are stopped, and their best epoch is used.

    Args:
        record: record of the campaign.
        networks: trainings of the phase.
        overrides: name of a network -> all its overrides of ``fer.train``.
        folder: folder of the campaign.
        clock: clock of the campaign.
        times: end and deadline of the phase on that clock.
        progress: shows the progress.
        keep: writes the record.
    """

    def __init__(
        self,
        record: Record,
        networks: Sequence[Network],
        overrides: Mapping[str, Sequence[str]],
        folder: Path,
        clock: Clock,
        times: Times,
        progress: Progress,
        keep: Callable[[], None],
    ) -> None:
        self.record, self.clock, self.times, self.progress, self.keep = record, clock, times, progress, keep
        unfinished = [network for network in networks if network.state in UNFINISHED]
        in_order = sorted(unfinished, key=lambda network: network.planned_begin)
        self.jobs = {_job(network, overrides[network.name], folder): network for network in in_order}
        self.waiting = deque(self.jobs)
        self._kept = clock.now()
        self._interrupted = False
        self._ends: dict[Job, float] = {}  # the end of each training that was given one, on the campaign's clock
        self._done_before: dict[Job, int] = {}  # epochs of each training before this process of it

    def run(self, slots: Sequence[Mapping[str, str]], servers: ForkServers | None = None) -> None:
        """Run the trainings.

        Args:
            slots: environment variables of each slot for a training.
            servers: start the trainings by forks; None starts a new interpreter for each.

        Raises:
            Interrupted: a signal arrived; the trainings have saved their checkpoints.
        """
        self.progress.line.give_way()
        try:
            jobs.run(self._next, slots, self, servers)
        finally:
            self.progress.line.end()
        for job in self.waiting:  # an interrupted training may have a best epoch
            self._stopped(self.jobs[job], (job.folder / "checkpoints" / "best.ckpt").is_file())
        self.keep()

    def _next(self) -> Job | None:
        now = self.clock.now()
        if not self.waiting or now >= self.times.deadline - self.times.start:
            return None
        job = self.waiting.popleft()
        network = self.jobs[job]
        if network.name not in self.times.fixed:
            # with its time zone: an hour occurs twice where summer time ends
            self._ends[job] = self._end_of(network, now)
            until = datetime.fromtimestamp(time.time() + self._ends[job] - now, UTC)
            job.overrides = [*job.overrides, f"{jobs.UNTIL}{quoted(until.isoformat(timespec='milliseconds'))}"]
        return job

    def _end_of(self, network: Network, now: float) -> float:
        """Return the time at which a training shall end: its planned end if another one follows in its slot."""
        followed = any(self.jobs[job].planned_begin > network.planned_end - ROUNDING_S for job in self.waiting)
        ends = [network.planned_end] * followed + [self.times.end, self.times.deadline]
        return next((end for end in ends if end > now + self.times.start), ends[-1])

    def began(self, job: Job) -> None:
        """Record the start of a training."""
        network, now = self.jobs[job], self.clock.now()
        if network.began is None or not job.resume:
            network.began = now
        elif network.ended is not None:  # a training that goes on keeps the time it took so far
            network.began += now - network.ended
        network.ended, network.state = None, "running"
        self._done_before[job] = network.epochs_done
        self.progress.began(network)
        self.keep()

    def polled(self, running: Sequence[Job]) -> None:
        """Stop trainings after the deadline, and show the progress of all."""
        now = self.clock.now()
        for job in running:
            _note_progress(self.jobs[job], job)
            if self._interrupted:  # the trainings save already, and a second signal would kill them
                continue
            if now > self.times.deadline + SAVING_S:
                job.terminate(signal.SIGKILL)
            elif now > self.times.deadline and self.jobs[job].state != "stopped":
                self.jobs[job].state = "stopped"
                job.terminate(signal.SIGINT)
        if now - self._kept > KEEP_S:
            self._kept = now
            self.keep()
        self.progress.draw([self.jobs[job] for job in running], [self.jobs[job] for job in self.waiting])

    def ended(self, job: Job) -> None:
        """Record the end of a training."""
        network = self.jobs[job]
        _note_progress(network, job)
        network.ended = self.clock.now()
        if job.code == 0:
            network.state, network.reason = "done", ""
            network.accuracy_val = _accuracy(job, network.accuracy_val)
            self.record.forget(network.name)
        elif self._interrupted:
            network.state = "waiting"  # its checkpoint is saved; the resumed campaign resumes it
        elif network.state == "stopped" or self._began_too_late(job):
            self._stopped(network, (job.folder / "checkpoints" / "best.ckpt").is_file())
        else:
            network.state, network.reason = "failed", job.outcome()
            self.record.note(f"{network.name} failed: {network.reason}")
        self.progress.ended(network)
        self.keep()

    def _began_too_late(self, job: Job) -> bool:
        """Return whether a training's end passed before its first epoch ended: a busy machine may start it that slowly.

        ``fer.train`` refuses a ``budget.until`` that is past. A resumed training may have a best epoch all the same.
        """
        no_epoch = self.jobs[job].epochs_done <= self._done_before.get(job, 0)
        return no_epoch and self.clock.now() >= self._ends.get(job, math.inf)

    def _stopped(self, network: Network, has_best: bool) -> None:
        """Record that a training was stopped at the deadline."""
        network.reason = f"stopped at the deadline after {plural(network.epochs_done, 'epoch')} of {network.epochs}"
        network.state = "stopped" if has_best else "left out"
        self.record.note(f"{network.name}: {network.reason}; {'its best epoch is used' if has_best else 'left out'}")

    def stopping(self, running: Sequence[Job], number: int) -> None:
        """Report that the trainings save their checkpoints after a signal."""
        self._interrupted = True
        self.progress.stopping(len(running), number)


def _job(network: Network, overrides: Sequence[str], folder: Path) -> Job:
    run = folder / network.name
    _wait_until_saved(run)
    resumable = (run / "checkpoints" / "last.ckpt").is_file() and (run / ".hydra" / "config.yaml").is_file()
    if run.exists() and not resumable:
        shutil.rmtree(run)  # a run that was killed before the end of its first epoch
    return Job(run, overrides, {}, epochs=network.epochs, resume=resumable)


def _wait_until_saved(run: Path) -> None:
    """Wait for a training that is still saving its checkpoint after its campaign was killed."""
    until = time.monotonic() + jobs.GRACE_S
    while jobs.lives(run) and time.monotonic() < until:
        time.sleep(jobs.POLL_S)


def _accuracy(job: Job, otherwise: float | None) -> float | None:
    """Return the val accuracy of a training's kept epoch: not every ``monitor`` keeps the most accurate one."""
    try:
        return metrics_json.read(job.folder / "metrics.json").scores.accuracy.number
    except FerError:
        return otherwise


def _note_progress(network: Network, job: Job) -> None:
    progress = job.progress()
    if progress is not None:
        network.epochs_done, network.accuracy_val = progress.epochs, progress.best


# --- the speed ------------------------------------------------------------------------------------------------------


def measured(
    kinds: Sequence[Kind],
    folder: Path,
    common: Sequence[str],
    slots: Sequence[Mapping[str, str]],
    faces: Mapping[str, int],
    servers: ForkServers | None,
    *,
    on_gpu: bool,
    progress: Progress,
) -> dict[str, Pace]:
    """Return the pace of each kind from short trainings side by side; kinds that fail are left out.

    A GPU trains all kinds at once. On a CPU each kind is trained several times if there are more slots than kinds.

    Args:
        kinds: kinds that are their own probes.
        folder: folder for the runs; removed afterwards.
        common: overrides of all: data, device.
        slots: environment variables of each slot for a training.
        faces: numbers of faces of train and val.
        servers: start the trainings by forks; None starts a new interpreter for each.
        on_gpu: whether to measure on a GPU, in whole epochs, since they take a second.
        progress: shows the progress.

    Raises:
        FerError: all kinds failed; the message has the reason of the first.
        Interrupted: a signal arrived.
    """
    shutil.rmtree(folder, ignore_errors=True)  # remains of an interrupted measurement
    part = (f"trainer.max_epochs={PROBE_EPOCHS_GPU}",) if on_gpu else _part(faces["train"])
    copies = 1 if on_gpu else max(1, len(slots) // len(kinds))
    probes = {
        Job(folder / f"{kind.name}_{copy}", [*kind.overrides, *common, *QUIET, *part, f"seed={kind.seed}"], {}): kind
        for copy in range(copies)
        for kind in kinds
    }
    progress.measuring(len(kinds))
    at_once = len(kinds) if on_gpu else len(slots)
    where = [slots[index % len(slots)] for index in range(at_once)]
    jobs.run(jobs.in_order(deque(probes)), where, jobs.Watch(), servers)
    paces = {kind.probe: pace for job, kind in probes.items() if (pace := _pace(job, faces)) is not None}
    if not paces:
        raise FerError(f"no network can be trained here: {next(iter(probes)).outcome()}")
    for job, kind in probes.items():
        if kind.probe not in paces:
            progress.report(f"{kind.name} cannot be trained here, and is left out: {job.outcome()}")
    shutil.rmtree(folder, ignore_errors=True)
    return paces


def _part(train: int, batch: int = 128) -> tuple[str, ...]:
    share = min(1.0, PROBE_STEPS * batch / train)
    return (f"trainer.max_epochs={PROBE_EPOCHS}", f"trainer.limit_train={share:.4f}", f"trainer.limit_val={PROBE_VAL}")


def _pace(job: Job, faces: Mapping[str, int]) -> Pace | None:
    """Return the pace of a short training from its slowest epoch after the first; None if it failed.

    The first epoch includes compiling and the first use of memory, which count as fixed time. During the slowest of
    the other epochs all kinds train at once.
    """
    try:
        rows = read_history(job.folder / "history.csv")
        slowest = max(rows[1:], key=lambda row: row["seconds"])
        speed, seconds = slowest["images_per_second"], slowest["seconds"]
    except (OSError, LookupError, ValueError, csv.Error):
        return None
    if job.code != 0 or not speed > 0:
        return None
    shares = {key: 1.0 for key in ("train", "val")}
    for text in job.overrides:
        key, _, value = text.partition("=")
        if key.startswith("trainer.limit_"):
            shares[key.removeprefix("trainer.limit_")] = float(value)
    val = max(0.0, seconds - shares["train"] * faces["train"] / speed) / shares["val"]
    fixed = max(0.0, job.seconds - seconds - sum(row["seconds"] for row in rows[1:]))
    return Pace(faces["train"] / speed, val, fixed)


def overrides_for(data: str, rule: str, settings: Sequence[str], device: str) -> list[str]:
    """Return the overrides that all networks of a campaign share."""
    return [f"data.path={quoted(data)}", f"data.split={rule}", f"trainer.accelerator={device}", *settings]
