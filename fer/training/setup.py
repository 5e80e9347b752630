"""Preparation of a training: network, data, teachers and resumed state.

All are checked before the first step.
"""

import logging
from dataclasses import asdict, replace

import pytorch_lightning as pl

from fer.config.errors import FerError
from fer.config.settings import DistillSettings, TrainSettings
from fer.data.announce import announce
from fer.data.datamodule import FERDataModule
from fer.data.transforms import augment
from fer.data.transforms.mixup import Mixing
from fer.models import MODELS, batchnorm, create
from fer.models.output_check import check_output
from fer.models.trainable import Trainable
from fer.optim.losses import LOSSES
from fer.optim.optimizers import OPTIMIZERS, with_scaled_rates
from fer.optim.schedulers import SCHEDULES
from fer.system import machine, ranks
from fer.system.records import plain
from fer.training import device, trainers
from fer.training.callbacks import checkpointing
from fer.training.distillation import teach

log = logging.getLogger(__name__)


def prepared(settings: TrainSettings, stand_in: bool) -> tuple[TrainSettings, FERDataModule, Trainable]:
    """Return the settings with a batch size for ``auto``, the data and the network of a training.

    Args:
        settings: settings of the run, ``data.path`` resolved.
        stand_in: the faces are drawn in place of FER2013, which was not found.

    Raises:
        FerError: an unknown name or argument, bad data, or a network that cannot take the faces.
    """
    check_names(settings)
    machine.commit()  # cached now: the checkout may change before the run ends
    trainers.quieten()
    machine.prepare(settings.trainer)
    pl.seed_everything(settings.seed, verbose=False)
    mixing = Mixing(settings.augment.mixup, settings.augment.cutmix)
    changes = augment.build(settings.augment.at_strength(), settings.data.crop)
    data = FERDataModule(
        settings.data, changes, settings.seed, settings.stages, mixing, settings.augment.views,
        even=settings.trainer.compile,
    )  # fmt: skip
    with ranks.one_first():
        data.setup("fit")
    if len(data.datasets["train"]) < 2 * settings.trainer.ranks > 2:
        raise FerError(
            f"{settings.data.path}: {len(data.datasets['train'])} training faces for {settings.trainer.ranks} "
            "processes; expected two faces each: lower trainer.devices"
        )
    if len(data.datasets["train"]) < 2:
        raise FerError(f"{settings.data.path}: has one training face; batch normalisation needs two")
    announce(data, stand_in)
    model = classifier(settings, data, stand_in)
    if settings.data.batch_size == "auto":
        size, reason = device.batch_size(settings, model, len(data.datasets["train"]))
        log.info("data.batch_size=%d: %s", size, reason)
        model.provenance = replace(model.provenance, batch_size=size)
        settings = replace(settings, data=replace(settings.data, batch_size=size))
    elif settings.trainer.halve_batch_on_oom:  # a resumed run keeps the size that fitted
        model.provenance = replace(model.provenance, batch_size=settings.data.batch_size)
    device.keep_faces(data, device.of(settings))
    mixing = replace(mixing, soft=model.wants_soft_targets)
    return settings, data.replaced(data=settings.data, mixing=mixing), model


def check_names(settings: TrainSettings) -> None:
    """Raise before data are read if a section has an unknown name or argument, or a value out of range.

    Raises:
        FerError: naming the key and the choices.
    """
    MODELS.arguments(settings.model)
    LOSSES.arguments(settings.loss)
    OPTIMIZERS.arguments(settings.optimizer)
    builder, arguments = SCHEDULES.arguments(settings.scheduler)
    if settings.budget.hours is None:  # with a budget the epochs are planned later
        builder(settings.trainer.max_epochs, **arguments)
    machine.uses_gpu(settings.trainer)


def classifier(settings: TrainSettings, data: FERDataModule, stand_in: bool) -> Trainable:
    """Return the network, ready for the first step.

    Raises:
        FerError: the network cannot take the faces of a stage, or loss, weights or teachers do not fit the run.
    """
    model = _created(settings, data)
    _check_labels(settings, data, model)
    model.monitor = settings.monitor
    if settings.trainer.gradient_checkpointing:
        model.recompute()
    recorded = {key: value for key, value in asdict(settings.data).items() if key not in ("cache", "batch_size")}
    dataset = {**plain(data.describe()), "settings": recorded, "stand_in": stand_in}
    model.provenance = replace(model.provenance, dataset=dataset)
    _check_sizes(settings, model)
    _load_weights(settings, model)
    if settings.trainer.freeze_trunk:
        model.freeze_trunk()
    if settings.trainer.ranks > 1:
        batchnorm.share_statistics(settings.trainer, model)
    if settings.distill.teachers:
        teach(settings.distill, model, data)
    elif settings.distill != DistillSettings():
        log.warning("distill: no teachers are named, so that only the labels are learned; set distill.teachers")
    if (decay := settings.optimizer.get("layer_decay", 1.0)) < 1:
        rates = ", ".join(f"{rate:.3g}" for rate in model.layer_rates())
        log.info(
            "optimizer.layer_decay=%g: learning rates of the layers, from the faces to the logits: %s", decay, rates
        )
    return device.laid_out(model, settings.trainer)


def _created(settings: TrainSettings, data: FERDataModule) -> Trainable:
    """Return the network with random weights, prepared with its loss, optimizer and schedule."""
    mean, std = data.statistics()
    model = create(
        settings.model, classes=list(data.faces.classes), image_size=settings.data.image_size, crop=settings.data.crop,
        mean=mean, std=std, in_channels=settings.data.channels,
    )  # fmt: skip
    model.prepare(
        loss=settings.loss,
        optimizer=with_scaled_rates(settings),
        scheduler=settings.scheduler,
        class_counts=data.class_counts(),
        views=settings.augment.views,
        consistency=settings.consistency,
        sam=settings.sam,
    )
    return model


def _check_labels(settings: TrainSettings, data: FERDataModule, model: Trainable) -> None:
    """Raise if the loss needs soft targets that the data lack, or does not take the labels that mixing makes."""
    if model.wants_soft_targets and data.faces.soft is None:
        raise FerError(
            f"loss={settings.loss['name']}: needs soft targets; set data.labels=ferplus data.ferplus_rule=soft and "
            f"name FER+'s file with data.votes="
        )
    if data.mixing and not model.takes_shares:
        raise FerError(
            f"loss={settings.loss['name']}: does not accept mixed labels, which augment.mixup and augment.cutmix make; "
            "use loss=cross_entropy, logit_adjusted, soft_cross_entropy or label_drawing"
        )


def _check_sizes(settings: TrainSettings, model: Trainable) -> None:
    """Raise if the network cannot take the faces of the run, or those of one of its stages."""
    check_output(model, model.input_size)
    for size in {size for size, _ in settings.stages} - {model.image_size}:
        try:
            check_output(model, settings.data.input_side(size))
        except FerError as error:
            raise FerError(f"stages={settings.stages}: {error}") from error


def _load_weights(settings: TrainSettings, model: Trainable) -> None:
    """Load the weights of ``init_from`` or the pretrained ones; a resumed run takes those of its checkpoint later."""
    if settings.init_from is not None and settings.resume is None:
        checkpointing.load_weights(model, settings.init_from)
        log.info("weights from %s", settings.init_from)
    elif settings.resume is None:
        model.provenance = replace(model.provenance, pretrained=model.load_pretrained())
    if pretrained := model.provenance.pretrained:
        log.info("pretrained weights: %s from %s", pretrained["name"], pretrained["file"])
