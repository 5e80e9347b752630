"""The trainings of a phase, side by side until a deadline, and the short ones that measure the speed. No torch here."""

import csv
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fer.campaign.board import Board
from fer.campaign.plan import Pace
from fer.campaign.recipes import Kind
from fer.campaign.record import Clock, Network, Record
from fer.config.conf import quoted
from fer.config.errors import FerError
from fer.sweeps import jobs
from fer.sweeps.jobs import Job
from fer.system.files import read_history

KEEP_S = 10.0  # seconds between writings of best.json while networks train
SAVING_S = 20.0  # seconds in which a network that is stopped at a deadline may save itself
QUIET = ("logger=none", "trainer.bar=false")  # figures of twelve runs would take minutes
PROBE_STEPS = 8  # of an epoch that measures a CPU's speed
PROBE_EPOCHS = 2  # on a CPU
PROBE_EPOCHS_GPU = 4  # of seconds each: starts differ by 5 s, and all must train at once for a while
PROBE_VAL = 0.25  # share of val


class Phase(jobs.Watch):
    """Runs the trainings of a phase; what still runs at the deadline is stopped, and its best epoch counts.

    Args:
        record: of the campaign.
        networks: of the phase.
        clock: the campaign's.
        deadline: on that clock.
        board: shows how it goes.
        keep: writes the record.
    """

    def __init__(
        self,
        record: Record,
        networks: Sequence[Network],
        folder: Path,
        clock: Clock,
        deadline: float,
        board: Board,
        keep: Callable[[], None],
    ) -> None:
        self.record, self.clock, self.deadline, self.board, self.keep = record, clock, deadline, board, keep
        self.jobs = {_job(network, folder): network for network in networks if network.state in ("waiting", "running")}
        self.waiting = deque(self.jobs)
        self._kept = clock.now()
        self._interrupted = False

    def run(self, slots: Sequence[Mapping[str, str]]) -> None:
        """Run them.

        Args:
            slots: what each adds to a training's environment.

        Raises:
            Interrupted: a signal came; the networks have saved themselves.
        """
        self.board.line.give_way()
        try:
            jobs.run(self._next, slots, self)
        finally:
            self.board.line.end()
        for job in self.waiting:  # one that was interrupted before may have a best epoch
            self._stopped(self.jobs[job], (job.folder / "checkpoints" / "best.ckpt").is_file())
        self.keep()

    def _next(self) -> Job | None:
        return self.waiting.popleft() if self.waiting and self.clock.now() < self.deadline else None

    def began(self, job: Job) -> None:
        """Note when a training began."""
        network = self.jobs[job]
        network.began = self.clock.now() if network.began is None else network.began
        network.state = "running"
        self.board.began(network)
        self.keep()

    def looked(self, running: Sequence[Job]) -> None:
        """Stop what runs beyond the deadline, and show how far the others are."""
        now = self.clock.now()
        for job in running:
            _note_progress(self.jobs[job], job)
            if self._interrupted:  # they save themselves already, and a second signal would end them at once
                continue
            if now > self.deadline + SAVING_S:
                job.terminate(signal.SIGKILL)
            elif now > self.deadline and self.jobs[job].state != "stopped":
                self.jobs[job].state = "stopped"
                job.terminate(signal.SIGINT)
        if now - self._kept > KEEP_S:
            self._kept = now
            self.keep()
        self.board.draw([self.jobs[job] for job in running], [self.jobs[job] for job in self.waiting])

    def ended(self, job: Job) -> None:
        """Note how a training ended."""
        network = self.jobs[job]
        _note_progress(network, job)
        network.ended = self.clock.now()
        if job.code == 0:
            network.state = "done"
        elif self._interrupted:
            network.state = "waiting"  # it has saved itself, and goes on with the campaign
        elif network.state == "stopped":
            self._stopped(network, (job.folder / "checkpoints" / "best.ckpt").is_file())
        else:
            network.state, network.reason = "failed", job.outcome()
            self.record.note(f"{network.name} failed: {network.reason}")
        self.board.ended(network)
        self.keep()

    def _stopped(self, network: Network, has_best: bool) -> None:
        """Note that a training was stopped at the deadline."""
        network.reason = f"stopped at the deadline after {network.epochs_done} of {network.epochs} epochs"
        network.state = "stopped" if has_best else "left out"
        self.record.note(f"{network.name}: {network.reason}; {'its best epoch counts' if has_best else 'left out'}")

    def stopping(self, running: Sequence[Job], number: int) -> None:
        """Say that the networks save themselves."""
        self._interrupted = True
        self.board.stopping(len(running), number)


def _job(network: Network, folder: Path) -> Job:
    run = folder / network.name
    _wait_for(run)
    goes_on = (run / "checkpoints" / "last.ckpt").is_file() and (run / ".hydra" / "config.yaml").is_file()
    if run.exists() and not goes_on:
        shutil.rmtree(run)  # what was cut off before its first epoch's end
    return Job(run, network.overrides, {}, epochs=network.epochs, resume=goes_on)


def _wait_for(run: Path) -> None:
    """Wait until a training of a campaign that was killed a moment ago has saved itself."""
    until = time.monotonic() + jobs.GRACE_S
    while jobs.lives(run) and time.monotonic() < until:
        time.sleep(jobs.POLL_S)


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
    *,
    on_gpu: bool,
    board: Board,
) -> dict[str, Pace]:
    """Return the pace of each kind, trained for a moment side by side; kinds that fail are left out.

    A GPU trains all kinds at once; on a CPU kinds are trained several times where there are more slots.

    Args:
        kinds: each is its own probe.
        folder: for the runs; it is removed afterwards.
        common: overrides of all: data, device.
        slots: what each adds to a training's environment.
        faces: of train and val.
        on_gpu: whole epochs are measured there, since they take a second.
        board: shows how it goes.

    Raises:
        FerError: every one failed; the reason is the first one's.
        Interrupted: a signal came.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a campaign that was interrupted while it measured
    part = (f"trainer.max_epochs={PROBE_EPOCHS_GPU}",) if on_gpu else _part(faces["train"])
    copies = 1 if on_gpu else max(1, len(slots) // len(kinds))
    probes = {
        Job(folder / f"{kind.name}_{copy}", [*kind.overrides, *common, *QUIET, *part, f"seed={kind.seed}"], {}): kind
        for copy in range(copies)
        for kind in kinds
    }
    board.measuring(len(kinds))
    at_once = len(kinds) if on_gpu else len(slots)
    where = [slots[index % len(slots)] for index in range(at_once)]
    jobs.run(jobs.in_order(deque(probes)), where, jobs.Watch())
    paces = {kind.probe: pace for job, kind in probes.items() if (pace := _pace(job, faces)) is not None}
    if not paces:
        raise FerError(f"no network can be trained here: {next(iter(probes)).outcome()}")
    for job, kind in probes.items():
        if kind.probe not in paces:
            board.say(f"{kind.name} cannot be trained here, and is left out: {job.outcome()}")
    shutil.rmtree(folder, ignore_errors=True)
    return paces


def _part(train: int, batch: int = 128) -> tuple[str, ...]:
    share = min(1.0, PROBE_STEPS * batch / train)
    return (f"trainer.max_epochs={PROBE_EPOCHS}", f"trainer.limit_train={share:.4f}", f"trainer.limit_val={PROBE_VAL}")


def _pace(job: Job, faces: Mapping[str, int]) -> Pace | None:
    """Return the pace of a short training's slowest epoch but the first; None where it failed.

    The first epoch includes compiling and the memory's first use; what it takes longer than the slowest of the others
    belongs to the fixed time. In the slowest of the others all kinds train at once.
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
    """Return the overrides that all networks of a campaign have."""
    return [f"data.path={quoted(data)}", f"data.split={rule}", f"trainer.accelerator={device}", *settings]
