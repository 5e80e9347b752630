"""``budget.hours``: as many epochs as the time allows, by the speed of some steps of each stage, measured first."""

import copy
import logging
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from fer.config.errors import FerError
from fer.config.settings import BudgetSettings, LoggerSettings, TrainSettings
from fer.data.datamodule import FERDataModule
from fer.models import EmotionClassifier
from fer.training import device, trainers
from fer.training.callbacks.checkpointing import WRITE_EVERY
from fer.training.callbacks.ema import Averaging

log = logging.getLogger(__name__)

SETTLING, TIMED = 4, 16  # steps: until a pace is reached (a network is compiled by then), and those that are timed
WRITES = 2  # checkpoints that are written at a time, best and last
IN_FULL = 2  # times an epoch's val that val takes at the end, in 32 bits whatever the training's were


class KeptBack(NamedTuple):
    """Time that no epoch may have.

    Args:
        share: of the whole: an epoch's pictures, and a machine that slows down.
        end: seconds for the metrics, and for the report where there is one; val in full precision comes on top.
    """

    share: float
    end: float


DRAWN, BARE = KeptBack(0.04, 30.0), KeptBack(0.02, 10.0)  # with pictures and a report, and with neither


class Epoch(NamedTuple):
    """What an epoch takes.

    Args:
        seconds: of all of it.
        val: seconds of its validation.
    """

    seconds: float
    val: float


class Pace(Callback):
    """Times steps, val and the writing of a checkpoint; a GPU is waited for.

    Args:
        file: to write the checkpoint to.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.step = self.val = self.write = 0.0  # seconds
        self._began, self._timed = 0.0, 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Begin with the first step, and anew once the pace is reached, if steps are left then."""
        if args[1] in (0, SETTLING):
            self._began, self._timed = _now(pl_module), 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Count the step, and take the time at the last."""
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
        """Write a checkpoint, and take the time of it."""
        self._began = _now(pl_module)
        trainer.save_checkpoint(self.file)
        self.write = _now(pl_module) - self._began

    def epoch(self, steps: int) -> Epoch:
        """Return what an epoch of so many steps takes, its part in the writing of checkpoints included."""
        computing = steps * self.step + self.val
        return Epoch(computing + WRITES * self.write * min(1.0, computing / WRITE_EVERY), self.val)


def _now(module: pl.LightningModule) -> float:
    if module.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def kept_back(settings: TrainSettings) -> KeptBack:
    """Return the time that no epoch may have."""
    return DRAWN if settings.logger.tensorboard or settings.logger.report else BARE


def spent(data: FERDataModule) -> float:
    """Return the seconds since the faces lay in memory, as ``wall_seconds`` counts them."""
    return time.perf_counter() - data.laid_at


def planned(settings: TrainSettings, data: FERDataModule, model: EmotionClassifier, folder: Path) -> dict[str, Any]:
    """Return the plan: as many epochs as ``budget.hours`` allows, printed; stages keep their shares.

    Measuring, which compiles a network that is to be compiled, is part of the time.

    Args:
        settings: of the run, whose budget is set.
        data: laid in memory.
        model: the network, which is given the plan and otherwise left as it was.
        folder: of the run, where the writing of a checkpoint is measured.

    Raises:
        FerError: not one epoch of each stage fits.
    """
    hours = settings.budget.hours
    assert hours is not None
    stages = settings.stages or [[settings.data.image_size, settings.trainer.max_epochs]]
    log.info("budget.hours=%g: measuring the speed of %d steps", hours, SETTLING + TIMED)
    measured = {size: measured_epoch(settings, data, model, size, folder) for size, _ in stages}
    seconds = {size: epoch.seconds for size, epoch in measured.items()}
    shares = [epochs / sum(epochs for _, epochs in stages) for _, epochs in stages]
    mean = sum(share * seconds[size] for share, (size, _) in zip(shares, stages, strict=True))
    kept, gone = kept_back(settings), spent(data)
    end = kept.end + IN_FULL * measured[stages[-1][0]].val
    time_left = 3600 * hours * (1 - kept.share) - end - gone
    total = max(0, math.floor(time_left / mean))
    while total >= len(stages) and _whole(stages, divided(total, shares), seconds) > time_left:
        total -= 1  # each stage has one epoch at least, which may be more than its share
    if total < len(stages):
        raise FerError(
            f"budget.hours={hours:g}: measuring took {gone:.0f} s, the end is given {end:.0f} s, an epoch takes "
            f"{mean:.1f} s: too little"
        )
    parts = divided(total, shares)
    pace = ", ".join(f"{seconds[size]:.1f} s at {size} pixels" for size in sorted(seconds))
    ends = datetime.now() + timedelta(seconds=_whole(stages, parts, seconds) + end)
    log.info("budget.hours=%g: %d epochs (%s), until about %s", hours, total, pace, f"{ends:%Y-%m-%d %H:%M}")
    found = {"hours": hours, "epochs": total, "epoch_seconds": {str(size): seconds[size] for size in seconds}}
    if settings.stages:
        found["stages"] = [[size, epochs] for (size, _), epochs in zip(stages, parts, strict=True)]
    model.provenance = replace(model.provenance, plan=found)
    return found


def _whole(stages: Sequence[Sequence[int]], parts: Sequence[int], seconds: Mapping[int, float]) -> float:
    return sum(epochs * seconds[size] for (size, _), epochs in zip(stages, parts, strict=True))


def with_plan(settings: TrainSettings, data: FERDataModule, plan: Mapping[str, Any]) -> TrainSettings:
    """Return the settings with the epochs and stages of a plan, which the faces are told as well."""
    stages = [list(stage) for stage in plan.get("stages", [])]
    data.stages = stages
    return replace(
        settings,
        trainer=replace(settings.trainer, max_epochs=plan["epochs"]),
        stages=stages,
        budget=BudgetSettings(),
    )


def divided(total: int, shares: Sequence[float]) -> list[int]:
    """Return whole numbers, at least 1 each, that add up to ``total`` and are near their shares of it."""
    parts = [max(1, math.floor(total * share)) for share in shares]
    while sum(parts) != total:
        step = 1 if sum(parts) < total else -1
        movable = [place for place in range(len(parts)) if parts[place] + step >= 1]
        place = max(movable, key=lambda place: step * (total * shares[place] - parts[place]))
        parts[place] += step
    return parts


def measured_epoch(
    settings: TrainSettings, data: FERDataModule, model: EmotionClassifier, size: int, folder: Path
) -> Epoch:
    """Return what an epoch at a size takes: by some steps of a copy of the network, compiled if the run's is, the
    whole of val, and the writing of a checkpoint.
    """
    steps, before = trainers.steps_an_epoch(settings, len(data.datasets["train"])), data.stages
    tried = copy.deepcopy(model)
    tried.schedule_nothing()  # what is configured may be longer than this one epoch
    graphs = device.compiled(tried, settings, data)
    faces = {name: len(held) for name, held in data.datasets.items()}
    quiet = replace(settings, logger=LoggerSettings(tensorboard=False, projector=False, report=False))
    data.stages = [[size, 1]] if before else []
    averaging = [Averaging(settings.ema)] if settings.ema else []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="fer-budget-", dir=folder) as scratch,
            trainers.interruptible(),
            device.compiling(settings),
        ):
            pace = Pace(Path(scratch) / "trial.ckpt")
            trainer = trainers.build(
                quiet, Path(scratch), [*graphs, *averaging, pace], faces,
                max_epochs=1, limit_train_batches=min(steps, SETTLING + TIMED), enable_checkpointing=False,
            )  # fmt: skip
            trainer.fit(tried, datamodule=data)
    finally:
        data.stages = before
    log.debug("at %d pixels: %.4f s a step, %.3f for val, %.3f for a checkpoint", size, pace.step, pace.val, pace.write)
    return pace.epoch(steps)
