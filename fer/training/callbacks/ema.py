"""An exponential moving average of the weights."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

Slot = tuple[dict[str, Any], str]  # a dictionary of a module's tensors, and the name of one


class Averaging(WeightAveraging):
    """Keeps an exponential moving average of the weights: val scores it, checkpoints hold it, and the raw weights too.

    Of the first steps it forgets sooner, which the untrained weights would weigh on: after n steps it keeps no more
    than (1 + n) / (10 + n) of what it was, as in TensorFlow's ``ExponentialMovingAverage``.

    The modules are walked once, and a step moves all weights in one call. What only counts (``num_batches_tracked``)
    is copied when somebody is about to read it: before val, before a checkpoint, at the end.

    Args:
        decay: how much of the average a step keeps.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._uncounted = 0  # updates that ``n_averaged``, which lies on the device, does not count yet

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep the average where the network will be: callbacks are set up before Lightning moves it there."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._averages, self._weights = Tensors(self._average_model.module), Tensors(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in a step. Torch's own ``update_parameters`` asks its count on the device, for which the host waits."""
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
        """Copy what only counts."""
        if self._average_model is None:
            return
        if averages := self._averages.counting():
            torch._foreach_copy_(averages, self._weights.counting())
        self._average_model.n_averaged += self._uncounted
        self._uncounted = 0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give val the average."""
        self.count()
        super().on_validation_epoch_start(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Give a checkpoint both."""
        self.count()
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the network with the average."""
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

    What is kept is the dictionaries that hold them: moving a module to a device, and some networks at each step, put
    other tensors there.

    Args:
        module: whose tensors are meant, each once.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        slots: dict[int, Slot] = {}
        self._moving: list[Slot] = []
        self._counting: list[Slot] = []
        parts = list(module.modules())
        dictionaries: list[dict[str, Any]] = [held for part in parts for held in (part._parameters, part._buffers)]
        for held in dictionaries:
            for name, value in held.items():
                if value is not None:
                    slots.setdefault(id(value), (held, name))
        for held, name in slots.values():
            (self._moving if held[name].is_floating_point() else self._counting).append((held, name))

    def moving(self) -> list[Tensor]:
        """Return those with fractions, as they are now."""
        return [held[name] for held, name in self._moving]

    def counting(self) -> list[Tensor]:
        """Return those that only count, as they are now."""
        return [held[name] for held, name in self._counting]
