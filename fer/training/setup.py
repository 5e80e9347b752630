"""What a training is made of: classifier, data, teachers, resumed state, all checked before the first step."""

import hashlib
import logging
import math
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from fer.config.errors import FerError
from fer.config.settings import DistillSettings, TrainSettings
from fer.data.datamodule import FERDataModule, tell_notes
from fer.data.feature_cache import LARGEST
from fer.data.locate import how_to_get
from fer.data.transforms import augment
from fer.data.transforms.mixup import Mixing
from fer.evaluation.leakage import Training
from fer.evaluation.request import Member, find_again
from fer.models import MODELS, EmotionClassifier, create
from fer.models.provenance import Provenance
from fer.optim.losses import LOSSES
from fer.optim.optimizers import OPTIMIZERS
from fer.optim.schedulers import SCHEDULES
from fer.system import machine
from fer.training import device, distillation
from fer.training.callbacks import checkpointing

log = logging.getLogger(__name__)


def prepared(settings: TrainSettings, stand_in: bool) -> tuple[TrainSettings, FERDataModule, EmotionClassifier]:
    """Return the settings, with what they left open, the faces and the network as a training begins with them.

    Raises:
        FerError: a name or an argument that is not there, bad data, a network that cannot take the faces.
    """
    check_names(settings)
    machine.commit()  # of the code that runs, not of what the checkout holds when the run ends
    _quieten()
    machine.prepare(settings.trainer)
    pl.seed_everything(settings.seed, verbose=False)
    mixing = Mixing(settings.augment.mixup, settings.augment.cutmix)
    changes = augment.build(settings.augment.at_strength(), settings.data.crop)
    data = FERDataModule(
        settings.data, changes, settings.seed, settings.stages, mixing, settings.augment.views,
        even=settings.trainer.compile,
    )  # fmt: skip
    data.setup("fit")
    if len(data.datasets["train"]) < 2:
        raise FerError(f"{settings.data.path}: one training face; batch normalisation cannot train on it alone")
    announce(data, stand_in)
    model = classifier(settings, data, stand_in)
    if settings.data.batch_size == "auto":
        size, reason = device.batch_size(settings, model, len(data.datasets["train"]))
        log.info("data.batch_size=%d: %s", size, reason)
        model.provenance = replace(model.provenance, batch_size=size)
        data.data = replace(settings.data, batch_size=size)
        settings = replace(settings, data=data.data)
    device.keep_faces(data, device.of(settings))
    return settings, data, model


def check_names(settings: TrainSettings) -> None:
    """Raise before anything is read if a section names what is not there, or an argument is out of range.

    Raises:
        FerError: naming the key and the choices.
    """
    MODELS.arguments(settings.model)
    LOSSES.arguments(settings.loss)
    OPTIMIZERS.arguments(settings.optimizer)
    builder, arguments = SCHEDULES.arguments(settings.scheduler)
    if settings.budget.hours is None:  # else the epochs are not known yet
        builder(settings.trainer.max_epochs, **arguments)
    machine.uses_gpu(settings.trainer)


def announce(data: FERDataModule, stand_in: bool) -> None:
    """Say which faces are used, and loudly if they are drawn in place of FER2013."""
    if stand_in:
        log.warning(
            "*** NO FER2013 FOUND: TRAINING ON DRAWN FACES. Its figures say nothing of real ones. %s ***", how_to_get()
        )
    source = data.faces.source
    held = ", ".join(f"{len(dataset):,} {split}" for split, dataset in data.datasets.items())
    log.info("data: %s (%s), split %s: %s", source.path, source.layout, data.data.split, held)
    tell_notes(data.notes, source.skipped)


def classifier(settings: TrainSettings, data: FERDataModule, stand_in: bool) -> EmotionClassifier:
    """Return the network, ready to be fitted."""
    mean, std = data.statistics()
    model = create(
        settings.model, classes=list(data.faces.classes), image_size=settings.data.image_size, crop=settings.data.crop,
        mean=mean, std=std,
    )  # fmt: skip
    model.prepare(
        loss=settings.loss,
        optimizer=settings.optimizer,
        scheduler=settings.scheduler,
        class_counts=data.class_counts(),
        views=settings.augment.views,
        consistency=settings.consistency,
        sam=settings.sam,
    )
    if model.wants_soft_targets and data.faces.soft is None:
        raise FerError(
            f"loss={settings.loss['name']}: wants soft targets; set data.labels=ferplus data.ferplus_rule=soft and "
            f"name FER+'s file with data.votes="
        )
    if data.mixing and not model.takes_shares:
        raise FerError(
            f"loss={settings.loss['name']}: takes no shares of two classes, as augment.mixup and augment.cutmix make; "
            "use loss=cross_entropy, logit_adjusted, soft_cross_entropy or label_drawing"
        )
    data.mixing = replace(data.mixing, soft=model.wants_soft_targets)
    model.monitor = settings.monitor
    served = {key: value for key, value in asdict(settings.data).items() if key not in ("cache", "batch_size")}
    dataset = {**data.describe(), "settings": served, "stand_in": stand_in}
    model.provenance = replace(model.provenance, dataset=dataset)
    check_output(model, model.input_size)
    for size in {size for size, _ in settings.stages} - {model.image_size}:
        try:
            check_output(model, settings.data.seen(size))
        except FerError as error:
            raise FerError(f"stages={settings.stages}: {error}") from error
    if settings.init_from is not None and settings.resume is None:
        checkpointing.load_weights(model, settings.init_from)
        log.info("weights from %s", settings.init_from)
    elif settings.resume is None:
        model.provenance = replace(model.provenance, pretrained=model.load_pretrained())
    if pretrained := model.provenance.pretrained:
        log.info("pretrained weights: %s from %s", pretrained["name"], pretrained["file"])
    if settings.distill.teachers:
        teach(settings.distill, model, data)
    elif settings.distill != DistillSettings():
        log.warning("distill: no teachers are named (distill.teachers), so that the labels alone teach")
    return model.to(memory_format=torch.channels_last) if settings.trainer.channels_last else model


def _refuse_val(teachers: distillation.Teachers, model: EmotionClassifier, data: FERDataModule) -> None:
    """Raise where teachers were trained on faces that are val here, in whatever table and at whatever size."""
    if all(dataset.get("fingerprint") == model.provenance.dataset.get("fingerprint") for dataset in teachers.datasets):
        return  # whose divisions have been compared
    named = [Path(str(one["checkpoint"])) for one in teachers.about]
    members = [Member(file, network) for file, network in zip(named, teachers.networks, strict=True)]
    find_again(members, data)
    try:
        seen = Training(members, data.data.faces_a_step).seen(data.data.image_size)
    except FerError as error:
        log.warning("whether the teachers were trained on faces that are val here cannot be told: %s", error)
        return
    if known := (data.hashes("val") & seen) - data.hashes("train"):
        raise FerError(
            f"distill.teachers: trained on {len(known):,} of the faces that are val here; divide the data as they were "
            "divided for the teachers"
        )


def teach(settings: DistillSettings, model: EmotionClassifier, data: FERDataModule) -> None:
    """Let the network learn from the teachers that are named, and say so."""
    teachers = distillation.read(settings, model, data)
    _refuse_val(teachers, model, data)
    model.learn_from(teachers)
    count = len(teachers.networks)
    log.info(
        "learning from the answers of %d network%s (weight %g, temperature %g)",
        count, "" if count == 1 else "s", settings.weight, settings.temperature,
    )  # fmt: skip


def keep_features(settings: TrainSettings, data: FERDataModule, model: EmotionClassifier) -> None:
    """Let what frozen layers make of the faces be computed once where it is always the same; say what is done."""
    chosen = settings.trainer
    if not model.frozen:
        return
    if chosen.limit_train < 1 or chosen.limit_val < 1 or chosen.overfit_batches:
        log.info("features: computed anew at each step, since only a part of the faces is used")
        return
    if settings.stages:
        log.info("features: computed anew at each step, since the stages change the faces before them")
        return
    splits = ["val"] if data.augments else ["train", "val"]
    if data.augments:
        log.info("features of train: computed anew at each step, since augmentation changes the faces before them")
    size = math.prod(model.features(torch.zeros(1, 1, model.image_size, model.image_size)).shape) * 4  # bytes a face
    total = size * sum(len(data.datasets[split]) for split in splits)
    if total > LARGEST:
        log.info("features: computed anew at each step; all would take %.1f GB, over %.1f", total / 1e9, LARGEST / 1e9)
        return
    where = device.of(settings)
    model.to(where)
    rounding = (torch.__version__, where.type, chosen.channels_last)  # what changes the last bits
    key = hashlib.sha256(repr((model.features_key(), rounding)).encode()).hexdigest()
    data.keep_features(splits, lambda faces: model.features(faces.to(where)).cpu(), key)


@torch.no_grad()
def check_output(model: EmotionClassifier, size: int) -> None:
    """Raise before anything is trained if a network cannot take faces of a size or gives no logit a class.

    Raises:
        FerError: naming both shapes.
    """
    faces, wanted = torch.zeros(2, 1, size, size), (2, model.num_classes)
    model.eval()
    try:
        given = tuple(_by_shapes(model, faces).shape)
    except (RuntimeError, ValueError, TypeError, AssertionError):  # one that looks at values knows no shapes alone
        try:
            given = tuple(model.look(faces).shape)
        except (RuntimeError, ValueError, AssertionError) as error:  # the last is timm's
            reason = " ".join(str(error).split())[:200]
            raise FerError(
                f"model={model.architecture}: cannot take faces of shape {tuple(faces.shape)}: {reason}"
            ) from error
    if given != wanted:
        raise FerError(f"model={model.architecture}: gives {given} for 2 faces; expected {wanted}, a logit a class")
    model.train()


def _by_shapes(model: EmotionClassifier, faces: Tensor) -> Tensor:
    """Return the logits' shape without computing them, which takes a fifth of a second of a run's start."""
    looking = _Looking(model)
    weights = {name: tensor.to("meta") for name, tensor in (*looking.named_parameters(), *looking.named_buffers())}
    logits: Tensor = torch.func.functional_call(looking, weights, faces.to("meta"))
    return logits


class _Looking(torch.nn.Module):
    """A network called by ``look``."""

    def __init__(self, model: EmotionClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, faces: Tensor) -> Tensor:
        """Return its logits."""
        return self.model.look(faces)


def resume_from(folder: Path, model: EmotionClassifier) -> tuple[Path, int]:
    """Load the newest sound checkpoint of a run, its data being the ones at hand; return it and the epochs it has done.

    Raises:
        FerError: there is none, or the data have changed.
    """
    file, checkpoint = checkpointing.newest(folder)
    recorded = Provenance.of(checkpoint["fer"])
    before, now = recorded.dataset, model.provenance.dataset
    if before.get("fingerprint") != now["fingerprint"]:
        raise FerError(f"resume={folder}: its data were {before.get('path')} with other contents than {now['path']}")
    left_out = [(about.get("excluded") or {}).get("rows_sha256") for about in (before, now)]
    if left_out[0] != left_out[1]:
        raise FerError(f"resume={folder}: data.exclude names other rows now than when the run began")
    named = (recorded.teachers, model.provenance.teachers)
    teachers = [[(one["sha256"], one["weight"], one.get("temperature", 1.0)) for one in about or []] for about in named]
    if teachers[0] != teachers[1]:
        raise FerError(f"resume={folder}: distill.teachers are other networks or weights now than when the run began")
    model.load_state_dict(checkpoint["state_dict"])
    model.provenance = replace(model.provenance, plan=recorded.plan)
    log.info("going on from epoch %d, step %d", checkpoint["epoch"] + 1, checkpoint["global_step"])
    done = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return file, int(done)


def _quieten() -> None:
    """Silence what libraries say that a user of this command can do nothing about."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # batches come from memory, see DESIGN
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen layers are
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step.*")
