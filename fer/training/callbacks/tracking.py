"""A run in the loggers besides TensorBoard's.

They get its settings once, and the numbers of each epoch. An error of a logger never ends a run: the logger is left out
from then on, with a warning. Lightning's trainer does not get these loggers, since an error of theirs would end it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from fer.config.errors import Interrupted
from fer.data.datamodule import FERDataModule
from fer.models.trainable import Trainable
from fer.system import signals
from fer.system.files import why
from fer.training import loggers
from fer.training.callbacks.scalars import Scalars

log = logging.getLogger(__name__)


class Tracking(Callback):
    """Writes settings and numbers of a run to loggers.

    Args:
        opened: name -> logger.
        settings: key -> value of the run's settings.
        scalars: numbers of an epoch.
        resumed: the settings have been written before; a CSV logger begins anew each time.
    """

    def __init__(
        self, opened: Mapping[str, Logger], settings: Mapping[str, Any], scalars: Scalars, *, resumed: bool
    ) -> None:
        self.opened, self.settings, self.scalars, self.resumed = dict(opened), settings, scalars, resumed

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the settings of the run, and the name of its data."""
        if not self.opened:
            return
        data: FERDataModule = trainer.datamodule  # type: ignore[attr-defined]
        shown = {**self.settings, "data.name": data.faces.source.name}  # drawn faces may stand in for FER2013
        for name in [*self.opened]:
            if name == "csv" or not self.resumed:
                self._try(name, lambda logger: logger.log_hyperparams(shown))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the numbers of the epoch, counted from 1."""
        if not self.opened:
            return
        assert isinstance(pl_module, Trainable)
        values = self.scalars.of_epoch(trainer, pl_module)
        for name in [*self.opened]:
            self._try(name, lambda logger: logger.log_metrics(values, trainer.current_epoch + 1))

    def _try(self, name: str, action: Callable[[Logger], None]) -> None:
        try:
            with signals.kept():
                action(self.opened[name])
        except Interrupted:
            raise
        except Exception as error:  # a server that is gone, a full disk: each package has errors of its own
            del self.opened[name]
            log.warning("logger.%s: %s; the run goes on without it", name, why(error))

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Close the loggers at the end of a block, whether it raises or not."""
        complete = False
        try:
            yield
            complete = True
        finally:
            for name in [*self.opened]:
                self._try(name, lambda logger, name=name: loggers.close(name, logger, complete=complete))  # type: ignore[misc]

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Return the state for a resumed run; empty without loggers, as in runs older than these loggers."""
        return {"best": self.scalars.best} if self.opened else {}

    def load_state_dict(self, state_dict: dict[str, dict[str, float]]) -> None:
        """Restore the metrics of the best epoch so far."""
        self.scalars.best = dict(state_dict["best"])
