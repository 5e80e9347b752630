"""``budget.until``: as many epochs as end at a given time.

The learning rate runs through its whole schedule. ``budget.hours`` plans epochs once. The speed may change later, since
other trainings begin or end beside this one. Such a run misses the time, or a deadline cuts off the low learning rates
that improve a network the most. Here the number of epochs follows the speed. It is planned again after every epoch; the
rest of the schedule is stretched or compressed to the epochs that are left. Such a run depends on the clock, and cannot
be repeated to the bit.
"""

import math
import time
from collections import deque
from datetime import datetime
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from fer.config.errors import FerError
from fer.config.settings import TrainSettings
from fer.models.checkpoints import Contents
from fer.models.trainable import Trainable
from fer.optim.schedulers import Timeline

RECENT = 3  # epochs whose mean duration is expected of the next ones, or that of the last epoch if it was slower
ENDING = 4.0  # seconds after the last epoch, for checkpoint and results
FULL_PRECISION = 2.0  # duration of the final val in 32 bits, in times of an epoch's val
FEW = 4  # epochs; if fewer fit, the first epoch's duration is expected of the others too
SHORTEST = 1e-3  # seconds of an epoch at least; a clock's steps may be longer than the epoch of a few faces
LEAST = 0.5  # part of an epoch that must fit before the deadline; with less the training ends


class Deadline(Callback):
    """Plans the number of epochs again after every epoch.

    Args:
        until: the time at which the training shall have ended.
    """

    def __init__(self, until: datetime) -> None:
        self.until = until.timestamp()
        self.timeline: Timeline | None = None
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._began = 0.0  # end of the epoch before, which begins this one
        self._warming_up = True  # until the end of the first epoch of this process
        self._val_began = self._val = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let the schedule have ``trainer.max_epochs`` epochs, whatever number the run has when it is resumed."""
        assert isinstance(pl_module, Trainable)
        pl_module.schedule_epochs = trainer.max_epochs

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Contents) -> None:
        """Let a resumed run have the epochs of its plan, before Lightning compares them with those done."""
        if knots := checkpoint["callbacks"].get(self.state_key, {}).get("knots"):
            trainer.fit_loop.max_epochs = Timeline.of(knots).epochs

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the network's timeline: that of a resumed run, or a new one of ``trainer.max_epochs`` epochs."""
        assert isinstance(pl_module, Trainable)
        assert trainer.max_epochs is not None
        if self.timeline is None:
            self.timeline = Timeline(trainer.max_epochs)
        pl_module.timeline = self.timeline
        trainer.fit_loop.max_epochs = self.timeline.epochs
        self._began = time.monotonic()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of val."""
        self._val_began = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the time of val."""
        self._val = time.monotonic() - self._val_began

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plan the epochs that are left."""
        assert self.timeline is not None
        done = trainer.current_epoch + 1
        last = done + 1 >= self.timeline.epochs  # no other epoch's end to plan at
        fitting = trainer.strategy.broadcast(self._fitting(self.until - time.time(), time.monotonic(), last))
        if done < self.timeline.epochs and fitting is not None:
            self.timeline.end_at(done, done + fitting)
            trainer.fit_loop.max_epochs = self.timeline.epochs

    def _fitting(self, left: float, now: float, last: bool = False) -> int | None:
        """Return the number of epochs that fit before the deadline; None if it is not known yet.

        The first epoch includes compiling and the first use of memory. It counts only where few epochs fit anyway.

        Args:
            left: seconds until the deadline.
            now: end of the epoch, on a clock that nobody sets: an epoch takes no less because the computer's was set.
            last: the next epoch is the last planned one, so that the first one has to count.
        """
        seconds, self._began = now - self._began, now
        left -= ENDING + FULL_PRECISION * self._val
        if self._warming_up:
            self._warming_up = False
            fitting = epochs_left(left, seconds)
            return fitting if fitting < FEW or last else None
        self._recent.append(seconds)
        return epochs_left(left, max(seconds, sum(self._recent) / len(self._recent)))

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a resumed run."""
        return {"knots": [] if self.timeline is None else self.timeline.knots}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the timeline of a resumed run."""
        if state_dict["knots"]:
            self.timeline = Timeline.of(state_dict["knots"])


def end_of(settings: TrainSettings) -> datetime | None:
    """Return the time of ``budget.until``; None without one.

    Raises:
        FerError: it is past.
    """
    ends = settings.budget.ends
    if ends is not None and ends.timestamp() <= time.time():
        now = datetime.now(ends.tzinfo).isoformat(timespec="seconds")
        raise FerError(f"budget.until={settings.budget.until}: is past; expected a time after {now}")
    return ends


def epochs_left(seconds: float, pace: float) -> int:
    """Return the number of epochs of ``pace`` seconds to train in the remaining time.

    The last epoch, whose learning rates are the lowest, is trained unless most of it would come after the deadline.
    """
    fitting = seconds / max(pace, SHORTEST)
    return max(1, math.floor(fitting)) if fitting >= LEAST else 0
