"""The configuration as torch-free dataclasses: every key, its type, its range, its unit.

``conf/`` holds the same keys for Hydra; a test holds that its defaults and these agree. Sections that choose by name
(model, loss, optimizer, scheduler) stay plain mappings here: their keys are the arguments of what is registered.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from fer.config.errors import FerError
from fer.config.schema import AboveZero, Count, Fraction, NonNegative, Positive, Range

Seed = Annotated[int, Range(0, 2**32 - 1)]  # what numpy takes
Section = dict[str, Any]  # {"name": registered name, **arguments}
MIN_SIZE, MAX_SIZE = 16, 512  # pixels, of a face
BATCH_SIZE = 128  # faces a step, unless told otherwise
MOST_CHANGE = {  # of an augmentation
    "rotate_degrees": 180.0, "zoom": 0.9, "shift": 0.9, "crop_padding": 24, "brightness": 1.0, "contrast": 1.0,
    "erase": 1.0,
}  # fmt: skip
MONITORS = ("accuracy/val", "macro_f1/val", "balanced_accuracy/val", "loss/val")


def mode(monitor: str) -> Literal["min", "max"]:
    """Return whether less or more of a monitored figure is better."""
    return "min" if monitor.startswith("loss") else "max"


def worded(monitor: str, value: float) -> str:
    """Return a monitored figure's value as text: per cent, or a loss as it is."""
    return f"{value:.4f}" if mode(monitor) == "min" else f"{100 * value:.2f} %"


def leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return (dotted key, value) of every leaf of nested mappings, in their order."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return found


@dataclass(frozen=True)
class DataSettings:
    """Which faces, how split, how served.

    Args:
        path: table, archive or folder; "synthetic" for drawn faces; None looks at ``$FER_DATA``, then ``data/``.
        votes: FER+'s ``fer2013new.csv``, joined by row.
        labels: "fer2013" (the data's own) or "ferplus" (made of the votes).
        ferplus_rule: "majority" (more than half of the votes), "argmax" (the most), "soft" (their shares).
        classes: 7 emotions, or 8 with FER+'s contempt.
        split: "official" (Usage), "as_given" (the tree's own folders), "holdout" (stratified 80/20 of everything),
            "folds" (stratified parts of everything, exact twins together: one is val, the others train, no test).
        split_seed: of the draw for all but "official"; apart from the run's seed, so that seeds share a split.
        val_fraction: the part of train held out by "as_given" where the tree has no val.
        folds: how many parts "folds" makes.
        fold: which of them is val, from 0.
        exclude: ``audit.csv`` of ``fer.audit``: rows whose suggestion is "exclude" are left out of train; val and test
            stay as they are, so that figures stay comparable.
        conflicts: exact twins in train with different labels: "keep" them, or "drop" all of them, of which one label at
            most is right; val and test stay as they are.
        image_size: side of the faces, in pixels.
        crop: side of the square of a face that the network looks at: drawn anew at each step of a training, the middle
            in val and wherever the network is used; None is the whole face.
        batch_size: faces a step; "auto" is the largest power of two that fits in a GPU's memory and leaves an epoch 50
            steps, and 128 on a CPU.
        sampler: "shuffle" takes every training face once an epoch, "balanced" as many of every class.
        on_bad: "error" stops at the first bad row or picture, "skip" counts and lists them.
        cache: folder for parsed tables and frozen layers' features; "auto" is the user's; None keeps nothing.
        synthetic_count: number of drawn faces.
        synthetic_seed: of the drawn faces.
    """

    path: str | None = None
    votes: str | None = None
    labels: Literal["fer2013", "ferplus"] = "fer2013"
    ferplus_rule: Literal["majority", "argmax", "soft"] = "majority"
    classes: Literal[7, 8] = 7
    split: Literal["official", "as_given", "holdout", "folds"] = "official"
    split_seed: Seed = 0
    val_fraction: Annotated[float, Range(0.01, 0.9)] = 0.1
    folds: Annotated[int, Range(2, 100)] = 5
    fold: Count = 0
    exclude: str | None = None
    conflicts: Literal["keep", "drop"] = "keep"
    image_size: Annotated[int, Range(MIN_SIZE, MAX_SIZE)] = 48
    crop: Annotated[int, Range(MIN_SIZE, MAX_SIZE)] | None = None
    batch_size: Literal["auto"] | Positive = BATCH_SIZE
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    on_bad: Literal["error", "skip"] = "error"
    cache: str | None = "auto"
    synthetic_count: Annotated[int, Range(140)] = 7000
    synthetic_seed: Seed = 0

    def seen(self, size: int) -> int:
        """Return the side of what a network sees of faces that are reduced to ``size`` pixels."""
        return size if self.crop is None else round(size * self.crop / self.image_size)

    @property
    def faces_a_step(self) -> int:
        """The batch size as a number, which "auto" has to have become before anything is served."""
        assert self.batch_size != "auto"
        return self.batch_size

    def __post_init__(self) -> None:
        """Refuse an eighth class that nobody labels, a fold that is not there, a crop larger than the face."""
        if self.classes == 8 and self.labels == "fer2013":
            raise FerError("data.classes=8: contempt is FER+'s; set data.labels=ferplus and data.votes=, or classes=7")
        if self.fold >= self.folds:
            raise FerError(f"data.fold={self.fold}: out of range; expected 0 to data.folds - 1 = {self.folds - 1}")
        if self.crop is not None and self.crop > self.image_size:
            raise FerError(f"data.crop={self.crop}: expected at most data.image_size={self.image_size}")


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes to training faces, drawn anew for each face and epoch; 0 turns one off.

    Args:
        flip: probability of a left-right flip.
        rotate_degrees: largest turn either way, in degrees.
        zoom: largest relative change of size, in and out; 0.1 draws a factor from 0.9 to 1.1.
        shift: largest shift along each axis, as a fraction of the side.
        crop_padding: pixels of reflected border, of which a random crop of the old size is taken: whole-pixel shifts.
        brightness: largest relative change; 0.2 draws a factor from 0.8 to 1.2.
        contrast: the same, about the face's mean.
        erase: probability that a rectangle is replaced by grey.
        erase_area: largest part of the face that is erased.
        mixup: alpha of MixUp, which blends a face and its label with another's; 0.2 blends few much, 1 any as likely.
        cutmix: alpha of CutMix, which pastes a square of another face; with both, each face has the one or the other.
        strength: factor on how much rotation, zoom, shift, crop padding and light change a face, and on how often one
            is erased; 0 leaves flips and mixing alone.
        views: of each face in a batch, each changed in its own way; a step then costs as many times as much.
    """

    flip: Fraction = 0.0
    rotate_degrees: Annotated[float, Range(0, MOST_CHANGE["rotate_degrees"])] = 0.0
    zoom: Annotated[float, Range(0, MOST_CHANGE["zoom"])] = 0.0
    shift: Annotated[float, Range(0, MOST_CHANGE["shift"])] = 0.0
    crop_padding: Annotated[int, Range(0, MOST_CHANGE["crop_padding"])] = 0
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    erase: Fraction = 0.0
    erase_area: Annotated[float, Range(0.02, 1)] = 0.2
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    strength: NonNegative = 1.0
    views: Positive = 1

    def at_strength(self) -> "AugmentSettings":
        """Return what a strength of 1 would have to be told for the same changes, each of its largest at most."""
        scaled = {name: min(getattr(self, name) * self.strength, most) for name, most in MOST_CHANGE.items()}
        scaled["crop_padding"] = round(scaled["crop_padding"])
        return replace(self, strength=1.0, **scaled)


@dataclass(frozen=True)
class TrainerSettings:
    """Where and how long.

    Args:
        accelerator: "auto" takes a GPU where there is one.
        precision: "auto" is bf16 on a GPU and 32 bits on a CPU, where bf16 pays for wide networks on new
            processors alone (docs/performance.md).
        max_epochs: passes over the training faces.
        threads: of the processor; None takes the cores that torch finds, no more than a container's quota.
        gradient_clip: largest norm of the gradient, or value; None clips nothing.
        gradient_clip_by: "norm" makes the whole gradient shorter, "value" cuts each of its numbers.
        limit_train: fraction of the batches of each training epoch, at least one batch, for debugging.
        limit_val: the same for validation.
        overfit_batches: use only so many batches of train and of val, for debugging; 0 is off.
        deterministic: the same bits at every repetition, as far as the GPU's kernels allow; without it a GPU takes the
            fastest kernels it finds.
        compile: let torch compile the network and its teachers for training, into CUDA graphs on a GPU; the first
            step of each stage takes up to a minute, and an epoch leaves an incomplete last batch out.
        channels_last: store images with channels innermost, which convolutions prefer.
        allocator: keep freed memory instead of handing it back to the system (Linux, glibc, CPU).
        bar: a live bar in a terminal; a line an epoch is printed in any case.
        profile: record where the time of steps 6 to 15 goes, by ``torch.profiler``.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["auto", "bf16", 32] = "auto"
    max_epochs: Positive = 30
    threads: Positive | None = None
    gradient_clip: AboveZero | None = None
    gradient_clip_by: Literal["norm", "value"] = "norm"
    limit_train: Annotated[float, Range(0, 1, above=True)] = 1.0
    limit_val: Annotated[float, Range(0, 1, above=True)] = 1.0
    overfit_batches: Count = 0
    deterministic: bool = True
    compile: bool = False
    channels_last: bool = True
    allocator: bool = True
    bar: bool = True
    profile: bool = False


@dataclass(frozen=True)
class BudgetSettings:
    """How long a run may take.

    Args:
        hours: takes as many epochs as fit in this time, by the speed of some steps measured first, in place of
            ``trainer.max_epochs``; stages keep their shares. None keeps ``trainer.max_epochs``.
    """

    hours: Annotated[float, Range(0, 8784, above=True)] | None = None  # a year at most


@dataclass(frozen=True)
class DistillSettings:
    """Networks that a run learns from: its teachers, whose mean answer to each changed face is its soft target.

    Args:
        teachers: run folders, checkpoints, or folders of an evaluation of several, with its weights and
            temperatures.
        weight: of the teachers' answer in the loss; the rest is the labels'.
        temperature: by which the logits of both are divided first (Hinton et al. 2015).
    """

    teachers: list[str] = field(default_factory=list)
    weight: Annotated[float, Range(0, 1, above=True)] = 0.5
    temperature: AboveZero = 2.0


@dataclass(frozen=True)
class LoggerSettings:
    """What a run shows of itself, besides its lines in the terminal.

    Args:
        tensorboard: write TensorBoard files: curves, pictures, precision-recall curves, HPARAMS.
        projector: also write embeddings of the val faces for TensorBoard's projector, at the end.
        report: write ``report.html`` and ``figures/`` at the end.
    """

    tensorboard: bool = True
    projector: bool = False
    report: bool = True

    def __post_init__(self) -> None:
        """Refuse a projector without TensorBoard, which shows it."""
        if self.projector and not self.tensorboard:
            raise FerError("logger.projector=true: the projector is TensorBoard's; set logger.tensorboard=true")


@dataclass(frozen=True)
class SweepSettings:
    """Several runs by one command line, with ``-m``; no part of any of them.

    Args:
        jobs: how many run side by side; "auto" is one for each GPU, or for each usable core as far as memory goes.
        resume: folder of a sweep to go on with: what is missing is done, the rest is kept.
        over: key -> values, or ``glob(*)`` for all that a group has, in all combinations; a key that the command line
            names is the command line's.
        each: alternatives, each a list of overrides, such as ``[augment=none, augment.flip=0.5]``.
        job: number of one job in ``sweep.json``, for Hydra's other launchers.
    """

    jobs: Literal["auto"] | Positive = "auto"
    resume: str | None = None
    over: dict[str, Any] = field(default_factory=dict)
    each: list[list[str]] = field(default_factory=list)
    job: Count | None = None

    def __post_init__(self) -> None:
        """Refuse a key without values."""
        for key, values in self.over.items():
            if not isinstance(values, (list, str)) or not values:
                raise FerError(f"sweep.over.{key}={values!r}: expected a list of values, such as [1, 2], or glob(*)")


@dataclass(frozen=True)
class TuneSettings:
    """A search of ``fer.tune``; no part of its trials.

    Args:
        trials: at most; those that were pruned or failed count.
        hours: after which no trial begins any more, earlier parts of a resumed search included; None never ends it.
        jobs: how many run side by side; "auto" is one for each GPU, or for each usable core as far as memory goes.
        seeds: runs of each trial, with the run's seed and those that follow it; their mean counts.
        baseline: the first trial takes the configured values where the space holds them.
        sampler: "tpe" is the tree-structured Parzen estimator over all parameters together.
        sampler_seed: of what is drawn.
        random_trials: drawn at random before "tpe" learns from them.
        pruner: "median" ends what is worse than the median of complete trials, "hyperband" by successive halving.
        startup_trials: complete before "median" prunes any.
        warmup_epochs: of each trial, in which it is never pruned.
        storage: URL of a data base, as Optuna takes it; None is ``journal.log`` in the folder.
        folder: the search's; one that holds it already is gone on with.
        resume: folder of a search to go on with as it was told.
    """

    trials: Positive = 30
    hours: AboveZero | None = None
    jobs: Literal["auto"] | Positive = "auto"
    seeds: Positive = 1
    baseline: bool = True
    sampler: Literal["tpe", "random"] = "tpe"
    sampler_seed: Seed = 0
    random_trials: Positive = 10
    pruner: Literal["median", "hyperband", "none"] = "median"
    startup_trials: Positive = 5
    warmup_epochs: Count = 3
    storage: str | None = None
    folder: str | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        """Refuse a password, which the search's folder would keep, and two folders."""
        if self.storage is not None and re.search(r"://[^/@]*:[^/@]*@", self.storage):
            raise FerError(
                "tune.storage: holds a password, which tune.json would keep; leave it to the client's own file"
            )
        if self.folder is not None and self.resume is not None:
            raise FerError("tune.resume goes on in the search's own folder; leave out --out (tune.folder)")


@dataclass(frozen=True)
class TrainSettings:
    """One run of ``fer.train``.

    Args:
        seed: of weights, order, augmentation and dropout.
        monitor: what chooses the best epoch.
        early_stopping: epochs without a better ``monitor`` after which to stop; None never stops early.
        init_from: checkpoint or run whose weights to start from.
        resume: run folder to continue.
        plugins: modules to import first, which register networks and readers.
        ema: decay of a moving average of the weights, which is what val scores and what is kept; None keeps the weights
            themselves.
        sam: how far sharpness-aware minimisation steps up before each step down, such as 0.05; each step costs two. 0
            turns it off.
        consistency: weight of how much a network's answers to several views of a face differ; wants ``augment.views``.
        stages: [size, epochs] one after the other: progressive resizing. Faces are reduced to each stage's size, in val
            too; the last has ``data.image_size``, and the best epoch is one of its own. Empty trains at full size.
        lr_finder: try learning rates over one short rise, draw the curve, and end without training.
        budget: how long the run may take.
        distill: networks to learn from.
        sweep: of a command line with ``-m``; a run's own holds its defaults.
    """

    data: DataSettings
    model: Section
    loss: Section
    optimizer: Section
    scheduler: Section
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    logger: LoggerSettings = field(default_factory=LoggerSettings)
    seed: Seed = 0
    monitor: str = "accuracy/val"
    early_stopping: Positive | None = None
    init_from: str | None = None
    resume: str | None = None
    plugins: list[str] = field(default_factory=list)
    ema: Annotated[float, Range(0, 0.99999, above=True)] | None = None
    sam: NonNegative = 0.0
    consistency: NonNegative = 0.0
    stages: list[list[int]] = field(default_factory=list)
    lr_finder: bool = False
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)

    def __post_init__(self) -> None:
        """Refuse a choice on test, or on what is not measured."""
        if "test" in self.monitor:
            raise FerError(f"monitor={self.monitor}: the test split chooses nothing; use one of {', '.join(MONITORS)}")
        if self.monitor not in MONITORS:
            raise FerError(f"monitor={self.monitor}: not measured; use one of {', '.join(MONITORS)}")
        if self.data.batch_size == 1:
            raise FerError("data.batch_size=1: batch normalisation cannot train on one face; use at least 2")
        padding = self.augment.at_strength().crop_padding
        if padding >= self.data.image_size:
            raise FerError(
                f"augment.crop_padding={padding}: reflects at most data.image_size - 1 = "
                f"{self.data.image_size - 1} pixels"
            )
        told_of_sizes = self.loss.get("name") == "logit_adjusted" or self.loss.get("class_weights", "none") != "none"
        if self.data.sampler == "balanced" and told_of_sizes:
            raise FerError(
                "data.sampler=balanced: every class has the same say already; leave out loss.class_weights and "
                "loss=logit_adjusted, which would give the rare ones more than theirs"
            )
        if self.data.labels == "fer2013" and self.data.ferplus_rule != "majority":
            raise FerError(
                f"data.ferplus_rule={self.data.ferplus_rule}: makes labels of votes; set data.labels=ferplus"
            )
        mixed = self.augment.mixup or self.augment.cutmix
        if self.consistency and (self.augment.views < 2 or mixed):
            raise FerError(
                f"consistency={self.consistency:g}: compares views of the same face; set augment.views=2 or more, and "
                "augment.mixup=0 augment.cutmix=0"
            )
        self._refuse_stages()
        if self.early_stopping and self.trainer.overfit_batches:
            raise FerError("early_stopping and trainer.overfit_batches exclude each other")
        if self.budget.hours is not None and self.trainer.profile:
            raise FerError(
                f"budget.hours={self.budget.hours:g}: speed is measured without trainer.profile; leave it out, or say "
                "trainer.max_epochs in its place"
            )
        if self.lr_finder and self.resume:
            raise FerError(f"resume={self.resume}: lr_finder=true trains nothing; there is nothing to go on with")
        if self.lr_finder and self.trainer.profile:
            raise FerError("trainer.profile=true measures a training; lr_finder=true ends without one: leave one out")

    def _refuse_stages(self) -> None:
        if not self.stages:
            return
        full, given = self.data.image_size, f"stages={self.stages}"
        if any(len(stage) != 2 or not MIN_SIZE <= stage[0] <= full or stage[1] < 1 for stage in self.stages):
            raise FerError(f"{given}: expected [size, epochs] of each, sizes from {MIN_SIZE} to data.image_size={full}")
        if self.stages[-1][0] != full:
            raise FerError(
                f"{given}: the last must be of data.image_size={full}, the size that the network is kept for"
            )
        total = sum(epochs for _, epochs in self.stages)
        if total != self.trainer.max_epochs:
            raise FerError(f"{given}: makes {total} epochs; trainer.max_epochs is {self.trainer.max_epochs}")
        if self.early_stopping:
            raise FerError(f"{given}: val is another at each stage; leave out early_stopping")


@dataclass(frozen=True)
class Origin:
    """How a run came about, for its record and its report.

    Args:
        command: line that makes it again.
        stand_in: drawn faces stand in for FER2013, which was not found.
        choices: group -> choice, such as augment -> basic.
        asked: keys and groups that the command line named.
        changes: gives key -> (value, default) of what differs from the defaults; asked for when a run is over, since
            finding them takes a while.
    """

    command: str = ""
    stand_in: bool = False
    choices: Mapping[str, str] = field(default_factory=dict)
    asked: Sequence[str] = ()
    changes: Callable[[], Mapping[str, tuple[Any, Any]]] = dict
