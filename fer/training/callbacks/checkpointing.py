"""The checkpoints of a run, the best and the last, written whole.

The newest one is found for a resumed run, and weights are loaded for fine-tuning.
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.profilers import Profiler
from torch import Tensor

from fer.config.conf import spelled
from fer.config.errors import FerError
from fer.config.settings import mode
from fer.data.labels import EMOTIONS
from fer.metrics.conformal import Thresholds
from fer.models.checkpoints import Contents, find, read
from fer.models.trainable import Trainable
from fer.runs.provenance import Provenance
from fer.system import ranks
from fer.system.files import written_whole
from fer.system.records import plain

log = logging.getLogger(__name__)

# argument of a network that is a key of ``data`` -> that key
OF_DATA = {"image_size": "data.image_size", "crop": "data.crop", "in_channels": "data.channels"}
MEASURED = ("mean", "std")  # arguments that no key sets, and that change no shape
WRITE_EVERY = 30.0  # seconds between writings of checkpoints, during which the training stops


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary name in its own folder, flushes it to the disk, and renames it.

    Lightning writes through ``$TMPDIR``, which may be on another disk, where moving is copying.
    """

    def save_checkpoint(self, checkpoint: Contents, path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            FerError: the disk is full or the folder is not writable; the previous checkpoint is intact.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(target, binary=True, flushed=True) as stream:
                torch.save(checkpoint, stream)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            cause = error if isinstance(error, OSError) else error.__context__  # torch wraps a full disk's error
            reason = cause.strerror if isinstance(cause, OSError) else str(error).splitlines()[0]
            previous = "the previous checkpoint is intact" if target.exists() else "there is no previous checkpoint"
            raise FerError(f"{target}: could not be written ({reason}); {previous}") from error


def newest(folder: Path) -> tuple[Path, Contents]:
    """Return file and contents of a run's newest valid checkpoint: the last, or the best if the last is damaged.

    Noise is keyed by seed and epoch, so that a run resumed from either gives the same result.

    Raises:
        FerError: the run has no valid checkpoint.
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
            log.warning("%s; resuming from %s", problem, file)
        return file, checkpoint
    raise FerError(f"resume={folder}: no valid checkpoint: {problems[0] if problems else 'it has none'}")


def add_calibration(path: Path, temperature: float, sets: Thresholds | None = None) -> None:
    """Add the temperature that was fitted on val, and the thresholds of the prediction sets with it, to a checkpoint.

    Raises:
        FerError: the checkpoint is bad, or cannot be written; the file is then unchanged.
    """
    checkpoint = read(path)
    kept = None if sets is None else plain(sets)
    checkpoint["fer"] = {**checkpoint["fer"], "temperature": temperature, "sets": kept}
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)


def load_weights(model: Trainable, path: str | Path) -> None:
    """Load another checkpoint's weights into ``model``, for fine-tuning.

    The checkpoint's training data count as training data of the model, so that leakage is found.

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
    source = Provenance.of(checkpoint["fer"])
    ancestors = (*source.ancestors, source.dataset)
    model.provenance = replace(model.provenance, pretrained=source.pretrained, ancestors=ancestors)


def _unfit(checkpoint: Contents, model: Trainable, error: Exception) -> str:
    """Return in words why a checkpoint's weights do not fit a network, and the settings that would fit."""
    network, stored, hparams = checkpoint["fer"].get("architecture"), checkpoint["hyper_parameters"], model.hparams
    if network != model.architecture:
        return f"holds {network!r}, which does not fit model.name={model.architecture}"
    stored = {"in_channels": 1, **stored}  # older checkpoints have no such entry
    keys = [key for key in stored if key in hparams and key not in MEASURED and stored[key] != hparams[key]]
    fitting = " ".join(f"{OF_DATA.get(key, f'model.{key}')}={spelled(stored[key])}" for key in keys)
    remedy = f"; set {fitting}" if fitting else f": {' '.join(str(error).split())[:300]}"
    return f"its {network} is of another shape than this one{remedy}"


class Saver(Checkpoint):
    """Writes ``best.ckpt``, of the epoch with the best monitored metric, and ``last.ckpt``, of the latest epoch.

    An epoch that ends less than ``WRITE_EVERY`` seconds after a writing is copied on the device. Copies are written
    when the time has passed, at the end of the training, and when a signal or an exception ends it. Only a kill loses
    them. The best is written first, so that ``last.ckpt`` never names a best epoch whose file is missing. A copy holds
    the weights, their average and the optimizer's state; there are at most two copies.

    Args:
        folder: folder of the checkpoints.
        monitor: metric that chooses the best epoch.
        first: first epoch, from 0, that can be the best: with progressive resizing, the first of the last stage.
    """

    def __init__(self, folder: Path, monitor: str, first: int = 0) -> None:
        self.folder, self.monitor, self.first = folder, monitor, first
        self.best_value: float | None = None
        self.best_epoch = -1
        self.pause = Pause(WRITE_EVERY)
        self._pending: dict[str, Contents] = {}  # "best", "last" -> checkpoint to write

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write or copy the state after an epoch, whose metrics are known by now."""
        value = float(trainer.callback_metrics[self.monitor])
        better = self.is_better(value, trainer.current_epoch)
        if better:
            self.best_value, self.best_epoch = value, trainer.current_epoch
        with _timed(trainer):
            state = _state(trainer)  # on every rank: the metrics in it are added up
            if not ranks.current().first:
                return
            copied = None if self.pause.over() else _copied(state)
        self._pending |= {name: copied or state for name in (("best", "last") if better else ("last",))}
        if copied is None:
            self.write(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the state within an epoch as ``last.ckpt``, after a pending ``best.ckpt``."""
        self._pending["last"] = _state(trainer)
        self.write(trainer)  # Lightning's strategy writes on rank 0 alone

    def write(self, trainer: pl.Trainer) -> None:
        """Write the pending checkpoints.

        Raises:
            FerError: a checkpoint cannot be written; it stays pending.
        """
        with _timed(trainer):
            for name in ("best", "last"):
                if name in self._pending:
                    trainer.strategy.save_checkpoint(self._pending[name], self.folder / f"{name}.ckpt")
                    del self._pending[name]
        self.pause.begin()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the pending checkpoints."""
        self.write(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write the pending checkpoints of finished epochs; the exception is reported by the caller."""
        try:
            self.write(trainer)
        except FerError as error:
            if str(error) != str(exception):
                log.warning("%s", error)

    def is_better(self, value: float, epoch: int) -> bool:
        """Return whether an epoch's ``value`` is better than the best so far; NaN is never better."""
        if epoch < self.first or math.isnan(value):
            return False
        if self.best_value is None or math.isnan(self.best_value):
            return True
        return value < self.best_value if mode(self.monitor) == "min" else value > self.best_value

    def state_dict(self) -> dict[str, float | None]:
        """Return the state for a resumed run."""
        return {"best_value": self.best_value, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best epoch so far."""
        self.best_value, self.best_epoch = state_dict["best_value"], state_dict["best_epoch"]


def between_steps(trainer: pl.Trainer, batch: int) -> bool:
    """Return whether a batch ends a step of the optimizer, after which the epoch goes on.

    Within a step a checkpoint would lack the gradients that were added up so far.
    """
    return (batch + 1) % trainer.accumulate_grad_batches == 0 and batch + 1 < int(trainer.num_training_batches)


class WithinEpochs(Callback):
    """Writes ``last.ckpt`` within an epoch when some minutes have passed since the last writing.

    Args:
        minutes: between two writings.
        saver: callback that writes.
        check: function that raises if the losses so far are not finite.
    """

    def __init__(self, minutes: float, saver: Saver, check: Callable[[pl.Trainer], None]) -> None:
        self.since_start, self.saver, self.check = Pause(60 * minutes), saver, check

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from the start, before the first writing."""
        self.since_start.begin()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write, if it is time and the epoch does not end here."""
        due = self.since_start.over() and self.saver.pause.passed() >= self.since_start.seconds
        if ranks.largest(int(due)) and between_steps(trainer, batch_idx):
            self.check(trainer)
            self.saver.save(trainer)


class Pause:
    """A least time between two runs of an expensive action.

    Args:
        seconds: duration of a pause.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began: float | None = None

    def begin(self) -> None:
        """Begin a pause."""
        self._began = time.monotonic()

    def passed(self) -> float:
        """Return the seconds since the latest pause began; infinite before the first."""
        return math.inf if self._began is None else time.monotonic() - self._began

    def over(self) -> bool:
        """Return whether the latest pause is over; True before the first."""
        return self.passed() >= self.seconds


def _timed(trainer: pl.Trainer) -> AbstractContextManager[None]:
    """Measure a block under the name by which Lightning's profiler knows ``Trainer.save_checkpoint``."""
    profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]
    return profiler.profile("save_checkpoint")


def _copied(state: Contents) -> Contents | None:
    """Return a deep copy of a checkpoint, or None if its device has no memory for it."""
    try:
        clones = {id(value): value.detach().clone() for value in _tensors(state)}  # deepcopy alone takes longer
        return copy.deepcopy(state, clones)
    except torch.OutOfMemoryError:
        return None


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested dictionaries and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _state(trainer: pl.Trainer) -> Contents:
    """Return a checkpoint of the current state, which shares its tensors and lists."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
