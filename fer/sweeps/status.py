"""What a sweep shows while it runs: a live line in a terminal, a line when a job ends, and the tables at the end."""

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

MOST_RUNNING = 4  # jobs that the live line shows one by one
BAR = 10  # characters


class Scoreboard(Watch):
    """Draws and tells how a sweep goes.

    Args:
        jobs: all of the sweep, those that are done already too.
        waiting: those that have not begun; whoever runs them takes them out.
        places: how many run side by side.
    """

    def __init__(self, jobs: Sequence[Job], waiting: Collection[Job], places: int) -> None:
        self.jobs, self.waiting, self.places = jobs, waiting, places
        self.names = varied(jobs)
        self.line = Line(live=is_live())
        self._best: tuple[float, Job] | None = None
        for job in jobs:
            self._consider(job)

    def began(self, job: Job) -> None:
        """Say so where there is no live line to show it."""
        if not self.line.live and job.code is None:
            told = f"job {job.folder.name} {'goes on' if job.resume else 'begins'}  {self.names[job]}"
            log.info("%s", told.rstrip())

    def looked(self, running: Sequence[Job]) -> None:
        """Draw the live line now and then."""
        if self.line.due():
            self.draw(running)

    def ended(self, job: Job) -> None:
        """Say how the job ended."""
        self._consider(job)
        told = f"job {job.folder.name} ({clock(job.seconds)})  {self.names[job]}"
        log.info("%s: %s", told.rstrip(), job.outcome())

    def stopping(self, running: Sequence[Job], number: int) -> None:
        """Say what is waited for."""
        word, count = signal.Signals(number).name, len(running)
        jobs = "1 job saves itself and ends" if count == 1 else f"{count} jobs save themselves and end"
        log.info("%s: %s; once more kills", word, jobs)

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
        """Take a job's val accuracy for the best one if it is."""
        progress = job.progress()
        if progress is not None and (self._best is None or progress.best > self._best[0]):
            self._best = progress.best, job

    def left(self, running: Sequence[Job], now: float) -> float | None:
        """Return the seconds until all jobs have ended, as far as can be told; None before anything is known.

        A running job goes on at its own pace. One that has not begun takes as long as those that were told most
        nearly the same.

        Args:
            running: jobs.
            now: in seconds of ``time.time()``.
        """
        known = [(job, job.seconds) for job in self.jobs if job.code == 0]
        known += [(job, _expected(job, progress)) for job in running if (progress := job.progress())]
        if not known:
            return None
        free = [_remaining(job, known, now) for job in running] + [0.0] * (self.places - len(running))
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
    """Return the seconds that a running job takes: all of its epochs, and what went before them."""
    before = progress.at - job.started - progress.pace * progress.epochs
    return max(0.0, before) + progress.pace * job.epochs


def _share(job: Job) -> float:
    progress = job.progress()
    return min(1.0, progress.epochs / job.epochs) if progress else 0.0


def _running(job: Job) -> str:
    progress = job.progress()
    how_far = f"{progress.epochs}/{job.epochs} {100 * progress.accuracy:.1f} %" if progress else "begins"
    return f"#{job.folder.name} {how_far}"


def _guess(job: Job, known: Sequence[tuple[Job, float]]) -> float:
    """Return the mean seconds of those jobs that were told most nearly the same."""
    told = set(job.overrides)
    alike = [len(told & set(other.overrides)) for other, _ in known]
    seconds = [seconds for (_, seconds), likeness in zip(known, alike, strict=True) if likeness == max(alike)]
    return sum(seconds) / len(seconds)


def varied(jobs: Sequence[Job]) -> dict[Job, str]:
    """Return of each job's overrides those that not all jobs have."""
    common = set(jobs[0].overrides).intersection(*(job.overrides for job in jobs)) if jobs else set()
    return {job: " ".join(text for text in job.overrides if text not in common) for job in jobs}


# --- at the end -----------------------------------------------------------------------------------------------------


def job_table(jobs: Sequence[Job], names: Mapping[Job, str]) -> str:
    """Return how each job ended, or that it has not begun."""
    rows = [(job.folder.name, names[job], _ended(job)) for job in jobs]
    return text_table(("job", "overrides", "val accuracy, or what else came out"), rows)


def _ended(job: Job) -> str:
    if job.code is not None or job.started:
        return job.outcome()
    if job.resume:
        return "to go on with"
    return job.outcome() if (job.folder / "job.json").exists() else "not begun"


def failure_table(failed: Sequence[Job], names: Mapping[Job, str]) -> str:
    """Return what failed, where it lies, and why."""
    rows = [(job.folder.name, names[job], str(shown(job.folder / "console.log")), job.outcome()) for job in failed]
    return text_table(("failed", "overrides", "what it said", "why"), rows)


def found_rate(folder: Path) -> bool:
    """Return whether a job was the learning-rate finder, which trains nothing."""
    return (folder / "lr_finder.json").exists()
