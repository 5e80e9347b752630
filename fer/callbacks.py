"""What happens around the steps of a run: checkpoints, history, times, signals, a loss that is no number."""

import copy
import csv
import logging
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, EarlyStopping, WeightAveraging
from pytorch_lightning.profilers import Profiler
from torch import Tensor

from fer.errors import FerError, Interrupted
from fer.models import EmotionClassifier
from fer.results import written_whole
from fer.settings import mode

log = logging.getLogger(__name__)

WRITE_EVERY = 30.0  # seconds between writings of checkpoints, which hold the training up
LOOK_EVERY = 50  # steps between looks at figures on the device, each of which waits for it

Slot = tuple[dict[str, Any], str]  # a dictionary of a module's tensors, and the name of one


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


def _timed(trainer: pl.Trainer) -> AbstractContextManager[None]:
    """Time what is done within as the profiler times ``Trainer.save_checkpoint``."""
    profiler: Profiler = trainer.profiler  # type: ignore[attr-defined]
    return profiler.profile("save_checkpoint")


def _state(trainer: pl.Trainer) -> dict[str, Any]:
    """Return a checkpoint of the training as it is now, which shares tensors and lists with it."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


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


class Patience(EarlyStopping):
    """Lightning's early stopping, which a resumed run that had stopped already does not forget."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once where the patience had run out."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class Stopwatch(Callback):
    """Times the epochs: seconds of the whole, and training faces a second without validation."""

    def __init__(self) -> None:
        self.train_seconds = 0.0  # of the whole run, resumed parts included
        self.epoch_seconds = 0.0
        self.images = 0
        self.images_per_second = 0.0
        self.epoch_start: float | None = None  # None between epochs

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self.epoch_start, self.images = time.perf_counter(), 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Count the faces."""
        self.epoch_start = self.epoch_start or time.perf_counter()  # an epoch resumed in its middle has no start
        assert isinstance(pl_module, EmotionClassifier)
        self.images += len(args[1].targets) // pl_module.views  # of which each face has as many in a batch

    def elapsed(self) -> float:
        """Return the seconds since the epoch in hand began; 0 between epochs."""
        return 0.0 if self.epoch_start is None else time.perf_counter() - self.epoch_start

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the pace of the training part."""
        self.images_per_second = self.images / max(self.elapsed(), 1e-9)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the time of the epoch."""
        self.epoch_seconds = self.elapsed()
        self.train_seconds += self.epoch_seconds
        self.epoch_start = None

    def state_dict(self) -> dict[str, Any]:
        """Return the time so far."""
        return {"train_seconds": self.train_seconds + self.elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the time so far."""
        self.train_seconds = state_dict["train_seconds"]


class History(Callback):
    """Writes ``history.csv``, one row an epoch; the rows so far lie in the checkpoint, so that a resumed run has them.

    Args:
        file: to write.
        stopwatch: gives the times.
    """

    def __init__(self, file: Path, stopwatch: Stopwatch) -> None:
        self.file, self.stopwatch = file, stopwatch
        self.rows: list[dict[str, str]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row."""
        figures = {name: f"{float(value):.6g}" for name, value in sorted(trainer.callback_metrics.items())}
        watch = self.stopwatch
        times = {"seconds": f"{watch.epoch_seconds:.3f}", "images_per_second": f"{watch.images_per_second:.1f}"}
        self.rows.append({"epoch": str(trainer.current_epoch + 1), **figures, **times})
        with written_whole(self.file) as stream:
            writer = csv.DictWriter(stream, list(self.rows[-1]), lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the rows so far."""
        self.rows = list(state_dict["rows"])


class FiniteLoss(Callback):
    """Ends a run whose loss is NaN or infinite, before anything of it is saved.

    Losses are judged on the device. A CPU's are looked at every 50 steps, a GPU's at the epoch's end: no step waits.
    """

    def __init__(self) -> None:
        self._sound: Tensor | None = None  # whether every loss since the last look was a number
        self._steps: Tensor | None = None  # how many of them were, up to the first that was not
        self._looked = 0  # step of the last look

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from here."""
        self._begin(trainer)

    def _begin(self, trainer: pl.Trainer) -> None:
        self._sound = self._steps = None
        self._looked = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step, as long as no loss was bad."""
        sound = torch.isfinite(outputs["loss"].detach())
        self._sound = sound if self._sound is None else self._sound & sound
        self._steps = self._sound.long() if self._steps is None else self._steps + self._sound
        if pl_module.device.type == "cpu" and (batch_idx + 1) % LOOK_EVERY == 0:
            self.look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look once more, before the epoch is saved."""
        self.look(trainer)

    def look(self, trainer: pl.Trainer) -> None:
        """Wait for the device and raise if a step was bad.

        Raises:
            FerError: with the step, the epoch and the learning rate.
        """
        if self._sound is not None and self._steps is not None and not bool(self._sound):
            step = self._looked + int(self._steps) + 1
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            raise FerError(
                f"the loss became NaN or infinite at step {step} (epoch {trainer.current_epoch + 1}, learning "
                f"rate about {rate:.3g}); nothing of it was saved: lower optimizer.lr or set trainer.gradient_clip"
            )
        self._begin(trainer)


class Signals(Callback):
    """Ends a run on SIGINT or SIGTERM after the batch in hand, with ``last.ckpt`` written.

    Validation is finished first; at an epoch's end the epoch's own checkpoint serves. A second signal ends at once.

    Args:
        folder: the run's.
        finite: looks at the losses before anything is saved.
        saver: writes.
    """

    def __init__(self, folder: Path, finite: FiniteLoss, saver: Saver) -> None:
        self.folder, self.finite, self.saver = folder, finite, saver
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, in place of Lightning's handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise Interrupted(f"ended at once by a second {signal.Signals(number).name}; {self._how()}", 128 + number)
        self.received = number
        log.warning("%s: finishing this batch, then saving; once more ends at once", signal.Signals(number).name)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch and stop."""
        if self.received is not None and batch_idx + 1 < int(trainer.num_training_batches):
            self.finite.look(trainer)
            self.saver.save(trainer)
            self.stop()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between epochs, the last one being saved."""
        if self.received is not None:
            self.saver.write(trainer)
        self.stop()

    def stop(self) -> None:
        """Raise if a signal was received.

        Raises:
            Interrupted: with the exit code 128 + the signal's number, as shells have it.
        """
        if self.received is not None:
            name = signal.Signals(self.received).name
            raise Interrupted(f"interrupted by {name}, saved; {self._how()}", 128 + self.received)

    def _how(self) -> str:
        return f"go on with: python -m fer.train resume={shlex.quote(str(self.folder))}"

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop listening."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
