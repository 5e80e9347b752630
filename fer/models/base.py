"""EmotionClassifier: everything that networks share. A subclass builds ``self.net`` and nothing else.

The classifier owns its preprocessing: it takes faces in [0, 1] (or uint8) and normalises them itself, so that training,
evaluation and whatever uses the network later cannot differ. Its hyperparameters are plain values, so that a checkpoint
loads with ``weights_only=True`` and rebuilds the network by itself.

A network may begin with layers that were trained elsewhere: ``load_pretrained`` fills them, ``freeze_first`` keeps
some of them as they are, and ``parameter_groups`` gives those that train a rate of their own.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import ParamsT

from fer.config.errors import FerError
from fer.config.schema import keyword_parameters
from fer.config.settings import Section, mode
from fer.data.dataset import Batch, to_unit
from fer.data.labels import EMOTIONS
from fer.data.transforms.crop import middle
from fer.metrics.running import Scores
from fer.models.provenance import Dataset, Provenance
from fer.optim.losses import LOSSES, disagreement
from fer.optim.optimizers import OPTIMIZERS
from fer.optim.sam import climbing
from fer.optim.schedulers import SCHEDULES, Plateau

LOGGED = ("loss", "accuracy", "macro_f1", "balanced_accuracy")  # each as <name>/train and <name>/val, once an epoch


class Teachers(Protocol):
    """Networks whose answers a network learns from, see ``fer.training.distillation``."""

    about: list[dict[str, Any]]

    @property
    def datasets(self) -> list[Dataset]:
        """What they have seen."""

    def compile(self) -> None:
        """Let torch compile them at their first step."""

    def blended(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Return the loss of the labels and that of their answers, by their weights."""


class EmotionClassifier(pl.LightningModule):
    """A network that reads an emotion from a grey face.

    Args:
        classes: names, in the order of the logits.
        image_size: side of the faces, in pixels.
        crop: side of the square in their middle that is looked at; None is all of them.
        mean: of the training pixels, of values in [0, 1].
        std: their standard deviation.
    """

    architecture = ""  # the name under which a subclass is registered
    climbing = False  # whether the pass at hand is the second of ``sam``, whose scores are not the network's
    frozen = 0  # layers at the beginning of ``net`` that never change, see ``freeze_first``
    net: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(
        self, *, classes: Sequence[str] = EMOTIONS, image_size: int = 48, crop: int | None = None, mean: float = 0.5,
        std: float = 0.25,
    ) -> None:  # fmt: skip
        super().__init__()
        self.save_hyperparameters(logger=False)  # climbs through the subclasses, whose arguments are kept as well
        wanted = {*keyword_parameters(type(self)), *keyword_parameters(EmotionClassifier)}
        for name in set(self.hparams) - wanted:  # what a subclass of a network has fixed is no argument of it
            del self.hparams[name]
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        self.train_scores = Scores(len(classes))
        self.val_scores = Scores(len(classes))
        self.monitor = "accuracy/val"
        self.latest: dict[str, dict[str, Tensor]] = {}  # split -> its last scores, see Scores.compute
        self.provenance = Provenance()
        self.views, self.consistency, self.sam = 1, 0.0, 0.0  # of the training, see ``prepare``
        self.teachers: Teachers | None = None
        self._clipped: list[nn.Parameter] = []  # found at a fit's first step, since each would walk all modules
        self._optimizer: Section = {}
        self._scheduler: Section = {}

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.hparams["classes"])

    @property
    def image_size(self) -> int:
        """Side of the faces, in pixels."""
        return int(self.hparams["image_size"])

    @property
    def crop(self) -> int | None:
        """Side of the square of a face that is looked at, in pixels; None where it is the whole."""
        crop: int | None = self.hparams.get("crop")  # of which older checkpoints know nothing
        return crop

    @property
    def input_size(self) -> int:
        """Side of what reaches ``net``, in pixels."""
        return self.crop or self.image_size

    def side_after(self, halvings: int, border: int = 0) -> int:
        """Return the side of what the network has halved so often, rounded down.

        Args:
            halvings: their number.
            border: pixels that convolutions without padding take off the side first.

        Raises:
            FerError: nothing would be left.
        """
        side, least = self.input_size, border + 2**halvings
        if side < least:
            key = "data.crop" if self.crop else "data.image_size"
            raise FerError(
                f"{key}={side}: model={self.architecture} halves the side {halvings} times; expected at least {least}"
            )
        return (side - border) >> halvings

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, C) of faces (B, 1, S, S), uint8 or float in [0, 1]."""
        return self.look(middle(images, self.crop))

    def look(self, images: Tensor) -> Tensor:
        """Return logits (B, C) of faces (B, 1, T, T) that are cropped already, uint8 or float in [0, 1]."""
        logits: Tensor = self.net(self._normalised(images))
        return logits

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return calibrated probabilities (B, C) of faces (B, 1, S, S), uint8 or float in [0, 1].

        The logits are divided by the temperature that val has given the network (Guo et al. 2017), if any.

        Raises:
            FerError: these are no such faces: in colour, of another size, with values beyond [0, 1].
        """
        check_faces(images, self.image_size)
        logits: Tensor = self(images)
        return (logits.float() / (self.provenance.temperature or 1.0)).softmax(1)

    def _normalised(self, images: Tensor) -> Tensor:
        return (to_unit(images) - self.mean) / self.std

    def logits(self, batch: Batch) -> Tensor:
        """Return logits (B, C) of a batch: of its cropped faces, or of their features where those are known."""
        logits: Tensor = self.look(batch.images) if batch.features is None else self._parts()[1](batch.features)
        return logits

    # --- layers that were trained elsewhere -------------------------------------------------------------------------

    def load_pretrained(self) -> dict[str, str] | None:
        """Load what a new network begins with; return its "name", "file" and "sha256", or None where there is nothing.

        Called once for a network that is neither resumed nor started from another checkpoint.

        Raises:
            FerError: the weights cannot be had, or do not fit.
        """
        return None

    def freeze_first(self, layers: int) -> None:
        """Keep the first layers of ``net``, a ``Sequential``, as they are: no gradients, always in evaluation mode.

        What they make of a face is then always the same, see ``features``.
        """
        self.frozen = layers
        self._parts()[0].requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all layers but the frozen ones."""
        super().train(mode)
        if self.frozen:
            self._parts()[0].eval()
        return self

    def _parts(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return the frozen layers and the others."""
        assert isinstance(self.net, nn.Sequential)
        return self.net[: self.frozen], self.net[self.frozen :]

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Return what the frozen layers make of faces (B, 1, S, S): (B, ...), of which ``logits`` goes on."""
        features: Tensor = self._parts()[0](self._normalised(middle(images, self.crop)))
        return features

    def features_key(self) -> str:
        """Return a sha256 of all that ``features`` depends on but the faces: sizes, normalisation, layers, weights."""
        layers = self._parts()[0]
        before = (self.image_size, self.crop, self.mean.tolist(), self.std.tolist())
        digest = hashlib.sha256(repr((before, layers)).encode())
        for value in layers.state_dict().values():
            digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    # --- training ---------------------------------------------------------------------------------------------------

    def prepare(
        self,
        *,
        loss: Section,
        optimizer: Section,
        scheduler: Section,
        class_counts: Tensor,
        views: int = 1,
        consistency: float = 0.0,
        sam: float = 0.0,
    ) -> None:
        """Say how to train; sections are ``{"name": ..., **arguments}``. A network that only predicts needs none of it.

        Args:
            loss: as in ``fer.optim.losses``.
            optimizer: as in ``fer.optim.optimizers``.
            scheduler: as in ``fer.optim.schedulers``.
            class_counts: (C,) training faces of each class.
            views: of each face in a training batch, one set of all faces after the other.
            consistency: weight of the disagreement between these, see ``fer.optim.losses.disagreement``.
            sam: how far sharpness-aware minimisation climbs, see ``fer.optim.sam``.

        Raises:
            FerError: an unknown name or argument, a wrong type, a value out of range.
        """
        builder, arguments = LOSSES.arguments(loss)
        self.loss = builder(class_counts, **arguments)
        OPTIMIZERS.arguments(optimizer)
        SCHEDULES.arguments(scheduler)
        self._optimizer, self._scheduler = optimizer, scheduler
        self.views, self.consistency, self.sam = views, consistency, sam

    def learn_from(self, teachers: Teachers) -> None:
        """Let their answers be soft targets beside the labels; what they have seen is known of this network too."""
        self.teachers = teachers
        ancestors = (*self.provenance.ancestors, *teachers.datasets)
        self.provenance = replace(self.provenance, teachers=teachers.about, ancestors=ancestors)

    def schedule_nothing(self) -> None:
        """Keep the learning rate as it is."""
        self._scheduler = {"name": "none"}

    def configure_optimizers(self) -> Any:
        """Return the optimizer, and the schedule as Lightning wants it.

        The number of steps an epoch is asked for later: asking now would make Lightning build the loader before the
        checkpoint is read, and a resumed loader would begin its epoch anew.
        """
        self._clipped = []
        make, arguments = OPTIMIZERS.arguments(self._optimizer)
        optimizer = make(self.parameter_groups(self._optimizer["lr"]), **arguments)
        make, arguments = SCHEDULES.arguments(self._scheduler)
        schedule = make(self.trainer.max_epochs, **arguments)
        if isinstance(schedule, Plateau):
            return {"optimizer": optimizer, "lr_scheduler": self._plateau(optimizer, schedule)}
        scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step / self._steps() if step else 0.0))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameter_groups(self, lr: float) -> ParamsT:
        """Return the parameters, or ``{"params": ..., "lr": ...}`` for sets of them, the rate that is shown first."""
        return self.parameters()

    def _steps(self) -> int:
        return int(self.trainer.num_training_batches)

    def _plateau(self, optimizer: torch.optim.Optimizer, schedule: Plateau) -> dict[str, Any]:
        scheduler = lr_scheduler.ReduceLROnPlateau(
            optimizer,
            mode=mode(self.monitor),
            factor=schedule.factor,
            patience=schedule.patience,
            min_lr=[group["lr"] * schedule.min_factor for group in optimizer.param_groups],
        )
        return {"scheduler": scheduler, "interval": "step", "monitor": self.monitor}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, which refuses fused optimizers under bf16 for a loss scaler that bf16 has not."""
        if gradient_clip_val:
            by_value = gradient_clip_algorithm == "value"
            clip = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
            self._clipped = self._clipped or list(self.parameters())
            clip(self._clipped, gradient_clip_val)

    def on_train_start(self) -> None:
        """Let plateau be asked at an epoch's last step, after validation and before checkpoints are written.

        Asked by the epoch, as Lightning has it, it would miss in the checkpoint what it learnt from that epoch.
        """
        for config in self.trainer.lr_scheduler_configs:
            if config.reduce_on_plateau:
                config.frequency = self._steps()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss, a scalar; scores stay on the device until the epoch's end."""
        logits = self.logits(batch)
        loss = self._loss_of(logits, batch)
        if self.teachers is not None:
            loss = self.teachers.blended(loss, logits, batch.images)
        if self.consistency:
            loss = loss + self.consistency * disagreement(logits, self.views)
        if not self.climbing:
            self.train_scores.update(logits.detach(), batch.targets, loss.detach())
        return loss

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Step, by the gradients where the loss is highest nearby if sharpness counts."""
        if self.sam and optimizer_closure is not None:
            optimizer_closure = climbing(self, optimizer_closure, self.sam)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a batch to the scores of val, and return its logits (B, C) to whoever draws them.

        A copy: what a CUDA graph gives is written over by its next run.
        """
        logits = self.logits(batch)
        self.val_scores.update(logits, batch.targets, self._loss_of(logits, batch))
        return logits.clone()

    def _loss_of(self, logits: Tensor, batch: Batch) -> Tensor:
        loss: Tensor = self.loss(logits, batch.soft if self.wants_soft_targets or batch.mixed else batch.targets)
        return loss

    @property
    def wants_soft_targets(self) -> bool:
        """Whether the loss compares with soft targets (B, C)."""
        return bool(getattr(self.loss, "soft", False))

    @property
    def takes_shares(self) -> bool:
        """Whether the loss compares with shares of classes (B, C) as well as with classes."""
        return bool(getattr(self.loss, "shares", False))

    def on_validation_epoch_end(self) -> None:
        """Log val and, in a run, train and the learning rate: the epoch's training batches are done by now."""
        self._log_scores(self.val_scores, "val")
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self._log_scores(self.train_scores, "train")
            self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"], logger=False)

    def _log_scores(self, scores: Scores, split: str) -> None:
        """Log for whoever monitors or prints; TensorBoard gets them by epochs, from its own callback."""
        self.latest[split] = values = scores.compute()
        for name in LOGGED:
            self.log(f"{name}/{split}", values[name], logger=False)
        scores.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the network, and the train scores of an unfinished epoch."""
        checkpoint["fer"] = {"format": 1, "architecture": self.architecture, **self.provenance.recorded()}
        checkpoint["train_scores"] = {
            name: getattr(self.train_scores, name).cpu() for name in ("confusion", "loss_sum")
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up where the weights came from, what was found of the machine, the scores of an unfinished epoch."""
        before = Provenance.of(checkpoint.get("fer", {}))
        self.provenance = replace(
            self.provenance, pretrained=before.pretrained, ancestors=before.ancestors, batch_size=before.batch_size,
            plan=before.plan,
        )  # fmt: skip
        for name, value in checkpoint.get("train_scores", {}).items():
            setattr(self.train_scores, name, value.to(self.device))


def check_faces(images: Tensor, side: int) -> None:
    """Raise where a caller's images are not faces (B, 1, side, side), uint8 or float in [0, 1].

    Raises:
        FerError: saying what they are.
    """
    shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1:] != (1, side, side):
        raise FerError(f"faces: {shape}; expected a tensor (B, 1, {side}, {side}), grey, each cropped to the face")
    if images.dtype == torch.uint8 or not images.numel():
        return
    least, most = (float(value) for value in images.aminmax())
    if not images.is_floating_point() or not 0 <= least <= most <= 1:
        raise FerError(f"faces: {images.dtype} from {least:g} to {most:g}; expected uint8, or float from 0 to 1")
