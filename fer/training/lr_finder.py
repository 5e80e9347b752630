"""``python -m fer.train lr_finder=true``: a learning-rate range test (Smith 2017).

It runs in place of a training. Everything is prepared as for a training. Then the rate rises from step to step, evenly
in its logarithm, until the loss diverges. The curve goes to ``figures/lr_finder.png`` and ``.svg``, its values to
``lr_finder.json``. The run ends there and changes nothing.

With ``optimizer=muon`` the rate ``optimizer.lr`` rises alone; ``optimizer.adam_lr`` stays as it is.

No rate is suggested. On FER2013, mlp and a small cnn were trained for 4 to 6 epochs with adamw and sgd. The best rates
were 4 to 30 times that of the steepest descent, up to about the rate of the lowest smoothed loss. The latter is stated.
Lightning's own finder (2.6) is not used. It gives the first losses too little weight, so that the curve begins at half
its height (its issues 14167 and 21141).
"""

import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from fer.config.settings import LoggerSettings, Origin, TrainSettings
from fer.models.trainable import Trainable
from fer.system import machine
from fer.system.files import write_json
from fer.system.machine import MachineRecord
from fer.system.records import MERGED, plain
from fer.training import device, run, trainers

log = logging.getLogger(__name__)

SCHEMA = 2  # of lr_finder.json; raise it when a field changes its meaning
LOWEST, HIGHEST = 1e-6, 10.0  # learning rates
STEPS = 150  # 21 a decade
SMOOTHING = 0.95  # weight of the past in the smoothed loss, which lags 19 steps behind
DIVERGED = 4.0  # times its lowest value, at which the smoothed loss ends the test
SKIPPED = 10  # steps at the start where the smoothed loss stands on too few batches to be the lowest


@dataclass
class Curve:
    """What a range test has measured.

    Args:
        ended: why the test ended before its last step; empty if it did not.
        rates: learning rate of each of N steps.
        losses: of each batch, finite.
        smoothed: of each step.
    """

    ended: str = ""
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)

    def add(self, rate: float, loss: float) -> None:
        """Add a step, and note an end: a loss that is no number, or one far above the lowest."""
        if not math.isfinite(loss):
            self.ended = f"the loss became NaN or infinite at a rate of {rate:.2g}"
            return
        self.rates.append(rate)
        self.losses.append(loss)
        self.smoothed.append(smoothed_last(self.losses))
        if self.smoothed[-1] > DIVERGED * min(self.smoothed):
            self.ended = f"the loss diverged at a rate of {rate:.2g}"

    def lowest(self) -> int:
        """Return the step at which the smoothed loss is lowest, once it stands on more than a few batches."""
        start = min(SKIPPED, len(self.smoothed) - 1)
        return min(range(start, len(self.smoothed)), key=self.smoothed.__getitem__)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The contents of ``lr_finder.json``.

    Args:
        schema: version of the file.
        lowest_loss_at: rate at which the smoothed loss was lowest; None without a step.
        configured: rate of a training with these settings: ``optimizer.lr`` times ``lr_factor``.
        lr_factor: factor of ``trainer.lr_scaling``.
        curve: what was measured.
        architecture: name of the network.
        optimizer: name of the optimizer.
        batch_size: faces of a step of the optimizer, which with ``trainer.accumulate`` takes several batches.
        seed: of the run.
        command: that was given.
        machine: the machine.
    """

    schema: int = SCHEMA
    lowest_loss_at: float | None
    configured: float
    lr_factor: float = 1.0
    curve: Curve = field(metadata=MERGED)
    architecture: str
    optimizer: str
    batch_size: int
    seed: int
    command: str
    machine: MachineRecord = field(metadata=MERGED)


def smoothed_last(losses: Sequence[float]) -> float:
    """Return the exponentially weighted mean of the losses as of the last one, its weights adding up to 1."""
    weights = [SMOOTHING**age for age in reversed(range(len(losses)))]
    return sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)


def rate_at(step: int) -> float:
    """Return the learning rate of a step, the first being 0."""
    return float(LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)))


class RangeTest(Callback):
    """Sets the rate before each step, and looks at the loss after it."""

    def __init__(self) -> None:
        self.curve = Curve()
        self._rate = LOWEST  # of the step in hand: by its end the schedule has set another
        self._loss, self._steps = 0.0, 0  # sum of the parts of the step in hand; steps before it

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Set the step's rate."""
        self._rate = rate_at(trainer.global_step)
        assert isinstance(pl_module, Trainable)
        for group in trainer.optimizers[0].param_groups:
            if not group.get("orthogonal", True):  # of Muon's AdamW, whose rate is optimizer.adam_lr
                continue
            # a pretrained trunk's rate keeps its proportion
            group["lr"] = self._rate * group["initial_lr"] / pl_module.base_rate

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Take the loss, and end where it diverges."""
        self._loss += float(args[0]["loss"])  # with trainer.accumulate a share of the step's
        if trainer.global_step > self._steps:
            self.curve.add(self._rate, self._loss)
            self._loss, self._steps = 0.0, trainer.global_step
        trainer.should_stop = bool(self.curve.ended)


def find(settings: TrainSettings, folder: Path, origin: Origin) -> Found:
    """Run the test, write ``lr_finder.json``, draw the curve, and return what was found.

    Args:
        settings: with ``data.path`` found.
        folder: the run's.
        origin: of the run, for the record.

    Raises:
        FerError: as a training would, before its first step.
        Interrupted: a signal came.
    """
    run.check_names(settings)  # the schedule too, which takes no part in the test
    unscheduled = replace(settings, scheduler={"name": "none"}, logger=LoggerSettings(False, False, False))
    curve, size = measure(unscheduled, origin)
    result = Found(
        lowest_loss_at=curve.rates[curve.lowest()] if curve.rates else None,
        configured=settings.optimizer["lr"] * settings.lr_factor,
        lr_factor=settings.lr_factor,
        curve=curve,
        architecture=settings.model["name"],
        optimizer=settings.optimizer["name"],
        batch_size=size,
        seed=settings.seed,
        command=origin.command,
        machine=machine.provenance(),
    )
    write_json(folder / "lr_finder.json", plain(result))
    if len(curve.rates) > 1:
        draw(result, folder / "figures")
    return result


def measure(settings: TrainSettings, origin: Origin) -> tuple[Curve, int]:
    """Return the curve of a short pass with a rising rate, and the faces a step.

    A small number of batches is gone through several times.
    """
    settings, data, model = run.prepared(settings, origin.stand_in)
    device.keep_features(settings, data, model)
    faces = {name: len(dataset) for name, dataset in data.datasets.items()}
    test = RangeTest()
    size = settings.faces_an_update
    log.info("learning-rate range test: from %g to %g in %d steps of %d faces", LOWEST, HIGHEST, STEPS, size)
    with tempfile.TemporaryDirectory(prefix="fer-lr-") as elsewhere, trainers.interruptible():
        options = {"max_epochs": -1, "max_steps": STEPS, "limit_val_batches": 0, "enable_checkpointing": False}
        trainers.build(settings, Path(elsewhere), [test], faces, **options).fit(model, datamodule=data)
    return test.curve, size


def draw(found: Found, folder: Path) -> None:
    """Write ``lr_finder.png`` and ``lr_finder.svg``."""
    from fer.reports.lr_curve import rate_curve
    from fer.reports.plotting import save, style  # matplotlib takes half a second to import

    with style():
        curve = found.curve
        figure = rate_curve(curve.rates, curve.losses, curve.smoothed, configured=found.configured)
    save(figure, folder, "lr_finder")


def report(found: Found, folder: Path) -> str:
    """Return the result in words; ``folder`` as it is to be shown."""
    curve = found.curve
    steps = f"{len(curve.rates)} of {STEPS} steps" + (f": {curve.ended}" if curve.ended else "")
    lines = ["", steps]
    if found.lowest_loss_at is not None:
        lines.append(f"lowest loss at    {found.lowest_loss_at:.1e}  (smoothed; higher rates are too high)")
    scaled = f"  (optimizer.lr times {found.lr_factor:g}, by trainer.lr_scaling)" if found.lr_factor != 1 else ""
    lines.append(f"configured        {found.configured:.1e}{scaled}")
    lines += ["", f"results:  {folder}", f"  {'lr_finder.json':<22} the curve"]
    lines += [f"  {'figures/lr_finder.png':<22} the curve, drawn; .svg too"] if len(curve.rates) > 1 else []
    return "\n".join(lines)
