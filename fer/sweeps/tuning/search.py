"""A search as it runs: trials are runs of ``fer.train`` as processes of their own, and bad ones are ended early.

A trial that was cut off stays open in Optuna's storage, and its run goes on from its checkpoint: with one trial at a
time, a search that was interrupted ends as if it had not been.
"""

import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from fer.config.conf import plain
from fer.config.errors import FerError
from fer.config.hydra import composed
from fer.config.schema import build
from fer.config.settings import TrainSettings, TuneSettings, mode, worded
from fer.runs.run_folder import identity
from fer.runs.trials import Trial, best, counted
from fer.sweeps import jobs
from fer.sweeps.jobs import Job, Watch
from fer.sweeps.tuning.proposals import drawn, sampler, trials
from fer.sweeps.tuning.space import Parameter, configured
from fer.system.files import new_folder, read_history
from fer.system.terminal import Line, bar, is_live, wide
from fer.system.text import clock

log = logging.getLogger(__name__)

EPOCHS = "trainer.max_epochs"
MOST_RUNNING = 4  # trials that the live line shows one by one
BAR = 10  # characters


@dataclass(frozen=True)
class Task:
    """What all trials of a search have in common.

    Args:
        folder: the search's.
        settings: of the search.
        parameters: what varies.
        told: overrides of all trials, and those that say where else configuration lies.
        config: what they give, as plain values.
        environment: of the processes, as ``fer.sweeps.jobs.environment`` gives it.
        places: for each trial that runs at a time, what it adds to that.
        spent: seconds that earlier parts of the search took.
    """

    folder: Path
    settings: TuneSettings
    parameters: Sequence[Parameter]
    told: Sequence[str]
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    places: Sequence[Mapping[str, str]]
    spent: float = 0.0

    @property
    def monitor(self) -> str:
        """The figure that is searched for, always one of val."""
        return str(self.config["monitor"])

    @property
    def most_epochs(self) -> int:
        """How many epochs a trial may have."""
        varied = [end for parameter in self.parameters if parameter.key == EPOCHS for end in parameter.ends]
        return int(max(varied or [self.config["trainer"]["max_epochs"]]))

    def baseline(self) -> dict[str, Any]:
        """Return key -> value of the first trial, where the space holds what is configured; the rest is drawn."""
        return configured(self.parameters, self.told) if self.settings.baseline else {}


@dataclass
class Attempt:
    """A trial in hand.

    Args:
        trial: Optuna's.
        overrides: of its runs, but for the seed.
        texts: key -> value, of the parameters.
        epochs: planned.
        values: of the seeds that have ended.
        seconds: that those took.
        reported: epochs of the first seed that Optuna knows.
        pruned: the epoch after which it was ended early; 0 while it was not.
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
    def told(self) -> str:
        """What it was told, as on a command line."""
        return " ".join(f"{key}={text}" for key, text in self.texts.items())


class Search(Watch):
    """Proposes, watches and ends the trials of one search.

    Args:
        study: Optuna's.
        task: what the trials have in common.
        changed: called when a trial has ended.
    """

    def __init__(self, study: optuna.Study, task: Task, changed: Callable[[], None]) -> None:
        self.study, self.task, self.changed = study, task, changed
        self.line = Line(live=is_live())
        self.stopped = False
        self._waiting: deque[Job] = deque()
        self._attempts: dict[Job, Attempt] = {}
        self._start = time.monotonic()

    def run(self) -> None:
        """Run trials until the budget is spent.

        Raises:
            Interrupted: a signal came; the trials in hand have saved themselves.
        """
        self.line.give_way()
        try:
            for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                self._take_up(frozen)
            jobs.run(self.next_job, self.task.places, self)
        finally:
            self.line.end()

    def trials(self) -> list[Trial]:
        """Return what became of the trials so far."""
        return trials(self.study, self.task.parameters)

    def seconds(self) -> float:
        """Return the time that the search has taken, earlier parts included."""
        return self.task.spent + time.monotonic() - self._start

    # --- trials begin -----------------------------------------------------------------------------------------------

    def next_job(self) -> Job | None:
        """Return the next run: of a trial in hand, or of a new one; None if the budget allows none."""
        while not self._waiting and self.affords_one():
            number = len(self.trials())
            self.study.sampler = sampler(self.task.settings, number)
            self._begin(self.study.ask())
        return self._waiting.popleft() if self._waiting else None

    def affords_one(self) -> bool:
        """Return whether the budget allows another trial."""
        hours = self.task.settings.hours
        in_time = hours is None or self.seconds() < 3600 * hours
        return in_time and len(self.trials()) < self.task.settings.trials

    def _take_up(self, frozen: FrozenTrial) -> None:
        """Go on with a trial that was cut off."""
        self.study.sampler = sampler(self.task.settings, frozen.number)
        self._begin(optuna.Trial(self.study, frozen._trial_id))  # Optuna has no public way back to an open trial

    def _begin(self, trial: optuna.Trial) -> None:
        """Put a trial's run into the queue, or end the trial at once if it cannot be run, or was before."""
        texts = drawn(trial, self.task.parameters)
        overrides = [*self.task.told, *(f"{key}={text}" for key, text in texts.items())]
        try:
            config = plain(composed(overrides))
            build(TrainSettings, config)
        except FerError as error:  # each value is good by itself, and these are not together
            self._fail(Attempt(trial, overrides, texts, 0), str(error))
            return
        name, noted = identity(config), trial.user_attrs
        trial.set_user_attr("identity", name)
        attempt = Attempt(trial, overrides, texts, config["trainer"]["max_epochs"])
        attempt.values, attempt.seconds = list(noted.get("values", [])), noted.get("seconds", 0.0)
        attempt.reported = max(self._reports(trial), default=0)
        same = next((other for other in self._ended() if other.user_attrs.get("identity") == name), None)
        if same is not None:
            self._repeat(attempt, same)
        elif len(attempt.values) == self.task.settings.seeds:  # it was cut off between its end and the telling
            self._complete(attempt)
        elif not attempt.values and self._is_bad(attempt):  # or while it was being ended early
            self._prune(attempt)
        else:
            self._queue(attempt)

    def _reports(self, trial: optuna.Trial) -> Mapping[int, float]:
        return self.study.get_trials(deepcopy=False)[trial.number].intermediate_values

    def _ended(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))

    def _queue(self, attempt: Attempt) -> None:
        """Put the run of a trial's next seed into the queue: a new one, or one to go on with."""
        index, task = len(attempt.values), self.task
        folders = list(attempt.trial.user_attrs.get("folders", []))
        resume = index < len(folders) and _kept(task.folder / folders[index])
        overrides = list(attempt.overrides)
        name = str(attempt.trial.number)
        if task.settings.seeds > 1:
            seed = task.config["seed"] + index
            overrides.append(f"seed={seed}")
            name += f"_seed{seed}"
        folder = task.folder / folders[index] if resume else new_folder(task.folder, name)
        attempt.trial.set_user_attr("folders", [*folders[:index], folder.name])
        own = [text for text in overrides if not text.startswith("hydra.")]
        more = [text for text in overrides if text.startswith("hydra.")]
        job = Job(folder, own, task.environment, epochs=attempt.epochs, more=more, resume=resume)
        self._attempts[job] = attempt
        self._waiting.append(job)

    # --- trials run -------------------------------------------------------------------------------------------------

    def began(self, job: Job) -> None:
        """Say so where there is no live line to show it."""
        if not self.line.live and job.code is None:
            word = "goes on" if job.resume else "begins"
            log.info("trial %s %s  %s", job.folder.name, word, self._attempts[job].told)

    def looked(self, running: Sequence[Job]) -> None:
        """Tell Optuna of epochs that have ended, end what is bad, and draw the live line now and then."""
        for job in running:
            self._report(job)
        if self.line.due():
            self.draw(running)

    def _report(self, job: Job) -> None:
        """Tell Optuna of a run's new epochs, one after the other, until one of them says that the trial is bad.

        Of several seeds the first decides.
        """
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
        """Return whether a trial is to be ended early; after its last epoch there is nothing to be saved."""
        return 0 < attempt.reported < attempt.epochs and attempt.trial.should_prune()

    def _history(self, job: Job) -> list[dict[str, float]]:
        return read_history(job.folder / "history.csv")

    # --- trials end -------------------------------------------------------------------------------------------------

    def ended(self, job: Job) -> None:
        """Note what came out; a run that was quicker than the looks at it is judged as a slow one is."""
        attempt = self._attempts[job]
        if job.code == 0:
            self._report(job)
        attempt.seconds += job.seconds
        if attempt.pruned:
            self._prune(attempt)
        elif job.code == 0:
            self._score(attempt, job)
        elif self.stopped and (job.code in jobs.SAVED or (job.code or 0) < 0):
            log.info("trial %s (%s)  %s: %s", job.folder.name, clock(job.seconds), attempt.told, job.outcome())
        else:
            self._fail(attempt, job.outcome())

    def _score(self, attempt: Attempt, job: Job) -> None:
        """Note a seed's best epoch, and go on to the next seed or end the trial."""
        better = min if mode(self.task.monitor) == "min" else max
        attempt.values.append(better(row[self.task.monitor] for row in self._history(job)))
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
        """End a trial with the result of an earlier one of the same configuration, which would come out again."""
        for epoch, value in same.intermediate_values.items():
            if epoch > attempt.reported:
                attempt.trial.report(value, epoch)
        for name in ("values", "folders"):
            attempt.trial.set_user_attr(name, same.user_attrs.get(name, []))
        attempt.trial.set_user_attr("same_as", same.number)
        result = {"values": same.value} if same.state == TrialState.COMPLETE else {"state": TrialState.PRUNED}
        self._end(attempt, f"trial {same.number} again, and taken from there", **result)

    def _end(self, attempt: Attempt, words: str, **result: Any) -> None:
        """Tell Optuna and the reader."""
        trial = attempt.trial
        trial.set_user_attr("seconds", round(attempt.seconds, 1))
        self.study.tell(trial, **result)
        log.info("trial %d (%s)  %s: %s", trial.number, clock(attempt.seconds), attempt.told, words)
        self.changed()

    def stopping(self, running: Sequence[Job], number: int) -> None:
        """Say what is waited for."""
        self.stopped = True
        count, word = len(running), signal.Signals(number).name
        runs = "1 run saves itself and ends" if count == 1 else f"{count} runs save themselves and end"
        log.info("%s: %s; once more kills", word, runs)

    # --- the live line ----------------------------------------------------------------------------------------------

    def draw(self, running: Sequence[Job]) -> None:
        """Draw the live line."""
        begun, wanted = self.trials(), self.task.settings.trials
        over = [trial for trial in begun if trial.state != "running"]
        ahead = best(begun, self.task.monitor)
        left = self.left(over, running, time.time())
        share = f"{bar(min(1.0, len(over) / wanted), BAR)} " if wide() else ""
        counts = counted([trial for trial in over if trial.state != "complete"])
        parts = [
            f"{share}{len(over)}/{wanted} trials" + (f", {counts}" if counts else ""),
            *([] if left is None else [f"{clock(left)} left"]),
            *([] if ahead is None else [f"best {worded(self.task.monitor, ahead.value or 0.0)} (#{ahead.number})"]),
            *(self._running(job) for job in running[:MOST_RUNNING]),
        ]
        self.line.draw(parts, "" if ahead is None else f"best: {ahead.told}")

    def _running(self, job: Job) -> str:
        attempt, progress = self._attempts[job], job.progress()
        if progress is None:
            return f"#{job.folder.name} begins"
        figure = ""
        if attempt.reported and not attempt.values:
            figure = f" {worded(self.task.monitor, self._reports(attempt.trial)[attempt.reported])}"
        return f"#{job.folder.name} {progress.epochs}/{job.epochs}{figure}"

    def left(self, over: Sequence[Trial], running: Sequence[Job], now: float) -> float | None:
        """Return the seconds until the budget is spent, were the next trials as long as those before; None: unknown.

        Args:
            over: trials that have ended.
            running: runs.
            now: in seconds of ``time.time()``.
        """
        took = [trial.seconds for trial in over if trial.same_as is None and trial.state != "failed"]
        if not took:
            return None
        mean = sum(took) / len(took)
        settings = self.task.settings
        to_begin = max(0, settings.trials - len(over) - len({self._attempts[job].trial.number for job in running}))
        last = [max(0.0, mean - (now - job.started)) for job in running]
        seconds = max([*last, (to_begin * mean + sum(last)) / len(self.task.places)])
        if settings.hours is None:
            return seconds
        return min(seconds, max([*last, 3600 * settings.hours - self.seconds()]))


def _kept(folder: Path) -> bool:
    """Return whether a run that was cut off left something to go on from."""
    return all((folder / name).exists() for name in ("checkpoints/last.ckpt", ".hydra/config.yaml"))
