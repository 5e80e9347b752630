"""What happens around the steps of a run: checkpoints, history, times, signals, a loss that is no number."""

import logging
import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from fer.config.errors import FerError, Interrupted
from fer.training.callbacks.checkpointing import Saver

log = logging.getLogger(__name__)

LOOK_EVERY = 50  # steps between looks at figures on the device, each of which waits for it


class FiniteLoss(Callback):
    """Ends a run whose loss is NaN or infinite, before anything of it is saved.

    Losses are judged on the device. A CPU's are looked at every 50 steps, a GPU's at the epoch's end: no step waits.
    """

    def __init__(self) -> None:
        self._sound: Tensor | None = None  # whether every loss since the last look was a number
        self._steps: Tensor | None = None  # how many of them were, up to the first that was not
        self._looked = 0  # step of the last look

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from here."""
        self._begin(trainer)

    def _begin(self, trainer: pl.Trainer) -> None:
        self._sound = self._steps = None
        self._looked = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step, as long as no loss was bad."""
        sound = torch.isfinite(outputs["loss"].detach())
        self._sound = sound if self._sound is None else self._sound & sound
        self._steps = self._sound.long() if self._steps is None else self._steps + self._sound
        if pl_module.device.type == "cpu" and (batch_idx + 1) % LOOK_EVERY == 0:
            self.look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look once more, before the epoch is saved."""
        self.look(trainer)

    def look(self, trainer: pl.Trainer) -> None:
        """Wait for the device and raise if a step was bad.

        Raises:
            FerError: with the step, the epoch and the learning rate.
        """
        if self._sound is not None and self._steps is not None and not bool(self._sound):
            step = self._looked + int(self._steps) + 1
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            raise FerError(
                f"the loss became NaN or infinite at step {step} (epoch {trainer.current_epoch + 1}, learning "
                f"rate about {rate:.3g}); nothing of it was saved: lower optimizer.lr or set trainer.gradient_clip"
            )
        self._begin(trainer)


class Signals(Callback):
    """Ends a run on SIGINT or SIGTERM after the batch in hand, with ``last.ckpt`` written.

    Validation is finished first; at an epoch's end the epoch's own checkpoint serves. A second signal ends at once.

    Args:
        folder: the run's.
        finite: looks at the losses before anything is saved.
        saver: writes.
    """

    def __init__(self, folder: Path, finite: FiniteLoss, saver: Saver) -> None:
        self.folder, self.finite, self.saver = folder, finite, saver
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, in place of Lightning's handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise Interrupted(f"ended at once by a second {signal.Signals(number).name}; {self._how()}", 128 + number)
        self.received = number
        log.warning("%s: finishing this batch, then saving; once more ends at once", signal.Signals(number).name)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch and stop."""
        if self.received is not None and batch_idx + 1 < int(trainer.num_training_batches):
            self.finite.look(trainer)
            self.saver.save(trainer)
            self.stop()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between epochs, the last one being saved."""
        if self.received is not None:
            self.saver.write(trainer)
        self.stop()

    def stop(self) -> None:
        """Raise if a signal was received.

        Raises:
            Interrupted: with the exit code 128 + the signal's number, as shells have it.
        """
        if self.received is not None:
            name = signal.Signals(self.received).name
            raise Interrupted(f"interrupted by {name}, saved; {self._how()}", 128 + self.received)

    def _how(self) -> str:
        return f"go on with: python -m fer.train resume={shlex.quote(str(self.folder))}"

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop listening."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
