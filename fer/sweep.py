"""A sweep's jobs, each a process of its own: one that is killed or runs out of memory takes nothing with it.

Hydra composes the jobs and its launcher says how many run at once; a job's process is ``python -m fer.train`` with the
job's overrides. Its output goes to ``console.log`` in the job's folder, its end to ``job.json``.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fer.configuration import quoted
from fer.data.locate import VARIABLE, locate
from fer.errors import FerError, Interrupted
from fer.results import clock, text_table, write_json

log = logging.getLogger(__name__)

MOST_SAID = 400  # characters of a failed job's last line

folders: list[Path] = []  # of the sweeps that began in this process


class SweepBegin(Callback):
    """Notes where a sweep's jobs lie; launchers that run jobs elsewhere leave no other trace in this process."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before the first job."""
        folders.append(Path(config.hydra.sweep.dir))


def run_job(overrides: Sequence[str], more: Sequence[str], folder: Path, data_path: str | None) -> int:
    """Run one job as a process of its own and return its exit code.

    Args:
        overrides: the job's.
        more: Hydra's own overrides that the job needs as well.
        folder: the job's.
        data_path: the configuration's ``data.path``; what stands for None is found here, once for all jobs, and never
            drawn faces: a sweep compares, and must not compare something else than was meant.

    Raises:
        Interrupted: a signal came; the job's process has saved and ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start, code = time.perf_counter(), 1
    try:
        command = [sys.executable, "-m", "fer.train", *overrides, *more, f"hydra.run.dir={quoted(str(folder))}"]
        code = _run(command, _environment(data_path), folder / "console.log")
    except FerError as error:
        (folder / "console.log").write_text(f"{error}\n", encoding="utf-8")
    except Interrupted as error:
        code = error.code
        raise
    finally:
        seconds = time.perf_counter() - start
        write_json(folder / "job.json", {"overrides": list(overrides), "exit_code": code, "seconds": round(seconds, 1)})
        log.info("job %s (%s)  %s: %s", folder.name, clock(seconds), " ".join(overrides), _outcome(folder, code))
    return code


def _environment(data_path: str | None) -> dict[str, str]:
    """Return a job's environment, which names the data that were found."""
    found, _ = locate(data_path, drawn_faces_allowed=False)
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    return environment if data_path is not None else {**environment, VARIABLE: found}


def _run(command: Sequence[str], environment: dict[str, str], console: Path) -> int:
    """Run a command to its end, and return its exit code.

    Ctrl-C reaches the process as well, SIGTERM is passed on; either way it is given the time to save.
    """
    with open(console, "wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    with _terminating():
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise Interrupted("sweep interrupted; the job in hand has saved itself", 130) from None
        except Interrupted:
            process.terminate()
            process.wait()
            raise


@contextmanager
def _terminating() -> Iterator[None]:
    """Turn SIGTERM into ``Interrupted``, where signals can be listened to: in the main thread."""

    def receive(number: int, frame: FrameType | None) -> None:
        raise Interrupted("sweep ended by SIGTERM; the job in hand has saved itself", 128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def report(folder: Path) -> int:
    """Print a sweep's table and return the exit code: 1 if any job failed."""
    rows, failed = [], 0
    for file in sorted(folder.rglob("job.json"), key=lambda path: (len(path.parent.name), path.parent.name)):
        job = json.loads(file.read_text())
        failed += job["exit_code"] != 0
        rows.append((file.parent.name, _outcome(file.parent, job["exit_code"]), " ".join(job["overrides"])))
    if rows:
        log.info("\n%s\n", text_table(("job", "val accuracy, or what else came out", "overrides"), rows))
    log.info("sweep: %d jobs, %d failed: %s", len(rows), failed, folder)
    return 1 if failed else 0


def _outcome(folder: Path, code: int) -> str:
    """Return what a job has found, or the last thing it said."""
    if code == 0:
        return _result(folder)
    said = (folder / "console.log").read_text(errors="replace").strip().splitlines()
    ended = f"killed by signal {-code}" if code < 0 else "interrupted" if code in (130, 143) else f"exit {code}"
    return f"{ended}: {said[-1][:MOST_SAID] if said else 'said nothing'}"


def _result(folder: Path) -> str:
    """Return what a job that ended well has found: a val accuracy, or a learning rate."""
    file = folder / "lr_finder.json"
    if not file.exists():
        return f"{100 * json.loads((folder / 'metrics.json').read_text())['accuracy']:.2f} %"
    found = json.loads(file.read_text())
    rate = found["suggestion"]
    return f"no rate suggested: {found['reason']}" if rate is None else f"suggested optimizer.lr={rate:.1e}"
