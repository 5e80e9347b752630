"""Construction of Lightning's trainer and its callbacks from the settings."""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger

from fer.config.errors import Interrupted
from fer.config.settings import Origin, TrainSettings, batches_of, leaves, mode
from fer.data.samplers import drops_last
from fer.system import machine, ranks, signals
from fer.training import deadline, launch, loggers
from fer.training.callbacks import checkpointing
from fer.training.callbacks.checkpointing import Saver, WithinEpochs
from fer.training.callbacks.early_stopping import Patience
from fer.training.callbacks.ema import Averaging
from fer.training.callbacks.guards import FiniteLoss
from fer.training.callbacks.history import History, Stopwatch
from fer.training.callbacks.progress import Progress
from fer.training.callbacks.scalars import Scalars
from fer.training.callbacks.statistics import OneStatistics
from fer.training.callbacks.tensorboard import Dashboard, hyperparameters
from fer.training.callbacks.tracking import Tracking
from fer.training.deadline import Deadline

log = logging.getLogger(__name__)


def quieten() -> None:
    """Silence warnings of libraries that a user of this command cannot act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # batches come from memory
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen layers are
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*")  # its successor is not in every version of torch
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # metrics are summed before they are logged
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step.*")


def build(
    settings: TrainSettings,
    folder: Path,
    callbacks: list[Callback],
    faces: dict[str, int],
    begin: int = 0,
    **instead: Any,
) -> pl.Trainer:
    """Return Lightning's trainer with the options of ``settings.trainer``.

    Args:
        settings: settings of the run.
        folder: folder of the run.
        callbacks: callbacks in order.
        faces: split -> number of faces.
        begin: finished epochs of a resumed run.
        instead: arguments of ``pl.Trainer`` that replace the settings' or are added to them.
    """
    chosen, batch_size = settings.trainer, settings.data.faces_a_step
    logged = settings.logger.tensorboard and ranks.current().first
    logger = tensorboard_logger(folder, begin) if logged else False
    options: dict[str, Any] = {
        "accelerator": "gpu" if machine.uses_gpu(chosen) else "cpu",
        "devices": 1,
        "precision": machine.precision(chosen),
        "max_epochs": chosen.max_epochs,
        "gradient_clip_val": chosen.gradient_clip,
        "gradient_clip_algorithm": chosen.gradient_clip_by,
        "limit_train_batches": limit(chosen.limit_train, faces["train"], batch_size),
        "limit_val_batches": limit(chosen.limit_val, faces["val"], batch_size),
        "overfit_batches": chosen.overfit_batches,
        "accumulate_grad_batches": chosen.accumulate,
        # CUDA has no deterministic backward for grid_sample and adaptive pooling
        "deterministic": "warn" if chosen.deterministic else False,
        "benchmark": not chosen.deterministic,
        "logger": logger,
        "callbacks": callbacks,
        # of one process; else Lightning takes the variables of SLURM, queues the job again itself, or refuses it
        "plugins": [checkpointing.AtomicCheckpointIO(), *([] if ranks.current().several else [LightningEnvironment()])],
        "default_root_dir": folder,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": True,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,  # metrics are logged at epochs' ends only; this avoids a warning of Lightning
    }
    return pl.Trainer(**options | dict(launch.strategy(settings)) | instead)


def tensorboard_logger(folder: Path, begin: int) -> TensorBoardLogger:
    """Return the logger of a run; entries that an interrupted run logged after ``begin`` epochs are deleted."""
    purge = begin + 1 if begin else None
    return TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False, purge_step=purge)


def limit(fraction: float, faces: int, batch_size: int) -> int | float:
    """Return Lightning's limit: 1.0 for all batches, or a number of batches, at least 1."""
    return 1.0 if fraction == 1 else batches_of(fraction, faces, batch_size)


def steps_an_epoch(settings: TrainSettings, faces: int) -> int:
    """Return the number of steps in an epoch, with ``trainer.limit_train`` and ``overfit_batches``."""
    size = settings.data.faces_a_step
    if settings.trainer.overfit_batches:
        return settings.trainer.overfit_batches
    if settings.trainer.limit_train < 1:
        return batches_of(settings.trainer.limit_train, faces, size)
    dropped = drops_last(faces, size, drop_last=settings.trainer.compile, ranks=settings.trainer.ranks)
    return faces // size if dropped else math.ceil(faces / size)


def before_signals(settings: TrainSettings) -> list[Callback]:
    """Return the callbacks that change a step's result, so that the checkpoint which a signal writes has it."""
    callbacks: list[Callback] = [Averaging(settings.ema)] if settings.ema else []
    if ranks.current().several and not settings.trainer.sync_batchnorm:
        callbacks.append(OneStatistics())
    ends = deadline.end_of(settings)
    if ends is not None:  # before the checkpoint is written, which holds the new plan
        callbacks.append(Deadline(ends))
    return callbacks


def after_signals(
    settings: TrainSettings, folder: Path, saver: Saver, watch: Stopwatch, finite: FiniteLoss, origin: Origin
) -> list[Callback]:
    """Return the callbacks that record, show and end the training."""
    callbacks: list[Callback] = [
        History(folder / "history.csv", watch),
        Progress(saver, watch, stages=settings.stages, live=settings.trainer.bar),
    ]
    if settings.logger.tensorboard and ranks.current().first:
        callbacks.append(Dashboard(hyperparameters(settings, origin), saver, watch, resumed=bool(settings.resume)))
    callbacks.append(saver)
    if settings.early_stopping:
        callbacks.append(Patience(settings.monitor, patience=settings.early_stopping, mode=mode(settings.monitor)))
    if settings.checkpoint.minutes is not None:
        callbacks.append(WithinEpochs(settings.checkpoint.minutes, saver, finite.check))
    return callbacks


def tracking(settings: TrainSettings, folder: Path, begin: int, scalars: Scalars) -> Tracking:
    """Return the callback that writes to the loggers besides TensorBoard's; on ranks other than 0 there are none."""
    resumed, opened = bool(settings.resume), {}
    if ranks.current().first:
        opened = loggers.opened(settings.logger, folder, begin, resumed=resumed)
    if opened and not settings.logger.tensorboard:
        log.info("%s: %s: logger=[tensorboard,%s]", ", ".join(opened), loggers.LEFT_OUT, ",".join(opened))
    return Tracking(opened, dict(leaves(asdict(settings))), scalars, resumed=resumed)


@contextmanager
def interruptible() -> Iterator[None]:
    """End at once on a signal, where there is nothing to save; Lightning would exit with code 1."""

    def receive(number: int, frame: FrameType | None) -> None:
        raise Interrupted("interrupted", signals.exit_code(number))

    with signals.handled(receive):
        yield
