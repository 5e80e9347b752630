"""The progress of a run in the terminal.

A live line is redrawn, and a line for each epoch stays. If the output is no terminal (a file, a pipe), only the lines
of the epochs are printed.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from fer.data.transforms.size import stage_size
from fer.models.trainable import Trainable
from fer.system.terminal import Line, bar, is_live
from fer.system.text import clock
from fer.training.callbacks.checkpointing import Saver
from fer.training.callbacks.guards import CHECK_EVERY
from fer.training.callbacks.history import Stopwatch

log = logging.getLogger(__name__)

SHOWN = ("loss/val", "accuracy/val")  # metrics in every epoch's line
RECENT = 3  # epochs of a size whose mean foretells the coming ones


class Progress(Callback):
    """Prints a line for each epoch, and a live line in a terminal.

    Args:
        saver: callback that knows the best epoch.
        stopwatch: callback that measures the epochs.
        stages: stages of progressive resizing, whose epochs take different times; empty without them.
        live: draw the live line, if standard output is a terminal.
    """

    def __init__(self, saver: Saver, stopwatch: Stopwatch, *, stages: Sequence[Sequence[int]] = (), live: bool) -> None:
        self.saver, self.stopwatch, self.stages = saver, stopwatch, stages
        self.line = Line(live=live and is_live())
        self._ended_at = 0.0  # end of the previous epoch, or beginning of the run
        self._seconds: dict[int, list[float]] = {}  # size of faces -> seconds of its epochs, the latest size last
        self._val_batches = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the run's clock, and let log messages appear above the live line."""
        self._ended_at = time.perf_counter()
        self.line.give_way()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """End the live line, and restore the log."""
        self.line.end()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraw the live line from time to time: on a GPU, reading the metrics waits for the device."""
        cheap = (batch_idx + 1) % CHECK_EVERY == 0 or pl_module.device.type == "cpu"
        if cheap and self.line.due():
            assert isinstance(pl_module, Trainable)
            self.line.draw(self._training(trainer, pl_module, batch_idx + 1))

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the count of val batches."""
        self._val_batches = 0

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Redraw the live line during validation."""
        self._val_batches += 1
        if self.line.due():
            share = self._val_batches / max(1, int(sum(trainer.num_val_batches)))
            self.line.draw([f"{self._epoch(trainer)} {bar(share)} {share:4.0%}", "validating"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's line."""
        now = time.perf_counter()
        self._seconds.setdefault(self._size(trainer.current_epoch), []).append(now - self._ended_at)
        self._ended_at = now
        log.info(self._summary(trainer))

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Clear the live line for the message that follows."""
        self.line.clear()

    def _training(self, trainer: pl.Trainer, model: Trainable, batches: int) -> list[str]:
        """Return the live line's parts, the least important last."""
        share = min(1.0, batches / int(trainer.num_training_batches))
        scores = model.train_scores.compute()
        elapsed = self.stopwatch.elapsed()
        of_epoch = elapsed / share - elapsed
        later = self._later(trainer, guess=elapsed / share)
        return [
            f"{self._epoch(trainer)} {bar(share)} {share:4.0%}",
            f"loss {float(scores['loss']):.3f} acc {100 * float(scores['accuracy']):.1f} %",
            f"left: epoch {clock(of_epoch)}, run {clock(of_epoch + later)}",
            f"{self.stopwatch.images / max(elapsed, 1e-9):,.0f} images/s",
            *([] if self.saver.best_value is None else [f"best {self._value(self.saver.best_value)}"]),
        ]

    def _summary(self, trainer: pl.Trainer) -> str:
        metrics: Mapping[str, Tensor] = trainer.callback_metrics
        monitor = self.saver.monitor
        parts = [
            self._epoch(trainer),
            *(_split_metrics(metrics, split) for split in ("train", "val")),
            *([] if monitor in SHOWN else [f"{monitor} {float(metrics[monitor]):.4f}"]),
            f"lr {float(metrics['learning_rate']):.2e}",
            f"{self.stopwatch.epoch_seconds:.1f} s, {self.stopwatch.images_per_second:,.0f} images/s",
            f"{clock(self._later(trainer))} left",
        ]
        best = self.saver.is_better(float(metrics[monitor]), trainer.current_epoch)
        return " | ".join(parts) + ("  * best" if best else "")

    def _value(self, value: float) -> str:
        return f"{value:.4f}" if self.saver.monitor.startswith("loss") else f"{100 * value:.2f} %"

    def _epoch(self, trainer: pl.Trainer) -> str:
        total = trainer.max_epochs or 0
        return f"epoch {trainer.current_epoch + 1:>{len(str(total))}}/{total}"

    def _size(self, epoch: int) -> int:
        return stage_size(self.stages, epoch) if self.stages else 1

    def _later(self, trainer: pl.Trainer, guess: float = 0.0) -> float:
        """Return the estimated seconds of the epochs after this one, with everything between them.

        An epoch is expected to take the mean of the latest epochs at its size. The first one also compiles, and other
        programs come and go. Without one at its size, the mean at the latest size is scaled by the number of pixels.

        Args:
            trainer: trainer within an epoch.
            guess: estimate of this epoch's seconds, used until the first epoch has ended.
        """
        means = {size: fmean(seconds[-RECENT:]) for size, seconds in self._seconds.items()}
        means = means or {self._size(trainer.current_epoch): guess}
        latest = list(means)[-1]
        coming = self._coming(trainer.current_epoch + 1, trainer.max_epochs or 0)
        return sum(count * means.get(size, means[latest] * (size / latest) ** 2) for size, count in coming)

    def _coming(self, done: int, total: int) -> list[tuple[int, int]]:
        """Return (size, number of epochs after ``done`` ones) of each stage; their list would be long without end."""
        coming, begin = [], 0
        for size, epochs in self.stages or [(1, total)]:
            coming.append((size, max(0, begin + epochs - max(begin, done))))
            begin += epochs
        return coming


def _split_metrics(metrics: Mapping[str, Tensor], split: str) -> str:
    loss, accuracy = (float(metrics[f"{name}/{split}"]) for name in ("loss", "accuracy"))
    return f"{split} loss {loss:.4f} acc {100 * accuracy:5.2f} %"
