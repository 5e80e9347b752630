"""One training: its preparation, the fit, the evaluation of the best epoch on val, and the report.

It takes plain settings, without Hydra.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from torch import Tensor

from fer.config.errors import FerError
from fer.config.settings import DistillSettings, Origin, TrainSettings
from fer.data.announce import announce
from fer.data.datamodule import FERDataModule
from fer.data.duplicates import without_duplicate
from fer.data.samples import augmented_samples
from fer.data.transforms import augment
from fer.data.transforms.mixup import Mixing
from fer.evaluation import scoring
from fer.evaluation.leakage import TrainingData, not_trained_on, use_data_at_hand
from fer.evaluation.request import Member, Tables
from fer.metrics import results as metrics_json
from fer.metrics.calibration import fitted_temperature
from fer.metrics.conformal import COVERAGE
from fer.metrics.results import SCHEMA, THESE_FACES, DatasetRecord, Pretrained, Results, Teacher, TrainingRecord
from fer.models import MODELS, EmotionClassifier, batchnorm, checkpoints, create
from fer.models.base import predicted_probabilities
from fer.models.output_check import check_output
from fer.models.trainable import Trainable
from fer.optim.losses import LOSSES
from fer.optim.optimizers import OPTIMIZERS, with_scaled_rates
from fer.optim.schedulers import SCHEDULES
from fer.reports import run as report
from fer.reports.run_sections import Report
from fer.reports.summary import scores_of_training
from fer.runs import predictions, status
from fer.runs.predictions import Scored
from fer.runs.status import Phase
from fer.runs.stored import resume_line
from fer.system import machine, ranks
from fer.system.files import read_history
from fer.system.records import plain, read
from fer.system.signals import raise_dropped
from fer.training import deadline, device, launch, out_of_memory, profiler, time_budget, trainers
from fer.training.callbacks import checkpointing
from fer.training.callbacks.checkpointing import Saver
from fer.training.callbacks.guards import FiniteLoss, Signals
from fer.training.callbacks.history import Stopwatch
from fer.training.callbacks.scalars import Scalars
from fer.training.callbacks.tensorboard import add_projector, embeddings_of
from fer.training.distillation import teach
from fer.training.restore import restoring, resume_from

log = logging.getLogger(__name__)

SAMPLES, VARIANTS = 6, 9  # faces of the report's sheet of augmentation, and augmented versions of each


def fit(settings: TrainSettings, folder: Path, origin: Origin) -> Results | None:
    """Train and score a run as ``attempt`` does; with ``trainer.halve_batch_on_oom`` again until a batch fits.

    A new attempt begins with the first epoch, so that its result is that of a run with the smaller batch. Of several
    ranks, rank 0 alone scores; None is returned to the others.
    """
    with launch.joined(settings, folder):
        return out_of_memory.halving(partial(attempt, folder=folder, origin=origin), settings)


def attempt(settings: TrainSettings, folder: Path, origin: Origin) -> Results | None:
    """Train, or go on with, the run in ``folder``; score its best epoch on val; return what ``metrics.json`` holds.

    Ranks other than 0 return None after the training.

    Args:
        settings: settings of the run, ``data.path`` resolved.
        folder: folder of the run.
        origin: command line and choices of the run, for its record.

    Raises:
        FerError: bad data, a checkpoint that does not fit, or a loss or prediction that is NaN or infinite.
        Interrupted: the process received a signal; the run is saved.
    """
    deadline.end_of(settings)  # before the data are read
    settings, data, model = prepared(settings, origin.stand_in)
    checkpoint, begin = resume_from(folder, model) if settings.resume else (None, 0)
    with ranks.one_first():
        device.keep_features(settings, data, model)
    if settings.budget.hours is not None:
        with out_of_memory.named(settings, folder):
            settings, data = time_budget.within_budget(settings, data, model, folder)
        check_names(settings)  # the schedule's arguments may not fit the planned epochs
    saver, watch, epochs = _fitted(settings, folder, origin, data, model, checkpoint, begin)
    if not ranks.current().first:
        return None
    _enter(folder, "scoring")
    results, scored = write_results(settings, folder, data, saver, watch, epochs=epochs, command=origin.command)
    raise_dropped()
    write_report(settings, folder, data, results, scored, origin.changes)
    return results


@dataclass(frozen=True)
class _Epochs:
    """The numbers of trained and of planned epochs; ``budget.until`` plans them during the training."""

    trained: int
    planned: int


def _fitted(
    settings: TrainSettings,
    folder: Path,
    origin: Origin,
    data: FERDataModule,
    model: Trainable,
    checkpoint: Path | None,
    begin: int,
) -> tuple[Saver, Stopwatch, "_Epochs"]:
    """Train, and return the callbacks that know the best epoch and the times, and the numbers of epochs.

    Args:
        settings: settings of the run, its epochs planned.
        folder: folder of the run.
        origin: command line and choices of the run.
        data: its faces, in the order of the run.
        model: its network, ready for the first step.
        checkpoint: to go on from; None for a new run.
        begin: number of finished epochs, 0 for a new run.
    """
    saver, watch = Saver(folder / "checkpoints", settings.monitor, _last_stage(settings)), Stopwatch()
    finite = FiniteLoss()
    signals = Signals(folder, finite, saver)
    before_signals = trainers.before_signals(settings)
    tracking = trainers.tracking(settings, folder, begin, Scalars(saver, watch))
    callbacks = [
        *device.compiled(model, settings, data), *before_signals, finite, signals, watch, tracking,
        *trainers.after_signals(settings, folder, saver, watch, finite, origin),
    ]  # fmt: skip
    device.announce_compiling(settings, data)
    faces = {name: len(dataset) for name, dataset in data.datasets.items()}
    steps = profiler.StepProfiler(on_gpu=machine.uses_gpu(settings.trainer)) if settings.trainer.profile else None
    trainer = trainers.build(settings, folder, callbacks, faces, begin, profiler=steps)
    device.announce(settings, model, faces["train"], trainers.steps_an_epoch(settings, faces["train"]))
    _enter(folder, "training")
    with (
        out_of_memory.named(settings, folder),
        restoring(checkpoint, signals),
        profiler.measured(steps, folder),
        device.compiling(settings),
        tracking.closed(),
    ):
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if ranks.current().first:
        signals.stop()
    return saver, watch, _Epochs(trainer.current_epoch, trainer.max_epochs or 0)


def _last_stage(settings: TrainSettings) -> int:
    """Return the first epoch of the last stage, from 0; the best epoch is one of that stage."""
    return sum(epochs for _, epochs in settings.stages[:-1])


def _enter(folder: Path, phase: Phase) -> None:
    if ranks.current().first:
        status.enter(folder, phase)


# --- preparation, checked before the first step -----------------------------------------------------------------------


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
        drop_last=settings.trainer.compile,
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
    if settings.augment.strength != 1 and settings.augment.at_strength() == replace(settings.augment, strength=1.0):
        log.warning("augment.strength=%g: nothing that it scales is on; set augment=strong", settings.augment.strength)
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
    """Raise if the loss does not fit the labels: soft targets or none, classes or the shares that mixing makes."""
    if model.wants_soft_targets and data.faces.soft is None:
        raise FerError(
            f"loss={settings.loss['name']}: needs soft targets; set data.labels=ferplus data.ferplus_rule=soft and "
            f"name FER+'s file with data.votes="
        )
    if data.faces.soft is not None and not model.wants_soft_targets and settings.resume is None:
        raise FerError(
            f"data.ferplus_rule=soft: loss={settings.loss['name']} learns the class with the most votes alone; set "
            "loss=soft_cross_entropy or loss=label_drawing, or data.ferplus_rule=argmax"
        )
    if data.mixing and not model.takes_shares:
        choices = "cross_entropy" if data.faces.soft is None else "soft_cross_entropy"
        raise FerError(
            f"loss={settings.loss['name']}: does not accept mixed labels, which augment.mixup and augment.cutmix make; "
            f"set both to 0, or use another loss, such as loss={choices}"
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


# --- results ----------------------------------------------------------------------------------------------------------


def write_results(
    settings: TrainSettings,
    folder: Path,
    data: FERDataModule,
    saver: Saver,
    watch: Stopwatch,
    *,
    epochs: _Epochs,
    command: str,
) -> tuple[Results, Scored]:
    """Score the best epoch on val from its file, and write ``predictions.csv`` and ``metrics.json``."""
    best = folder / "checkpoints" / "best.ckpt"
    model = checkpoints.load(best)
    made = model.provenance
    predicted, targets = predict_val(settings, data, model), data.datasets["val"].targets
    wall_seconds = time.perf_counter() - data.loaded_at
    temperature = fitted_temperature(predicted.numpy(), targets.numpy())
    classes = list(model.hparams["classes"])
    scored = scoring.scored_faces(predicted, data, "val", classes)
    kept = _not_trained_on(model, best, data, scored.images)
    sets = scoring.calibrated_sets(scored.probabilities, scored.targets, kept, temperature)
    checkpointing.add_calibration(best, temperature, sets)
    predictions.write(folder / "predictions.csv", "val", scored, data.datasets["val"].soft)
    calibration = scoring.Calibration(sets, THESE_FACES, kept=True)
    results = Results(
        schema=SCHEMA,
        split="val",
        measured=scoring.measured_split(predicted, data, "val", classes, temperature),
        temperature_fitted_on=THESE_FACES,
        data_sets=scoring.by_data_set(scored, data, "val"),
        seen_in_training=None if kept is None else int((~kept).sum()),
        clean=None if kept is None else scoring.clean(predicted, targets, kept, classes, scored.groups),
        sets=scoring.prediction_sets(scored, temperature, kept, calibration, COVERAGE),
        training=_training_record(settings, saver, watch, epochs, wall_seconds, made.plan),
        parameters=model.parameter_count,
        architecture=model.architecture,
        pretrained=None if made.pretrained is None else read(Pretrained, made.pretrained),
        teachers=tuple(read(Teacher, teacher) for teacher in made.teachers or ()) or None,
        seed=settings.seed,
        dataset=read(DatasetRecord, made.dataset),
        machine=machine.provenance(),
        command=command,
    )
    metrics_json.write(folder / "metrics.json", results)
    for words in scores_of_training(settings, results):
        log.info("%s", words)
    return results, scored


def _training_record(
    settings: TrainSettings, saver: Saver, watch: Stopwatch, epochs: _Epochs, wall_seconds: float, plan: Any
) -> TrainingRecord:
    """Return what ``metrics.json`` says about the training.

    Args:
        settings: settings of the run.
        saver: callback that knows the best epoch.
        watch: callback that measured the epochs.
        epochs: numbers of trained and planned epochs.
        wall_seconds: time since the data were loaded; left out of a resumed run's record.
        plan: of ``budget.hours``, as the checkpoint has it.
    """
    return TrainingRecord(
        best_epoch=saver.best_epoch + 1,  # counted from 1, as printed
        epochs=epochs.trained,
        planned_epochs=epochs.planned,
        wall_seconds=None if settings.resume else round(wall_seconds, 3),
        train_seconds=round(watch.train_seconds, 3),
        batch_size=settings.data.faces_a_step,
        training_precision=machine.chosen_precision(settings.trainer),
        budget=plan or None,
        images_per_second=round(watch.images_per_second, 1),
        peak_memory_mb=machine.memory(),
    )


def _not_trained_on(
    model: EmotionClassifier, file: Path, data: FERDataModule, images: NDArray[np.uint8]
) -> NDArray[np.bool_] | None:
    """Return (N,) True for faces in no training of the network or its ancestors; None if that is unknown."""
    if not model.provenance.ancestors:
        return without_duplicate(images, data.hashes("train"))
    member = Member(file, model)
    use_data_at_hand([member], data)
    return not_trained_on(TrainingData([member], Tables(data.data.faces_a_step, data.data.cache)), images)


def predict_val(settings: TrainSettings, data: FERDataModule, model: EmotionClassifier) -> Tensor:
    """Return the probabilities (N, C) of the val faces."""
    if settings.trainer.freeze_trunk:  # no checkpoint says which layers were frozen; features may be cached
        model.freeze_trunk()
    size = settings.data.faces_a_step
    return predicted_probabilities(model, data.datasets["val"], batch_size=size, device=device.of(settings))


@contextmanager
def _results_are_safe(folder: Path) -> Iterator[None]:
    """Raise an error with a remedy where report or projector cannot be written."""
    try:
        yield
    except OSError as error:
        raise FerError(
            f"{error.filename or folder}: {error.strerror or error}; the results are safe, the report or projector is "
            f"not complete: fix this, then {resume_line(folder, folder)}"
        ) from error


def write_report(
    settings: TrainSettings,
    folder: Path,
    data: FERDataModule,
    results: Results,
    scored: Scored,
    changes: Callable[[], Mapping[str, tuple[Any, Any]]],
) -> None:
    """Write the report and the projector, as far as the settings ask for them, after the results were written.

    Args:
        settings: settings of the run.
        folder: folder of the run.
        data: data of the run.
        results: contents of ``metrics.json``.
        scored: the val faces with their predictions.
        changes: function that returns the settings that differ from the defaults.

    Raises:
        FerError: a file cannot be written.
    """
    with _results_are_safe(folder):
        if settings.logger.report:
            samples = augmented_samples(data, SAMPLES, VARIANTS)
            history = read_history(folder / "history.csv")
            report.write(Report(results, scored, history, samples, asdict(settings), changes()), folder)
        if settings.logger.projector:
            model = checkpoints.load(folder / "checkpoints" / "best.ckpt")
            images, size = data.datasets["val"].images, settings.data.faces_a_step
            embedded = embeddings_of(model, images, batch_size=size, device=device.of(settings))
            logger = trainers.tensorboard_logger(folder, 0)
            left_out = add_projector(
                logger.experiment, scored, embedded, results.training.best_epoch if results.training else 0
            )
            logger.experiment.close()
            if left_out:
                log.warning("%s", left_out)
