"""An exponential moving average of the weights."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

Slot = tuple[dict[str, Any], str]  # a dictionary of a module's tensors, and a name in it


class Averaging(WeightAveraging):
    """Keeps an exponential moving average of the weights, which val evaluates; checkpoints hold it and the raw weights.

    The decay has a warm-up, since the average would otherwise keep the untrained weights for long. After n steps it is
    at most (1 + n) / (10 + n), as in TensorFlow's ``ExponentialMovingAverage``.

    The modules are walked once, and a step updates all weights in one call. Counters (``num_batches_tracked``) are
    copied before they are read: before val, before a checkpoint, and at the end. A resumed run equals an uninterrupted
    one to the bit. This callback comes first, so that a signal's checkpoint contains the latest step.

    Args:
        decay: fraction of the average that a step keeps.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._uncounted = 0  # updates that are not added to ``n_averaged`` yet, a tensor on the device

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Create the average on the training's device; Lightning moves the network there after this hook."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._averages, self._weights = Tensors(self._average_model.module), Tensors(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average; torch's ``update_parameters`` would read its counter from the device and wait."""
        if trainer.global_step > self._latest_update_step:
            self.update(self._averages.moving(), self._weights.moving())
            self._uncounted += 1
            self._latest_update_step = trainer.global_step

    @torch.no_grad()
    def update(self, averages: list[Tensor], weights: list[Tensor]) -> None:
        """Move averages towards weights; the first weights are copied."""
        steps = self._latest_update_step
        if steps:
            kept = min(self.decay, (1 + steps) / (10 + steps))
            torch._foreach_lerp_(averages, weights, 1 - kept)
        else:
            torch._foreach_copy_(averages, weights)

    @torch.no_grad()
    def count(self) -> None:
        """Copy the counters."""
        if self._average_model is None:
            return
        if averages := self._averages.counting():
            torch._foreach_copy_(averages, self._weights.counting())
        self._average_model.n_averaged += self._uncounted
        self._uncounted = 0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Swap the average in for val."""
        self.count()
        super().on_validation_epoch_start(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the average and the raw weights to a checkpoint."""
        self.count()
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the network the average as its weights."""
        self.count()
        super().on_train_end(trainer, pl_module)

    @torch.no_grad()
    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        """Swap average and weights, three calls for all of a kind; Lightning makes three for each tensor."""
        self._swap(self._averages.moving(), self._weights.moving())
        self._swap(self._averages.counting(), self._weights.counting())

    @staticmethod
    def _swap(averages: list[Tensor], weights: list[Tensor]) -> None:
        if averages:
            before = [torch.empty_like(average) for average in averages]
            torch._foreach_copy_(before, averages)
            torch._foreach_copy_(averages, weights)
            torch._foreach_copy_(weights, before)


class Tensors:
    """Parameters and buffers of a module, found by one walk through it.

    The dictionaries that hold the tensors are kept, not the tensors. Moving a module to a device replaces the tensors,
    and some networks replace them at each step.

    Args:
        module: the module; shared tensors are listed once.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        slots: dict[int, Slot] = {}
        self._moving: list[Slot] = []
        self._counting: list[Slot] = []
        parts = list(module.modules())
        tables: list[dict[str, Any]] = [table for part in parts for table in (part._parameters, part._buffers)]
        for table in tables:
            for name, value in table.items():
                if value is not None:
                    slots.setdefault(id(value), (table, name))
        for table, name in slots.values():
            (self._moving if table[name].is_floating_point() else self._counting).append((table, name))

    def moving(self) -> list[Tensor]:
        """Return the current floating-point tensors."""
        return [table[name] for table, name in self._moving]

    def counting(self) -> list[Tensor]:
        """Return the current integer tensors."""
        return [table[name] for table, name in self._counting]
