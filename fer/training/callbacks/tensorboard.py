"""A run in TensorBoard: curves of train and val over each other, pictures, precision-recall curves, HPARAMS, projector.

The horizontal axis counts epochs (from 1), so that runs of different batch sizes can be laid over each other. Pictures
are drawn at most ``PICTURES`` times a run and once in ``DRAW_EVERY`` seconds, and of the last epoch whatever the time.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from fer.config.settings import Origin, TrainSettings, leaves
from fer.data.datamodule import FERDataModule
from fer.data.dataset import FaceDataset
from fer.models import EmotionClassifier
from fer.models.base import LOGGED
from fer.reports import figures, plotting
from fer.reports.run import caption
from fer.runs.predictions import Scored
from fer.training.callbacks.checkpointing import Pause, Saver
from fer.training.callbacks.history import Stopwatch

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PICTURES = 30  # times a run that pictures are drawn: a long one would otherwise fill the disk with them
DRAW_EVERY = 20.0  # seconds between pictures, which hold the training up
FIRST_FACES = 64  # of the first batch: writing all 128 takes a tenth of a second before the first step
SHOWN_FACES = 20  # of the best and of the worst read
COLUMNS = 5  # of them in a row, so that their captions can be read in TensorBoard's small pictures
THRESHOLDS = 127  # of a precision-recall curve, TensorBoard's own number
SPRITE = 8192  # pixels: the largest picture of all faces that the projector takes
ALWAYS = ("model", "scheduler")  # groups whose choice is always told
NEVER = (
    "data.path",
    "data.cache",
    "trainer.threads",
    "trainer.accelerator",
    "trainer.bar",
    "logger",
    "plugins",
    "trainer.profile",
)
HEADLINES = ("accuracy", "macro_f1", "loss")  # of the best epoch, in HPARAMS


class Dashboard(Callback):
    """Writes what TensorBoard shows, an epoch at a time.

    Args:
        compared: what HPARAMS tells of the run.
        saver: knows the best epoch.
        stopwatch: knows the pace.
        resumed: the beginning has been written before.
    """

    def __init__(
        self, compared: Mapping[str, str | float | bool], saver: Saver, stopwatch: Stopwatch, *, resumed: bool
    ) -> None:
        self.compared, self.saver, self.stopwatch, self.resumed = compared, saver, stopwatch, resumed
        self._pause = Pause(DRAW_EVERY)
        self._logits: list[Tensor] = []
        self._best: dict[str, float] = {}  # figures of the best epoch so far

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tell the settings, before Lightning writes what it knows of them, which is nothing."""
        assert isinstance(trainer.logger, TensorBoardLogger)
        if self.resumed:
            return
        trainer.logger.log_hyperparams(dict(self.compared), {f"best/{name}": math.nan for name in HEADLINES})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lay out the charts and show a batch as training sees it."""
        assert isinstance(pl_module, EmotionClassifier)
        assert isinstance(trainer.logger, TensorBoardLogger)
        if self.resumed:
            return
        writer = trainer.logger.experiment
        writer.add_custom_scalars(layout(pl_module.hparams["classes"]))
        data: FERDataModule = trainer.datamodule  # type: ignore[attr-defined]
        sheet = figures.mosaic(data.first_batch()[:FIRST_FACES], columns=16)
        writer.add_image("train/first batch, augmented", sheet, 0, dataformats="HWC")

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to collect."""
        self._logits = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any
    ) -> None:
        """Keep a batch's logits, on the device."""
        self._logits.append(outputs.detach())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's figures, and now and then its pictures."""
        assert isinstance(pl_module, EmotionClassifier)
        assert isinstance(trainer.logger, TensorBoardLogger)
        writer, epoch = trainer.logger.experiment, trainer.current_epoch + 1
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        recalls = zip(pl_module.hparams["classes"], pl_module.latest["val"]["recall"].tolist(), strict=True)
        values |= {f"recall/{name}": recall for name, recall in recalls}
        values |= {"speed/images_per_second": self.stopwatch.images_per_second}
        if not self._best or self.saver.is_better(values[self.saver.monitor], trainer.current_epoch):
            self._best = {f"best/{name}": values[f"{name}/val"] for name in HEADLINES}
        for name, value in (values | self._best).items():
            writer.add_scalar(name, value, epoch)
        every = math.ceil((trainer.max_epochs or 1) / PICTURES)
        if (epoch % every == 0 and self._pause.over()) or epoch == trainer.max_epochs:
            self._pause.begin()
            dataset: FaceDataset = trainer.val_dataloaders.dataset  # type: ignore[union-attr]
            scored = self._scored(dataset, pl_module.hparams["classes"])
            draw_epoch(writer, scored, pl_module.latest["val"]["confusion"], epoch)
        writer.flush()

    def _scored(self, dataset: FaceDataset, classes: list[str]) -> Scored:
        probabilities = torch.cat(self._logits).float().softmax(1).cpu().numpy()
        count = len(probabilities)  # a limited validation sees the first of them
        images, targets = dataset.images[:count, 0].numpy(), dataset.targets[:count].numpy()
        return Scored(images, targets, probabilities, np.arange(count), classes)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best figures so far."""
        self._best = dict(state_dict["best"])


def draw_epoch(writer: "SummaryWriter", scored: Scored, confusion: Tensor, epoch: int) -> None:
    """Write an epoch's pictures and precision-recall curves.

    Args:
        writer: of the run.
        scored: the val faces.
        confusion: (C, C) counts, rows labelled, columns predicted.
        epoch: from 1.
    """
    worst, best = extremes(scored)
    with plotting.style():
        matrix = figures.confusion(confusion.tolist(), scored.classes)
        writer.add_image("val/confusion matrix", plotting.pixels(matrix, 120), epoch, dataformats="HWC")
        for name, places in (("worst read faces", worst), ("best read faces", best)):
            sheet = figures.faces(scored.images[places], [caption(scored, place)[:2] for place in places], COLUMNS)
            writer.add_image(f"val/{name}", plotting.pixels(sheet, 160), epoch, dataformats="HWC")
    for index, name in enumerate(scored.classes):
        hits, chances = scored.targets == index, scored.probabilities[:, index]
        writer.add_pr_curve(f"precision-recall/{name}", hits, chances, epoch, num_thresholds=THRESHOLDS)


def extremes(scored: Scored, count: int = SHOWN_FACES) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of the faces whose label was given the least probability, and of those given the most."""
    chances = scored.probabilities[np.arange(len(scored.targets)), scored.targets]
    order = np.argsort(chances, kind="stable")
    return order[:count], order[::-1][:count]


def layout(classes: list[str]) -> dict[str, dict[str, list[Any]]]:
    """Return the charts of TensorBoard's custom scalars: train and val over each other, the emotions together."""
    over = {name.replace("_", " "): ["Multiline", [f"{name}/train", f"{name}/val"]] for name in LOGGED}
    return {
        "train and val": over,
        "emotions": {
            "recall on val": ["Multiline", [f"recall/{name}" for name in classes]],
            **{f"recall of {name}": ["Multiline", [f"recall/{name}"]] for name in classes},
        },
        "run": {
            "learning rate": ["Multiline", ["learning_rate"]],
            "images a second": ["Multiline", ["speed/images_per_second"]],
        },
    }


def hyperparameters(settings: TrainSettings, origin: Origin) -> dict[str, str | float | bool]:
    """Return what HPARAMS compares, by short names: ``lr`` for ``optimizer.lr``, ``flip`` for ``augment.flip``.

    All settings would be forty columns, of which TensorBoard shows the first five of the alphabet. Therefore: the four
    that every comparison needs, and what the command line named, unless it cannot matter.
    """
    values = dict(leaves(asdict(settings)))
    chosen = {group: origin.choices.get(group) or values[f"{group}.name"] for group in ALWAYS}
    asked = {key: values.get(key, origin.choices.get(key)) for key in origin.asked if not key.startswith(NEVER)}
    named = {**chosen, "lr": values["optimizer.lr"], "seed": values["seed"]}
    for key, value in asked.items():
        short = key.rpartition(".")[2]
        named[key if short in named and named[short] != value else short] = value
    return {key: _hyperparameter(value) for key, value in named.items()}


def _hyperparameter(value: Any) -> str | float | bool:
    return value if isinstance(value, bool | int | float | str) else "none" if value is None else str(value)


def add_projector(writer: "SummaryWriter", scored: Scored, embeddings: Tensor, epoch: int) -> str | None:
    """Write embeddings for TensorBoard's projector, with each face as its picture.

    Args:
        writer: of the run.
        scored: N faces.
        embeddings: (N, D).
        epoch: of the network.

    Returns:
        What was left out, in words, or None: the projector takes one picture of all faces, of at most 8,192 pixels.
    """
    side = scored.images.shape[-1]
    count = min(len(scored.targets), (SPRITE // side) ** 2)
    predicted = scored.probabilities.argmax(1)
    names = [
        (scored.classes[target], scored.classes[guess], "right" if target == guess else "wrong", str(row))
        for target, guess, row in zip(scored.targets[:count], predicted[:count], scored.rows[:count], strict=True)
    ]
    pictures = torch.from_numpy(scored.images[:count, None].astype(np.float32) / 255)
    writer.add_embedding(
        embeddings[:count], names, pictures, epoch, tag="val", metadata_header=["label", "predicted", "outcome", "row"]
    )
    left = len(scored.targets) - count
    return f"the projector shows the first {count:,} val faces, {left:,} do not fit its sprite" if left else None
