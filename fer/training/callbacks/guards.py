"""Callbacks that end a run safely.

They act on values that are NaN or infinite, and on a signal.
"""

import logging
import math
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from fer.config.errors import Interrupted, NotFinite
from fer.optim.optimizers import largest_rate
from fer.system import ranks, signals
from fer.training.callbacks.checkpointing import Saver, between_steps
from fer.training.session import remedy

log = logging.getLogger(__name__)

ECHO_S = 5.0  # seconds in which signals count as one: the process that started the run passes its own on
CHECK_EVERY = 50  # steps between readings of values on the device, each of which waits for it


class FiniteLoss(Callback):
    """Ends a run whose loss or val predictions are NaN or infinite, before a checkpoint of that epoch is written.

    Values are compared on the device, and no step waits for it. Those of the training are read every 50 steps on a CPU
    and at an epoch's end on a GPU. Those of val are read after its last batch.
    """

    def __init__(self) -> None:
        self._finite: Tensor | None = None  # True while every loss since the latest check was finite
        self._steps: Tensor | None = None  # number of batches with finite losses before the first bad one
        self._checked = 0  # step of the latest check
        self._rates: list[float] = []  # of the batches since then
        self._predicted: Tensor | None = None  # True while val has a probability for each face and class

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start counting steps."""
        self._begin(trainer)

    def _begin(self, trainer: pl.Trainer) -> None:
        self._finite = self._steps = None
        self._checked = trainer.global_step
        self._rates = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        """Note the batch's learning rate: by the time of the check the schedule has moved on."""
        self._rates.append(largest_rate(trainer.optimizers[0]))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step, as long as all losses were finite."""
        finite = torch.isfinite(outputs["loss"].detach())
        self._finite = finite if self._finite is None else self._finite & finite
        self._steps = self._finite.long() if self._steps is None else self._steps + self._finite
        if pl_module.device.type == "cpu" and (batch_idx + 1) % (CHECK_EVERY * trainer.accumulate_grad_batches) == 0:
            self.check(trainer)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start with the predictions of this epoch."""
        self._predicted = None

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *batch: Any
    ) -> None:
        """Compare a batch of val; a logit may be minus infinity, which is a probability of 0."""
        if isinstance(outputs, Tensor):  # a plugin's own step may return nothing
            finite = torch.isfinite(outputs.float().softmax(1)).all()
            self._predicted = finite if self._predicted is None else self._predicted & finite

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the rest of the epoch, and its val, before it is saved.

        Raises:
            NotFinite: naming what became NaN or infinite, and the epoch.
        """
        self.check(trainer)
        finite = self._predicted is None or bool(_of_all(self._predicted))
        if finite and math.isfinite(trainer.callback_metrics.get("loss/val", 0.0)):
            return
        raise NotFinite(
            f"the {'loss' if finite else 'predictions'} of val became NaN or infinite in epoch "
            f"{trainer.current_epoch + 1}; this epoch was not saved and nothing is scored: lower optimizer.lr, or look "
            "for a division by zero or a logarithm of zero in the network"
        )

    def check(self, trainer: pl.Trainer) -> None:
        """Wait for the device, and raise if a loss was not finite.

        Raises:
            NotFinite: naming the step, the epoch and the learning rate.
        """
        if self._finite is not None and self._steps is not None and not bool(_of_all(self._finite)):
            batches = int(_of_all(self._steps))
            step, rate = self._checked + batches // trainer.accumulate_grad_batches + 1, self._rates[batches]
            raise NotFinite(
                f"the loss became NaN or infinite at step {step} (epoch {trainer.current_epoch + 1}, learning "
                f"rate {rate:.3g}); its weights were not saved: lower optimizer.lr or set trainer.gradient_clip"
            )
        self._begin(trainer)


def _of_all(value: Tensor) -> Tensor:
    """Return the smallest of the ranks' values, so that all of them end for the same reason."""
    smallest = value.long()
    ranks.take_smallest(smallest)
    return smallest


class Signals(Callback):
    """Ends a run on SIGINT, SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2 after the current step, with ``last.ckpt`` written.

    The handler only sets a flag. A best epoch that is not written yet is written first. A signal during validation lets
    it finish, and the epoch's own checkpoint is the last one. A second signal ends the run at once. But SLURM signals
    every process of a job, and the process that started the run passes its signal on, later on a busy machine: after
    SIGUSR1 or SIGUSR2 only Ctrl-C ends the run at once. Ranks agree at each step whether one of them has received a
    signal, and end after the same one.

    Args:
        folder: folder of the run.
        finite: callback that checks the losses before a checkpoint is written.
        saver: callback that writes checkpoints.
    """

    def __init__(self, folder: Path, finite: FiniteLoss, saver: Saver) -> None:
        self.folder, self.finite, self.saver = folder, finite, saver
        self.received: int | None = None
        self.began = False  # whether the training has begun: what a resumed run restores is restored
        self._before: dict[int, object] = {}
        self._first = 0.0  # time of the first signal

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install handlers in place of Lightning's."""
        self._before, self.began = signals.install(self._receive), True
        signals.raise_dropped()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        name = signals.name(number)
        if self.received is not None and self._is_echo(number):
            return
        if self.received is not None:
            raise Interrupted(f"ended at once by a second {name}; {remedy(self.folder)}", signals.exit_code(number))
        self.received, self._first = number, time.monotonic()
        ending = "Ctrl-C" if name in signals.OF_BATCH_SYSTEMS else "a second signal"
        log.warning("%s: finishing this batch, then saving; %s ends at once", name, ending)

    def _is_echo(self, number: int) -> bool:
        """Return whether a later signal means the same end; Ctrl-C never does."""
        announced = any(signals.name(each) in signals.OF_BATCH_SYSTEMS for each in (number, self.received or number))
        return number != signal.SIGINT and (announced or time.monotonic() < self._first + ECHO_S)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop within an epoch."""
        self._agree()
        if self.received is not None and between_steps(trainer, batch_idx):
            self.finite.check(trainer)
            self.saver.save(trainer)
            self.stop()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between epochs, after the previous one was saved."""
        self._agree()
        if self.received is not None:
            self.saver.write(trainer)
        self.stop()

    def _agree(self) -> None:
        before, self.received = self.received, ranks.largest(self.received or 0) or None
        if before is None and self.received is not None:
            self._first = time.monotonic()  # another rank's signal, which the common parent may pass on to this one

    def stop(self) -> None:
        """Raise if the process received a signal.

        Raises:
            Interrupted: with the exit code of shells, 128 + the signal's number.
        """
        if self.received is not None:
            name, code = signals.name(self.received), signals.exit_code(self.received)
            raise Interrupted(f"interrupted by {name}, saved; {remedy(self.folder)}", code)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Restore the previous handlers."""
        signals.restore(self._before)
        self._before = {}
