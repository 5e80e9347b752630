"""One set of running statistics for all ranks.

It is needed where ranks normalise apart (``trainer.sync_batchnorm=false``).
"""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from fer.models import batchnorm


class OneStatistics(Callback):
    """Averages the running statistics over the ranks before val, so that all ranks evaluate the same network.

    It comes after the moving average of the weights, which is swapped in when val begins, and has statistics too.
    """

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Average those of the trained weights."""
        batchnorm.average(pl_module)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Average those of the weights that are evaluated."""
        batchnorm.average(pl_module)
