"""Preparation of a training: network, data, teachers and resumed state.

All are checked before the first step.
"""

import hashlib
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace

import pytorch_lightning as pl
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from fer.config.errors import FerError
from fer.config.settings import DistillSettings, Section, TrainerSettings, TrainSettings
from fer.data.cache import folder_of
from fer.data.datamodule import FERDataModule
from fer.data.feature_cache import LARGEST, FeatureStore
from fer.data.locate import how_to_get
from fer.data.table import log_notes
from fer.data.transforms import augment
from fer.data.transforms.mixup import Mixing
from fer.metrics.results import DatasetRecord
from fer.models import MODELS, batchnorm, create
from fer.models.output_check import check_output
from fer.models.trainable import Trainable
from fer.optim.losses import LOSSES
from fer.optim.optimizers import OPTIMIZERS
from fer.optim.schedulers import SCHEDULES
from fer.system import machine, ranks
from fer.system.records import plain
from fer.system.text import plural
from fer.training import device
from fer.training.callbacks import checkpointing
from fer.training.distillation import teach

log = logging.getLogger(__name__)

RATES = ("lr", "adam_lr")  # keys of ``optimizer`` that are learning rates
SIMD, LEAST_OVERRUN = 16, 46  # numbers of 32 bits in a register of AVX-512; side in pixels, see ``laid_out``


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
    _quieten()
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


def announce(data: FERDataModule, stand_in: bool) -> None:
    """Log the data of the run, with a warning if faces are drawn in place of FER2013."""
    if stand_in:
        log.warning(
            "*** NO FER2013 FOUND: TRAINING ON DRAWN FACES: no metric holds for real faces. %s ***", how_to_get()
        )
    source = data.faces.source
    counts = ", ".join(f"{len(dataset):,} {split}" for split, dataset in data.datasets.items())
    if data.sets is None:
        log.info("data: %s (%s), split %s: %s", source.path, source.layout, data.data.split, counts)
    else:
        for one in data.sets.records(data.splits):
            log.info("data: %s", data_set_in_words(one))
        log.info("together: %s", counts)
    log_notes(data.notes, source.skipped, data.missing)


def data_set_in_words(one: DatasetRecord) -> str:
    """Return in words what one of several data sets gives to a training."""
    faces = {split: sum(classes.values()) for split, classes in one.counts.items()}
    counts = ", ".join(f"{count:,} {split}" for split, count in faces.items())
    share = "" if one.share is None else f"; {100 * one.share:.1f} % of an epoch's training faces"
    return f"{one.name}: {one.path} ({one.layout}), split {one.split}: {counts}{share}"


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
        share_statistics(settings.trainer, model)
    if settings.distill.teachers:
        teach(settings.distill, model, data)
    elif settings.distill != DistillSettings():
        log.warning("distill: no teachers are named, so that only the labels are learned; set distill.teachers")
    if (decay := settings.optimizer.get("layer_decay", 1.0)) < 1:
        rates = ", ".join(f"{rate:.3g}" for rate in model.layer_rates())
        log.info(
            "optimizer.layer_decay=%g: learning rates of the layers, from the faces to the logits: %s", decay, rates
        )
    return laid_out(model, settings.trainer)


def laid_out(model: Trainable, settings: TrainerSettings) -> Trainable:
    """Return the network with channels innermost if ``trainer.channels_last`` asks for it and the CPU can train it so.

    In this order the backward pass of a narrow 1x1 convolution with a stride of 2 ends the process by a segmentation
    fault. That was measured with torch 2.14.1 (oneDNN) and AVX-512. The fault needs 2 to 15 input channels, at most 16
    output channels, 32 bits, and two or more faces. Their side is even and 46 pixels or more; up to 45 nothing is
    wrong.
    """
    if not settings.channels_last:
        return model
    narrow = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d) and _overruns(layer)]
    if narrow and not machine.uses_gpu(settings) and _largest_side(model, narrow) >= LEAST_OVERRUN:
        layers = plural(len(narrow), "narrow layer")
        log.info("trained as with trainer.channels_last=false: torch would crash in the backward pass of %s", layers)
        return model
    return model.to(memory_format=torch.channels_last)


def _overruns(layer: torch.nn.Conv2d) -> bool:
    strided = layer.kernel_size == (1, 1) and layer.stride != (1, 1)
    return strided and layer.in_channels < SIMD and layer.out_channels <= SIMD


def _largest_side(model: Trainable, layers: Sequence[torch.nn.Module]) -> int:
    """Return the largest side of what layers take, for faces of the full size."""
    sides = [0]
    hooks = [layer.register_forward_pre_hook(lambda _, given: sides.append(given[0].shape[-1])) for layer in layers]
    check_output(model, model.input_size)
    for hook in hooks:
        hook.remove()
    return max(sides)


def _created(settings: TrainSettings, data: FERDataModule) -> Trainable:
    """Return the network with random weights, prepared with its loss, optimizer and schedule."""
    mean, std = data.statistics()
    model = create(
        settings.model, classes=list(data.faces.classes), image_size=settings.data.image_size, crop=settings.data.crop,
        mean=mean, std=std, in_channels=settings.data.channels,
    )  # fmt: skip
    model.prepare(
        loss=settings.loss,
        optimizer=scaled(settings),
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


def share_statistics(settings: TrainerSettings, model: Trainable) -> None:
    """Let batch normalisation use the batches of all ranks, or log that it does not."""
    layers = sum(isinstance(layer, _BatchNorm) for layer in model.modules())
    if settings.sync_batchnorm:
        batchnorm.share(model)
    elif layers:
        log.info("trainer.sync_batchnorm=false: %d layers normalise each process's part of a batch apart", layers)


def scaled(settings: TrainSettings) -> Section:
    """Return the section ``optimizer`` with its rates scaled by ``trainer.lr_scaling``."""
    factor = settings.lr_factor
    if factor == 1:
        return settings.optimizer
    rates = {key: value * factor for key, value in settings.optimizer.items() if key in RATES}
    shown = ", ".join(f"optimizer.{key}={value:.3g}" for key, value in rates.items())
    log.info("trainer.lr_scaling=%s: %s for %d faces", settings.trainer.lr_scaling, shown, settings.data.faces_a_step)
    return settings.optimizer | rates


def keep_features(settings: TrainSettings, data: FERDataModule, model: Trainable) -> None:
    """Compute the output of frozen layers once for all faces, if it is the same at every step, and log the decision.

    The cache is keyed by a face's pixels and by everything else that the output depends on. So runs with other seeds
    and splits share it.
    """
    chosen = settings.trainer
    if not model.frozen:
        return
    if chosen.limit_train < 1 or chosen.limit_val < 1 or chosen.overfit_batches:
        log.info("features: computed at each step, since only a part of the faces is used")
        return
    if settings.stages:
        log.info("features: computed at each step, since stages resize the faces")
        return
    splits = ["val"] if data.augments else ["train", "val"]
    if data.augments:
        log.info("features of train: computed at each step, since augmentation changes the faces")
    size = (
        math.prod(model.features(torch.zeros(1, model.in_channels, model.image_size, model.image_size)).shape) * 4
    )  # bytes a face
    total = size * sum(len(data.datasets[split]) for split in splits)
    if total > LARGEST:
        log.info("features: computed at each step; a cache would take %.1f GB, over %.1f", total / 1e9, LARGEST / 1e9)
        return
    where = device.of(settings)
    model.to(where)
    rounding = (torch.__version__, where.type, chosen.channels_last)  # what changes the last bits
    key = hashlib.sha256(repr((model.features_key(), rounding)).encode()).hexdigest()
    store = FeatureStore(key, folder_of(data.data.cache))
    store.serve([data.datasets[split] for split in splits], lambda faces: model.features(faces.to(where)).cpu())


def _quieten() -> None:
    """Silence warnings of libraries that a user of this command cannot act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # batches come from memory
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen layers are
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*")  # its successor is not in every version of torch
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # metrics are summed before they are logged
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step.*")
