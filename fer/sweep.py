"""A sweep's jobs, each a process of its own: one that is killed or runs out of memory takes nothing with it.

Hydra composes the jobs and its launcher says how many run at once; a job's process is ``python -m fer.train`` with the
job's overrides. Its output goes to ``console.log`` in the job's folder, its end to ``job.json``.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fer.data.locate import VARIABLE, locate
from fer.errors import FerError, Interrupted
from fer.results import clock, text_table, write_json

log = logging.getLogger(__name__)

finished: list[Path] = []  # folders of the sweeps that ended in this process


class SweepEnd(Callback):
    """Notes where a sweep's jobs lie; launchers that run jobs elsewhere leave no other trace in this process."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra after the last job."""
        finished.append(Path(config.hydra.sweep.dir))


def run_job(overrides: Sequence[str], folder: Path, data_path: str | None) -> int:
    """Run one job as a process of its own and return its exit code.

    Args:
        overrides: the job's.
        folder: the job's.
        data_path: the configuration's ``data.path``; what stands for None is found here, once for all jobs, and never
            drawn faces: a sweep compares, and must not compare something else than was meant.

    Raises:
        FerError: no data.
        Interrupted: a signal came; the job's process has saved and ended.
    """
    found, _ = locate(data_path, drawn_faces_allowed=False)
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    if data_path is None:
        environment[VARIABLE] = found
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fer.train", *overrides, f"hydra.run.dir={quoted(str(folder))}"]
    start = time.perf_counter()
    with open(folder / "console.log", "wb") as console:
        process = subprocess.Popen(command, stdout=console, stderr=subprocess.STDOUT, env=environment)
        code = _wait(process)
    seconds = time.perf_counter() - start
    write_json(folder / "job.json", {"overrides": list(overrides), "exit_code": code, "seconds": round(seconds, 1)})
    log.info("job %s: %s in %s  %s", folder.name, _outcome(folder, code), clock(seconds), " ".join(overrides))
    return code


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a job; Ctrl-C reaches the job as well, which is given the time to save."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise Interrupted("sweep interrupted; the job in hand has saved itself", 130) from None


def report(folder: Path) -> int:
    """Print a sweep's table and return the exit code: 1 if any job failed."""
    rows, failed = [], 0
    for file in sorted(folder.glob("*/job.json"), key=lambda path: (len(path.parent.name), path.parent.name)):
        job = json.loads(file.read_text())
        failed += job["exit_code"] != 0
        rows.append((file.parent.name, _outcome(file.parent, job["exit_code"]), " ".join(job["overrides"])))
    if rows:
        log.info("\n%s\n", text_table(("job", "val accuracy, or why it failed", "overrides"), rows))
    log.info("sweep: %d jobs, %d failed: %s", len(rows), failed, folder)
    return 1 if failed else 0


def _outcome(folder: Path, code: int) -> str:
    """Return a job's val accuracy, or the last thing it said."""
    if code == 0:
        return f"{100 * json.loads((folder / 'metrics.json').read_text())['accuracy']:.2f} %"
    said = (folder / "console.log").read_text(errors="replace").strip().splitlines()
    ended = f"killed by signal {-code}" if code < 0 else f"exit {code}"
    return f"{ended}: {said[-1][:100] if said else 'said nothing'}"


def quoted(value: str) -> str:
    """Return a value as Hydra's grammar takes it whatever characters it holds.

    Raises:
        FerError: it ends in a backslash, which the grammar cannot quote.
    """
    if value.endswith("\\"):
        raise FerError(f"{value}: a path that ends in a backslash cannot be passed to Hydra")
    return "'" + value.replace("'", "\\'") + "'"
