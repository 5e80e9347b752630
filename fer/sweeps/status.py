"""The status of a running sweep.

It is a live line in a terminal, a line for each job's end, and the closing tables.
"""

import heapq
import logging
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from fer.sweeps.jobs import Job, Progress, Watch
from fer.system.terminal import Line, bar, is_live, shown, wide
from fer.system.text import clock, text_table

log = logging.getLogger(__name__)

MOST_RUNNING = 4  # jobs that the live line lists
BAR = 10  # characters


class Scoreboard(Watch):
    """Prints the status of a sweep.

    Args:
        jobs: all jobs of the sweep, finished ones too.
        waiting: jobs that have not started; the caller removes them as they start.
        slots: number of jobs side by side.
    """

    def __init__(self, jobs: Sequence[Job], waiting: Collection[Job], slots: int) -> None:
        self.jobs, self.waiting, self.slots = jobs, waiting, slots
        self.names = varied(jobs)
        self.line = Line(live=is_live())
        self._best: tuple[float, Job] | None = None
        for job in jobs:
            self._consider(job)

    def began(self, job: Job) -> None:
        """Print a line where no live line shows the start."""
        if not self.line.live and job.code is None:
            message = f"job {job.folder.name} {'resumes' if job.resume else 'starts'}  {self.names[job]}"
            log.info("%s", message.rstrip())

    def polled(self, running: Sequence[Job]) -> None:
        """Draw the live line when it is due."""
        if self.line.due():
            self.draw(running)

    def ended(self, job: Job) -> None:
        """Print the job's result."""
        self._consider(job)
        message = f"job {job.folder.name} ({clock(job.seconds)})  {self.names[job]}"
        log.info("%s: %s", message.rstrip(), job.outcome())

    def stopping(self, running: Sequence[Job], number: int) -> None:
        """Print that the running jobs save themselves."""
        word, count = signal.Signals(number).name, len(running)
        jobs = "1 job saves itself and ends" if count == 1 else f"{count} jobs save themselves and end"
        log.info("%s: %s; a second signal kills", word, jobs)

    def draw(self, running: Sequence[Job]) -> None:
        """Draw the live line."""
        for job in running:
            self._consider(job)
        best = self._best
        ended = sum(job.code is not None for job in self.jobs)
        failed = sum(job.code not in (0, None) for job in self.jobs)
        share = (ended + sum(_share(job) for job in running)) / len(self.jobs)
        counts = f"{ended - failed}/{len(self.jobs)} done"
        if wide():
            counts = f"{bar(share, BAR)} {counts}, {len(running)} running"
        left = self.left(running, time.time())
        parts = [
            counts + (f", {failed} failed" if failed else ""),
            *([] if left is None else [f"{clock(left)} left"]),
            *([] if best is None else [f"best {100 * best[0]:.2f} % (#{best[1].folder.name})"]),
            *(_running(job) for job in running[:MOST_RUNNING]),
        ]
        self.line.draw(parts, "" if best is None else f"best: {self.names[best[1]]}")

    def _consider(self, job: Job) -> None:
        """Update the best val accuracy with a job's."""
        progress = job.progress()
        if progress is not None and (self._best is None or progress.best > self._best[0]):
            self._best = progress.best, job

    def left(self, running: Sequence[Job], now: float) -> float | None:
        """Estimate the seconds until all jobs have ended; None before the first epoch of any job.

        A running job keeps its pace. A waiting job takes as long as the known jobs with the most overrides in common.

        Args:
            running: running jobs.
            now: seconds of ``time.time()``.
        """
        known = [(job, job.seconds) for job in self.jobs if job.code == 0]
        known += [(job, _expected(job, progress)) for job in running if (progress := job.progress())]
        if not known:
            return None
        free = [_remaining(job, known, now) for job in running] + [0.0] * (self.slots - len(running))
        heapq.heapify(free)
        for job in self.waiting:
            heapq.heappush(free, heapq.heappop(free) + _guess(job, known) * (1 - _share(job)))
        return max(free)


def _remaining(job: Job, known: Sequence[tuple[Job, float]], now: float) -> float:
    progress = job.progress()
    if progress is None:
        return max(0.0, _guess(job, known) - (now - job.started))
    return max(0.0, progress.pace * (job.epochs - progress.epochs) - (now - progress.at))


def _expected(job: Job, progress: Progress) -> float:
    """Return the seconds that a running job takes in all: its start-up and all of its epochs."""
    before = progress.at - job.started - progress.pace * progress.epochs
    return max(0.0, before) + progress.pace * job.epochs


def _share(job: Job) -> float:
    progress = job.progress()
    return min(1.0, progress.epochs / job.epochs) if progress else 0.0


def _running(job: Job) -> str:
    progress = job.progress()
    done = f"{progress.epochs}/{job.epochs} {100 * progress.accuracy:.1f} %" if progress else "starts"
    return f"#{job.folder.name} {done}"


def _guess(job: Job, known: Sequence[tuple[Job, float]]) -> float:
    """Return the mean seconds of the known jobs with the most overrides in common."""
    overrides = set(job.overrides)
    common = [len(overrides & set(candidate.overrides)) for candidate, _ in known]
    seconds = [seconds for (_, seconds), count in zip(known, common, strict=True) if count == max(common)]
    return sum(seconds) / len(seconds)


def varied(jobs: Sequence[Job]) -> dict[Job, str]:
    """Return job -> its overrides that not all jobs have."""
    common = set(jobs[0].overrides).intersection(*(job.overrides for job in jobs)) if jobs else set()
    return {job: " ".join(text for text in job.overrides if text not in common) for job in jobs}


# --- closing tables -------------------------------------------------------------------------------------------------


def job_table(jobs: Sequence[Job], names: Mapping[Job, str]) -> str:
    """Return the table of all jobs with their results or states."""
    rows = [(job.folder.name, names[job], _state(job)) for job in jobs]
    return text_table(("job", "overrides", "val accuracy or state"), rows)


def _state(job: Job) -> str:
    if job.code is not None or job.started:
        return job.outcome()
    if job.resume:
        return "to resume"
    return job.outcome() if (job.folder / "job.json").exists() else "not started"


def failure_table(failed: Sequence[Job], names: Mapping[Job, str]) -> str:
    """Return the table of failed jobs with their logs and reasons."""
    rows = [(job.folder.name, names[job], str(shown(job.folder / "console.log")), job.outcome()) for job in failed]
    return text_table(("failed", "overrides", "log", "reason"), rows)


def found_rate(folder: Path) -> bool:
    """Return whether a job was the learning-rate finder."""
    return (folder / "lr_finder.json").exists()
