"""Jobs: runs of ``python -m fer.train`` as child processes, several side by side.

A job that is killed, calls ``sys.exit`` or runs out of memory does not affect other jobs. Each starts with fresh memory
and random seeds. Each has its own process group, ends with the process that started it (Linux), and locks its
``console.log``. ``job.json`` records its overrides and its exit code.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from fer.config.conf import quoted
from fer.config.errors import Interrupted
from fer.config.trust import named_again
from fer.data.locate import VARIABLE, locate
from fer.sweeps.fork_server import Forked, ForkServers
from fer.system import records, signals
from fer.system.files import UNREADABLE, read_history, read_json, write_json
from fer.system.locks import hold, is_held
from fer.system.parent import with_parent

log = logging.getLogger(__name__)

POLL_S = 0.1  # seconds between checks of the processes
GRACE_S = 120.0  # seconds for a job to save itself after a signal: a batch, or a validation
MOST_SAID = 400  # characters of a failed job's last line in messages
UNTIL = "budget.until="  # a resumed job may have another deadline than before
SAVED = (129, 130, 143)  # exit codes of a run that saved itself after a signal


@dataclass(frozen=True)
class JobRecord:
    """The contents of ``job.json``.

    Args:
        overrides: of the job.
        identity: ``fer.runs.run_folder.identity`` of its configuration.
        exit_code: None while the job runs, and if the process that ran it was killed.
        seconds: its duration.
    """

    overrides: tuple[str, ...] = ()
    identity: str = ""
    exit_code: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Progress:
    """The progress of a job.

    Args:
        epochs: finished epochs, also those before the job was resumed.
        accuracy: val accuracy after the last epoch, 0 to 1.
        best: best val accuracy so far.
        pace: mean seconds of an epoch.
        at: end of the last epoch, in seconds of ``time.time()``.
    """

    epochs: int
    accuracy: float
    best: float
    pace: float
    at: float


@dataclass(eq=False)
class Job:
    """One run as a child process.

    Args:
        folder: run folder; made when the job starts.
        overrides: overrides of its command line.
        environment: variables added to this process's environment, as ``environment`` returns them.
        identity: ``fer.runs.run_folder.identity`` of its configuration.
        epochs: planned epochs.
        more: Hydra's own overrides for the run, such as a search path.
        resume: continue the run in the folder.
    """

    folder: Path
    overrides: Sequence[str]
    environment: Mapping[str, str]
    identity: str = ""
    epochs: int = 1
    more: Sequence[str] = ()
    resume: bool = False
    code: int | None = field(default=None, init=False)  # exit code after the end; -n: killed by signal n
    seconds: float = field(default=0.0, init=False)  # duration, earlier parts of a resumed run included
    started: float = field(default=0.0, init=False)  # start, in seconds of time.time()
    reason: str = field(default="", init=False)  # reason of a failure that exit code and console.log do not state
    _process: subprocess.Popen[bytes] | Forked | None = field(default=None, init=False)
    _before: float = field(default=0.0, init=False)  # seconds of earlier parts
    _signal: int = field(default=0, init=False)  # last signal that was sent
    _read: tuple[int, Progress | None] = field(default=(-1, None), init=False)  # history.csv: mtime_ns, progress

    def start(self, slot: Mapping[str, str] | None = None, servers: ForkServers | None = None) -> None:
        """Start the process in its own process group, so that Ctrl-C reaches it through ``terminate`` only.

        Args:
            slot: variables of the slot that the job runs in, as ``fer.system.slots`` returns them.
            servers: start the process by a fork; None starts a new interpreter.

        Raises:
            OSError: the folder cannot be written, a process still runs in it, or no process can be started.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        variables = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"} | dict(slot or {})
        self._before = seconds_of(self.folder) if self.resume else 0.0
        self.started = time.time()
        self.record()
        with open(self.folder / "console.log", "ab" if self.resume else "wb") as console:
            hold(console)
            if servers is not None:
                self._process = servers.start(self._arguments(), variables, self.environment, console)
                return
            self._process = subprocess.Popen(
                with_parent(self._command()),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**variables, **self.environment},
                process_group=0,
            )

    def poll(self) -> int | None:
        """Return the exit code if the job has ended, else None."""
        if self._process is not None and self.code is None:
            code = self._process.poll()
            if code is not None:
                # killed before it handled signals, when it had nothing to save yet: as if it had saved itself
                unheard = code < 0 and -code == self._signal
                self.end(128 + self._signal if unheard and self._signal != signal.SIGKILL else code)
        return self.code

    def terminate(self, number: int = signal.SIGTERM) -> None:
        """Send the job a signal to save itself and end; after ``SIGKILL`` it ends unsaved."""
        if self._process is not None and self.poll() is None:
            self._signal = number
            self._process.send_signal(number)

    def fail(self, reason: str) -> None:
        """Record a failure without a process, with the reason in ``console.log``."""
        self.reason, self.started = reason, time.time()
        with suppress(OSError):  # a full disk may be the reason
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "console.log").write_text(f"{reason}\n", encoding="utf-8")
        self.end(1)

    def end(self, code: int) -> None:
        """Record the exit code; 0 without a result, as after a plugin's ``exit()``, is a failure."""
        if code == 0 and not has_result(self.folder):
            code, self.reason = 1, f"ended without a result: {last_words(self.folder)}"
        self.code, self.seconds = code, self._before + time.time() - self.started
        self.record()

    def record(self) -> None:
        """Write ``job.json``; the exit code is null while the job runs, and stays null if this process is killed."""
        seconds = round(self.seconds or self._before, 1)
        record = JobRecord(tuple(self.overrides), self.identity, self.code, seconds)
        try:
            write_json(self.folder / "job.json", records.plain(record))
        except OSError as error:  # a full disk must not end the other jobs
            log.warning("%s: %s", error.filename or self.folder, error.strerror or error)

    def progress(self) -> Progress | None:
        """Return the progress by ``history.csv``; None before the end of the first epoch."""
        file = self.folder / "history.csv"
        try:
            written = file.stat()
            if written.st_mtime_ns != self._read[0]:
                self._read = written.st_mtime_ns, _progress(read_history(file), written.st_mtime)
        except (OSError, LookupError, ValueError, ZeroDivisionError):  # not written yet, or not by a training
            pass
        return self._read[1]

    def outcome(self) -> str:
        """Return the job's result or failure in words."""
        return self.reason or outcome(self.folder, self.code)

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "fer.train", *self._arguments()]

    def _arguments(self) -> list[str]:
        folder, given = quoted(str(self.folder.absolute())), [*self.overrides, *self.more]
        again = [*named_again(given), *(text for text in given if text.startswith(UNTIL))]
        return [f"resume={folder}", *again] if self.resume else [*given, f"hydra.run.dir={folder}"]


def _progress(rows: Sequence[Mapping[str, float]], at: float) -> Progress:
    accuracies = [row["accuracy/val"] for row in rows]
    pace = sum(row["seconds"] for row in rows) / len(rows)
    return Progress(len(rows), accuracies[-1], max(accuracies), pace, at)


def lives(folder: Path) -> bool:
    """Return whether a process still writes a job's ``console.log``, as for a moment after its sweep was killed."""
    return is_held(folder / "console.log")


def environment(data_path: str | None) -> dict[str, str]:
    """Return the variables that jobs add to this process's environment: the path of the data, the same for all jobs.

    Drawn faces never replace missing data here, since the runs of a sweep or search are compared.

    Args:
        data_path: ``data.path`` of the configuration.

    Raises:
        FerError: no data are found.
    """
    data, _ = locate(data_path, drawn_faces_allowed=False)
    return {} if data_path is not None else {VARIABLE: data}


# --- results of jobs ------------------------------------------------------------------------------------------------


def recorded(folder: Path) -> JobRecord | None:
    """Return the contents of a folder's ``job.json``; None if it is missing or damaged."""
    try:
        record = records.read(JobRecord, read_json(folder / "job.json"))
    except UNREADABLE:
        return None
    sound = isinstance(record.exit_code, int | None) and isinstance(record.seconds, int | float | None)
    return record if sound else None


def seconds_of(folder: Path) -> float:
    """Return the duration of a folder's job so far; 0 if it is not recorded."""
    record = recorded(folder)
    return float(record.seconds or 0) if record else 0.0


def _is_object(file: Path) -> bool:
    """Return whether a JSON file holds an object; False if it is missing or damaged."""
    try:
        return isinstance(read_json(file), dict)
    except UNREADABLE:
        return False


def outcome(folder: Path, code: int | None) -> str:
    """Return a job's result, or its exit code and last line."""
    if code == 0:
        return result(folder)
    if code is None:
        return "ended with the process that ran it"
    if code in SAVED:
        saved = (folder / "checkpoints" / "last.ckpt").exists()
        return f"interrupted, {'saved' if saved else 'before its first checkpoint'}"
    return f"{f'killed by signal {-code}' if code < 0 else f'exit {code}'}: {last_words(folder)}"


def has_result(folder: Path) -> bool:
    """Return whether a job's results are complete: those of a training, or of the learning-rate finder."""
    trained = _is_object(folder / "metrics.json")
    whole = all((folder / name).exists() for name in ("history.csv", "predictions.csv"))
    return (trained and whole) or _is_object(folder / "lr_finder.json")


def last_words(folder: Path) -> str:
    """Return the last line of a job's ``console.log``."""
    try:
        lines = (folder / "console.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:MOST_SAID] if lines else "printed nothing"


def result(folder: Path) -> str:
    """Return the result of a successful job as text: a val accuracy, or a learning rate."""
    file = folder / "lr_finder.json"
    if not file.exists():
        return f"{100 * read_json(folder / 'metrics.json')['accuracy']:.2f} %"
    contents = read_json(file)
    rate = contents["lowest_loss_at"]
    return f"no curve: {contents['ended']}" if rate is None else f"lowest loss at a rate of {rate:.1e}"


# --- running several jobs -------------------------------------------------------------------------------------------


class Watch:
    """Callbacks of ``run``; these do nothing."""

    def began(self, job: Job) -> None:
        """Called when a job has started."""

    def polled(self, running: Sequence[Job]) -> None:
        """Called at every check of the processes with the running jobs; may ``terminate`` some."""

    def ended(self, job: Job) -> None:
        """Called when a job has ended, successful or not."""

    def stopping(self, running: Sequence[Job], number: int) -> None:
        """Called when a signal has arrived and the jobs are about to be ended."""


def in_order(waiting: deque[Job]) -> Callable[[], Job | None]:
    """Return a function that pops the next waiting job, or returns None."""
    return lambda: waiting.popleft() if waiting else None


def run(
    next_job: Callable[[], Job | None],
    slots: Sequence[Mapping[str, str]],
    watch: Watch,
    servers: ForkServers | None = None,
) -> None:
    """Run jobs, one in each slot, until none is left.

    SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 are passed on to the jobs, which save themselves. A second signal
    kills them, and so does the end of ``GRACE_S``.

    Args:
        next_job: function that returns the next job for a free slot, or None for no job now. It is called again at
            every check, until it returns None while no job runs.
        slots: variables that each slot adds to its job's environment.
        watch: callbacks.
        servers: start the jobs by forks; None starts a new interpreter for each.

    Raises:
        Interrupted: a signal arrived; no job runs any more.
    """
    running: dict[int, Job] = {}  # index of the slot -> job
    with _signals() as arrived:
        try:
            while not arrived:
                for index, slot in enumerate(slots):
                    if index not in running and (job := next_job()) is not None:
                        _begin(job, slot, watch, servers)
                        running[index] = job
                if not running:
                    return
                _wait(running, watch)
            _stop(running, watch, arrived)
        finally:  # an error in this process leaves no job running either
            _stop(running, Watch(), [*arrived, signal.SIGTERM][:1])
    raise Interrupted(f"interrupted by {signals.name(arrived[0])}; all jobs have ended", signals.exit_code(arrived[0]))


def _begin(job: Job, slot: Mapping[str, str], watch: Watch, servers: ForkServers | None) -> None:
    try:
        job.start(slot, servers)
    except OSError as error:
        job.fail(f"{error.filename or 'no process can be started'}: {error.strerror or error}")
    watch.began(job)


def _wait(running: dict[int, Job], watch: Watch) -> None:
    """Wait until the next check, and remove ended jobs from ``running``."""
    time.sleep(POLL_S)
    watch.polled(list(running.values()))
    for index, job in list(running.items()):
        if job.poll() is not None:
            del running[index]
            watch.ended(job)


def _stop(running: dict[int, Job], watch: Watch, arrived: Sequence[int]) -> None:
    """Pass a signal on and wait for the jobs' end; kill them after a second signal or after ``GRACE_S``."""
    watch.stopping(list(running.values()), arrived[0])
    for job in running.values():
        job.terminate(signal.SIGINT if arrived[0] == signal.SIGINT else signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while running:
        if len(arrived) > 1 or time.monotonic() > deadline:
            for job in running.values():
                job.terminate(signal.SIGKILL)
        _wait(running, watch)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Yield a list that collects arriving signals to end; outside the main thread it stays empty."""
    arrived: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    with signals.handled(receive):
        yield arrived
