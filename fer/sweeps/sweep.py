"""A sweep: one command line, several runs, each a process of its own; at the end what came out, what failed and why.

A live line or, where there is no terminal, a line when a job begins and one when it ends. ``sweep.json`` keeps what was
asked for, ``sweep.log`` what was said.
"""

import logging
import shlex
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fer.config import hydra
from fer.config.conf import quoted
from fer.config.errors import Interrupted
from fer.sweeps import jobs, status
from fer.sweeps.jobs import Job
from fer.sweeps.plan import FILE, Asked, Plan, finished, planned, read, stored
from fer.system.files import write_json
from fer.system.slots import Places, places
from fer.system.terminal import logged, shown

log = logging.getLogger(__name__)


def run(arguments: Sequence[str]) -> int:
    """Run the sweep that a command line asks for, and return the exit code: 1 if any job failed.

    Raises:
        FerError: a faulty command line; configurations that are all refused; no data.
        Interrupted: a signal came; the jobs have saved themselves.
    """
    asked = read(arguments)
    plan = planned(asked)
    waiting = deque(job for job in plan.jobs if job.code is None and not job.reason)
    # for all jobs, not for what is left of them: the bits depend on the number of threads
    where = places(asked.settings.jobs, len(plan.jobs), plan.accelerators)
    board = status.Scoreboard(plan.jobs, waiting, len(where.environments))
    asked.folder.mkdir(parents=True, exist_ok=True)
    file = asked.folder / "sweep.log"
    with open(file, "ab") as held:
        jobs.hold(held)  # one process works on a sweep at a time
        write_json(asked.folder / FILE, {"schema": 1, "arguments": list(asked.overrides), "jobs": _kept(plan.jobs)})
        with logged(file):
            announce(plan, asked.folder, len(waiting), "by Hydra's launcher" if asked.foreign else where.told)
            _work(asked, plan, waiting, where, board)
        with logged(file):  # Hydra's launchers change where it goes
            return conclude(plan.jobs, board.names, asked.folder)


def _work(asked: Asked, plan: Plan, waiting: deque[Job], where: Places, board: status.Scoreboard) -> None:
    """Run what is waiting, side by side, or where Hydra's launcher says; what is refused has failed.

    Raises:
        Interrupted: a signal came; the table has been printed.
    """
    for job in plan.jobs:
        if job.reason:
            job.fail(job.reason)
            board.ended(job)
    board.line.give_way()
    try:
        if asked.foreign:
            launch(asked, waiting, board)
        else:
            jobs.run(jobs.in_order(waiting), where.environments, board)
    except Interrupted as error:
        board.line.end()
        log.info("\n%s\n", status.job_table(plan.jobs, board.names))
        raise Interrupted(f"{error}; go on with: {_resume_line(asked.folder)}", error.code) from None
    finally:
        board.line.end()


def announce(plan: Plan, folder: Path, waiting: int, where: str) -> None:
    """Say what is going to be done, and what is not."""
    done = sum(job.code == 0 for job in plan.jobs)
    going_on = sum(job.resume for job in plan.jobs)
    counts = _count(plan.jobs)
    if done or going_on or plan.again:
        counts += f": {done} done, {going_on} to go on with, {waiting - going_on} to run"
    log.info("sweep: %s%s: %s", counts, f", {where}" if waiting else "", shown(folder))
    if plan.doubles:
        log.info("  %d more compute the same as others, and are done once", plan.doubles)
    for before, job in plan.again:
        old, new = before.name, job.folder.name
        log.info("  job %s left nothing to go on from: it is job %s now, and its old folder stays as it is", old, new)
    if plan.unasked:
        log.info("  %d finished jobs of this folder are not asked for now; they stay in the leaderboard", plan.unasked)
    for cut_off in plan.saved:
        log.info(
            "  job %s was interrupted and is not asked for now; python -m fer.train resume=%s goes on with it",
            cut_off.name, shlex.quote(str(shown(cut_off))),
        )  # fmt: skip


# --- Hydra's other launchers ----------------------------------------------------------------------------------------


def _kept(planned_jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Return what ``sweep.json`` holds of the jobs: all that another process needs to run one."""
    return [
        {
            "folder": str(job.folder),
            "overrides": list(job.overrides),
            "identity": job.identity,
            "epochs": job.epochs,
            "more": list(job.more),
            "environment": dict(job.environment),
            "resume": job.resume,
        }
        for job in planned_jobs
    ]


def launch(asked: Asked, waiting: Sequence[Job], watch: jobs.Watch) -> None:
    """Let one of Hydra's launchers run the jobs: it says how many run at once, and where.

    Raises:
        Interrupted: SIGINT came.
    """
    if not waiting:
        return
    numbers = [kept["folder"] for kept in stored(asked.folder)["jobs"]]
    own = [
        *(text for text in asked.hydra if not text.startswith("hydra.searchpath=")),
        f"hydra.sweep.dir={quoted(str(asked.folder))}",
        "hydra.sweep.subdir='.launcher/${hydra.job.num}'",  # Hydra writes there before a job begins
        "hydra.output_subdir=null",
        f"sweep.job={','.join(str(numbers.index(str(job.folder))) for job in waiting)}",
    ]
    try:
        hydra.run(run_one, ["-m", *own])
    except KeyboardInterrupt:
        raise Interrupted("interrupted by SIGINT; the jobs in hand save themselves", 130) from None
    finally:
        for job in waiting:
            record = jobs.recorded(job.folder) or {}
            job.code, job.seconds = record.get("exit_code"), float(record.get("seconds") or 0)
            watch.ended(job)


def run_one(config: DictConfig) -> int | None:
    """What Hydra's launchers call, anywhere: run one job of ``sweep.json``."""
    held = stored(Path(HydraConfig.get().sweep.dir))["jobs"][config.sweep.job]
    job = Job(**{**held, "folder": Path(held["folder"])})
    jobs.run(jobs.in_order(deque([job])), [{}], jobs.Watch())
    return job.code


# --- the end --------------------------------------------------------------------------------------------------------


def conclude(planned_jobs: Sequence[Job], names: dict[Job, str], folder: Path) -> int:
    """Say what came out and where it lies, and return the exit code."""
    failed = [job for job in planned_jobs if job.code != 0]
    rates = [job for job in planned_jobs if job.code == 0 and status.found_rate(job.folder)]
    if rates:
        log.info("\n%s", status.job_table(rates, names))
    trained = [entry for entry in finished(folder) if not status.found_rate(entry)]
    paths = []
    if trained:
        from fer.reports.compare import leaderboard  # reads every run's predictions

        published = leaderboard.publish(trained, folder)
        log.info("\n%s", published.text)
        paths = [published.page, published.table, published.markdown]
    if failed:
        log.info("\n%s", status.failure_table(failed, names))
    log.info("\nsweep: %s, %d failed: %s", _count(planned_jobs), len(failed), shown(folder))
    for path in paths:
        log.info("  %s", shown(path))
    if failed:
        log.info("what failed is done again by: %s", _resume_line(folder))
    return 1 if failed else 0


def _count(held: Sequence[Job]) -> str:
    return f"{len(held)} job{'' if len(held) == 1 else 's'}"


def _resume_line(folder: Path) -> str:
    return f"python -m fer.train -m sweep.resume={shlex.quote(str(shown(folder)))}"
