"""The numbers of an epoch that loggers get.

They are metrics of train and val, recalls, speed, and the best epoch so far.
"""

import pytorch_lightning as pl

from fer.models.trainable import Trainable
from fer.training.callbacks.checkpointing import Saver
from fer.training.callbacks.history import Stopwatch

HEADLINES = ("accuracy", "macro_f1", "loss")  # metrics of the best epoch


class Scalars:
    """Computes the numbers of an epoch; every logger gets the same.

    Args:
        saver: callback that knows the best epoch.
        stopwatch: callback that measures the epochs.
    """

    def __init__(self, saver: Saver, stopwatch: Stopwatch) -> None:
        self.saver, self.stopwatch = saver, stopwatch
        self.best: dict[str, float] = {}  # metrics of the best epoch so far

    def of_epoch(self, trainer: pl.Trainer, pl_module: Trainable) -> dict[str, float]:
        """Return name -> value of the epoch that has ended, before the saver has written it."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        recalls = zip(pl_module.hparams["classes"], pl_module.latest["val"]["recall"].tolist(), strict=True)
        values |= {f"recall/{name}": recall for name, recall in recalls}
        values |= {"speed/images_per_second": self.stopwatch.images_per_second}
        if not self.best or self.saver.is_better(values[self.saver.monitor], trainer.current_epoch):
            self.best = {f"best/{name}": values[f"{name}/val"] for name in HEADLINES}
        return values | self.best
