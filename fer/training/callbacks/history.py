"""The times of the epochs, and ``history.csv`` with one row for each epoch."""

import csv
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from fer.data.dataset import Batch
from fer.models.trainable import Trainable
from fer.system import ranks
from fer.system.files import written_whole

Row = dict[str, str]  # column of ``history.csv`` -> value


class Stopwatch(Callback):
    """Measures epochs: their seconds, and training faces a second without validation."""

    def __init__(self) -> None:
        self.train_seconds = 0.0  # all epochs of the run, also those before a resume
        self.epoch_seconds = 0.0
        self.images = 0
        self.images_per_second = 0.0
        self.epoch_start: float | None = None  # None between epochs

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self.epoch_start, self.images = time.perf_counter(), 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Start the clock of an epoch that is resumed: Lightning reports no start of it."""
        if self.epoch_start is None:
            self.epoch_start = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Count the faces."""
        assert isinstance(pl_module, Trainable)
        batch: Batch = args[1]  # with ``views`` versions of each face
        self.images += len(batch.targets) // pl_module.views if batch.part is None else batch.part.whole

    def elapsed(self) -> float:
        """Return the seconds since the current epoch began; 0 between epochs."""
        return 0.0 if self.epoch_start is None else time.perf_counter() - self.epoch_start

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute the speed of the epoch's training part."""
        self.images_per_second = self.images / max(self.elapsed(), 1e-9)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the epoch's clock."""
        self.epoch_seconds = self.elapsed()
        self.train_seconds += self.epoch_seconds
        self.epoch_start = None

    def state_dict(self) -> dict[str, float]:
        """Return the seconds so far."""
        return {"train_seconds": self.train_seconds + self.elapsed()}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore the seconds so far."""
        self.train_seconds = state_dict["train_seconds"]


class History(Callback):
    """Writes ``history.csv``, one row for each epoch; checkpoints contain the rows for a resumed run.

    Args:
        file: path of the file.
        stopwatch: callback that measures the epochs.
    """

    def __init__(self, file: Path, stopwatch: Stopwatch) -> None:
        self.file, self.stopwatch = file, stopwatch
        self.rows: list[Row] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row."""
        metrics = {name: f"{float(value):.6g}" for name, value in sorted(trainer.callback_metrics.items())}
        watch = self.stopwatch
        times = {"seconds": f"{watch.epoch_seconds:.3f}", "images_per_second": f"{watch.images_per_second:.1f}"}
        self.rows.append({"epoch": str(trainer.current_epoch + 1), **metrics, **times})
        if not ranks.current().first:
            return
        with written_whole(self.file) as stream:
            writer = csv.DictWriter(stream, list(self.rows[-1]), lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)

    def state_dict(self) -> dict[str, list[Row]]:
        """Return the rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, list[Row]]) -> None:
        """Restore the rows so far."""
        self.rows = list(state_dict["rows"])
