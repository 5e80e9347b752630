"""Jobs: ``python -m fer.train`` as processes of their own, run side by side. One that dies takes nothing with it.

A job's output goes to ``console.log`` in its folder; ``job.json`` says what it was told, and how it ended.
"""

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from fer.config.conf import quoted
from fer.config.errors import Interrupted
from fer.data.locate import VARIABLE, locate
from fer.system.files import read_history, write_json

try:
    import fcntl
except ImportError:  # Windows has no such locks
    HELD = None
else:
    HELD = fcntl.LOCK_EX | fcntl.LOCK_NB

log = logging.getLogger(__name__)

POLL_S = 0.1  # seconds between looks at the processes
GRACE_S = 120.0  # seconds in which a job that was told to end may save itself: a batch, or a validation
MOST_SAID = 400  # characters of a failed job's last line
SAVED = (130, 143)  # exit codes of a run that a signal ended, and that has saved itself
WITH_PARENT = 1  # Linux's PR_SET_PDEATHSIG: a job must not outlive whoever started it, even one that was killed
# becomes a command that ends with its parent; Popen's preexec_fn would do the same, but may deadlock with threads
LAUNCHER = f"""
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl({WITH_PARENT}, signal.SIGTERM)
if os.getppid() != int(parent):
    sys.exit(128 + signal.SIGTERM)
os.execv(command[0], command)
"""


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Args:
        epochs: done, those before it was resumed included.
        accuracy: on val after the last of them, 0 to 1.
        best: val accuracy so far.
        pace: mean seconds of an epoch.
        at: when the last epoch ended, in seconds of ``time.time()``.
    """

    epochs: int
    accuracy: float
    best: float
    pace: float
    at: float


@dataclass(eq=False)
class Job:
    """One run as a process of its own.

    Args:
        folder: the run's; made when the job starts.
        overrides: what it is told.
        environment: what its process's environment holds beside this one's, as ``environment`` gives it.
        identity: of its configuration, as ``fer.runs.run_folder`` gives it.
        epochs: planned.
        more: Hydra's own overrides that it needs as well, such as a search path.
        resume: go on with the run that the folder holds.
    """

    folder: Path
    overrides: Sequence[str]
    environment: Mapping[str, str]
    identity: str = ""
    epochs: int = 1
    more: Sequence[str] = ()
    resume: bool = False
    code: int | None = field(default=None, init=False)  # exit code, once it has ended; -n: killed by signal n
    seconds: float = field(default=0.0, init=False)  # it took, earlier parts of a resumed run included
    started: float = field(default=0.0, init=False)  # when, in seconds of time.time()
    reason: str = field(default="", init=False)  # why it failed, where neither exit code nor console.log tell
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _before: float = field(default=0.0, init=False)
    _told: int = field(default=0, init=False)
    _seen: tuple[int, Progress | None] = field(default=(-1, None), init=False)

    def start(self, place: Mapping[str, str] | None = None) -> None:
        """Start the process, in a process group of its own: Ctrl-C reaches it through ``terminate`` alone.

        Args:
            place: what the environment says of where the job is to run, as ``fer.system.slots`` gives it.

        Raises:
            OSError: the folder cannot be written, a process still runs in it, or none can be had.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        own = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
        self._before = (recorded(self.folder) or {}).get("seconds") or 0.0 if self.resume else 0.0
        self.started = time.time()
        self.record()
        with open(self.folder / "console.log", "ab" if self.resume else "wb") as console:
            hold(console)
            self._process = subprocess.Popen(
                with_parent(self._command()),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**own, **self.environment, **(place or {})},
                process_group=0,
            )

    def poll(self) -> int | None:
        """Return the exit code if the job has ended, else None."""
        if self._process is not None and self.code is None:
            code = self._process.poll()
            if code is not None:
                unheard = code < 0 and -code == self._told  # it did not listen to signals yet: nothing was to be saved
                self.end(128 + self._told if unheard and self._told != signal.SIGKILL else code)
        return self.code

    def terminate(self, number: int = signal.SIGTERM) -> None:
        """Tell the job to save itself and end, by a signal; ``SIGKILL`` gives it no time to."""
        if self._process is not None and self.poll() is None:
            self._told = number
            self._process.send_signal(number)

    def fail(self, reason: str) -> None:
        """Let the job have failed without a process, for a reason that its ``console.log`` keeps."""
        self.reason, self.started = reason, time.time()
        with suppress(OSError):  # which may be the reason
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "console.log").write_text(f"{reason}\n", encoding="utf-8")
        self.end(1)

    def end(self, code: int) -> None:
        """Note how the job ended; one that ended well without a result, as a plugin's ``exit()`` does, has failed."""
        if code == 0 and not has_result(self.folder):
            code, self.reason = 1, f"ended by itself before it had a result: {last_words(self.folder)}"
        self.code, self.seconds = code, self._before + time.time() - self.started
        self.record()

    def record(self) -> None:
        """Write ``job.json``; its exit code is null while the job runs, and stays so if whoever runs it is killed."""
        contents = {
            "overrides": list(self.overrides),
            "identity": self.identity,
            "exit_code": self.code,
            "seconds": round(self.seconds or self._before, 1),
        }
        try:
            write_json(self.folder / "job.json", contents)
        except OSError as error:  # a full disk must not end the other jobs
            log.warning("%s: %s", error.filename or self.folder, error.strerror or error)

    def progress(self) -> Progress | None:
        """Return how far the job is, by its ``history.csv``; None before the first epoch's end."""
        file = self.folder / "history.csv"
        try:
            written = file.stat()
            if written.st_mtime_ns != self._seen[0]:
                self._seen = written.st_mtime_ns, _progress(read_history(file), written.st_mtime)
        except (OSError, LookupError, ValueError, ZeroDivisionError):  # not there yet, or no training's
            pass
        return self._seen[1]

    def outcome(self) -> str:
        """Return how the job ended, in words."""
        return self.reason or outcome(self.folder, self.code)

    def _command(self) -> list[str]:
        folder = quoted(str(self.folder.absolute()))
        told = [f"resume={folder}"] if self.resume else [*self.overrides, *self.more, f"hydra.run.dir={folder}"]
        return [sys.executable, "-m", "fer.train", *told]


def _progress(rows: Sequence[Mapping[str, float]], at: float) -> Progress:
    accuracies = [row["accuracy/val"] for row in rows]
    pace = sum(row["seconds"] for row in rows) / len(rows)
    return Progress(len(rows), accuracies[-1], max(accuracies), pace, at)


def end_with_parent() -> None:
    """Let this process end with the one that started it, even if that is killed; off Linux nothing happens."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(WITH_PARENT, signal.SIGTERM)


def with_parent(command: Sequence[str]) -> list[str]:
    """Return a command line that runs ``command`` until it ends or this process does; off Linux ``command`` itself."""
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command]


def hold(file: IO[Any]) -> None:
    """Lock a file, such as a job's ``console.log``, until every process that has got it open from here has ended.

    Raises:
        BlockingIOError: another one holds it.
    """
    if HELD is None:
        return
    try:
        fcntl.flock(file, HELD)
    except BlockingIOError as error:
        raise BlockingIOError(error.errno, "a process still writes it", file.name) from error


def lives(folder: Path) -> bool:
    """Return whether a process still writes a job's ``console.log``, as one whose sweep was killed a moment ago may."""
    try:
        with open(folder / "console.log", "rb") as console:
            hold(console)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def environment(data_path: str | None) -> dict[str, str]:
    """Return what the environment of jobs adds to this one's: the data that were found, once for all of them.

    Drawn faces never stand in: several runs are compared, and must not compare something else than was meant.

    Args:
        data_path: the configuration's ``data.path``.

    Raises:
        FerError: there are no data.
    """
    found, _ = locate(data_path, drawn_faces_allowed=False)
    return {} if data_path is not None else {VARIABLE: found}


# --- how a job ended ------------------------------------------------------------------------------------------------


def recorded(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's ``job.json`` holds; None if there is none, or none that can be read."""
    contents = _object(folder / "job.json")
    if contents is None:
        return None
    code, seconds = contents.get("exit_code"), contents.get("seconds")
    sound = isinstance(code, int | None) and isinstance(seconds, int | float | None)
    return contents if sound else None


def _object(file: Path) -> dict[str, Any] | None:
    """Return the object that a JSON file holds; None if there is none, or none that can be read."""
    try:
        contents = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return contents if isinstance(contents, dict) else None


def outcome(folder: Path, code: int | None) -> str:
    """Return what a job has found, or the last thing it said."""
    if code == 0:
        return result(folder)
    if code is None:
        return "cut off with the process that ran it"
    if code in SAVED:
        kept = (folder / "checkpoints" / "last.ckpt").exists()
        return f"interrupted, {'saved' if kept else 'before anything was to be saved'}"
    return f"{f'killed by signal {-code}' if code < 0 else f'exit {code}'}: {last_words(folder)}"


def has_result(folder: Path) -> bool:
    """Return whether a job has found what it was to find, and left it whole."""
    trained = _object(folder / "metrics.json") is not None
    whole = all((folder / name).exists() for name in ("history.csv", "predictions.csv"))
    return (trained and whole) or _object(folder / "lr_finder.json") is not None


def last_words(folder: Path) -> str:
    """Return the last line that a job said."""
    try:
        said = (folder / "console.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        said = []
    return said[-1][:MOST_SAID] if said else "said nothing"


def result(folder: Path) -> str:
    """Return what a job that ended well has found: a val accuracy, or a learning rate."""
    file = folder / "lr_finder.json"
    if not file.exists():
        return f"{100 * json.loads((folder / 'metrics.json').read_text())['accuracy']:.2f} %"
    found = json.loads(file.read_text())
    rate = found["lowest_loss_at"]
    return f"no curve: {found['ended']}" if rate is None else f"lowest loss at a rate of {rate:.1e}"


# --- several of them ------------------------------------------------------------------------------------------------


class Watch:
    """What is told of jobs as they run; does nothing by itself."""

    def began(self, job: Job) -> None:
        """Called when a job has started."""

    def looked(self, running: Sequence[Job]) -> None:
        """Called at every look at the processes, with those that run; may ``terminate`` some."""

    def ended(self, job: Job) -> None:
        """Called when a job has ended, in whatever way."""

    def stopping(self, running: Sequence[Job], number: int) -> None:
        """Called when a signal has come and the jobs are told to end."""


def in_order(waiting: deque[Job]) -> Callable[[], Job | None]:
    """Return what gives ``run`` these jobs, one after the other, and takes them out."""
    return lambda: waiting.popleft() if waiting else None


def run(next_job: Callable[[], Job | None], places: Sequence[Mapping[str, str]], watch: Watch) -> None:
    """Run jobs, one at each place, until there is none left.

    SIGINT, SIGTERM and SIGHUP are passed on to the jobs, which save themselves; a second one kills them, and so does
    the time.

    Args:
        next_job: gives the next job when a place is free; None for none now. It is asked again at every look, until
            it gives None while nothing runs.
        places: for each place, what it adds to a job's environment.
        watch: is told.

    Raises:
        Interrupted: a signal came; no job is left running.
    """
    running: dict[int, Job] = {}  # by place
    with _signals() as came:
        try:
            while not came:
                for place in range(len(places)):
                    if place not in running and (job := next_job()) is not None:
                        _begin(job, places[place], watch)
                        running[place] = job
                if not running:
                    return
                _wait(running, watch)
            _stop(running, watch, came)
        finally:  # a fault of ours leaves none behind either
            _stop(running, Watch(), [*came, signal.SIGTERM][:1])
    raise Interrupted(f"interrupted by {signal.Signals(came[0]).name}; the jobs in hand have ended", 128 + came[0])


def _begin(job: Job, place: Mapping[str, str], watch: Watch) -> None:
    try:
        job.start(place)
    except OSError as error:
        job.fail(f"{error.filename or 'no process can be had'}: {error.strerror or error}")
    watch.began(job)


def _wait(running: dict[int, Job], watch: Watch) -> None:
    """Wait a moment, and take out of ``running`` what has ended."""
    time.sleep(POLL_S)
    watch.looked(list(running.values()))
    for place, job in list(running.items()):
        if job.poll() is not None:
            del running[place]
            watch.ended(job)


def _stop(running: dict[int, Job], watch: Watch, came: Sequence[int]) -> None:
    """Pass a signal on and wait for the jobs to end; kill them after a second one, or when their time is over."""
    watch.stopping(list(running.values()), came[0])
    for job in running.values():
        job.terminate(signal.SIGINT if came[0] == signal.SIGINT else signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while running:
        if len(came) > 1 or time.monotonic() > deadline:
            for job in running.values():
                job.terminate(signal.SIGKILL)
        _wait(running, watch)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Give a list that signals which ask for an end are put into; empty for ever outside the main thread."""
    came: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    wanted = [number for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)) if number]
    heeded = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]  # nohup stays nohup
    before = {number: signal.signal(number, receive) for number in heeded}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
