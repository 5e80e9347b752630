"""One training: the fit, the evaluation of the best epoch on val, and the report.

It takes plain settings, without Hydra.
"""

import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from fer.config.errors import FerError, OutOfMemory
from fer.config.settings import Origin, TrainerSettings, TrainSettings, leaves, mode
from fer.data.datamodule import FERDataModule
from fer.data.duplicates import without_duplicate
from fer.data.samples import augmented_samples
from fer.evaluation import forward, scoring
from fer.evaluation.leakage import TrainingData, find_again, not_trained_on
from fer.evaluation.request import Member, Tables
from fer.metrics import results as metrics_json
from fer.metrics.calibration import fitted_temperature
from fer.metrics.conformal import COVERAGE
from fer.metrics.results import (
    SCHEMA,
    THESE_FACES,
    DatasetRecord,
    Pretrained,
    Results,
    Teacher,
    TrainingRecord,
)
from fer.models import EmotionClassifier, checkpoints
from fer.models.trainable import Trainable
from fer.reports.summary import by_data_set_table, class_table, score_table
from fer.runs import predictions, status
from fer.runs.predictions import Scored
from fer.runs.status import Phase
from fer.runs.stored import resume_line
from fer.system import machine, ranks
from fer.system.files import read_history, why
from fer.system.records import read
from fer.system.signals import raise_dropped
from fer.system.text import clock
from fer.training import deadline, device, launch, loggers, out_of_memory, profiler, time_budget, trainers
from fer.training.callbacks import checkpointing
from fer.training.callbacks.checkpointing import Saver, WithinEpochs
from fer.training.callbacks.early_stopping import Patience
from fer.training.callbacks.ema import Averaging
from fer.training.callbacks.guards import FiniteLoss, Signals
from fer.training.callbacks.history import History, Stopwatch
from fer.training.callbacks.progress import Progress
from fer.training.callbacks.scalars import Scalars
from fer.training.callbacks.statistics import OneStatistics
from fer.training.callbacks.tensorboard import Dashboard, hyperparameters
from fer.training.callbacks.tracking import Tracking
from fer.training.deadline import Deadline
from fer.training.restore import resume_from
from fer.training.session import ran_out_of_memory
from fer.training.setup import check_names, keep_features, prepared
from fer.training.time_budget import EpochPlan

log = logging.getLogger(__name__)

SAMPLES, VARIANTS = 6, 9  # faces of the report's sheet of augmentation, and augmented versions of each


def fit(settings: TrainSettings, folder: Path, origin: Origin) -> Results | None:
    """Train and score a run as ``attempt`` does; with ``trainer.halve_batch_on_oom`` again until a batch fits.

    A new attempt begins with the first epoch, so that its result is that of a run with the smaller batch. Of several
    ranks, rank 0 alone scores; None is returned to the others.
    """
    with launch.joined(settings, folder):
        return _attempts(settings, folder, origin)


def _attempts(settings: TrainSettings, folder: Path, origin: Origin) -> Results | None:
    while True:
        try:
            return attempt(settings, folder, origin)
        except OutOfMemory as error:
            size = out_of_memory.halved(settings, folder)
            if size is None:
                raise
            log.warning("%s; beginning again with data.batch_size=%d", error, size)
        gc.collect()  # the tensors of the attempt, to which its error referred
        if machine.uses_gpu(settings.trainer):
            torch.cuda.empty_cache()
        settings = replace(settings, data=replace(settings.data, batch_size=size))


@contextmanager
def _restored(checkpoint: Path | None, signals: Signals) -> Iterator[None]:
    """Turn the errors of restoring a damaged state of a training into one line.

    Raises:
        FerError: naming the checkpoint.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if checkpoint is None or signals.began or ran_out_of_memory(error):
            raise
        raise FerError(
            f"{checkpoint}: its state of the training cannot be restored ({why(error)}). If it is damaged, remove it, "
            "and best.ckpt beside it is resumed; or train anew from its weights: init_from="
        ) from error


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
    settings, data, model = prepared(settings, origin.stand_in)
    checkpoint, begin = resume_from(folder, model) if settings.resume else (None, 0)
    with ranks.one_first():
        keep_features(settings, data, model)
    settings, data = _planned(settings, data, model, folder)
    saver, watch = Saver(folder / "checkpoints", settings.monitor, _last_stage(settings)), Stopwatch()
    finite = FiniteLoss()
    signals = Signals(folder, finite, saver)
    before_signals = _before_signals(settings)
    tracking = _tracking(settings, folder, begin, Scalars(saver, watch))
    callbacks = [*device.compiled(model, settings, data), *before_signals, finite, signals, watch, tracking]
    callbacks += _after_signals(settings, folder, saver, watch, finite, origin)
    device.announce_compiling(settings, data)
    faces = {name: len(dataset) for name, dataset in data.datasets.items()}
    steps = profiler.StepProfiler(on_gpu=machine.uses_gpu(settings.trainer)) if settings.trainer.profile else None
    trainer = trainers.build(settings, folder, callbacks, faces, begin, profiler=steps)
    _announce(settings, model, faces["train"])
    _enter(folder, "training")
    with (
        out_of_memory.named(settings, folder),
        _restored(checkpoint, signals),
        profiler.measured(steps, folder),
        device.compiling(settings),
        tracking.closed(),
    ):
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if not ranks.current().first:
        return None
    signals.stop()
    _enter(folder, "scoring")
    results, scored = finish(settings, folder, data, saver, watch, epochs=trainer.current_epoch, command=origin.command)
    raise_dropped()
    show(settings, folder, data, results, scored, origin.changes)
    return results


def _planned(
    settings: TrainSettings, data: FERDataModule, model: Trainable, folder: Path
) -> tuple[TrainSettings, FERDataModule]:
    """Return settings and data with the epochs that ``budget.hours`` leaves time for, of a resumed run those planned.

    Raises:
        FerError: a schedule's arguments do not fit the planned epochs.
    """
    if settings.budget.hours is None:
        return settings, data
    recorded = model.provenance.plan
    plan = read(EpochPlan, recorded) if recorded else time_budget.planned(settings, data, model, folder)
    settings, data = time_budget.with_plan(settings, data, plan)
    check_names(settings)
    return settings, data


def _last_stage(settings: TrainSettings) -> int:
    """Return the first epoch of the last stage, from 0; the best epoch is one of that stage."""
    return sum(epochs for _, epochs in settings.stages[:-1])


def _announce(settings: TrainSettings, model: Trainable, faces: int) -> None:
    epochs = settings.trainer.max_epochs
    log.info(
        "%s: %s, %d epoch%s of %s faces, %s",
        settings.model["name"], _sizes(model), epochs, "" if epochs == 1 else "s", f"{faces:,}",
        _device(settings.trainer),
    )  # fmt: skip


def _enter(folder: Path, phase: Phase) -> None:
    if ranks.current().first:
        status.enter(folder, phase)


def show_again(settings: TrainSettings, folder: Path, origin: Origin) -> None:
    """Write the report and the projector of a finished run again, after their writing was interrupted.

    Raises:
        FerError: the data have changed.
    """
    settings, data, resumed = prepared(settings, origin.stand_in)
    resume_from(folder, resumed, trains=False)
    if resumed.provenance.plan:
        settings, data = time_budget.with_plan(settings, data, read(EpochPlan, resumed.provenance.plan))
    model = checkpoints.load(folder / "checkpoints" / "best.ckpt")
    predicted, classes = predict_val(settings, data, model), list(model.hparams["classes"])
    scored = scoring.scored_faces(predicted, data, "val", classes)
    show(settings, folder, data, metrics_json.read(folder / "metrics.json"), scored, origin.changes)


def _before_signals(settings: TrainSettings) -> list[Callback]:
    """Return the callbacks that change a step's result, so that the checkpoint which a signal writes has it."""
    callbacks: list[Callback] = [Averaging(settings.ema)] if settings.ema else []
    if ranks.current().several and not settings.trainer.sync_batchnorm:
        callbacks.append(OneStatistics())
    ends = deadline.end_of(settings)
    if ends is not None:  # before the checkpoint is written, which holds the new plan
        callbacks.append(Deadline(ends))
    return callbacks


def _after_signals(
    settings: TrainSettings, folder: Path, saver: Saver, watch: Stopwatch, finite: FiniteLoss, origin: Origin
) -> list[Callback]:
    """Return the callbacks that record, show and end the training."""
    callbacks: list[Callback] = [
        History(folder / "history.csv", watch),
        Progress(saver, watch, stages=settings.stages, live=settings.trainer.bar),
    ]
    if settings.logger.tensorboard and ranks.current().first:
        callbacks.append(Dashboard(hyperparameters(settings, origin), saver, watch, resumed=bool(settings.resume)))
    callbacks.append(saver)
    if settings.early_stopping:
        callbacks.append(Patience(settings.monitor, patience=settings.early_stopping, mode=mode(settings.monitor)))
    if settings.checkpoint.minutes is not None:
        callbacks.append(WithinEpochs(settings.checkpoint.minutes, saver, finite.check))
    return callbacks


def _tracking(settings: TrainSettings, folder: Path, begin: int, scalars: Scalars) -> Tracking:
    """Return the callback that writes to the loggers besides TensorBoard's; on ranks other than 0 there are none."""
    resumed, opened = bool(settings.resume), {}
    if ranks.current().first:
        opened = loggers.opened(settings.logger, folder, begin, resumed=resumed)
    if opened and not settings.logger.tensorboard:
        log.info("%s: %s: logger=[tensorboard,%s]", ", ".join(opened), loggers.LEFT_OUT, ",".join(opened))
    return Tracking(opened, dict(leaves(asdict(settings))), scalars, resumed=resumed)


def finish(
    settings: TrainSettings,
    folder: Path,
    data: FERDataModule,
    saver: Saver,
    watch: Stopwatch,
    *,
    epochs: int,
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
        clean=None if kept is None else scoring.clean(predicted, targets, kept, classes),
        sets=scoring.prediction_sets(scored, temperature, kept, calibration, COVERAGE),
        training=_training_record(settings, saver, watch, epochs, wall_seconds, made.plan),
        parameters=_parameters(model),
        architecture=model.architecture,
        pretrained=None if made.pretrained is None else read(Pretrained, made.pretrained),
        teachers=tuple(read(Teacher, teacher) for teacher in made.teachers or ()) or None,
        seed=settings.seed,
        dataset=read(DatasetRecord, made.dataset),
        machine=machine.provenance(),
        command=command,
    )
    metrics_json.write(folder / "metrics.json", results)
    _print_scores(settings, results)
    return results, scored


def _training_record(
    settings: TrainSettings, saver: Saver, watch: Stopwatch, epochs: int, wall_seconds: float, plan: Any
) -> TrainingRecord:
    """Return what ``metrics.json`` says about the training.

    Args:
        settings: settings of the run.
        saver: callback that knows the best epoch.
        watch: callback that measured the epochs.
        epochs: number of trained epochs.
        wall_seconds: time since the data were loaded; left out of a resumed run's record.
        plan: of ``budget.hours``, as the checkpoint has it.
    """
    return TrainingRecord(
        best_epoch=saver.best_epoch + 1,  # counted from 1, as printed
        epochs=epochs,
        wall_seconds=None if settings.resume else round(wall_seconds, 3),
        train_seconds=round(watch.train_seconds, 3),
        batch_size=settings.data.faces_a_step,
        training_precision=machine.chosen_precision(settings.trainer),
        budget=plan or None,
        images_per_second=round(watch.images_per_second, 1),
        peak_memory_mb=machine.memory(),
    )


def _print_scores(settings: TrainSettings, results: Results) -> None:
    """Print the metrics of val, and what they are the metrics of."""
    tables = [class_table(results), score_table(results), *by_data_set_table(results)]
    log.info("\n%s\n", "\n\n".join(tables))
    if settings.trainer.limit_val != 1 or settings.trainer.overfit_batches:
        log.info("(the epoch was chosen by val metrics over a part of these faces)")
    record, planned = results.training, settings.trainer.max_epochs
    assert record is not None
    stopped = record.epochs < planned and settings.budget.until is None
    early = f" (stopped early, {planned} planned)" if stopped else ""
    seconds = clock(record.train_seconds)
    log.info("best epoch %d of %d%s, trained in %s", record.best_epoch, record.epochs, early, seconds)


def _not_trained_on(
    model: EmotionClassifier, file: Path, data: FERDataModule, images: NDArray[np.uint8]
) -> NDArray[np.bool_] | None:
    """Return (N,) True for faces in no training of the network or its ancestors; None if that is unknown."""
    if not model.provenance.ancestors:
        return without_duplicate(images, data.hashes("train"))
    member = Member(file, model)
    find_again([member], data)
    return not_trained_on(TrainingData([member], Tables(data.data.faces_a_step, data.data.cache)), images)


def predict_val(settings: TrainSettings, data: FERDataModule, model: EmotionClassifier) -> Tensor:
    """Return the probabilities (N, C) of the val faces."""
    if (
        settings.trainer.freeze_trunk
    ):  # the checkpoint does not say which layers were frozen, and features may be cached
        model.freeze_trunk()
    size = settings.data.faces_a_step
    return forward.predicted_probabilities(model, data.datasets["val"], batch_size=size, device=device.of(settings))


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


def show(
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
            from fer.reports import run, run_sections  # matplotlib takes half a second to import

            samples = augmented_samples(data, SAMPLES, VARIANTS)
            history = read_history(folder / "history.csv")
            run.write(run_sections.Report(results, scored, history, samples, asdict(settings), changes()), folder)
        if settings.logger.projector:
            from fer.training.callbacks.tensorboard import add_projector

            model = checkpoints.load(folder / "checkpoints" / "best.ckpt")
            images, size = data.datasets["val"].images, settings.data.faces_a_step
            embedded = forward.embeddings(model, images, batch_size=size, device=device.of(settings))
            logger = trainers.tensorboard_logger(folder, 0)
            left_out = add_projector(
                logger.experiment, scored, embedded, results.training.best_epoch if results.training else 0
            )
            logger.experiment.close()
            if left_out:
                log.warning("%s", left_out)


def _parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _sizes(model: torch.nn.Module) -> str:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    count = _parameters(model)
    return f"{count:,} parameters" + (f", of which {trained:,} are trained" if trained < count else "")


def _device(settings: TrainerSettings) -> str:
    """Return device, threads and precision in words."""
    half = machine.chosen_precision(settings) == "bf16"
    bits = "bf16" if half else "32 bits"
    count = ranks.current().count
    together = f"{count} processes, each " if count > 1 else ""
    if machine.uses_gpu(settings):
        return f"{together}on {torch.cuda.get_device_name()}, {bits}"
    threads, slow = torch.get_num_threads(), half and machine.multiplies_bf16() is False
    return f"{together}on the CPU with {threads} thread{'' if threads == 1 else 's'}, {bits}" + (
        " (this processor has no bf16 instructions: trainer.precision=32 is faster here)" if slow else ""
    )
