"""The training half of a network: losses, optimizers, steps and metrics, as Lightning asks for them.

``fer.models.create`` makes a network of both halves. One that only predicts lacks this half, so that ``fer predict``
does not wait for Lightning's import.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import ParamsT

from fer.config.errors import FerError
from fer.config.settings import Section, mode
from fer.data.dataset import Batch
from fer.data.noise import shared
from fer.metrics.running import Scores
from fer.models.base import EmotionClassifier
from fer.models.blocks import by_layer
from fer.optim.losses import LOSSES, disagreement
from fer.optim.optimizers import OPTIMIZERS, largest_rate
from fer.optim.sam import frozen_statistics, sharpness_aware
from fer.optim.schedulers import SCHEDULES, Plateau, Timeline
from fer.runs.provenance import Dataset, Provenance
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


class Trainable(EmotionClassifier, pl.LightningModule):
    """A network that Lightning can train.

    Args:
        contract: classes, image_size, crop, mean and std, see ``EmotionClassifier``.
    """

    climbing = False  # True during the second pass of ``sam``, whose predictions are not scored

    def __init__(self, **contract: Any) -> None:
        super().__init__(**contract)
        self.train_scores = Scores(self.num_classes)
        self.val_scores = Scores(self.num_classes)
        self.monitor = "accuracy/val"
        self.latest: dict[str, dict[str, Tensor]] = {}  # split -> its latest scores, see Scores.compute
        self.views, self.consistency, self.sam = 1, 0.0, 0.0  # set by ``prepare``
        self.recomputes = False  # whether the backward pass computes blocks again
        self.teachers: Teachers | None = None
        self.schedule_epochs: int | None = None  # None: as many as the trainer has
        self.timeline: Timeline | None = None  # of a run whose number of epochs changes, see ``budget.until``
        self._clipped: list[nn.Parameter] = []  # filled at a fit's first step: listing them walks all modules
        self._optimizer: Section = {}
        self._scheduler: Section = {}

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
        if "lr" not in OPTIMIZERS.arguments(optimizer)[1]:
            raise FerError(f"optimizer={optimizer['name']}: has no argument lr, which every optimizer needs")
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

        The number of steps in an epoch is read later, in the schedule. Read here, it would make Lightning build the
        loader before it reads the checkpoint. A resumed loader would start its epoch again from the first batch.
        """
        self._clipped = []
        make, arguments = OPTIMIZERS.arguments(self._optimizer)
        optimizer = make(self._parameters_by_layer(arguments), **arguments)
        make, arguments = SCHEDULES.arguments(self._scheduler)
        schedule = make(self.schedule_epochs or self.trainer.max_epochs, **arguments)
        if isinstance(schedule, Plateau):
            return {"optimizer": optimizer, "lr_scheduler": self._plateau(optimizer, schedule)}
        scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: schedule(self._time(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _time(self, step: int) -> float:
        """Return the time of the schedule at a step, in epochs."""
        epochs = step / self._steps() if step else 0.0
        return epochs if self.timeline is None else self.timeline.at(epochs)

    def _parameters_by_layer(self, arguments: Section) -> ParamsT:
        """Return the parameters, in groups by layer if the optimizer's arguments have a ``layer_decay`` below 1."""
        parameters = self.parameter_groups(arguments["lr"])
        return by_layer(parameters, self.layers()) if arguments.get("layer_decay", 1.0) < 1 else parameters

    @property
    def base_rate(self) -> float:
        """The optimizer's argument ``lr``, to which the rates of all groups are in proportion."""
        return float(OPTIMIZERS.arguments(self._optimizer)[1]["lr"])

    def layer_rates(self) -> list[float]:
        """Return the learning rates of the trained layers before the schedule, from the faces to the logits."""
        make, arguments = OPTIMIZERS.arguments(self._optimizer)
        made = make(self._parameters_by_layer(arguments), **arguments)
        rates = {id(weights): group["lr"] for group in made.param_groups for weights in group["params"]}
        layers = [[weights for weights in layer if id(weights) in rates] for layer in self.layers()]
        return [max(rates[id(weights)] for weights in layer) for layer in layers if layer]

    def _steps(self) -> int:
        """Return the number of optimizer steps in an epoch."""
        return -(-int(self.trainer.num_training_batches) // self.trainer.accumulate_grad_batches)

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
                config.frequency = int(self.trainer.num_training_batches)  # Lightning counts batches here

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
        if self._trainer is not None and self.trainer.accumulate_grad_batches > 1:
            loss = loss * self._share(batch_idx)
        return loss if batch.part is None else loss * batch.part.weight  # gradients are averaged over the ranks

    def _share(self, batch: int) -> float:
        """Return the factor on the mean loss of a batch, so that the mean over its step is that of all faces.

        Lightning divides each loss by ``trainer.accumulate``, also where the last step of an epoch has fewer batches.
        """
        every = self.trainer.accumulate_grad_batches
        loader: Any = self.trainer.train_dataloader
        first = batch // every * every
        last = min(first + every, int(self.trainer.num_training_batches))
        faces: Callable[[int], int] = loader.batch_sampler.faces
        return faces(batch) * every / sum(faces(index) for index in range(first, last))

    def recompute(self) -> None:
        """Train with gradient checkpointing, see ``checkpoint_gradients``.

        Raises:
            FerError: the network names no blocks.
        """
        self.checkpoint_gradients()
        self.recomputes = True

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradients; blocks that are computed again leave the running statistics unchanged."""
        with frozen_statistics(self) if self.recomputes else nullcontext():
            super().backward(loss, *args, **kwargs)

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
            self.log("learning_rate", largest_rate(self.trainer.optimizers[0]), logger=False)

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
        ranks.add_up(*scores.values())
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


@cache
def trainable(network: type[EmotionClassifier]) -> type[Trainable]:
    """Return the class of a registered network with its training half; what the network overrides stays overridden."""
    return type(network.__name__, (network, Trainable), {"__module__": network.__module__, "__doc__": network.__doc__})
