"""A sweep of many jobs, some of which fail in four ways: the others run, each failure is named, a rerun goes on."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from conftest import SMALL

from fer import train
from fer.sweeps.jobs import Job, recorded
from fer.sweeps.status import Scoreboard

from .forks import run as forked
from .table import Row, measured, progress

EXPECTED = "the others have results; the table names each failed job and its reason; exit code 1; a rerun does the rest"
FAILING = 3  # seeds that fail in each way
WAYS = {  # how a job fails -> what the table says of it
    "raise": "RuntimeError: its own fault",
    "leave": "exit(0)",
    "kill": "killed by signal 9",
    "memory": "out of memory",
}
LONGEST_S = 3600
SHOWN_EVERY = 5  # jobs
PLUGIN = f"""
import os
import signal

import torch

from fer.models import register
from fer.models.mlp import MLP


@register("failing")
class Failing(MLP):
    def __init__(self, way: str = "none", **contract):
        super().__init__(hidden=(4,), **contract)
        self.fails = way != "none" and torch.initial_seed() < {FAILING} and "REPAIRED" not in os.environ

    def training_step(self, batch, batch_idx):
        if self.fails and self.global_step == 2:
            {{"raise": self.broken, "leave": lambda: os._exit(0), "memory": self.hungry,
             "kill": lambda: os.kill(os.getpid(), signal.SIGKILL)}}[self.hparams["way"]]()
        return super().training_step(batch, batch_idx)

    def broken(self):
        raise RuntimeError("its own fault")

    def hungry(self):
        torch.empty(1 << 44, dtype=torch.uint8)
"""


def sweep(folder: Path, count: int) -> Iterator[Row]:
    """Yield the row of a sweep of about ``count`` jobs, of which twelve fail, and that of its rerun."""
    seeds = max(FAILING + 1, count // (len(WAYS) + 1))
    (folder / "failing.py").write_text(PLUGIN)
    ways = [*WAYS, "none"]
    fixed = (*SMALL[:4], *SMALL[6:], "trainer.max_epochs=1", "trainer.threads=1", "plugins=[failing]", "model=failing")
    swept = (f"model.way={','.join(ways)}", f"seed={','.join(map(str, range(seeds)))}")
    jobs = [(way, seed) for way in ways for seed in range(seeds)]
    with measured(Row(f"a sweep of {len(jobs)} jobs, of which {len(WAYS) * FAILING} fail", EXPECTED)) as row:
        work = _work(folder, ["-m", *fixed, *swept, "hydra.sweep.dir=sweep"])
        ended = forked(work, folder / "sweep.log", LONGEST_S, _Shown(len(jobs)))
        for number, (way, seed) in enumerate(jobs):
            fails = way != "none" and seed < FAILING
            row.count(_wrong(folder / "sweep" / str(number), fails, WAYS.get(way, ""), ended.output), f"{way} {seed}")
        row.add("failed jobs", sum(not _done(folder / "sweep" / str(number)) for number in range(len(jobs))))
        if ended.code != 1:
            row.failures.append(f"exit code {ended.code}")
    yield row
    with measured(Row("its rerun", "only the failed jobs run; exit code 0")) as row:
        before = _results(folder / "sweep")
        work = _work(folder, ["-m", "sweep.resume=sweep", "plugins=[failing]"], "REPAIRED")
        again = forked(work, folder / "again.log", LONGEST_S, _Shown(len(jobs) - len(before)))
        after = _results(folder / "sweep")
        for number, (way, seed) in enumerate(jobs):
            identity = recorded(folder / "sweep" / str(number)).identity
            kept = len(after.get(identity, [])) == 1 and before.get(identity, after[identity]) == after[identity]
            row.count("" if kept else f"no result, or a second one: {again.output[-300:]}", f"{way} {seed}")
        if again.code != 0:
            row.failures.append(f"exit code {again.code}: {again.output[-300:]}")
    yield row


class _Shown:
    """Prints how many jobs have ended, as they end."""

    def __init__(self, count: int) -> None:
        self.count, self.ended = count, 0

    def __call__(self, line: str) -> None:
        self.ended += line == "ended"
        if line == "ended" and (self.ended % SHOWN_EVERY == 0 or self.ended == self.count):
            progress(f"{self.ended} of {self.count} jobs have ended")


def _work(folder: Path, arguments: list[str], *variables: str) -> Callable[[Callable[[str], None]], int]:
    def act(report: Callable[[str], None]) -> int:
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        os.environ |= dict.fromkeys(variables, "1")
        _watched_jobs(report)
        return train.main(arguments)

    return act


def _watched_jobs(report: Callable[[str], None]) -> None:
    ended = Scoreboard.ended

    def reported(self: Scoreboard, job: Job) -> None:
        ended(self, job)
        report("ended")

    Scoreboard.ended = reported


def _results(folder: Path) -> dict[str, list[tuple[str, int]]]:
    """Return identity of a job -> folder and time of each result; a job that begins anew has a second folder."""
    runs: dict[str, list[tuple[str, int]]] = {}
    for file in folder.glob("*/metrics.json"):
        entry = (file.parent.name, file.stat().st_mtime_ns)
        runs.setdefault(recorded(file.parent).identity, []).append(entry)
    return runs


def _done(job: Path) -> bool:
    return (job / "metrics.json").exists()


def _wrong(job: Path, fails: bool, words: str, output: str) -> str:
    """Return in words what is wrong with a job's end; empty for nothing."""
    record = json.loads((job / "job.json").read_text()) if (job / "job.json").exists() else {"exit_code": None}
    if not fails:
        return "" if record["exit_code"] == 0 and _done(job) else f"exit code {record['exit_code']}"
    if record["exit_code"] == 0 or _done(job):
        return "it counts as a success"
    return "" if words in output else f"the table does not say {words!r}"
