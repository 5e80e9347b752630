"""A run in the terminal: one live line that is drawn over, and a line an epoch that stays.

Where the output is no terminal (a file, a pipe), there is a line an epoch alone.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from fer.data.transforms.resize import stage_size
from fer.models import EmotionClassifier
from fer.system.terminal import Line, bar, is_live
from fer.system.text import clock
from fer.training.callbacks.checkpointing import Saver
from fer.training.callbacks.guards import LOOK_EVERY
from fer.training.callbacks.history import Stopwatch

log = logging.getLogger(__name__)

SHOWN = ("loss/val", "accuracy/val")  # figures that every epoch's line holds


class Progress(Callback):
    """A live line in a terminal, and a line an epoch everywhere.

    Args:
        saver: knows whether an epoch is the best so far.
        stopwatch: gives the times.
        stages: of progressive resizing, whose epochs take different times; empty where there are none.
        live: draw the live line, if standard output is a terminal.
    """

    def __init__(self, saver: Saver, stopwatch: Stopwatch, *, stages: Sequence[Sequence[int]] = (), live: bool) -> None:
        self.saver, self.stopwatch, self.stages = saver, stopwatch, stages
        self.line = Line(live=live and is_live())
        self._ended_at = 0.0  # the epoch before this one, or when the run began
        self._took: dict[int, list[float]] = {}  # size of faces -> seconds of each of its epochs, the latest size last
        self._val_batches = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the run's clock, and let what is logged go above the live line."""
        self._ended_at = time.perf_counter()
        self.line.give_way()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the line and the log as they were."""
        self.line.end()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw anew now and then: on a GPU, every look at the figures waits for the device."""
        cheap = (batch_idx + 1) % LOOK_EVERY == 0 or pl_module.device.type == "cpu"
        if cheap and self.line.due():
            assert isinstance(pl_module, EmotionClassifier)
            self.line.draw(self._training(trainer, pl_module, batch_idx + 1))

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count anew."""
        self._val_batches = 0

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Say that the epoch is being validated."""
        self._val_batches += 1
        if self.line.due():
            share = self._val_batches / max(1, int(sum(trainer.num_val_batches)))
            self.line.draw([f"{self._epoch(trainer)} {bar(share)} {share:4.0%}", "validating"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how the epoch went."""
        now = time.perf_counter()
        self._took.setdefault(self._size(trainer.current_epoch), []).append(now - self._ended_at)
        self._ended_at = now
        log.info(self._summary(trainer))

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave a clean line to whatever is said next."""
        self.line.clear()

    def _training(self, trainer: pl.Trainer, model: EmotionClassifier, batches: int) -> list[str]:
        """Return the live line's parts, what can be spared last."""
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
            *([] if self.saver.best_value is None else [f"best {self._figure(self.saver.best_value)}"]),
        ]

    def _summary(self, trainer: pl.Trainer) -> str:
        figures: Mapping[str, Tensor] = trainer.callback_metrics
        monitor = self.saver.monitor
        parts = [
            self._epoch(trainer),
            *(_split_figures(figures, split) for split in ("train", "val")),
            *([] if monitor in SHOWN else [f"{monitor} {float(figures[monitor]):.4f}"]),
            f"lr {float(figures['learning_rate']):.2e}",
            f"{self.stopwatch.epoch_seconds:.1f} s, {self.stopwatch.images_per_second:,.0f} images/s",
            f"{clock(self._later(trainer))} left",
        ]
        best = self.saver.is_better(float(figures[monitor]), trainer.current_epoch)
        return " | ".join(parts) + ("  * best" if best else "")

    def _figure(self, value: float) -> str:
        return f"{value:.4f}" if self.saver.monitor.startswith("loss") else f"{100 * value:.2f} %"

    def _epoch(self, trainer: pl.Trainer) -> str:
        total = trainer.max_epochs or 0
        return f"epoch {trainer.current_epoch + 1:>{len(str(total))}}/{total}"

    def _size(self, epoch: int) -> int:
        return stage_size(self.stages, epoch) if self.stages else 1

    def _later(self, trainer: pl.Trainer, guess: float = 0.0) -> float:
        """Return the seconds of the epochs after this one, all that happens between them included.

        They take as long as those of their size did; where there was none yet, as the latest by the number of pixels.

        Args:
            trainer: in the epoch.
            guess: of this epoch's seconds, where none has ended.
        """
        took = {size: fmean(seconds) for size, seconds in self._took.items()}
        took = took or {self._size(trainer.current_epoch): guess}
        latest = list(took)[-1]
        coming = [self._size(epoch) for epoch in range(trainer.current_epoch + 1, trainer.max_epochs or 0)]
        return sum(took.get(size, took[latest] * (size / latest) ** 2) for size in coming)


def _split_figures(figures: Mapping[str, Tensor], split: str) -> str:
    loss, accuracy = (float(figures[f"{name}/{split}"]) for name in ("loss", "accuracy"))
    return f"{split} loss {loss:.4f} acc {100 * accuracy:5.2f} %"
