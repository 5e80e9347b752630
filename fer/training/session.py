"""The work of one process in a run's folder.

It covers the lock, ``status.json``, the signals, and what a failure leaves. No torch. A signal during the training is
handled by ``fer.training.callbacks.guards``; before and after it there is nothing to finish first, and the process ends
at once.
"""

import io
import logging
import os
import re
import shlex
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from fer.config.errors import FerError, Interrupted, NotFinite, OutOfMemory
from fer.runs import status
from fer.runs.status import State, Status
from fer.runs.stored import resume_line
from fer.system import ranks, signals
from fer.system.files import remove_parts
from fer.system.locks import hold
from fer.system.terminal import shown

log = logging.getLogger(__name__)

PATIENCE_S = 0.5  # time for another process that asks for a moment whether a lock is taken
CHECKPOINTS = ("checkpoints/last.ckpt", "checkpoints/best.ckpt")
USED = (*CHECKPOINTS, "lr_finder.json")  # files of an earlier run


@contextmanager
def working_in(folder: Path, *, resumed: bool) -> Iterator[None]:
    """Work alone in a run's folder: record begin and end, and raise for every end without a result.

    A folder that this call made is removed if the run is refused before its training.

    Args:
        folder: folder of the run.
        resumed: whether the folder holds a run to go on with.

    Raises:
        FerError: another process works in the folder, or it holds another run, or the run stopped before its end.
        Interrupted: a signal arrived outside the training.
    """
    if not ranks.current().first:
        with _exits_caught(), signals.handled(lambda number, frame: _interrupt(folder, number)), signals.kept():
            yield  # rank 0 alone locks the folder and writes into it
        return
    made = _made(folder)
    with ExitStack() as stack:
        lock = stack.enter_context(_locked(folder))
        if not resumed:
            _refuse_used(folder)
        for inside in (folder, folder / "checkpoints"):
            remove_parts(inside)
        stack.enter_context(_exits_caught())
        stack.enter_context(_threads_quiet())
        stack.enter_context(signals.handled(lambda number, frame: _interrupt(folder, number)))
        before = status.read(folder)
        status.write(folder, status.running(status.in_words(folder)))
        try:
            with signals.kept():
                yield
        except BaseException as error:
            raised = _translated(error, folder)
            _conclude(folder, raised, before, made, lock)
            if raised is error:
                raise
            raise raised from error
        _finish(folder, before, lock)


def _made(folder: Path) -> Path | None:
    """Make a folder, and return the uppermost one that was missing; None if it existed."""
    missing = None
    for candidate in (folder, *folder.parents):
        if candidate.exists():
            break
        missing = candidate
    folder.mkdir(parents=True, exist_ok=True)
    return missing


@contextmanager
def _locked(folder: Path) -> Iterator[io.RawIOBase]:
    with open(folder / status.LOG, "ab", buffering=0) as stream:  # a full disk must not raise again as it is closed
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                hold(stream)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FerError(_occupied(folder)) from None
                time.sleep(PATIENCE_S / 10)
        yield stream


def _occupied(folder: Path) -> str:
    state = status.in_words(folder) or "its process has not said which it is"
    path = shown(folder)
    return f"{path}: another process works in this folder ({state}); wait for its end, or choose another folder"


def refuse_unsaved(folder: Path, given: str) -> None:
    """Raise if a run that is to be resumed has no checkpoint.

    Raises:
        FerError: naming what became of the run.
    """
    if any((folder / name).exists() for name in CHECKPOINTS):
        return
    if status.is_running(folder):
        raise FerError(_occupied(folder))
    if (folder / "lr_finder.json").exists():
        raise FerError(f"resume={given}: lr_finder=true trains nothing that could be resumed; name another run")
    words = status.in_words(folder)
    before = f" ({words})" if words else ""
    raise FerError(f"resume={given}: no checkpoint was written{before}; begin again with the run's first command")


def _refuse_used(folder: Path) -> None:
    if any((folder / name).exists() for name in USED):
        path, remedy = shown(folder), "choose another folder"
        if any((folder / name).exists() for name in CHECKPOINTS):
            remedy += f", or resume it with resume={shlex.quote(str(path))}"
        raise FerError(f"--out {path}: holds a run already; {remedy}")


# --- ends -----------------------------------------------------------------------------------------------------------


@contextmanager
def _exits_caught() -> Iterator[None]:
    """Make ``os._exit`` an ordinary ``SystemExit`` in this process; its forked children end as they ask to."""
    leave, owner = os._exit, os.getpid()

    def exit_in_order(status: int) -> NoReturn:
        if os.getpid() != owner:
            leave(status)
        raise SystemExit(status)

    os._exit = exit_in_order
    try:
        yield
    finally:
        os._exit = leave


@contextmanager
def _threads_quiet() -> Iterator[None]:
    """Print no traceback of TensorBoard's thread on a full disk: this thread raises the same error as it flushes."""
    before = threading.excepthook

    def hook(given: threading.ExceptHookArgs) -> None:
        if not isinstance(given.exc_value, OSError):
            before(given)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _interrupt(folder: Path, number: int, frame: FrameType | None = None) -> NoReturn:
    """End at once by a signal, where no step is in hand."""
    raise Interrupted(f"interrupted by {signals.name(number)}; {remedy(folder)}", signals.exit_code(number))


def remedy(folder: Path) -> str:
    """Return how to go on with a run that was interrupted."""
    if any((folder / name).exists() for name in CHECKPOINTS):
        return f"resume with: {resume_line(folder, folder)}"
    return "it has no checkpoint yet: begin again with the same command"


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out: Python's, numpy's, torch's on a CPU or a GPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, on a GPU
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))  # torch's, on a CPU
    )


def memory_in_words(error: BaseException) -> str:
    """Return in words that memory ran out, and how much was asked for if the error says so."""
    text = str(error)
    if match := re.search(r"allocate ([\d.]+) ?(bytes|[KMGT]i?B)", text):  # numpy's, and torch's on a CPU and a GPU
        amount, unit = match.groups()
        return f"out of memory: {float(amount) / 1e9:,.1f} GB" if unit == "bytes" else f"out of memory: {amount} {unit}"
    return f"out of memory{': ' if text else ''}{' '.join(text.split())[:200]}"


def _translated(error: BaseException, folder: Path) -> BaseException:
    """Return the error that is reported in place of an error of Python."""
    if isinstance(error, SystemExit):
        return FerError(
            f"the run ended early: the network, a plugin or a library called exit({error.code}); remove the call; "
            f"{remedy(folder)}"
        )
    if ran_out_of_memory(error):
        return OutOfMemory(f"{memory_in_words(error)}; lower data.batch_size")
    if isinstance(error, OSError) and error.filename is None and error.errno is not None:  # TensorBoard's thread, logs
        return FerError(f"{shown(folder)}: {error.strerror}; {remedy(folder)}")
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(f"interrupted by SIGINT; {remedy(folder)}", 130)
    return error


def _finish(folder: Path, before: Status | None, lock: io.RawIOBase) -> None:
    """Record the end of a run that has its results; one that had them before keeps its record."""
    now = status.read(folder)
    if before is not None and before.state == "finished" and now is not None and now.phase == "preparing":
        status.write(folder, before)
    else:
        _end(folder, lock, "finished")


def _conclude(folder: Path, error: BaseException, before: Status | None, made: Path | None, lock: io.RawIOBase) -> None:
    """Record an end without success; a run that was refused leaves its folder as it was."""
    state = _state(error)
    now = status.read(folder)
    if state == "failed" and isinstance(error, FerError) and now is not None and now.phase == "preparing":
        if made is not None:
            _unmake(folder, made)
            return
        if before is not None:
            with suppress(OSError):
                status.write(folder, before)
            return
    reason = str(error) if isinstance(error, FerError | Interrupted) else f"{type(error).__name__}: {error}"
    _end(folder, lock, state, reason)


def _unmake(folder: Path, made: Path) -> None:
    """Remove a folder, and those around it up to ``made`` that are empty: another run may have begun in one."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        while folder != made:
            folder = folder.parent
            folder.rmdir()


def _state(error: BaseException) -> State:
    kinds: dict[type[BaseException], State] = {
        Interrupted: "interrupted",
        NotFinite: "nan",
        OutOfMemory: "out of memory",
    }
    return next((state for kind, state in kinds.items() if isinstance(error, kind)), "failed")


def _end(folder: Path, lock: io.RawIOBase, state: State, reason: str = "") -> None:
    """Write the end into ``status.json``, and as the last line of ``train.log``."""
    ended = (status.read(folder) or status.running()).after(state, reason)
    status.conclude(folder, ended)
    with suppress(OSError):  # a full disk may be the reason of the end
        lock.write(f"status: {status.in_words(folder)}\n".encode())
