"""``status.json``: what became of a run, for those who did not watch it.

The process of a run writes it at its beginning, at each phase and at its end. A process that is killed cannot, so that
"running" holds only while a process holds the lock on the run's ``train.log``.
"""

import json
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from fer.system import records
from fer.system.files import UNREADABLE, write_json
from fer.system.locks import HELD, is_held

FILE = "status.json"
LOG = "train.log"  # the process of the run keeps its lock
MOST_BYTES, MOST_SAID = 65_536, 400  # a larger file is no status; characters of a reason

State = Literal["running", "finished", "interrupted", "failed", "nan", "out of memory"]
Phase = Literal["preparing", "training", "scoring"]
WORDS: dict[State, str] = {"nan": "ended by NaN or infinity", "out of memory": "ran out of memory"}


@dataclass(frozen=True)
class Status:
    """The state of a run.

    Args:
        state: "running", or how the latest process ended.
        phase: what that process did last: "scoring" includes the report.
        host: name of its machine.
        pid: its number there.
        began: its start, UTC.
        ended: its end, UTC; None while it runs, or after it was killed.
        reason: the message of an end without success.
        before: the end of the process before it, in words, if the run was resumed.
    """

    state: State
    phase: Phase
    host: str
    pid: int
    began: str
    ended: str | None = None
    reason: str = ""
    before: str = ""

    def after(self, state: State, reason: str = "") -> "Status":
        """Return the status after the process's end."""
        return replace(self, state=state, ended=_now(), reason=_one_line(reason))


def running(before: str = "") -> Status:
    """Return the status of this process at its beginning."""
    return Status("running", "preparing", socket.gethostname(), os.getpid(), _now(), before=before)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _one_line(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())[:MOST_SAID]


def write(folder: Path, status: Status) -> None:
    """Write a run's ``status.json``, whole or not at all."""
    write_json(folder / FILE, records.plain(status))


def conclude(folder: Path, status: Status) -> None:
    """Write the status of a process that ends; on a full disk over the previous one, whose block it fits into."""
    try:
        write(folder, status)
    except OSError:
        with suppress(OSError), open(folder / FILE, "r+b") as stream:
            stream.write(json.dumps(records.plain(status)).encode())
            stream.truncate()


def read(folder: Path) -> Status | None:
    """Return a run's status; None if an older version made the run, or the file is damaged."""
    file = folder / FILE
    try:
        if not file.is_file() or file.stat().st_size > MOST_BYTES:
            return None
        status = records.read(Status, json.loads(file.read_text(encoding="utf-8")))
        if status.state not in get_args(State) or status.phase not in get_args(Phase):
            return None
        host, began, reason, before = map(_one_line, (status.host, status.began, status.reason, status.before))
        return replace(status, host=host, began=began, reason=reason, before=before, pid=int(status.pid))
    except UNREADABLE:
        return None


def enter(folder: Path, phase: Phase) -> None:
    """Record the phase that the run in a folder has reached."""
    status = read(folder)
    if status is not None and status.phase != phase:
        write(folder, replace(status, phase=phase))


def is_running(folder: Path) -> bool:
    """Return whether a process of this machine works in a run's folder."""
    return is_held(folder / LOG)


def in_words(folder: Path) -> str:
    """Return what became of a run, in one line; empty for a run without a status."""
    status = read(folder)
    if status is None:
        return ""
    if status.state == "running":
        return _running(folder, status)
    if status.state == "finished":
        return status.state
    said = f": {status.reason}" if status.reason else ""
    return f"{WORDS.get(status.state, status.state)} while {status.phase}{said}"


def _running(folder: Path, status: Status) -> str:
    process = f"process {status.pid} on {status.host}"
    if is_running(folder):
        return f"running ({status.phase}), {process} since {status.began}"
    if status.host == socket.gethostname() and HELD is not None:
        return f"ended without a word while {status.phase}: {process} is gone, killed perhaps"
    return f"running ({status.phase}) when last heard of, {process} since {status.began}"
