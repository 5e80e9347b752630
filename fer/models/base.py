"""EmotionClassifier: the base class of all networks. A subclass builds ``self.net`` and nothing else.

The classifier contains its preprocessing: it takes faces in [0, 1] (or uint8), crops and normalises them itself. Wrong
preprocessing at inference is a common mistake; here training, evaluation and later use cannot differ. Hyperparameters
are plain values, so that a checkpoint loads with ``weights_only=True`` and rebuilds the network without other files.

A network may begin with pretrained layers: ``load_pretrained`` loads their weights, ``freeze_first`` keeps some of
them fixed, and ``parameter_groups`` gives the trainable ones a learning rate of their own.
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
from fer.data.noise import shared
from fer.data.transforms.crop import middle
from fer.metrics.running import Scores
from fer.models.layers import Residual
from fer.models.provenance import Dataset, Provenance
from fer.optim.losses import LOSSES, disagreement
from fer.optim.optimizers import OPTIMIZERS
from fer.optim.sam import sharpness_aware
from fer.optim.schedulers import SCHEDULES, Plateau
from fer.system import ranks

LOGGED = ("loss", "accuracy", "macro_f1", "balanced_accuracy")  # each as <name>/train and <name>/val, once an epoch


class Teachers(Protocol):
    """Networks whose predictions are soft targets of a training, see ``fer.training.distillation``."""

    records: list[dict[str, Any]]

    @property
    def datasets(self) -> list[Dataset]:
        """The data sets that the teachers were trained on."""

    def compile(self) -> None:
        """Let torch compile the teachers at their first step."""

    def blended(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Return the weighted sum of the loss on the labels and the loss on the teachers' predictions."""


class EmotionClassifier(pl.LightningModule):
    """A network that predicts the emotion of a grey face.

    A network that was trained on crops predicts from crops: ``forward`` takes whole faces and crops their middle,
    ``look`` takes faces that are cropped already. Code that uses a network passes whole faces in either case.

    Args:
        classes: names, in the order of the logits.
        image_size: side of the faces, in pixels.
        crop: side of the central square that the network sees, in pixels; None is the whole face.
        mean: mean of the training pixels, of values in [0, 1].
        std: standard deviation of the training pixels.
    """

    architecture = ""  # the name under which a subclass is registered
    climbing = False  # True during the second pass of ``sam``, whose predictions are not scored
    frozen = 0  # number of layers at the beginning of ``net`` that never change, see ``freeze_first``
    net: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(
        self, *, classes: Sequence[str] = EMOTIONS, image_size: int = 48, crop: int | None = None, mean: float = 0.5,
        std: float = 0.25,
    ) -> None:  # fmt: skip
        super().__init__()
        self.save_hyperparameters(logger=False)  # arguments of the subclasses too
        accepted = {*keyword_parameters(type(self)), *keyword_parameters(EmotionClassifier)}
        for name in set(self.hparams) - accepted:  # fixed by a subclass of a network, so no argument of that subclass
            del self.hparams[name]
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        self.train_scores = Scores(len(classes))
        self.val_scores = Scores(len(classes))
        self.monitor = "accuracy/val"
        self.latest: dict[str, dict[str, Tensor]] = {}  # split -> its latest scores, see Scores.compute
        self.provenance = Provenance()
        self.views, self.consistency, self.sam = 1, 0.0, 0.0  # set by ``prepare``
        self.teachers: Teachers | None = None
        self._clipped: list[nn.Parameter] = []  # filled at a fit's first step: listing them walks all modules
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
        """Side of the central square that the network sees, in pixels; None for the whole face."""
        crop: int | None = self.hparams.get("crop")  # older checkpoints have no such entry
        return crop

    @property
    def input_size(self) -> int:
        """Side of the images that reach ``net``, in pixels."""
        return self.crop or self.image_size

    def side_after(self, halvings: int, border: int = 0) -> int:
        """Return the side of the feature maps after ``halvings`` halvings, in pixels, rounded down.

        Args:
            halvings: how often the network halves the side.
            border: pixels that convolutions without padding remove from the side first.

        Raises:
            FerError: no pixel would remain.
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

        The logits are divided by the temperature that was fitted on val (Guo et al. 2017), if any. Accuracy and the
        like are computed without it.

        Raises:
            FerError: the images are in colour, of another size, or have values outside [0, 1].
        """
        check_faces(images, self.image_size)
        logits: Tensor = self(images)
        return (logits.float() / (self.provenance.temperature or 1.0)).softmax(1)

    def _normalised(self, images: Tensor) -> Tensor:
        return (to_unit(images) - self.mean) / self.std

    def logits(self, batch: Batch) -> Tensor:
        """Return logits (B, C) of a batch, from its precomputed features if it has any, else from its cropped faces."""
        logits: Tensor = self.look(batch.images) if batch.features is None else self._parts()[1](batch.features)
        return logits

    # --- pretrained and frozen layers -------------------------------------------------------------------------------

    def load_pretrained(self) -> dict[str, str] | None:
        """Load pretrained weights; return their "name", "file" and "sha256", or None if the network has none.

        It is called once, for a network that is neither resumed nor started from another checkpoint. The constructor
        loads no weights, so that a checkpoint rebuilds its network without their file.

        Raises:
            FerError: the weights are not available, or do not fit.
        """
        return None

    def freeze_first(self, layers: int) -> None:
        """Freeze the first layers of ``net``, a ``Sequential``: no gradients, always in evaluation mode.

        The output of frozen layers for a face never changes, see ``features``.
        """
        self.frozen = layers
        self._parts()[0].requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all layers except the frozen ones."""
        super().train(mode)
        if self.frozen:
            self._parts()[0].eval()
        return self

    def _parts(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Return the frozen layers and the trainable ones."""
        assert isinstance(self.net, nn.Sequential)
        return self.net[: self.frozen], self.net[self.frozen :]

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Return the output (B, ...) of the frozen layers for faces (B, 1, S, S); ``logits`` accepts it."""
        features: Tensor = self._parts()[0](self._normalised(middle(images, self.crop)))
        return features

    def features_key(self) -> str:
        """Return a sha256 of everything except the faces that ``features`` depends on.

        It covers sizes, normalisation, layers and weights; the cache of features uses it as its key.
        """
        layers = self._parts()[0]
        preprocessing = (self.image_size, self.crop, self.mean.tolist(), self.std.tolist())
        digest = hashlib.sha256(repr((preprocessing, layers)).encode())
        for value in layers.state_dict().values():
            digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    # --- explanations -----------------------------------------------------------------------------------------------

    @property
    def map_layers(self) -> Sequence[nn.Module]:
        """Layers, in their order, whose feature maps (B, C, s, s) the whole prediction passes through; for Grad-CAM.

        By default the activations and blocks of a ``Sequential``. A layer inside a residual branch does not belong: the
        shortcut passes it by. Layers with other outputs are passed over.
        """
        if not isinstance(self.net, nn.Sequential):
            return ()
        return [layer for layer in self.net if isinstance(layer, (nn.ReLU, nn.Sequential, Residual))]

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
        """Set loss, optimizer and schedule for a training; a network that only predicts needs none of them.

        Args:
            loss: ``{"name": ..., **arguments}``, see ``fer.optim.losses``.
            optimizer: section of the same form, see ``fer.optim.optimizers``.
            scheduler: section of the same form, see ``fer.optim.schedulers``.
            class_counts: (C,) training faces of each class.
            views: number of views of each face in a training batch; the batch is one set of all faces after another.
            consistency: weight of the disagreement between views, see ``fer.optim.losses.disagreement``.
            sam: radius of sharpness-aware minimisation, see ``fer.optim.sam``; 0 turns it off.

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
        """Use the teachers' predictions as soft targets beside the labels.

        The teachers' training data count as training data of this network, so that leakage is found.
        """
        self.teachers = teachers
        ancestors = (*self.provenance.ancestors, *teachers.datasets)
        self.provenance = replace(self.provenance, teachers=teachers.records, ancestors=ancestors)

    def use_constant_lr(self) -> None:
        """Keep the learning rate constant."""
        self._scheduler = {"name": "none"}

    def configure_optimizers(self) -> Any:
        """Return the optimizer and the schedule in Lightning's form.

        The number of steps in an epoch is read later, in the schedule: reading it here would make Lightning build the
        loader before it reads the checkpoint, and a resumed loader would start its epoch again from the first batch.
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
        """Return the parameters, or groups ``{"params": ..., "lr": ...}``; the first group's rate is the logged one."""
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
        """Clip as Lightning does, which refuses fused optimizers under bf16, although bf16 needs no scaler."""
        if gradient_clip_val:
            by_value = gradient_clip_algorithm == "value"
            clip = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
            self._clipped = self._clipped or list(self.parameters())
            clip(self._clipped, gradient_clip_val)

    def on_train_start(self) -> None:
        """Step ReduceLROnPlateau at an epoch's last step, after validation and before checkpoints are written.

        Lightning steps it after the checkpoint is written. The checkpoint would lack the state of that epoch, and a
        resumed run would differ. The other schedules are functions of time without state.
        """
        for config in self.trainer.lr_scheduler_configs:
            if config.reduce_on_plateau:
                config.frequency = self._steps()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss, a scalar; metrics stay on the device until the epoch's end."""
        with shared(batch.part):
            logits = self.logits(batch)
            loss = self._loss_of(logits, batch)
        if self.teachers is not None:
            loss = self.teachers.blended(loss, logits, batch.images)
        if self.consistency:
            loss = loss + self.consistency * disagreement(logits, self.views)
        if not self.climbing:
            self.train_scores.update(logits.detach(), batch.targets, loss.detach())
        return loss if batch.part is None else loss * batch.part.weight  # gradients are averaged over the ranks

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Make an optimizer step; with ``sam``, by the gradients at the nearby weights with the highest loss."""
        if self.sam and optimizer_closure is not None:
            optimizer_closure = sharpness_aware(self, optimizer_closure, self.sam)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a batch to the metrics of val, and return its logits (B, C) for callbacks that draw them.

        The logits are copied, since the next run of a CUDA graph overwrites its output.
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
        """Log the metrics of val and, in a training, of train with the learning rate: training batches come first."""
        self._log_scores(self.val_scores, "val")
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self._log_scores(self.train_scores, "train")
            self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"], logger=False)

    def _log_scores(self, scores: Scores, split: str) -> None:
        """Log metrics for callbacks that monitor or print them; the callback ``Dashboard`` writes TensorBoard's."""
        scores.add_ranks()
        self.latest[split] = values = scores.compute()
        for name in LOGGED:
            self.log(f"{name}/{split}", values[name], logger=False)
        scores.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the entry that rebuilds the network, and the train metrics of an unfinished epoch."""
        checkpoint["fer"] = {"format": 1, "architecture": self.architecture, **self.provenance.recorded()}
        scores = {name: getattr(self.train_scores, name).clone() for name in ("confusion", "loss_sum")}
        ranks.summed(*scores.values())
        checkpoint["train_scores"] = {name: value.cpu() for name, value in scores.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the origin of the weights, the chosen batch size and plan, and metrics of an unfinished epoch."""
        recorded = Provenance.of(checkpoint.get("fer", {}))
        self.provenance = replace(
            self.provenance, pretrained=recorded.pretrained, ancestors=recorded.ancestors,
            batch_size=recorded.batch_size, plan=recorded.plan,
        )  # fmt: skip
        for name, value in checkpoint.get("train_scores", {}).items():  # of all ranks: rank 0 goes on from their sum
            restored = value if ranks.current().first else torch.zeros_like(value)
            setattr(self.train_scores, name, restored.to(self.device))


def check_faces(images: Tensor, side: int) -> None:
    """Raise unless images are faces (B, 1, side, side), uint8 or float in [0, 1].

    Raises:
        FerError: naming the shape or type and the range that were passed.
    """
    shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1:] != (1, side, side):
        raise FerError(f"faces: {shape}; expected a tensor (B, 1, {side}, {side}), grey, each cropped to the face")
    if images.dtype == torch.uint8 or not images.numel():
        return
    least, most = (float(value) for value in images.aminmax())
    if not images.is_floating_point() or not 0 <= least <= most <= 1:
        raise FerError(f"faces: {images.dtype} from {least:g} to {most:g}; expected uint8, or float from 0 to 1")
