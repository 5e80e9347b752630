"""A run in TensorBoard.

Shown are curves of train and val, pictures, precision-recall curves, HPARAMS and the projector. The horizontal axis
counts epochs (from 1), so that runs with different batch sizes can be compared. Pictures are drawn at most ``PICTURES``
times a run and once in ``DRAW_EVERY`` seconds, and always of the last epoch. They use the logits that validation has
computed, and draw no random numbers of the run. A run with and without TensorBoard gives the same weights to the bit.
Only this module writes TensorBoard's files.
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
from torch import Tensor, nn

from fer.config.settings import Origin, TrainSettings, leaves
from fer.data.datamodule import FERDataModule
from fer.data.dataset import FaceDataset
from fer.data.noise import Part
from fer.data.samples import first_batch
from fer.models.base import EmotionClassifier
from fer.models.trainable import LOGGED, Trainable
from fer.reports import figures, plotting
from fer.reports.run_sections import caption
from fer.runs.predictions import Scored
from fer.training.callbacks.checkpointing import Pause, Saver
from fer.training.callbacks.history import Stopwatch
from fer.training.callbacks.scalars import HEADLINES, Scalars

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PICTURES = 30  # pictures a run at most: in a long run they would fill the disk
DRAW_EVERY = 20.0  # seconds between pictures, during which the training stops
FIRST_FACES = 64  # faces of the first batch: writing all 128 takes a tenth of a second before the first step
SHOWN_FACES = 20  # faces with the most and with the least probability of their label
COLUMNS = 5  # faces in a row, so that captions are legible in TensorBoard's small pictures
THRESHOLDS = 127  # points of a precision-recall curve, TensorBoard's default
SPRITE = 8192  # pixels, the largest side of the projector's picture of all faces
ALWAYS = ("model", "scheduler")  # groups whose choice HPARAMS always shows
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


class Dashboard(Callback):
    """Writes the files of TensorBoard, epoch by epoch.

    Args:
        compared: settings of the run in HPARAMS, see ``hyperparameters``.
        saver: callback that knows the best epoch.
        stopwatch: callback that measures the epochs.
        resumed: the interrupted run has already written the settings and the first batch.
    """

    def __init__(
        self, compared: Mapping[str, str | float | bool], saver: Saver, stopwatch: Stopwatch, *, resumed: bool
    ) -> None:
        self.compared, self.resumed = compared, resumed
        self.scalars = Scalars(saver, stopwatch)
        self._pause = Pause(DRAW_EVERY)
        self._undrawn: int | None = None  # number of the latest epoch, if it has no pictures
        self._logits: list[Tensor] = []
        self._parts: list[Part | None] = []  # of val's batches, if ranks share them

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write HPARAMS, before Lightning writes empty ones."""
        assert isinstance(trainer.logger, TensorBoardLogger)
        if self.resumed:
            return
        data: FERDataModule = trainer.datamodule  # type: ignore[attr-defined]
        shown = {**self.compared, "data": data.faces.source.name}  # drawn faces may stand in for FER2013
        trainer.logger.log_hyperparams(shown, {f"best/{name}": math.nan for name in HEADLINES})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the layout of the charts, and a picture of the first batch after augmentation."""
        assert isinstance(pl_module, Trainable)
        assert isinstance(trainer.logger, TensorBoardLogger)
        if self.resumed:
            return
        writer = trainer.logger.experiment
        writer.add_custom_scalars(layout(pl_module.hparams["classes"]))
        data: FERDataModule = trainer.datamodule  # type: ignore[attr-defined]
        sheet = figures.mosaic(first_batch(data)[:FIRST_FACES], columns=16)
        writer.add_image("train/first batch, augmented", sheet, 0, dataformats="HWC")

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the collected logits."""
        self._logits, self._parts = [], []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Collect a batch's logits on the device; of ranks, those of rank 0's faces."""
        self._logits.append(outputs.detach())
        self._parts.append(batch.part)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's metrics, and from time to time its pictures."""
        assert isinstance(pl_module, Trainable)
        assert isinstance(trainer.logger, TensorBoardLogger)
        writer, epoch = trainer.logger.experiment, trainer.current_epoch + 1
        for name, value in self.scalars.of_epoch(trainer, pl_module).items():
            writer.add_scalar(name, value, epoch)
        every = math.ceil((trainer.max_epochs or 1) / PICTURES)
        if (epoch % every == 0 and self._pause.over()) or epoch == trainer.max_epochs:
            self._draw(trainer, pl_module, epoch)
        else:
            self._undrawn = epoch
        writer.flush()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the pictures of the last epoch, if early stopping has ended the run before the planned one."""
        assert isinstance(pl_module, Trainable)
        if self._undrawn is not None:
            self._draw(trainer, pl_module, self._undrawn)

    def _draw(self, trainer: pl.Trainer, pl_module: Trainable, epoch: int) -> None:
        assert isinstance(trainer.logger, TensorBoardLogger)
        self._pause.begin()
        self._undrawn = None
        dataset: FaceDataset = trainer.val_dataloaders.dataset  # type: ignore[union-attr]
        scored = self._scored(dataset, pl_module.hparams["classes"])
        draw_epoch(trainer.logger.experiment, scored, pl_module.latest["val"]["confusion"], epoch)

    def _scored(self, dataset: FaceDataset, classes: list[str]) -> Scored:
        probabilities = torch.cat(self._logits).float().softmax(1).cpu().numpy()
        faces = self._faces(len(probabilities))
        images, targets = dataset.grey[faces], dataset.targets[faces].numpy()
        return Scored(images, targets, probabilities, faces, classes)

    def _faces(self, count: int) -> NDArray[np.int64]:
        """Return the indices of the faces whose logits were collected; a limited validation uses the first faces."""
        first, indices = 0, []
        for part in self._parts:
            if part is None:
                return np.arange(count)
            indices.append(np.arange(first + part.start, first + part.stop))
            first += part.whole
        return np.concatenate(indices)

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Return the state for a resumed run."""
        return {"best": self.scalars.best}

    def load_state_dict(self, state_dict: dict[str, dict[str, float]]) -> None:
        """Restore the metrics of the best epoch so far."""
        self.scalars.best = dict(state_dict["best"])


def draw_epoch(writer: "SummaryWriter", scored: Scored, confusion: Tensor, epoch: int) -> None:
    """Write an epoch's pictures and precision-recall curves.

    Args:
        writer: writer of the run.
        scored: the val faces with their predictions.
        confusion: (C, C) counts, rows are labels, columns are predictions.
        epoch: number of the epoch, from 1.
    """
    worst, best = extremes(scored)
    with plotting.style():
        matrix = figures.confusion(confusion.tolist(), scored.classes)
        writer.add_image("val/confusion matrix", plotting.pixels(matrix, 120), epoch, dataformats="HWC")
        for name, indices in (("least probable labels", worst), ("most probable labels", best)):
            sheet = figures.faces(scored.images[indices], [caption(scored, index)[:2] for index in indices], COLUMNS)
            writer.add_image(f"val/{name}", plotting.pixels(sheet, 160), epoch, dataformats="HWC")
    for index, name in enumerate(scored.classes):
        positives, probabilities = scored.targets == index, scored.probabilities[:, index]
        writer.add_pr_curve(f"precision-recall/{name}", positives, probabilities, epoch, num_thresholds=THRESHOLDS)


def extremes(scored: Scored, count: int = SHOWN_FACES) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the faces with the least and with the most probability of their label."""
    probabilities = scored.probabilities[np.arange(len(scored.targets)), scored.targets]
    order = np.argsort(probabilities, kind="stable")
    return order[:count], order[::-1][:count]


def layout(classes: list[str]) -> dict[str, dict[str, list[Any]]]:
    """Return the charts of TensorBoard's custom scalars: train and val in one chart, all emotions in one chart."""
    curves = {name.replace("_", " "): ["Multiline", [f"{name}/train", f"{name}/val"]] for name in LOGGED}
    return {
        "train and val": curves,
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
    """Return the settings in HPARAMS, by short names: ``lr`` for ``optimizer.lr``, ``flip`` for ``augment.flip``.

    All settings would be forty columns, of which TensorBoard shows the first five of the alphabet. So there are four
    that every comparison needs, and the settings of the command line, without those that cannot matter.
    """
    values = dict(leaves(asdict(settings)))
    chosen = {group: origin.choices.get(group) or values[f"{group}.name"] for group in ALWAYS}
    keys = [key for key in origin.overridden if not key.startswith(NEVER)]
    overridden = {key: values.get(key, origin.choices.get(key)) for key in keys}
    named = {**chosen, "lr": values["optimizer.lr"], "seed": values["seed"]}
    for key, value in overridden.items():
        short = key.rpartition(".")[2]
        named[key if short in named and named[short] != value else short] = value
    return {key: _hyperparameter(value) for key, value in named.items()}


def _hyperparameter(value: Any) -> str | float | bool:
    return value if isinstance(value, bool | int | float | str) else "none" if value is None else str(value)


@torch.inference_mode()
def embeddings_of(model: EmotionClassifier, images: Tensor, *, batch_size: int, device: torch.device) -> Tensor:
    """Return the inputs of the last linear layer, (N, D) float32 on the CPU; without such a layer, the logits.

    Args:
        model: the network; moved to ``device`` and left there, in evaluation mode.
        images: (N, 1, S, S) uint8.
        batch_size: faces at a time.
        device: to compute on.
    """
    given: list[Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0])) for layer in layers]
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    parts = []
    try:
        for start in range(0, len(images), batch_size):
            given.clear()
            logits = model(images[start : start + batch_size].to(device))
            a_row_a_face = given and len(given[-1]) == len(logits)
            last = given[-1] if a_row_a_face else logits
            parts.append(last.flatten(1).float().cpu())
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(parts)


def add_projector(writer: "SummaryWriter", scored: Scored, embeddings: Tensor, epoch: int) -> str | None:
    """Write embeddings for TensorBoard's projector, with each face as the picture of its point.

    The projector takes one picture of all faces, with sides of at most 8,192 pixels.

    Args:
        writer: writer of the run.
        scored: N faces with their predictions.
        embeddings: (N, D) embeddings.
        epoch: epoch of the network.

    Returns:
        A message if faces were left out, else None.
    """
    side = scored.images.shape[-1]
    count = min(len(scored.targets), (SPRITE // side) ** 2)
    predicted = scored.probabilities.argmax(1)
    names = [
        (scored.classes[target], scored.classes[guess], "right" if target == guess else "wrong", str(row))
        for target, guess, row in zip(scored.targets[:count], predicted[:count], scored.rows[:count], strict=True)
    ]
    pictures = torch.from_numpy(scored.images[:count][:, None].astype(np.float32) / 255)
    writer.add_embedding(
        embeddings[:count], names, pictures, epoch, tag="val", metadata_header=["label", "predicted", "outcome", "row"]
    )
    omitted = len(scored.targets) - count
    return f"the projector shows the first {count:,} val faces; {omitted:,} do not fit its picture" if omitted else None
