"""Checkpoints: written whole, the last one and the best, and gone on with."""

import copy
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.profilers import Profiler
from torch import Tensor

from fer.config.errors import FerError
from fer.config.settings import mode
from fer.data.labels import EMOTIONS
from fer.models import EmotionClassifier
from fer.models.checkpoints import find, read
from fer.models.provenance import Provenance

log = logging.getLogger(__name__)
OF_DATA = ("image_size", "crop")  # of a network's arguments those that come from ``data``

WRITE_EVERY = 30.0  # seconds between writings of checkpoints, which hold the training up


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its name, flushes it to the disk, and renames it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            FerError: the disk is full or the folder may not be written; what was there before is intact.
        """
        target = Path(path)
        part = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, target)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            part.unlink(missing_ok=True)
            cause = error if isinstance(error, OSError) else error.__context__  # a full disk lies below torch's error
            reason = cause.strerror if isinstance(cause, OSError) else str(error).splitlines()[0]
            before = "the checkpoint before it is intact" if target.exists() else "there was none before it"
            raise FerError(f"{target}: could not be written ({reason}); {before}") from error


def newest(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the newest sound checkpoint of a run and its contents: the last, or the best where the last is damaged.

    Raises:
        FerError: there is none.
    """
    problems: list[str] = []
    for file in (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "best")):
        if not file.is_file():
            continue
        try:
            checkpoint = read(file)
        except FerError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            log.warning("%s; going on from %s", problem, file)
        return file, checkpoint
    raise FerError(f"resume={folder}: no sound checkpoint{': ' + problems[0] if problems else ' was written'}")


def seal(path: Path, temperature: float) -> None:
    """Add to a checkpoint the temperature that val has given its network.

    Raises:
        FerError: it is bad, or cannot be written; then it is as it was.
    """
    checkpoint = read(path)
    checkpoint["fer"] = {**checkpoint["fer"], "temperature": temperature}
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)


def load_weights(model: EmotionClassifier, path: str | Path) -> None:
    """Start ``model`` from another checkpoint's weights, to fine-tune.

    Raises:
        FerError: the file is bad, its classes differ, or its weights do not fit.
    """
    file = find(path)
    checkpoint = read(file)
    classes = list(checkpoint["hyper_parameters"].get("classes", EMOTIONS))
    if classes != list(model.hparams["classes"]):
        raise FerError(
            f"init_from={path}: its classes are {', '.join(classes)}; expected {', '.join(model.hparams['classes'])}"
        )
    try:
        model.load_state_dict(checkpoint["state_dict"], strict=True)
    except RuntimeError as error:
        raise FerError(f"init_from={path}: {_unfit(checkpoint, model, error)}") from error
    before = Provenance.of(checkpoint["fer"])
    ancestors = (*before.ancestors, before.dataset)
    model.provenance = replace(model.provenance, pretrained=before.pretrained, ancestors=ancestors)


def _unfit(checkpoint: dict[str, Any], model: EmotionClassifier, error: Exception) -> str:
    """Return in words why a checkpoint's weights do not fit a network, and what would make them."""
    network, theirs, own = checkpoint["fer"].get("architecture"), checkpoint["hyper_parameters"], model.hparams
    if network != model.architecture:
        return f"holds {network!r}, which does not fit model.name={model.architecture}"
    keys = [key for key in theirs if key in own and theirs[key] != own[key]]
    other = " ".join(f"{'data' if key in OF_DATA else 'model'}.{key}={theirs[key]}" for key in keys)
    remedy = f"; set {other}" if other else f": {' '.join(str(error).split())[:300]}"
    return f"its {network} is of another shape than this one{remedy}"


class Saver(Checkpoint):
    """Writes ``best.ckpt``, of the epoch with the best monitored metric, and ``last.ckpt``, of the latest epoch.

    Epochs that end less than ``WRITE_EVERY`` seconds after a writing are copied on the device. The copies are written
    when the time has passed, at the end of the training, and when a signal or an exception ends it, so that a kill
    alone loses such epochs. The best goes first: whatever cuts the writing short, ``last.ckpt`` never promises a best
    that is not there. Each copy holds the weights, their average and the optimizer's state; there are two at most.

    Args:
        folder: of the checkpoints.
        monitor: the figure that chooses.
        first: epoch, from 0, before which none is chosen.
    """

    def __init__(self, folder: Path, monitor: str, first: int = 0) -> None:
        self.folder, self.monitor, self.first = folder, monitor, first
        self.best_value: float | None = None
        self.best_epoch = -1
        self._pause = Pause(WRITE_EVERY)
        self._pending: dict[str, dict[str, Any]] = {}  # "best", "last" -> a checkpoint that is not written yet

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write or copy the epoch's state, the metrics of the epoch being known."""
        value = float(trainer.callback_metrics[self.monitor])
        better = self.is_better(value, trainer.current_epoch)
        if better:
            self.best_value, self.best_epoch = value, trainer.current_epoch
        with _timed(trainer):
            state = _state(trainer)
            copied = None if self._pause.over() else _copied(state)
        self._pending |= {name: copied or state for name in (("best", "last") if better else ("last",))}
        if copied is None:
            self.write(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the state as it is now, within an epoch, as ``last.ckpt``, after a best that waits to be written."""
        self._pending["last"] = _state(trainer)
        self.write(trainer)

    def write(self, trainer: pl.Trainer) -> None:
        """Write what waits to be written.

        Raises:
            FerError: it cannot be written; it still waits.
        """
        with _timed(trainer):
            for name in ("best", "last"):
                if name in self._pending:
                    trainer.strategy.save_checkpoint(self._pending[name], self.folder / f"{name}.ckpt")
                    del self._pending[name]
        self._pause.begin()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what waits."""
        self.write(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write the epochs that were sound, whatever ended the training, and let its cause be reported."""
        try:
            self.write(trainer)
        except FerError as error:
            if str(error) != str(exception):
                log.warning("%s", error)

    def is_better(self, value: float, epoch: int) -> bool:
        """Return whether an epoch's ``value`` beats the best so far."""
        if epoch < self.first:
            return False
        if self.best_value is None:
            return True
        return value < self.best_value if mode(self.monitor) == "min" else value > self.best_value

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {"best_value": self.best_value, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best so far."""
        self.best_value, self.best_epoch = state_dict["best_value"], state_dict["best_epoch"]


class Pause:
    """Keeps what takes time from being done again too soon.

    Args:
        seconds: of a pause.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began: float | None = None

    def begin(self) -> None:
        """Begin a pause."""
        self._began = time.monotonic()

    def over(self) -> bool:
        """Return whether the latest pause is over; True before the first."""
        return self._began is None or time.monotonic() - self._began >= self.seconds


def _timed(trainer: pl.Trainer) -> AbstractContextManager[None]:
    """Time what is done within as the profiler times ``Trainer.save_checkpoint``."""
    profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]
    return profiler.profile("save_checkpoint")


def _copied(state: dict[str, Any]) -> dict[str, Any] | None:
    """Return a checkpoint that shares nothing with the training, or None where its device has no room for one."""
    try:
        clones = {id(value): value.detach().clone() for value in _tensors(state)}  # deepcopy's own take far longer
        return copy.deepcopy(state, clones)
    except torch.OutOfMemoryError:
        return None


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in dictionaries and lists within each other."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)


def _state(trainer: pl.Trainer) -> dict[str, Any]:
    """Return a checkpoint of the training as it is now, which shares tensors and lists with it."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
