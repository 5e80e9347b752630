"""A sweep: one command line, several runs.

Each run is a child process. A leaderboard and the failures close the sweep. A terminal shows a live line; elsewhere
each job's start and end is a line. ``sweep.json`` keeps the command line and the jobs, ``sweep.log`` the output.
"""

import logging
import shlex
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fer.config import hydra
from fer.config.conf import quoted
from fer.config.errors import FerError, Interrupted
from fer.config.trust import again
from fer.runs.stored import resume_line
from fer.sweeps import jobs, status
from fer.sweeps.fork_server import servers_for
from fer.sweeps.jobs import Job, JobRecord
from fer.sweeps.plan import (
    FILE,
    Entry,
    Plan,
    SweepRecord,
    SweepRequest,
    continued,
    finished,
    planned,
    read,
    record_of,
    stored,
)
from fer.system import ranks, records
from fer.system.files import why, write_json
from fer.system.locks import hold
from fer.system.slots import Slots, slots
from fer.system.terminal import logged, shown

log = logging.getLogger(__name__)


def run(arguments: Sequence[str]) -> int:
    """Run the sweep of a command line, and return the exit code: 1 if any job failed.

    Raises:
        FerError: several processes were started, the command line is faulty, all configurations are refused, or no
            data are found.
        Interrupted: a signal arrived; the jobs have saved themselves.
    """
    if ranks.current().several:  # each process would run all of it
        raise FerError("-m: a sweep starts the processes of its runs itself; start it without torchrun or srun")
    request = read(arguments)
    plan = planned(request)
    waiting = deque(job for job in plan.jobs if job.code is None and not job.reason)
    # for all jobs, not for the remaining ones: the bits depend on the number of threads
    job_slots = slots(request.settings.jobs, len(plan.jobs), plan.accelerators, plan.devices)
    board = status.Scoreboard(plan.jobs, waiting, len(job_slots.environments))
    request.folder.mkdir(parents=True, exist_ok=True)
    file = request.folder / "sweep.log"
    with open(file, "ab") as lock:
        hold(lock)  # one process works on a sweep at a time
        record = SweepRecord(arguments=tuple(request.overrides), jobs=tuple(map(Entry.for_job, plan.jobs)))
        write_json(request.folder / FILE, records.plain(record))
        with logged(file):
            where = "by Hydra's launcher" if request.foreign else job_slots.description
            announce(plan, request.folder, len(waiting), where)
            _work(request, plan, waiting, job_slots, board)
        with logged(file):  # Hydra's launchers change the logging
            return conclude(plan.jobs, board.names, request)


def _work(request: SweepRequest, plan: Plan, waiting: deque[Job], job_slots: Slots, board: status.Scoreboard) -> None:
    """Run the waiting jobs in slots or by Hydra's launcher; refused jobs have failed.

    Raises:
        Interrupted: a signal arrived; the table has been printed.
    """
    for job in plan.jobs:
        if job.reason:
            job.fail(job.reason)
            board.ended(job)
    board.line.give_way()
    try:
        if request.foreign:
            launch(request, waiting, board)
        else:
            with servers_for(job_slots) as servers:
                jobs.run(jobs.in_order(waiting), job_slots.environments, board, servers)
    except Interrupted as error:
        board.line.end()
        log.info("\n%s\n", status.job_table(plan.jobs, board.names))
        raise Interrupted(f"{error}; resume with: {_resume_line(request)}", error.code) from None
    finally:
        board.line.end()


def announce(plan: Plan, folder: Path, waiting: int, where: str) -> None:
    """Print the numbers of jobs to run, to resume and done, and notes about special ones."""
    done = sum(job.code == 0 for job in plan.jobs)
    resumed = sum(job.resume for job in plan.jobs)
    counts = _count(plan.jobs)
    refused = sum(bool(job.reason) for job in plan.jobs)
    if done or resumed or refused or plan.again:
        counts += f": {done} done, {resumed} to resume, {waiting - resumed} to run"
        counts += f", {refused} refused" if refused else ""
    log.info("sweep: %s%s: %s", counts, f", {where}" if waiting else "", shown(folder))
    if plan.doubles:
        log.info("  %d more jobs compute the same as others, and run once", plan.doubles)
    for before, job in plan.again:
        log.info(
            "  job %s failed or has no checkpoint: it starts anew as job %s; its old folder is kept",
            before.name,
            job.folder.name,
        )
    for unknown in plan.unreadable:
        log.warning(
            "  %s: no known job, since job.json and .hydra/config.yaml are missing or damaged; not counted, and kept",
            shown(unknown),
        )
    if plan.unasked:
        log.info("  %d finished jobs are not on this command line; they stay in the leaderboard", plan.unasked)
    for cut_off in plan.saved:
        log.info(
            "  job %s was interrupted and is not on this command line; resume it with: %s",
            cut_off.name, resume_line(cut_off, shown(cut_off)),
        )  # fmt: skip


# --- Hydra's other launchers ----------------------------------------------------------------------------------------


def launch(request: SweepRequest, waiting: Sequence[Job], watch: jobs.Watch) -> None:
    """Run the jobs by one of Hydra's launchers, which decides how many run at once, and where.

    Raises:
        FerError: the launcher fails, as without a cluster.
        Interrupted: SIGINT arrived.
    """
    if not waiting:
        return
    folders = [entry.folder for entry in stored(request.folder).jobs]
    overrides = [
        *(text for text in request.hydra if not text.startswith("hydra.searchpath=")),
        f"hydra.sweep.dir={quoted(str(request.folder))}",
        "hydra.sweep.subdir='.launcher/${hydra.job.num}'",  # Hydra writes there before a job begins
        "hydra.output_subdir=null",
        f"sweep.job={','.join(str(folders.index(str(job.folder))) for job in waiting)}",
    ]
    try:
        hydra.run_by_launcher(run_one, ["-m", *overrides])
    except KeyboardInterrupt:
        what = "jobs of this computer save themselves, those of a cluster go on (squeue, scancel)"
        raise Interrupted(f"interrupted by SIGINT; {what}", 130) from None
    except FerError:
        raise
    except Exception as error:  # each launcher has errors of its own
        raise FerError(f"{_launcher(request)}: {why(error)}; resume with: {_resume_line(request)}") from error
    finally:
        for job in waiting:
            record = record_of(job.folder) or JobRecord()
            job.code, job.seconds = record.exit_code, float(record.seconds or 0)
            watch.ended(job)


def run_one(config: DictConfig) -> int | None:
    """Run one job of ``sweep.json``; the task of Hydra's launchers, perhaps on another machine.

    A cluster may queue the task again, as submitit and ``sbatch --requeue`` do: the job then goes on from its
    checkpoint. Errors stay in the job's files, since a launcher would give up the other jobs.
    """
    number: int = config.sweep.job
    job = stored(Path(HydraConfig.get().sweep.dir)).jobs[number].job()
    if continued(job):
        return 0
    with suppress(Exception):  # a signal; submitit's handler raises if the job may not be queued again
        jobs.run(jobs.in_order(deque([job])), [{}], jobs.Watch())
    return job.code


def _launcher(request: SweepRequest) -> str:
    return next(text for text in request.hydra if text.startswith("hydra/launcher="))


# --- the end --------------------------------------------------------------------------------------------------------


def conclude(planned_jobs: Sequence[Job], names: dict[Job, str], request: SweepRequest) -> int:
    """Print the leaderboard, the failures and the paths of the results, and return the exit code."""
    folder = request.folder
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
        log.info("run the failed jobs again: %s", _resume_line(request))
    return 1 if failed else 0


def _count(counted: Sequence[Job]) -> str:
    return f"{len(counted)} job{'' if len(counted) == 1 else 's'}"


def _resume_line(request: SweepRequest) -> str:
    folder = shlex.quote(str(shown(request.folder)))
    return f"python -m fer.train -m sweep.resume={folder}{again(request.overrides)}"
