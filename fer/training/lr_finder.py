"""``python -m fer.train lr_finder=true``: a learning-rate range test (Smith 2017) in place of a training.

Everything is prepared as for a training. Then the rate rises from step to step, evenly in its logarithm, until the loss
diverges. The curve goes to ``figures/lr_finder.png`` and ``.svg``, its values and the suggestion to ``lr_finder.json``;
the run ends there, and nothing is changed.

The suggestion is the steepest descent of the smoothed loss. It is cautious: on FER2013 trainings of 4 to 6 epochs did
best at 4 to 30 times that rate, up to about the one at which the loss was lowest (mlp and a small cnn, adamw and sgd).
Lightning's own finder (2.6) is not used: it gives the first losses too little weight, so that the curve begins at half
its height, and takes the slope over the rate instead of over its logarithm, which favours the smallest rates (its
issues 14167 and 21141). On FER2013 it suggested 1.3e-5 for ``cnn``.
"""

import logging
import math
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from fer.config.settings import LoggerSettings, Origin, TrainSettings
from fer.system import machine
from fer.system.files import write_json
from fer.training import setup, trainers

log = logging.getLogger(__name__)

SCHEMA = 1  # of lr_finder.json; raise it when a field changes its meaning
LOWEST, HIGHEST = 1e-6, 10.0  # learning rates
STEPS = 150  # 21 a decade
SMOOTHING = 0.95  # weight of the past in the smoothed loss, which lags 19 steps behind
DIVERGED = 4.0  # times its lowest value, at which the smoothed loss ends the test
SKIPPED = 10  # steps at the start that count for nothing: the smoothed loss stands on few batches there
REACH = 8  # steps either way over which a slope is taken: between seeds the suggestion then scatters by 0.2 decades,
# with a slope from step to step by 0.4 (mlp and a small cnn, adamw and sgd, FER2013)
LEAST_FALL = 0.05  # part of its early value by which the smoothed loss must fall: less is the scatter of batches


@dataclass
class Curve:
    """What a range test has measured.

    Args:
        rates: learning rate of each of N steps.
        losses: of each batch, finite.
        smoothed: of each step.
        ended: why the test ended before its last step; empty if it did not.
    """

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    ended: str = ""

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


def smoothed_last(losses: Sequence[float]) -> float:
    """Return the exponentially weighted mean of the losses as of the last one, its weights adding up to 1."""
    weights = [SMOOTHING**age for age in reversed(range(len(losses)))]
    return sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)


def suggest(curve: Curve) -> tuple[float | None, str]:
    """Return the rate about which the smoothed loss falls most steeply before its lowest point, or None and why.

    Beyond the lowest point a loss that has leapt up may fall steeply again, which recommends nothing.
    """
    least = SKIPPED + REACH + 1
    if len(curve.rates) <= least:
        return None, f"only {len(curve.rates)} steps were made, {least + 1} are needed: {curve.ended}"
    lowest = curve.lowest()
    fall = 1 - curve.smoothed[lowest] / curve.smoothed[SKIPPED]
    if fall < LEAST_FALL:
        return None, f"the loss fell by {100 * fall:.1f} %; {100 * LEAST_FALL:.0f} % at least would be a descent"
    places = range(SKIPPED, lowest - REACH + 1)
    if not places:
        return None, f"the loss was lowest after {lowest + 1} steps already, at a rate of {curve.rates[lowest]:.2g}"
    return curve.rates[min(places, key=lambda place: _slope(curve.smoothed, place))], ""


def _slope(smoothed: Sequence[float], place: int) -> float:
    return smoothed[place + REACH] - smoothed[place - REACH]


def rate_at(step: int) -> float:
    """Return the learning rate of a step, the first being 0."""
    return float(LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)))


class RangeTest(Callback):
    """Sets the rate before each step, and looks at the loss after it."""

    def __init__(self) -> None:
        self.curve = Curve()
        self._rate = LOWEST  # of the step in hand: by its end the schedule has set another

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Set the step's rate."""
        self._rate = rate_at(trainer.global_step)
        groups = trainer.optimizers[0].param_groups
        for group in groups:  # a pretrained trunk's rate keeps its proportion
            group["lr"] = self._rate * group["initial_lr"] / groups[0]["initial_lr"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Take the loss, and end where it diverges."""
        self.curve.add(self._rate, float(args[0]["loss"]))
        trainer.should_stop = bool(self.curve.ended)


def find(settings: TrainSettings, folder: Path, origin: Origin) -> dict[str, Any]:
    """Run the test, draw its curve, and return what ``lr_finder.json`` holds.

    Args:
        settings: with ``data.path`` found.
        folder: the run's.
        origin: of the run, for the record.

    Raises:
        FerError: as a training would, before its first step.
        Interrupted: a signal came.
    """
    setup.check_names(settings)  # the schedule too, which takes no part in the test
    plain = replace(settings, scheduler={"name": "none"}, logger=LoggerSettings(False, False, False))
    curve, size = measure(plain, origin)
    suggestion, reason = suggest(curve)
    found = {
        "schema": SCHEMA,
        "suggestion": suggestion,
        "reason": reason,
        "lowest_loss_at": curve.rates[curve.lowest()] if curve.rates else None,
        "configured": settings.optimizer["lr"],
        "ended": curve.ended,
        "rates": curve.rates,
        "losses": curve.losses,
        "smoothed": curve.smoothed,
        "architecture": settings.model["name"],
        "optimizer": settings.optimizer["name"],
        "batch_size": size,
        "seed": settings.seed,
        "train_command": train_command(origin.command, suggestion),
        "command": origin.command,
        **machine.provenance(),
    }
    write_json(folder / "lr_finder.json", found)
    if len(curve.rates) > 1:
        draw(found, folder / "figures")
    return found


def measure(settings: TrainSettings, origin: Origin) -> tuple[Curve, int]:
    """Return the curve of a short pass with a rising rate, and the faces a step.

    Few batches are gone through again and again.
    """
    settings, data, model = setup.prepared(settings, origin.stand_in)
    setup.keep_features(settings, data, model)
    faces = {name: len(held) for name, held in data.datasets.items()}
    test = RangeTest()
    size = settings.data.faces_a_step
    log.info("learning-rate range test: from %g to %g in %d steps of %d faces", LOWEST, HIGHEST, STEPS, size)
    with tempfile.TemporaryDirectory(prefix="fer-lr-") as elsewhere, trainers.interruptible():
        options = {"max_epochs": -1, "max_steps": STEPS, "limit_val_batches": 0, "enable_checkpointing": False}
        trainers.build(settings, Path(elsewhere), [test], faces, **options).fit(model, datamodule=data)
    return test.curve, size


def draw(found: dict[str, Any], folder: Path) -> None:
    """Write ``lr_finder.png`` and ``lr_finder.svg``."""
    from fer.reports.lr_curve import rate_curve
    from fer.reports.plotting import save, style  # matplotlib takes half a second to import

    with style():
        curve = (found["rates"], found["losses"], found["smoothed"])
        figure = rate_curve(*curve, configured=found["configured"], suggestion=found["suggestion"])
    save(figure, folder, "lr_finder")


def train_command(command: str, suggestion: float | None) -> str | None:
    """Return the command line that trains at the suggested rate: the user's own, with it in place of the test."""
    if suggestion is None:
        return None
    own = [word for word in shlex.split(command) if word.partition("=")[0] not in ("lr_finder", "optimizer.lr")]
    return shlex.join([*own, f"optimizer.lr={suggestion:.1e}"])


def told(found: dict[str, Any], folder: Path) -> str:
    """Return the result in words; ``folder`` as it is to be shown."""
    steps = f"{len(found['rates'])} of {STEPS} steps" + (f": {found['ended']}" if found["ended"] else "")
    lines = ["", steps]
    if found["suggestion"] is None:
        lines.append(f"no suggestion: {found['reason']}")
    else:
        lines.append(f"suggested rate    {found['suggestion']:.1e}  (steepest descent of the smoothed loss)")
        lines.append(f"lowest loss at    {found['lowest_loss_at']:.1e}  (higher rates are not worth trying)")
    lines.append(f"configured        {found['configured']:.1e}")
    lines += ["", f"results:  {folder}", f"  {'lr_finder.json':<22} the curve and the suggestion"]
    lines += [f"  {'figures/lr_finder.png':<22} the curve, drawn; .svg too"] if len(found["rates"]) > 1 else []
    lines += [f"train with it:  {found['train_command']}"] if found["train_command"] else []
    return "\n".join(lines)
