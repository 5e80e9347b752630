"""Lightning's trainer, as the settings say."""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger

from fer.config.errors import Interrupted
from fer.config.settings import TrainSettings
from fer.data.samplers import drops_last
from fer.system import machine
from fer.training.callbacks import checkpointing


def build(
    settings: TrainSettings,
    folder: Path,
    callbacks: list[Callback],
    faces: dict[str, int],
    begin: int = 0,
    **instead: Any,
) -> pl.Trainer:
    """Return Lightning's trainer, as ``settings.trainer`` says.

    Args:
        settings: of the run.
        folder: the run's.
        callbacks: in order.
        faces: split -> number of faces.
        begin: epochs that are done already, of a resumed run.
        instead: further arguments of ``pl.Trainer``, or other ones.
    """
    chosen, batch_size = settings.trainer, settings.data.faces_a_step
    logger = tensorboard_logger(folder, begin) if settings.logger.tensorboard else False
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
        # CUDA has no deterministic backward for grid_sample and adaptive pooling
        "deterministic": "warn" if chosen.deterministic else False,
        "benchmark": not chosen.deterministic,
        "logger": logger,
        "callbacks": callbacks,
        "plugins": [checkpointing.AtomicCheckpointIO()],
        "default_root_dir": folder,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": True,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,  # figures are logged at epochs' ends only; this keeps Lightning from warning
    }
    return pl.Trainer(**options | instead)


def tensorboard_logger(folder: Path, begin: int) -> TensorBoardLogger:
    """Return the logger of a run; what an interrupted one has logged after ``begin`` epochs is taken back."""
    purge = begin + 1 if begin else None
    return TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False, purge_step=purge)


def limit(fraction: float, faces: int, batch_size: int) -> int | float:
    """Return Lightning's limit: all (1.0), or a number of batches, at least one, where Lightning would refuse none."""
    return 1.0 if fraction == 1 else max(1, round(fraction * faces / batch_size))


def steps_an_epoch(settings: TrainSettings, faces: int) -> int:
    """Return the steps of an epoch of so many faces, as ``trainer.limit_train`` and ``overfit_batches`` have them."""
    size = settings.data.faces_a_step
    limited = limit(settings.trainer.limit_train, faces, size)
    dropped = drops_last(faces, size, even=settings.trainer.compile)
    every = faces // size if dropped else math.ceil(faces / size)
    return settings.trainer.overfit_batches or (every if limited == 1.0 else int(limited))


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal end at once what has nothing to save. Lightning would exit with 1."""

    def receive(number: int, frame: FrameType | None) -> None:
        raise Interrupted("interrupted", 128 + number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
