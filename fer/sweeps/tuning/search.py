"""A running search.

Its trials are runs of ``fer.train`` in child processes, and bad ones are ended early. An interrupted trial stays open
in Optuna's storage, and its run continues from its checkpoint. With one trial at a time, a resumed search gives the
same result as an uninterrupted one. Several processes may work on one search. Each trial belongs to one of them; the
open trials of a process that has ended are taken over by another.
"""

import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from fer.config.conf import plain
from fer.config.errors import FerError, Interrupted
from fer.config.hydra import composed
from fer.config.schema import build
from fer.config.settings import Config, TrainSettings, TuneSettings, worded
from fer.runs.run_folder import identity
from fer.runs.trials import Trial, best, counted
from fer.sweeps import jobs
from fer.sweeps.fork_server import ForkServers
from fer.sweeps.jobs import Job, Watch
from fer.sweeps.tuning.proposals import drawn, sampler, trials
from fer.sweeps.tuning.space import Parameter, configured
from fer.sweeps.tuning.workers import Workers
from fer.system import signals
from fer.system.files import new_folder, read_history, read_json
from fer.system.terminal import Line, bar, is_live, wide
from fer.system.text import clock

log = logging.getLogger(__name__)

EPOCHS = "trainer.max_epochs"
MOST_RUNNING = 4  # trials that the live line lists
BAR = 10  # characters
WORKER = "worker"  # attribute of a trial: the number of the process that runs it
LOOK_S = 2.0  # seconds between searches for trials that a process has left


@dataclass(frozen=True)
class Task:
    """The common part of all trials of a search.

    Args:
        folder: folder of the search.
        settings: settings of the search.
        parameters: varied parameters.
        trial_overrides: overrides of all trials, further folders of configuration included.
        config: configuration that these give, as plain values.
        environment: variables of the jobs, as ``fer.sweeps.jobs.environment`` returns them.
        slots: variables that each slot adds.
        servers: start the jobs by forks; None starts a new interpreter for each.
        spent: seconds of earlier parts of the search.
    """

    folder: Path
    settings: TuneSettings
    parameters: Sequence[Parameter]
    trial_overrides: Sequence[str]
    config: Config
    environment: Mapping[str, str]
    slots: Sequence[Mapping[str, str]]
    servers: ForkServers | None = None
    spent: float = 0.0

    @property
    def monitor(self) -> str:
        """The metric of val that the search optimises."""
        return str(self.config["monitor"])

    @property
    def most_epochs(self) -> int:
        """The largest number of epochs of a trial."""
        varied = [end for parameter in self.parameters if parameter.key == EPOCHS for end in parameter.ends]
        return int(max(varied or [self.config["trainer"]["max_epochs"]]))

    def baseline(self) -> dict[str, object]:
        """Return key -> value of the first trial: the configured values that lie in the space."""
        return configured(self.parameters, self.trial_overrides) if self.settings.baseline else {}


@dataclass
class Attempt:
    """A trial that has started and not ended.

    Args:
        trial: Optuna's trial.
        overrides: overrides of its runs, without the seed.
        texts: key -> value of the parameters.
        epochs: planned epochs.
        values: monitored metric of each finished seed.
        seconds: time of the finished seeds.
        reported: number of the first seed's epochs that were reported to Optuna.
        pruned: epoch after which the trial was ended early; 0 if it was not.
    """

    trial: optuna.Trial
    overrides: Sequence[str]
    texts: Mapping[str, str]
    epochs: int
    values: list[float] = field(default_factory=list)
    seconds: float = 0.0
    reported: int = 0
    pruned: int = 0

    @property
    def parameters(self) -> str:
        """The drawn values, as on a command line."""
        return " ".join(f"{key}={text}" for key, text in self.texts.items())


class Search(Watch):
    """Starts, watches and ends the trials of a search.

    Args:
        study: Optuna's study.
        task: common part of the trials.
        changed: function that is called when a trial has ended.
        workers: processes that work on the search.
    """

    def __init__(self, study: optuna.Study, task: Task, changed: Callable[[], None], workers: Workers) -> None:
        self.study, self.task, self.changed, self.workers = study, task, changed, workers
        self.line = Line(live=is_live())
        self.stopped = False
        self._waiting: deque[Job] = deque()
        self._attempts: dict[Job, Attempt] = {}
        self._open: set[int] = set()  # numbers of this process's trials that have not ended
        self._start = time.monotonic()
        self._finished: float | None = None  # when the last trial ended
        self._looked = -LOOK_S

    def run(self) -> None:
        """Run trials until the budget is spent, and no other process has an open trial.

        Raises:
            Interrupted: a signal arrived; running trials have saved themselves.
        """
        self.line.give_way()
        try:
            with self.workers.joined():
                jobs.run(self.next_job, self.task.slots, self, self.task.servers)
                if running := self._running_trials():
                    log.info("waiting for the trials of other processes: %s", ", ".join(str(t.number) for t in running))
                while self._running_trials():
                    self._wait()
                    jobs.run(self.next_job, self.task.slots, self, self.task.servers)
        finally:
            self._finished = time.monotonic()
            self.line.end()

    def _wait(self) -> None:
        """Wait for other processes' trials; nothing of this process runs."""

        def receive(number: int, frame: FrameType | None) -> None:
            raise Interrupted(f"interrupted by {signals.name(number)}", signals.exit_code(number))

        with signals.handled(receive):
            time.sleep(LOOK_S)

    def trials(self) -> list[Trial]:
        """Return all trials so far."""
        return trials(self.study, self.task.parameters)

    def seconds(self) -> float:
        """Return the duration of the search up to the end of its trials, earlier parts included."""
        return self.task.spent + (self._finished or time.monotonic()) - self._start

    # --- starts of trials -------------------------------------------------------------------------------------------

    def next_job(self) -> Job | None:
        """Return the next run, of a started or a new trial; None if the budget allows none."""
        self._take_over()
        while not self._waiting and (trial := self._new_trial()) is not None:
            self._begin(trial)
        return self._waiting.popleft() if self._waiting else None

    def _new_trial(self) -> optuna.Trial | None:
        """Return a new trial of this process; None if the budget of all processes together allows none."""
        if not self.affords_one():
            return None
        with self.workers.turn():
            if not self.affords_one():
                return None
            self.study.sampler = sampler(self.task.settings, len(self.trials()))
            trial = self.study.ask()
            trial.set_user_attr(WORKER, self.workers.number)
            return trial

    def _take_over(self) -> None:
        """Resume the open trials of processes that have ended, from time to time."""
        if time.monotonic() < self._looked + LOOK_S:
            return
        self._looked = time.monotonic()
        with self.workers.turn():  # no trial is between its start and the number of its process
            running = [frozen for frozen in self._running_trials() if frozen.number not in self._open]
            left = [frozen for frozen in running if self._takes(frozen)]
        for frozen in left:
            self._resume(frozen)

    def _takes(self, frozen: FrozenTrial) -> bool:
        """Return whether an open trial's process has ended, and its run too; trials of early searches name none."""
        worker = frozen.user_attrs.get(WORKER)
        folders = self._folders(frozen)
        number = worker if isinstance(worker, int) and worker >= 0 else 0
        return self.workers.takes(number) and not any(map(jobs.lives, folders))

    def _running_trials(self) -> list[FrozenTrial]:
        """Return the open trials of all processes."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def affords_one(self) -> bool:
        """Return whether the budget allows another trial."""
        hours = self.task.settings.hours
        in_time = hours is None or self.seconds() < 3600 * hours
        return in_time and len(self.trials()) < self.task.settings.trials

    def _resume(self, frozen: FrozenTrial) -> None:
        """Resume an interrupted trial."""
        self.study.sampler = sampler(self.task.settings, frozen.number)
        self._begin(optuna.Trial(self.study, frozen._trial_id))  # Optuna has no public way back to an open trial

    def _begin(self, trial: optuna.Trial) -> None:
        """Queue a trial's run, or end the trial at once: it is faulty, a repetition, or was cut off at its end."""
        self._open.add(trial.number)
        texts = drawn(trial, self.task.parameters)
        overrides = [*self.task.trial_overrides, *(f"{key}={text}" for key, text in texts.items())]
        try:
            config = plain(composed(overrides))
            build(TrainSettings, config)
        except FerError as error:  # valid values whose combination is faulty
            self._fail(Attempt(trial, overrides, texts, 0), str(error))
            return
        name, attributes = identity(config), trial.user_attrs
        trial.set_user_attr("identity", name)
        attempt = Attempt(trial, overrides, texts, config["trainer"]["max_epochs"])
        attempt.values, attempt.seconds = list(attributes.get("values", [])), attributes.get("seconds", 0.0)
        attempt.reported = max(self._reports(trial), default=0)
        same = next((ended for ended in self._ended() if ended.user_attrs.get("identity") == name), None)
        if same is not None:
            self._repeat(attempt, same)
        elif len(attempt.values) == self.task.settings.seeds:  # interrupted before its result reached Optuna
            self._complete(attempt)
        elif not attempt.values and self._is_bad(attempt):  # interrupted while it was ended early
            self._prune(attempt)
        else:
            self._queue(attempt)

    def _reports(self, trial: optuna.Trial) -> Mapping[int, float]:
        return self.study.get_trials(deepcopy=False)[trial.number].intermediate_values

    def _ended(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))

    def _queue(self, attempt: Attempt) -> None:
        """Queue the run of a trial's next seed, new or resumed."""
        index, task = len(attempt.values), self.task
        folders = list(attempt.trial.user_attrs.get("folders", []))
        begun = index < len(folders) and _is_name(folders[index])
        resume = begun and _resumable(task.folder / folders[index])
        overrides = list(attempt.overrides)
        name = str(attempt.trial.number)
        if task.settings.seeds > 1:
            seed = task.config["seed"] + index
            overrides.append(f"seed={seed}")
            name += f"_seed{seed}"
        folder = task.folder / folders[index] if resume else new_folder(task.folder, name)
        attempt.trial.set_user_attr("folders", [*folders[:index], folder.name])
        keys = [text for text in overrides if not text.startswith("hydra.")]
        more = [text for text in overrides if text.startswith("hydra.")]
        job = Job(folder, keys, task.environment, epochs=attempt.epochs, more=more, resume=resume)
        self._attempts[job] = attempt
        self._waiting.append(job)

    # --- running trials ---------------------------------------------------------------------------------------------

    def began(self, job: Job) -> None:
        """Print a line where no live line shows the start."""
        if not self.line.live and job.code is None:
            word = "resumes" if job.resume else "starts"
            log.info("trial %s %s  %s", job.folder.name, word, self._attempts[job].parameters)

    def polled(self, running: Sequence[Job]) -> None:
        """Report new epochs to Optuna, end bad trials, and draw the live line when it is due."""
        for job in running:
            self._report(job)
        if self.line.due():
            self.draw(running)

    def _report(self, job: Job) -> None:
        """Report a run's new epochs to Optuna, and end the run if the pruner says so; the first seed decides."""
        attempt, progress = self._attempts[job], job.progress()
        if attempt.values or attempt.pruned or progress is None:
            return
        for row in self._history(job)[attempt.reported : progress.epochs]:
            attempt.reported += 1
            attempt.trial.report(row[self.task.monitor], attempt.reported)
            if self._is_bad(attempt):
                attempt.pruned = attempt.reported
                job.terminate()
                return

    def _is_bad(self, attempt: Attempt) -> bool:
        """Return whether a trial is to be ended early; after its last epoch that would save nothing."""
        return 0 < attempt.reported < attempt.epochs and attempt.trial.should_prune()

    def _history(self, job: Job) -> list[dict[str, float]]:
        return read_history(job.folder / "history.csv")

    # --- ends of trials ---------------------------------------------------------------------------------------------

    def ended(self, job: Job) -> None:
        """Record a run's result; a run that ended between two checks is pruned like any other."""
        attempt = self._attempts[job]
        if job.code == 0:
            self._report(job)
        attempt.seconds += job.seconds
        if attempt.pruned:
            self._prune(attempt)
        elif job.code == 0:
            self._score(attempt, job)
        elif self.stopped and (job.code in jobs.SAVED or (job.code or 0) < 0):
            log.info("trial %s (%s)  %s: %s", job.folder.name, clock(job.seconds), attempt.parameters, job.outcome())
        else:
            self._fail(attempt, job.outcome())

    def _score(self, attempt: Attempt, job: Job) -> None:
        """Record a seed's value at the epoch that it keeps, and queue the next seed or end the trial.

        With ``stages`` this is the best epoch of the last stage, and an earlier one may have a better value.
        """
        kept = read_json(job.folder / "metrics.json")["best_epoch"]
        attempt.values.append(self._history(job)[kept - 1][self.task.monitor])
        attempt.trial.set_user_attr("values", attempt.values)
        attempt.trial.set_user_attr("seconds", round(attempt.seconds, 1))
        if len(attempt.values) == self.task.settings.seeds:
            self._complete(attempt)
        elif not self.stopped:
            self._queue(attempt)

    def _complete(self, attempt: Attempt) -> None:
        value = sum(attempt.values) / len(attempt.values)
        self._end(attempt, worded(self.task.monitor, value), values=value)

    def _prune(self, attempt: Attempt) -> None:
        last = worded(self.task.monitor, self._reports(attempt.trial)[attempt.reported])
        self._end(attempt, f"pruned after epoch {attempt.reported}, {last}", state=TrialState.PRUNED)

    def _fail(self, attempt: Attempt, reason: str) -> None:
        attempt.trial.set_user_attr("reason", reason)
        self._end(attempt, f"failed: {reason}", state=TrialState.FAIL)

    def _repeat(self, attempt: Attempt, same: FrozenTrial) -> None:
        """End a trial with the result of an earlier trial of the same configuration, without running it again."""
        for epoch, value in same.intermediate_values.items():
            if epoch > attempt.reported:
                attempt.trial.report(value, epoch)
        for name in ("values", "folders"):
            attempt.trial.set_user_attr(name, same.user_attrs.get(name, []))
        attempt.trial.set_user_attr("same_as", same.number)
        result = {"values": same.value} if same.state == TrialState.COMPLETE else {"state": TrialState.PRUNED}
        self._end(attempt, f"the same as trial {same.number}, whose result it takes", **result)

    def _end(self, attempt: Attempt, words: str, **result: Any) -> None:
        """Pass the result to Optuna, and print it."""
        trial = attempt.trial
        if result.get("state") != TrialState.PRUNED:  # whose run may have gone on; the reported epochs count
            trial.set_user_attr("epochs", self._epochs(trial))
        trial.set_user_attr("seconds", round(attempt.seconds, 1))
        self.study.tell(trial, **result)
        self._open.discard(trial.number)
        log.info("trial %d (%s)  %s: %s", trial.number, clock(attempt.seconds), attempt.parameters, words)
        self.changed()

    def _folders(self, trial: optuna.Trial | FrozenTrial) -> list[Path]:
        """Return the folders of a trial's runs, one for each seed that has begun."""
        return [self.task.folder / name for name in trial.user_attrs.get("folders", []) if _is_name(name)]

    def _epochs(self, trial: optuna.Trial) -> int:
        """Return the number of epochs of all seeds of a trial."""
        histories = [folder / "history.csv" for folder in self._folders(trial)]
        return sum(len(read_history(file)) for file in histories if file.is_file())

    def stopping(self, running: Sequence[Job], number: int) -> None:
        """Print that the running trials save themselves."""
        self.stopped = True
        count, word = len(running), signal.Signals(number).name
        runs = "1 run saves itself and ends" if count == 1 else f"{count} runs save themselves and end"
        log.info("%s: %s; a second signal kills", word, runs)

    # --- the live line ----------------------------------------------------------------------------------------------

    def draw(self, running: Sequence[Job]) -> None:
        """Draw the live line."""
        started, planned = self.trials(), self.task.settings.trials
        over = [trial for trial in started if trial.state != "running"]
        first = best(started, self.task.monitor)
        left = self.left(over, running, time.time())
        share = f"{bar(min(1.0, len(over) / planned), BAR)} " if wide() else ""
        counts = counted([trial for trial in over if trial.state != "complete"])
        parts = [
            f"{share}{len(over)}/{planned} trials" + (f", {counts}" if counts else ""),
            *([] if left is None else [f"{clock(left)} left"]),
            *([] if first is None else [f"best {worded(self.task.monitor, first.value or 0.0)} (#{first.number})"]),
            *(self._running(job) for job in running[:MOST_RUNNING]),
        ]
        self.line.draw(parts, "" if first is None else f"best: {first.parameters}")

    def _running(self, job: Job) -> str:
        attempt, progress = self._attempts[job], job.progress()
        if progress is None:
            return f"#{job.folder.name} starts"
        metric = ""
        if attempt.reported and not attempt.values:
            metric = f" {worded(self.task.monitor, self._reports(attempt.trial)[attempt.reported])}"
        return f"#{job.folder.name} {progress.epochs}/{job.epochs}{metric}"

    def left(self, over: Sequence[Trial], running: Sequence[Job], now: float) -> float | None:
        """Estimate the seconds until the budget is spent, if all trials take the mean time; None before the first end.

        Args:
            over: trials that have ended.
            running: running jobs.
            now: seconds of ``time.time()``.
        """
        took = [trial.seconds for trial in over if trial.same_as is None and trial.state != "failed"]
        if not took:
            return None
        mean = sum(took) / len(took)
        settings = self.task.settings
        to_begin = max(0, settings.trials - len(over) - len({self._attempts[job].trial.number for job in running}))
        last = [max(0.0, mean - (now - job.started)) for job in running]
        seconds = max([*last, (to_begin * mean + sum(last)) / len(self.task.slots)])
        if settings.hours is None:
            return seconds
        return min(seconds, max([*last, 3600 * settings.hours - self.seconds()]))


def _is_name(name: str) -> bool:
    """Return whether a stored name is one of a folder, no path: a journal may be a stranger's, as any file."""
    return name == Path(name).name


def _resumable(folder: Path) -> bool:
    """Return whether an interrupted run left a checkpoint and its configuration."""
    return all((folder / name).exists() for name in ("checkpoints/last.ckpt", ".hydra/config.yaml"))
