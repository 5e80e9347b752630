"""One run: data, network, trainer, fit, and the result on val. Classes take plain settings; Hydra is not known here."""

import hashlib
import json
import logging
import math
import shlex
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from fer import augment, budget, checkpoints, device, distillation, machine, predictions, profiling, scoring, trainers
from fer.calibration import fitted_temperature
from fer.callbacks import Averaging, FiniteLoss, History, Patience, Saver, Signals, Stopwatch
from fer.dashboard import Dashboard, hyperparameters
from fer.data.datamodule import FERDataModule, tell_notes
from fer.data.features import LARGEST
from fer.data.locate import HOW_TO_GET
from fer.data.twins import without_twin
from fer.errors import FerError
from fer.evaluation.request import Member, find_again
from fer.evaluation.scored import not_trained_on
from fer.evaluation.training import Training
from fer.losses import LOSSES
from fer.mixing import Mixing
from fer.models import MODELS, EmotionClassifier, create
from fer.optimizers import OPTIMIZERS
from fer.predictions import Scored
from fer.progress import Progress
from fer.results import class_table, clock, read_history, score_table, write_json
from fer.schedules import SCHEDULES
from fer.settings import DistillSettings, Origin, TrainerSettings, TrainSettings, mode

log = logging.getLogger(__name__)

SAMPLES, VARIANTS = 6, 9  # of the report's sheet of augmented faces


def fit(settings: TrainSettings, folder: Path, origin: Origin) -> dict[str, Any]:
    """Train, or go on with, the run in ``folder``; score its best epoch on val; return what ``metrics.json`` holds.

    Args:
        settings: with ``data.path`` found.
        folder: the run's.
        origin: of the run, for the record.

    Raises:
        FerError: bad data, a checkpoint that does not fit, a loss that is no number.
        Interrupted: a signal came; the run is saved.
    """
    settings, data, model = prepared(settings, origin.stand_in)
    checkpoint, begin = resume_from(folder, model) if settings.resume else (None, 0)
    keep_features(settings, data, model)
    if settings.budget.hours is not None:
        plan = model.plan or budget.planned(settings, data, model, folder)
        settings = budget.with_plan(settings, data, plan)
        check_names(settings)  # what fits in a schedule hangs on the epochs
    first = sum(epochs for _, epochs in settings.stages[:-1])
    saver, watch = Saver(folder / "checkpoints", settings.monitor, first), Stopwatch()
    finite = FiniteLoss()
    signals = Signals(folder, finite)
    graphs = device.compiled(model, settings, data)
    device.announce_compiling(settings, data)
    averaging = [Averaging(settings.ema)] if settings.ema else []  # first: a signal's checkpoint holds the step too
    callbacks = [*graphs, *averaging, finite, signals, watch, *_callbacks(settings, folder, saver, watch, origin)]
    faces = {name: len(held) for name, held in data.datasets.items()}
    phases = profiling.Phases(on_gpu=machine.uses_gpu(settings.trainer)) if settings.trainer.profile else None
    trainer = trainers.build(settings, folder, callbacks, faces, begin, profiler=phases)
    epochs = settings.trainer.max_epochs
    log.info(
        "%s: %s, %d epoch%s of %s faces, %s",
        settings.model["name"], _sizes(model), epochs, "" if epochs == 1 else "s",
        f"{len(data.datasets['train']):,}", _where(settings.trainer),
    )  # fmt: skip
    with profiling.measured(phases, folder), device.compiling(settings):
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    signals.stop()
    results, scored = finish(settings, folder, data, saver, watch, epochs=trainer.current_epoch, command=origin.command)
    show(settings, folder, data, results, scored, origin.changes)
    return results


def show_again(settings: TrainSettings, folder: Path, origin: Origin) -> None:
    """Write the report and the projector of a finished run whose writing was cut short.

    Raises:
        FerError: the data have changed.
    """
    settings, data, fresh = prepared(settings, origin.stand_in)
    resume_from(folder, fresh)
    if fresh.plan:
        settings = budget.with_plan(settings, data, fresh.plan)
    model = checkpoints.load(folder / "checkpoints" / "best.ckpt")
    predicted, classes = predict_val(settings, data, model), list(model.hparams["classes"])
    scored = scoring.scored_faces(predicted, data, "val", classes)
    show(settings, folder, data, json.loads((folder / "metrics.json").read_text()), scored, origin.changes)


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
        model.batch_size = size
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
            "*** NO FER2013 FOUND: TRAINING ON DRAWN FACES. Its figures say nothing of real ones. %s ***", HOW_TO_GET
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
    model.dataset = {**data.describe(), "settings": served, "stand_in": stand_in}
    check_output(model, model.input_size)
    for size in {size for size, _ in settings.stages} - {model.image_size}:
        try:
            check_output(model, settings.data.seen(size))
        except FerError as error:
            raise FerError(f"stages={settings.stages}: {error}") from error
    if settings.init_from is not None and settings.resume is None:
        checkpoints.load_weights(model, settings.init_from)
        log.info("weights from %s", settings.init_from)
    elif settings.resume is None:
        model.pretrained = model.load_pretrained()
    if model.pretrained:
        log.info("pretrained weights: %s from %s", model.pretrained["name"], model.pretrained["file"])
    if settings.distill.teachers:
        teach(settings.distill, model, data)
    elif settings.distill != DistillSettings():
        log.warning("distill: no teachers are named (distill.teachers), so that the labels alone teach")
    return model.to(memory_format=torch.channels_last) if settings.trainer.channels_last else model


def _refuse_val(teachers: distillation.Teachers, model: EmotionClassifier, data: FERDataModule) -> None:
    """Raise where teachers were trained on faces that are val here, in whatever table and at whatever size."""
    if all(dataset.get("fingerprint") == model.dataset.get("fingerprint") for dataset in teachers.datasets):
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
    file, checkpoint = checkpoints.newest(folder)
    before = checkpoint["fer"]["dataset"]
    if before.get("fingerprint") != model.dataset["fingerprint"]:
        now = model.dataset["path"]
        raise FerError(f"resume={folder}: its data were {before.get('path')} with other contents than {now}")
    left_out = [(about.get("excluded") or {}).get("rows_sha256") for about in (before, model.dataset)]
    if left_out[0] != left_out[1]:
        raise FerError(f"resume={folder}: data.exclude names other rows now than when the run began")
    told = (checkpoint["fer"].get("teachers"), model.taught_by)
    teachers = [[(one["sha256"], one["weight"]) for one in about or []] for about in told]
    if teachers[0] != teachers[1]:
        raise FerError(f"resume={folder}: distill.teachers are other networks or weights now than when the run began")
    model.load_state_dict(checkpoint["state_dict"])
    model.plan = checkpoint["fer"].get("plan")
    log.info("going on from epoch %d, step %d", checkpoint["epoch"] + 1, checkpoint["global_step"])
    done = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return file, int(done)


def _callbacks(settings: TrainSettings, folder: Path, saver: Saver, watch: Stopwatch, origin: Origin) -> list[Callback]:
    callbacks: list[Callback] = [
        History(folder / "history.csv", watch),
        Progress(saver, watch, stages=settings.stages, live=settings.trainer.bar),
        *(
            [Dashboard(hyperparameters(settings, origin), saver, watch, resumed=bool(settings.resume))]
            if settings.logger.tensorboard
            else []
        ),
        saver,
    ]
    if settings.early_stopping:
        callbacks.append(Patience(settings.monitor, patience=settings.early_stopping, mode=mode(settings.monitor)))
    return callbacks


def finish(
    settings: TrainSettings,
    folder: Path,
    data: FERDataModule,
    saver: Saver,
    watch: Stopwatch,
    *,
    epochs: int,
    command: str,
) -> tuple[dict[str, Any], Scored]:
    """Score the best epoch on val from its file, and write ``predictions.csv`` and ``metrics.json``."""
    best = folder / "checkpoints" / "best.ckpt"
    model = checkpoints.load(best)
    predicted, targets = predict_val(settings, data, model), data.datasets["val"].targets
    wall_seconds = time.perf_counter() - data.laid_at
    temperature = fitted_temperature(predicted.numpy(), targets.numpy())
    checkpoints.seal(best, temperature)
    classes = list(model.hparams["classes"])
    scored = scoring.scored_faces(predicted, data, "val", classes)
    results = scoring.split_figures(scored, data, "val", temperature)
    predictions.write(folder / "predictions.csv", "val", scored, data.datasets["val"].soft)
    kept = _not_trained_on(model, best, data, scored.images)
    results |= {
        "temperature_fitted_on": "these faces",
        "seen_in_training": None if kept is None else int((~kept).sum()),
        "clean": None if kept is None else scoring.clean(predicted, targets, kept, classes),
        "best_epoch": saver.best_epoch + 1,  # counted from 1, as printed
        "epochs": epochs,
        "wall_seconds": None if settings.resume else round(wall_seconds, 3),
        "train_seconds": round(watch.train_seconds, 3),
        "batch_size": settings.data.faces_a_step,
        **({"budget": model.plan} if model.plan else {}),
        "images_per_second": round(watch.images_per_second, 1),
        "peak_memory_mb": machine.memory(),
        "parameters": _parameters(model),
        "architecture": model.architecture,
        "pretrained": model.pretrained,
        **({"teachers": model.taught_by} if model.taught_by else {}),
        "seed": settings.seed,
        "dataset": {key: value for key, value in model.dataset.items() if key != "settings"},
        **machine.provenance(),
        "command": command,
    }
    write_json(folder / "metrics.json", results)
    log.info("\n%s\n\n%s\n", class_table(results), score_table(results))
    if settings.trainer.limit_val != 1 or settings.trainer.overfit_batches:
        log.info("(the epochs' val figures, which chose, are of a part of these faces)")
    planned = settings.trainer.max_epochs
    early = f" (stopped early, {planned} planned)" if epochs < planned else ""
    log.info("best epoch %d of %d%s, trained in %s", saver.best_epoch + 1, epochs, early, clock(watch.train_seconds))
    return results, scored


def _not_trained_on(
    model: EmotionClassifier, file: Path, data: FERDataModule, images: NDArray[np.uint8]
) -> NDArray[np.bool_] | None:
    """Return (N,) which faces were in no training of the network or of what it began from; None if that is unknown."""
    if not model.ancestors:
        return without_twin(images, data.hashes("train"))
    member = Member(file, model)
    find_again([member], data)
    return not_trained_on(Training([member], data.data.faces_a_step), images)


def predict_val(settings: TrainSettings, data: FERDataModule, model: EmotionClassifier) -> Tensor:
    """Return the (N, C) probabilities of the val faces."""
    size = settings.data.faces_a_step
    return scoring.probabilities(model, data.datasets["val"], batch_size=size, device=device.of(settings))


@contextmanager
def _results_are_safe(folder: Path) -> Iterator[None]:
    """Say so, and how to go on, where what shows the results cannot be written."""
    try:
        yield
    except OSError as error:
        raise FerError(
            f"{error.filename or folder}: {error.strerror or error}; the results are safe, what shows them is not "
            f"complete: mend this, then python -m fer.train resume={shlex.quote(str(folder))}"
        ) from error


def show(
    settings: TrainSettings,
    folder: Path,
    data: FERDataModule,
    results: Mapping[str, Any],
    scored: Scored,
    changes: Callable[[], Mapping[str, tuple[Any, Any]]],
) -> None:
    """Write what is asked for of the report and the projector; the results are safe by now.

    Raises:
        FerError: something cannot be written.
    """
    with _results_are_safe(folder):
        if settings.logger.report:
            from fer.reports import run  # matplotlib takes half a second to import

            samples = data.augmented_samples(SAMPLES, VARIANTS)
            history = read_history(folder / "history.csv")
            run.write(run.Report(results, scored, history, samples, asdict(settings), changes()), folder)
        if settings.logger.projector:
            from fer.dashboard import add_projector

            model = checkpoints.load(folder / "checkpoints" / "best.ckpt")
            images, size = data.datasets["val"].images, settings.data.faces_a_step
            embedded = scoring.embeddings(model, images, batch_size=size, device=device.of(settings))
            logger = trainers.tensorboard_logger(folder, 0)
            left_out = add_projector(logger.experiment, scored, embedded, results["best_epoch"])
            logger.experiment.close()
            if left_out:
                log.warning("%s", left_out)


def _parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _sizes(model: torch.nn.Module) -> str:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    count = _parameters(model)
    return f"{count:,} parameters" + (f", of which {trained:,} train" if trained < count else "")


def _where(settings: TrainerSettings) -> str:
    if machine.uses_gpu(settings):
        return f"on {torch.cuda.get_device_name()}, {machine.precision(settings)}"
    threads, half = torch.get_num_threads(), machine.precision(settings) != "32-true"
    slowly = half and machine.multiplies_bf16() is False
    return (
        f"on the CPU with {threads} thread{'' if threads == 1 else 's'}"
        + (", bf16" if half else "")
        + (" (which this processor has no instructions for: trainer.precision=32 is faster here)" if slowly else "")
    )


def _quieten() -> None:
    """Silence what libraries say that a user of this command can do nothing about."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # batches come from memory, see DESIGN
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen layers are
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step.*")
