"""``budget.hours``: as many epochs as fit into a time.

They are planned from the measured speed of each stage. The plan is a number of epochs and not a clock. Lightning's own
loop measures some steps of each stage, and the schedule then counts epochs as in any run. The run can be repeated
(``trainer.max_epochs=`` and ``stages=`` of the plan) and resumed to the bit; a machine that slows down later exceeds
the time. Measuring, compiling included, counts as time.
"""

import copy
import logging
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from fer.config.errors import FerError
from fer.config.settings import BudgetSettings, LoggerSettings, TrainSettings
from fer.data.datamodule import FERDataModule
from fer.models.trainable import Trainable
from fer.system.records import OPTIONAL, plain, read
from fer.training import device, trainers
from fer.training.callbacks.checkpointing import WRITE_EVERY
from fer.training.callbacks.ema import Averaging

log = logging.getLogger(__name__)

WARM_UP, TIMED = 4, 16  # steps before the timed ones, in which a network is compiled; timed steps
WRITES = 2  # checkpoints that are written at a time, best and last
FULL_PRECISION = 2  # duration of the final val in 32 bits, in times of an epoch's val


class Reserve(NamedTuple):
    """Time that is not planned for epochs.

    Args:
        share: fraction of the whole, for the epochs' pictures and a machine that slows down.
        end: seconds for the metrics and the report; val in full precision is added to it.
    """

    share: float
    end: float


WITH_REPORT, WITHOUT_REPORT = Reserve(0.04, 30.0), Reserve(0.02, 10.0)  # with and without pictures and a report


class Epoch(NamedTuple):
    """The duration of an epoch.

    Args:
        seconds: seconds of the whole epoch.
        val: seconds of its validation.
    """

    seconds: float
    val: float


@dataclass(frozen=True)
class EpochPlan:
    """The epochs that a time allows, as a checkpoint records them.

    Args:
        hours: the time.
        epochs: of all stages.
        epoch_seconds: size of the faces, as text -> measured seconds of an epoch.
        stages: (size, epochs) of each stage; None without stages.
    """

    hours: float
    epochs: int
    epoch_seconds: Mapping[str, float]
    stages: tuple[tuple[int, int], ...] | None = field(default=None, metadata=OPTIONAL)


class Pace(Callback):
    """Measures steps, val and the writing of a checkpoint; it waits for a GPU.

    Args:
        file: path to write the checkpoint to.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.step = self.val = self.write = 0.0  # seconds
        self._began, self._timed = 0.0, 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Start the clock at the first step, and again after the warm-up, if steps are left then."""
        if args[1] in (0, WARM_UP):
            self._began, self._timed = _now(pl_module), 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Count the step, and stop the clock at the last."""
        self._timed += 1
        if args[2] + 1 == trainer.num_training_batches:
            self.step = (_now(pl_module) - self._began) / self._timed

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin."""
        self._began = _now(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the time of val."""
        self.val = _now(pl_module) - self._began

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a checkpoint, and measure the time of writing."""
        self._began = _now(pl_module)
        trainer.save_checkpoint(self.file)
        self.write = _now(pl_module) - self._began

    def epoch(self, steps: int) -> Epoch:
        """Return the duration of an epoch of so many steps, its share of the time to write checkpoints included."""
        computing = steps * self.step + self.val
        return Epoch(computing + WRITES * self.write * min(1.0, computing / WRITE_EVERY), self.val)


def _now(module: pl.LightningModule) -> float:
    if module.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reserve(settings: TrainSettings) -> Reserve:
    """Return the time that is not planned for epochs."""
    return WITH_REPORT if settings.logger.tensorboard or settings.logger.report else WITHOUT_REPORT


def spent(data: FERDataModule) -> float:
    """Return the seconds since the faces were loaded, as ``wall_seconds`` counts them."""
    return time.perf_counter() - data.loaded_at


def within_budget(
    settings: TrainSettings, data: FERDataModule, model: Trainable, folder: Path
) -> tuple[TrainSettings, FERDataModule]:
    """Return settings and data with the epochs that ``budget.hours`` allows, in a resumed run those planned before."""
    recorded = model.provenance.plan
    plan = read(EpochPlan, recorded) if recorded else planned(settings, data, model, folder)
    return with_plan(settings, data, plan)


def planned(settings: TrainSettings, data: FERDataModule, model: Trainable, folder: Path) -> EpochPlan:
    """Return and log a plan with as many epochs as ``budget.hours`` allows; stages keep their shares.

    Measuring, which may compile the network, is part of the time.

    Args:
        settings: settings of a run with a budget.
        data: the run's data, loaded.
        model: the network; the plan is stored in its provenance, its weights stay.
        folder: folder of the run, where the writing of a checkpoint is measured.

    Raises:
        FerError: the time is too short for one epoch of each stage.
    """
    hours = settings.budget.hours
    assert hours is not None
    stages = settings.stages or [[settings.data.image_size, settings.trainer.max_epochs]]
    log.info("budget.hours=%g: measuring the speed of %d steps", hours, WARM_UP + TIMED)
    measured = {size: measured_epoch(settings, data, model, size, folder) for size, _ in stages}
    seconds = {size: epoch.seconds for size, epoch in measured.items()}
    shares = [epochs / sum(epochs for _, epochs in stages) for _, epochs in stages]
    mean = sum(share * seconds[size] for share, (size, _) in zip(shares, stages, strict=True))
    reserved, measuring = reserve(settings), spent(data)
    end = reserved.end + FULL_PRECISION * measured[stages[-1][0]].val
    time_left = 3600 * hours * (1 - reserved.share) - end - measuring
    total = max(0, math.floor(time_left / mean))
    while total >= len(stages) and _duration(stages, divided(total, shares), seconds) > time_left:
        total -= 1  # each stage has at least one epoch, which may be more than its share
    if total < len(stages):
        raise FerError(
            f"budget.hours={hours:g}: too short for an epoch of each stage; measuring took {measuring:.0f} s, the end "
            f"needs {end:.0f} s, an epoch takes {mean:.1f} s; set more"
        )
    parts = divided(total, shares)
    pace = ", ".join(f"{seconds[size]:.1f} s at {size} pixels" for size in sorted(seconds))
    ends = datetime.now() + timedelta(seconds=_duration(stages, parts, seconds) + end)
    log.info("budget.hours=%g: %d epochs (%s), until about %s", hours, total, pace, f"{ends:%Y-%m-%d %H:%M}")
    in_stages = tuple((size, epochs) for (size, _), epochs in zip(stages, parts, strict=True))
    by_size = {str(size): seconds[size] for size in seconds}
    plan = EpochPlan(hours, total, by_size, in_stages if settings.stages else None)
    model.provenance = replace(model.provenance, plan=plain(plan))
    return plan


def _duration(stages: Sequence[Sequence[int]], parts: Sequence[int], seconds: Mapping[int, float]) -> float:
    return sum(epochs * seconds[size] for (size, _), epochs in zip(stages, parts, strict=True))


def with_plan(settings: TrainSettings, data: FERDataModule, plan: EpochPlan) -> tuple[TrainSettings, FERDataModule]:
    """Return the settings and the data module with the epochs and stages of a plan."""
    stages = [list(stage) for stage in plan.stages or ()]
    trainer = replace(settings.trainer, max_epochs=plan.epochs)
    planned = replace(settings, trainer=trainer, stages=stages, budget=BudgetSettings())
    return planned, data.replaced(stages=stages)


def divided(total: int, shares: Sequence[float]) -> list[int]:
    """Divide ``total`` into whole numbers of at least 1 that are close to their shares of it."""
    parts = [max(1, math.floor(total * share)) for share in shares]
    while sum(parts) != total:
        step = 1 if sum(parts) < total else -1
        movable = [index for index in range(len(parts)) if parts[index] + step >= 1]
        chosen = max(movable, key=lambda index: step * (total * shares[index] - parts[index]))
        parts[chosen] += step
    return parts


def measured_epoch(settings: TrainSettings, data: FERDataModule, model: Trainable, size: int, folder: Path) -> Epoch:
    """Return the duration of an epoch at a size.

    A copy of the network, compiled if the run's is, makes some steps and the whole of val, and writes a checkpoint.
    """
    steps = trainers.steps_an_epoch(settings, len(data.datasets["train"]))
    trial = copy.deepcopy(model)
    trial.use_constant_lr()  # the configured schedule may be longer than this one epoch
    graphs = device.compiled(trial, settings, data)
    faces = {split: len(dataset) for split, dataset in data.datasets.items()}
    quiet = replace(settings, logger=LoggerSettings(tensorboard=False, projector=False, report=False))
    at_size = data.replaced(stages=[[size, 1]] if data.stages else [])
    averaging = [Averaging(settings.ema)] if settings.ema else []
    with (
        tempfile.TemporaryDirectory(prefix="fer-budget-", dir=folder) as scratch,
        trainers.interruptible(),
        device.compiling(settings),
    ):
        pace = Pace(Path(scratch) / "trial.ckpt")
        trainer = trainers.build(
            quiet, Path(scratch), [*graphs, *averaging, pace], faces,
            max_epochs=1, limit_train_batches=min(steps, WARM_UP + TIMED), enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(trial, datamodule=at_size)
    log.debug("at %d pixels: %.4f s a step, %.3f for val, %.3f for a checkpoint", size, pace.step, pace.val, pace.write)
    return pace.epoch(steps)
