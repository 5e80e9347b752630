"""The configuration as dataclasses: every key with its type, range and unit.

No torch here. ``conf/`` holds the same keys for Hydra; a test compares both defaults. The sections model, loss,
optimizer and scheduler are plain mappings here: their keys are the arguments of the registered function or class.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, Literal

from fer.config.errors import FerError
from fer.config.schema import AboveZero, Count, Fraction, NonNegative, Positive, Range, check

MOST_THREADS = 1024  # machines have fewer cores; where OpenMP cannot start so many threads, it ends the process
Seed = Annotated[int, Range(0, 2**32 - 1)]  # numpy's range
Section = dict[str, Any]  # {"name": registered name, **arguments}
ClassNames = dict[str, str] | list[str] | None  # class folder -> emotion, or "FOLDER:EMOTION" for names of any letters
Config = Mapping[str, Any]  # a composed configuration as plain values: section -> key -> value
MIN_SIZE, MAX_SIZE = 16, 512  # side of a face in pixels
BATCH_SIZE = 128  # default, in faces a step
MOST_SETS = 127  # data sets at most: each face has the number of its own in one byte
MOST_CHANGE = {  # augmentation -> its largest value
    "rotate_degrees": 180.0, "zoom": 0.9, "shift": 0.9, "crop_padding": 24, "brightness": 1.0, "contrast": 1.0,
    "erase": 1.0,
}  # fmt: skip
SplitRule = Literal["official", "as_given", "holdout", "folds"]
TOGETHER = "keep_duplicates_together"
SPLIT_KEYS: Mapping[SplitRule, Sequence[str]] = {  # ``data.split`` -> the other keys that decide which faces are val
    "official": (),
    "as_given": ("split_seed", "val_fraction", TOGETHER),
    "holdout": ("split_seed", TOGETHER),
    "folds": ("split_seed", "folds", "fold", TOGETHER),
}
ALL_SPLIT_KEYS = tuple(dict.fromkeys(key for keys in SPLIT_KEYS.values() for key in keys))
MONITORS = ("accuracy/val", "macro_f1/val", "balanced_accuracy/val", "loss/val")


def mode(monitor: str) -> Literal["min", "max"]:
    """Return "min" where a lower value of the monitored metric is better, else "max"."""
    return "min" if monitor.startswith("loss") else "max"


def worded(monitor: str, value: float) -> str:
    """Return a monitored metric's value as text: per cent, a loss with four decimals."""
    return f"{value:.4f}" if mode(monitor) == "min" else f"{100 * value:.2f} %"


def batches_of(fraction: float, faces: int, batch_size: int) -> int:
    """Return the number of batches that hold a fraction of the faces, at least 1."""
    return max(1, round(fraction * faces / batch_size))


def leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return (dotted key, value) of every leaf of nested mappings, in their order."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        pairs += leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return pairs


def _has_password(url: str) -> bool:
    """Return whether a URL names a password, as in ``http://user:password@host``."""
    return re.search(r"://[^/@]*:[^/@]*@", url) is not None


@dataclass(frozen=True)
class FurtherSet:
    """A data set of ``data.more``: what may differ from one set to the next.

    Args:
        path: table, archive or folder.
        split: its rule; None is its own split (official, or its folders'), else a holdout.
        class_names: class folder -> emotion, for folders whose names are numbers or other words.
    """

    path: str
    split: SplitRule | None = None
    class_names: ClassNames = None

    @classmethod
    def of(cls, given: "str | Mapping[str, Any]", where: str) -> "FurtherSet":
        """Return an entry of ``data.more``, which may be a path alone.

        Args:
            given: the entry.
            where: its key, for messages.

        Raises:
            FerError: an unknown key, or a value of another type.
        """
        keys = {"path": given} if isinstance(given, str) else given
        return cls(**check(cls, keys, where))


@dataclass(frozen=True)
class DataSettings:
    """The faces: source, labels, split, batches.

    Args:
        path: table, archive or folder; "synthetic" for drawn faces; None is ``$FER_DATA``, then ``data/``.
        more: further data sets, to be trained on together with ``path``: paths, or mappings with the keys of
            ``FurtherSet``; None is ``path`` alone.
        weights: of ``path`` and of each set in ``more``: shares of an epoch's training faces, in any unit; None takes
            every face once.
        val_of: whose faces val and test are: of "all" data sets, or of the "first", which is ``path``.
        votes: FER+'s ``fer2013new.csv``, joined by row.
        labels: "fer2013" (the data's own labels) or "ferplus" (made of the votes).
        ferplus_rule: how votes become labels: "majority" (more than half), "argmax" (the most), "soft" (their shares).
        classes: 7 emotions, or 8 with contempt, of FER+ or of class folders.
        class_names: class folder -> emotion, for folders whose names are numbers or other words, see ``labels``.
        split: "official" (Usage), "as_given" (the folders' own), "holdout" (stratified 80/20 of all faces) or "folds".
            Folds are stratified parts of all faces, exact duplicates together: one part is val, the others are train,
            and there is no test.
        split_seed: random seed of every split but "official"; separate from the run's seed, so that seeds share it.
        keep_duplicates_together: what is drawn ("holdout", "folds", val of "as_given") keeps exact and near duplicates
            in one split; finding them takes a comparison of all faces.
        val_fraction: share of train that becomes val under "as_given" where val is missing.
        folds: number of parts under "folds".
        fold: the part that is val, from 0.
        exclude: ``audit.csv`` of ``fer.audit``: its rows with the suggestion "exclude" leave train; val and test keep
            all faces, so that metrics stay comparable.
        conflicts: exact duplicates in train with different labels: "keep" them, or "drop" all of them, since one label
            at most is right. Val and test keep all faces.
        image_size: side of the faces, in pixels.
        channels: 1 makes faces grey, 3 keeps their colours, of sources that have them. Duplicates and overlap with
            training data are found by the grey pixels in either case.
        crop: side of the square crop that the network takes, in pixels; None is the whole face. A training draws a
            random crop at each step; val and later use take the middle.
        batch_size: faces a step. "auto" is 128 on a CPU. On a GPU it is the largest power of two that fits in its
            memory and leaves an epoch 50 steps.
        sampler: "shuffle" takes each training face once an epoch, "balanced" equally many of each class.
        on_bad: "error" stops at the first bad row or picture, "skip" counts and lists it.
        cache: folder of parsed tables and features of frozen layers; "auto" is the user's cache; None keeps none.
        memory_limit_gb: GB of memory for the pixels of all splits; None keeps all in memory. Larger data are
            memory-mapped from the cache, or decoded on demand where the disk has no room. Batches are the same.
        synthetic_count: number of drawn faces.
        synthetic_seed: random seed of the drawn faces.
    """

    path: str | None = None
    more: list[str | Section] | None = None
    weights: list[AboveZero] | None = None
    val_of: Literal["all", "first"] = "all"
    votes: str | None = None
    labels: Literal["fer2013", "ferplus"] = "fer2013"
    ferplus_rule: Literal["majority", "argmax", "soft"] = "majority"
    classes: Literal[7, 8] = 7
    class_names: ClassNames = None
    split: SplitRule = "official"
    split_seed: Seed = 0
    keep_duplicates_together: bool = False
    val_fraction: Annotated[float, Range(0.01, 0.9)] = 0.1
    folds: Annotated[int, Range(2, 100)] = 5
    fold: Count = 0
    exclude: str | None = None
    conflicts: Literal["keep", "drop"] = "keep"
    image_size: Annotated[int, Range(MIN_SIZE, MAX_SIZE)] = 48
    channels: Literal[1, 3] = 1
    crop: Annotated[int, Range(MIN_SIZE, MAX_SIZE)] | None = None
    batch_size: Literal["auto"] | Positive = BATCH_SIZE
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    on_bad: Literal["error", "skip"] = "error"
    cache: str | None = "auto"
    memory_limit_gb: NonNegative | None = None
    synthetic_count: Annotated[int, Range(140, 1_000_000)] = 7000
    synthetic_seed: Seed = 0

    def input_side(self, size: int) -> int:
        """Return the side of a network's input, in pixels, for faces that are resized to ``size`` pixels."""
        return size if self.crop is None else round(size * self.crop / self.image_size)

    @property
    def faces_a_step(self) -> int:
        """The batch size as a number; "auto" must be resolved before."""
        assert self.batch_size != "auto"
        return self.batch_size

    @property
    def further(self) -> list[FurtherSet]:
        """The data sets of ``more``."""
        return [FurtherSet.of(given, f"data.more[{index}]") for index, given in enumerate(self.more or ())]

    def __post_init__(self) -> None:
        """Refuse a fold out of range, a crop larger than the face, and keys that contradict each other."""
        self._check_sets()
        if self.fold >= self.folds:
            raise FerError(f"data.fold={self.fold}: out of range; expected 0 to data.folds - 1 = {self.folds - 1}")
        if self.crop is not None and self.crop > self.image_size:
            raise FerError(f"data.crop={self.crop}: expected at most data.image_size={self.image_size}")
        if self.memory_limit_gb is not None and not self.cache:
            raise FerError(
                f"data.memory_limit_gb={self.memory_limit_gb:g}: needs a folder for the pixels and their index; "
                "data.cache=auto or data.cache=FOLDER names one"
            )

    def _check_sets(self) -> None:
        count = 1 + len(self.further)
        if count > MOST_SETS:
            raise FerError(f"data.more: names {count - 1} data sets; expected at most {MOST_SETS - 1}")
        if self.weights is not None and len(self.weights) != count:
            raise FerError(
                f"data.weights={self.weights}: {len(self.weights)} weights for {count} data set{'s' * (count > 1)}; "
                "expected one for data.path and one for each of data.more"
            )
        if self.weights is not None and count == 1:
            raise FerError(f"data.weights={self.weights}: there is one data set; name further ones with data.more=")
        if self.more and self.memory_limit_gb is not None:
            raise FerError(
                f"data.memory_limit_gb={self.memory_limit_gb:g}: several data sets are kept in memory as a whole; "
                "leave it out, or leave out data.more"
            )


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes to training faces, drawn anew for each face and epoch; at 0 each is off.

    Args:
        flip: probability of a left-right flip.
        rotate_degrees: largest rotation either way, in degrees.
        zoom: largest relative change of size, in and out; 0.1 draws a factor from 0.9 to 1.1.
        shift: largest shift along each axis, as a fraction of the side.
        crop_padding: reflected border in pixels, from which a crop of the old size is drawn: whole-pixel shifts.
        brightness: largest relative change; 0.2 draws a factor from 0.8 to 1.2.
        contrast: largest relative change about the face's mean.
        erase: probability that a rectangle becomes grey.
        erase_area: largest share of the face that is erased.
        mixup: alpha of MixUp, which blends faces and labels in pairs by a share from Beta(alpha, alpha). At 0.2 most
            shares are near 0 or 1, at 1 all are equally likely.
        cutmix: alpha of CutMix, which pastes a square of another face; with both set, each face gets one of the two.
        strength: factor on rotation, zoom, shift, crop padding and light, and on the probability of erasing; 0 leaves
            flips and mixing only.
        views: views of each face in a batch, each augmented anew; a step costs that many times as much.
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
        """Return the equivalent settings with a strength of 1, each value limited to ``MOST_CHANGE``."""
        scaled = {name: min(getattr(self, name) * self.strength, most) for name, most in MOST_CHANGE.items()}
        scaled["crop_padding"] = round(scaled["crop_padding"])
        return replace(self, strength=1.0, **scaled)


@dataclass(frozen=True)
class TrainerSettings:
    """Device, precision, length, speed and debugging of a training.

    Args:
        accelerator: "auto" is a GPU where there is one.
        precision: "auto" is bf16 on a GPU and 32 bits on a CPU. On a CPU bf16 is only faster for wide networks on new
            processors (docs/performance.md).
        max_epochs: passes over the training faces.
        threads: threads of the processor; None is the cores that torch finds, at most a container's quota.
        gradient_clip: largest norm of the gradient, or largest value; None is off.
        gradient_clip_by: "norm" scales the whole gradient down, "value" cuts each of its numbers.
        limit_train: fraction of the batches of each training epoch, at least one batch, for debugging.
        limit_val: fraction of the batches of each validation, for debugging.
        overfit_batches: train and validate on this many batches only, for debugging; 0 is off.
        deterministic: repeat the same bits in every run, as far as the GPU's kernels allow; off, a GPU takes its
            fastest kernels.
        compile: compile the network and its teachers by torch for training, into CUDA graphs on a GPU. The first step
            of each stage takes up to a minute. An epoch drops an incomplete last batch.
        channels_last: store images with channels innermost, which convolutions prefer.
        allocator: keep freed memory instead of returning it to the system (Linux, glibc, CPU).
        bar: show a live bar in a terminal; each epoch prints a line in any case.
        halve_batch_on_oom: where memory runs out before the first checkpoint, begin again with half of
            ``data.batch_size``, as often as it takes.
        profile: record where the time of steps 6 to 15 goes, by ``torch.profiler``.
        devices: devices of each computer: GPUs, or processes on its CPU. They share each batch.
        nodes: computers; with several, torchrun or srun starts the processes.
        sync_batchnorm: batch normalisation over the whole batch of all devices; off, each uses its part alone.
        lr_scaling: factor on ``optimizer.lr`` for steps of other than 128 faces: "linear" is faces / 128, "sqrt" its
            square root, "none" keeps the rate. The number of devices changes neither batch nor rate.
        restarts: how often all processes begin again from the checkpoint after one was killed.
        gradient_checkpointing: keep the inputs of the network's blocks alone for the backward pass, which computes the
            blocks again. It takes less memory and a third more work, and the result is the same.
        accumulate: batches whose gradients are added up for one step of the optimizer, weighted by their faces.
        freeze_trunk: train the last layer of ``init_from``'s network alone, on cached features if nothing is random.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["auto", "bf16", 32] = "auto"
    max_epochs: Positive = 30
    threads: Annotated[int, Range(1, MOST_THREADS)] | None = None
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
    halve_batch_on_oom: bool = False
    profile: bool = False
    devices: Positive = 1
    nodes: Positive = 1
    sync_batchnorm: bool = True
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    restarts: Count = 0
    gradient_checkpointing: bool = False
    accumulate: Positive = 1
    freeze_trunk: bool = False

    @property
    def ranks(self) -> int:
        """Number of processes that share the run."""
        return self.devices * self.nodes


@dataclass(frozen=True)
class BudgetSettings:
    """The time that a run may take.

    Args:
        hours: train as many epochs as fit into this time, by the speed of some steps measured first, instead of
            ``trainer.max_epochs``; stages keep their shares. None keeps ``trainer.max_epochs``.
        until: end at this time, such as 2026-12-24T07:00; the number of epochs is planned again after every epoch.
            None keeps ``trainer.max_epochs``.
    """

    hours: Annotated[float, Range(0, 8784, above=True)] | None = None  # a year at most
    until: str | None = None

    def __post_init__(self) -> None:
        """Refuse a text that is no time, and two budgets at once."""
        if self.until is None:
            return
        try:
            datetime.fromisoformat(self.until).timestamp()  # the years 1 and 9999 may have none
        except (ValueError, OverflowError):
            raise FerError(
                f"budget.until={self.until}: no date and time; expected one such as 2026-12-24T07:00"
            ) from None
        if self.hours is not None:
            raise FerError(f"budget.until={self.until}: budget.hours={self.hours:g} sets another end; leave one out")

    @property
    def ends(self) -> datetime | None:
        """The time of ``until``; without a time zone, it is the computer's."""
        return None if self.until is None else datetime.fromisoformat(self.until)


@dataclass(frozen=True)
class DistillSettings:
    """Distillation: the teachers' mean prediction for each augmented face is a soft target beside the label.

    Args:
        teachers: run folders, checkpoints, or evaluations of ensembles, of which weights and temperatures are used.
        weight: weight of the teachers' prediction in the loss; the rest is the labels'.
        temperature: divisor of the logits of teachers and student in the loss (Hinton et al. 2015).
    """

    teachers: list[str] = field(default_factory=list)
    weight: Annotated[float, Range(0, 1, above=True)] = 0.5
    temperature: AboveZero = 2.0


@dataclass(frozen=True)
class CheckpointSettings:
    """When ``last.ckpt`` is written besides the ends of epochs.

    Args:
        minutes: write it within an epoch too, so many minutes after the last writing. None writes at the ends of epochs
            and at a signal alone.
    """

    minutes: AboveZero | None = None


@dataclass(frozen=True)
class LoggerSettings:
    """The output of a run besides the terminal and the results.

    Args:
        tensorboard: write TensorBoard files: curves, pictures, precision-recall curves, HPARAMS.
        projector: write embeddings of the val faces for TensorBoard's projector at the end.
        report: write ``report.html`` and ``figures/`` at the end.
        csv: write ``csv/metrics.csv``, a row for each epoch.
        mlflow: log metrics and settings to MLflow.
        mlflow_uri: MLflow's server or store; None is ``$MLFLOW_TRACKING_URI``, then ``mlruns/`` in the run's folder.
        wandb: log metrics and settings to Weights & Biases.
        wandb_mode: "offline" writes ``wandb/`` in the run's folder and sends nothing; "online" sends.
        project: name of MLflow's experiment and of the project of Weights & Biases.
    """

    tensorboard: bool = True
    projector: bool = False
    report: bool = True
    csv: bool = False
    mlflow: bool = False
    mlflow_uri: str | None = None
    wandb: bool = False
    wandb_mode: Literal["offline", "online"] = "offline"
    project: str = "fer"

    def __post_init__(self) -> None:
        """Refuse a projector without TensorBoard, and a password in the address of MLflow."""
        if self.projector and not self.tensorboard:
            raise FerError("logger.projector=true: the projector needs TensorBoard; set logger.tensorboard=true")
        if self.mlflow_uri is not None and _has_password(self.mlflow_uri):
            raise FerError(
                "logger.mlflow_uri: contains a password, which the run's folder would store; set the variables "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )

    def refuse_without_effect(self) -> None:
        """Refuse settings of a logger that is off.

        Raises:
            FerError: the message names the setting.
        """
        of = {"mlflow_uri": ("mlflow",), "wandb_mode": ("wandb",), "project": ("mlflow", "wandb")}
        for key, loggers in of.items():
            value = getattr(self, key)
            if value != getattr(LoggerSettings, key) and not any(getattr(self, name) for name in loggers):
                remedy = " or ".join(f"logger={name}" for name in loggers)
                raise FerError(f"logger.{key}={value}: its logger is off; set {remedy}, or leave it out")


@dataclass(frozen=True)
class SweepSettings:
    """A sweep: several runs by one command line with ``-m``. No run's configuration depends on these keys.

    Args:
        jobs: runs side by side; "auto" is one for each GPU, or for each usable core as far as memory goes.
        resume: folder of a sweep to continue: missing runs are trained, finished runs are kept.
        over: key -> values, or ``glob(*)`` for all choices of a group, in all combinations; keys on the command line
            replace these.
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
    """A search of ``fer.tune``. No trial's configuration depends on these keys.

    Args:
        trials: number of trials at most; pruned and failed ones count.
        hours: time after which no trial begins, earlier parts of a resumed search included; None is no limit.
        jobs: trials side by side; "auto" is one for each GPU, or for each usable core as far as memory goes.
        seeds: runs of each trial, with the run's seed and the ones after it; the trial's value is their mean.
        baseline: the first trial takes the configured values that lie in the space.
        sampler: "tpe" is the tree-structured Parzen estimator over all parameters together; "random" draws.
        sampler_seed: random seed of the search.
        random_trials: random trials before "tpe" uses their results.
        pruner: "median" ends trials worse than the median of complete ones, "hyperband" halves successively.
        startup_trials: complete trials before "median" prunes any.
        warmup_epochs: epochs of each trial in which it is never pruned.
        storage: URL of a database, as Optuna takes it; None is ``journal.log`` in the folder.
        folder: folder of the search; a folder that holds a search is resumed.
        resume: folder of a search to continue as it was begun.
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
        """Refuse a password in the storage's URL, which ``tune.json`` would keep, and two folders."""
        if self.storage is not None and _has_password(self.storage):
            raise FerError(
                "tune.storage: contains a password, which tune.json would store; put it into the database client's own "
                "file"
            )
        if self.folder is not None and self.resume is not None:
            raise FerError("tune.resume continues in the search's folder; leave out --out (tune.folder)")


@dataclass(frozen=True)
class TrainSettings:
    """One run of ``fer.train``.

    Args:
        seed: random seed of weights, order, augmentation and dropout.
        monitor: metric that chooses the best epoch.
        early_stopping: epochs without a better ``monitor`` before the run stops; None never stops early.
        init_from: checkpoint, run or shared file whose weights are the start.
        resume: run folder to continue.
        plugins: modules to import first; they register networks, losses, readers and the like.
        ema: decay of a moving average of the weights; the average is evaluated and kept. None is off.
        sam: step size of sharpness-aware minimisation, such as 0.05; doubles the work; 0 is off.
        consistency: weight of the difference between predictions for views of one face; needs ``augment.views``.
        stages: [size, epochs] of each stage: progressive resizing. Faces are resized to each stage's size, in val too;
            the last stage has ``data.image_size``, and the best epoch is one of it. Empty trains at full size.
        lr_finder: plot the loss against the learning rate, and end without training.
        budget: the time that the run may take.
        checkpoint: when checkpoints are written.
        distill: networks to learn from.
        sweep: settings of a command line with ``-m``; the defaults in each run.
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
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)

    def __post_init__(self) -> None:
        """Refuse a monitor on test or of no metric, and settings that contradict each other."""
        if "test" in self.monitor:
            raise FerError(
                f"monitor={self.monitor}: nothing may be chosen on the test split; use one of {', '.join(MONITORS)}"
            )
        if self.monitor not in MONITORS:
            raise FerError(f"monitor={self.monitor}: no metric of val; use one of {', '.join(MONITORS)}")
        if self.data.batch_size == 1:
            raise FerError("data.batch_size=1: batch normalisation cannot train on one face; use at least 2")
        padding = self.augment.at_strength().crop_padding
        if padding >= self.data.image_size:
            raise FerError(
                f"augment.crop_padding={padding}: out of range; expected at most data.image_size - 1 = "
                f"{self.data.image_size - 1} pixels"
            )
        loss_balances = self.loss.get("name") == "logit_adjusted" or self.loss.get("class_weights", "none") != "none"
        if self.data.sampler == "balanced" and loss_balances:
            raise FerError(
                "data.sampler=balanced: the sampler balances the classes already; leave out loss.class_weights and "
                "loss=logit_adjusted, which would favour rare emotions twice"
            )
        if self.data.labels == "fer2013" and self.data.ferplus_rule != "majority":
            raise FerError(
                f"data.ferplus_rule={self.data.ferplus_rule}: applies to FER+'s votes only; set data.labels=ferplus"
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
                f"budget.hours={self.budget.hours:g}: speed is measured without trainer.profile; leave one out, or set "
                "trainer.max_epochs instead"
            )
        if self.lr_finder and self.resume:
            raise FerError(f"resume={self.resume}: lr_finder=true trains nothing that could be resumed; leave one out")
        if self.lr_finder and (self.budget.hours is not None or self.budget.until is not None):
            raise FerError(
                "lr_finder=true: trains nothing that a budget could end; leave out budget.hours and budget.until"
            )
        if self.lr_finder and self.trainer.profile:
            raise FerError("trainer.profile=true: lr_finder=true ends without a training to measure; leave one out")
        self._refuse_together()
        self._refuse_ranks()
        if self.resume is None:  # an older version began runs with such settings
            self._refuse_without_effect()

    def _refuse_without_effect(self) -> None:
        """Refuse settings that change nothing beside the others: whoever set them expects an effect."""
        self._refuse_other_splits()
        data, trainer = self.data, self.trainer
        if trainer.restarts and trainer.ranks == 1:
            raise FerError(
                f"trainer.restarts={trainer.restarts}: restarts the processes of trainer.devices=2 or more; leave it "
                "out, and continue a killed run with resume=FOLDER"
            )
        if trainer.gradient_clip is None and trainer.gradient_clip_by != "norm":
            raise FerError(
                f"trainer.gradient_clip_by={trainer.gradient_clip_by}: nothing is clipped; set trainer.gradient_clip, "
                "or leave it out"
            )
        if trainer.ranks == 1 and not trainer.sync_batchnorm:
            raise FerError(
                "trainer.sync_batchnorm=false: one device normalises the whole batch; set trainer.devices=2 or more, "
                "or leave it out"
            )
        beside = {
            f"data.sampler={data.sampler}": data.sampler != "shuffle",
            f"data.weights={data.weights}": data.weights is not None,
            f"trainer.limit_train={trainer.limit_train:g}": trainer.limit_train < 1,
            f"trainer.limit_val={trainer.limit_val:g}": trainer.limit_val < 1,
        }
        for given, is_set in beside.items():
            if is_set and trainer.overfit_batches:
                raise FerError(
                    f"{given}: trainer.overfit_batches={trainer.overfit_batches} takes the same batches in every "
                    "epoch; leave one out"
                )
        self.logger.refuse_without_effect()

    def _refuse_other_splits(self) -> None:
        """Refuse settings of a split that no data set has."""
        data = self.data
        rules = {data.split, *(further.split for further in data.further)}
        if None in rules:  # a further data set may have any split of its own
            rules |= {"as_given", "holdout"}
        used = {key for rule in rules if rule is not None for key in SPLIT_KEYS[rule]}
        for key in ALL_SPLIT_KEYS:
            if key not in used and getattr(data, key) != getattr(DataSettings, key):
                fitting = " or ".join(f"data.split={rule}" for rule, keys in SPLIT_KEYS.items() if key in keys)
                raise FerError(
                    f"data.{key}={str(getattr(data, key)).lower()}: data.split={data.split} does not use it; set "
                    f"{fitting}, or leave it out"
                )

    def _refuse_together(self) -> None:
        """Refuse ways to save memory or time that do not work with other settings."""
        if self.budget.until is not None and self.stages:
            raise FerError(
                f"budget.until={self.budget.until}: stages have fixed numbers of epochs; leave one out, or set "
                "budget.hours"
            )
        if self.trainer.freeze_trunk and self.init_from is None:
            raise FerError("trainer.freeze_trunk=true: would freeze random layers; set init_from to a trained network")
        if self.trainer.gradient_checkpointing and self.trainer.compile:
            raise FerError(
                "trainer.gradient_checkpointing=true: trainer.compile=true chooses what it keeps by itself; leave one "
                "out"
            )
        if self.trainer.accumulate > 1 and self.sam:
            raise FerError(
                f"trainer.accumulate={self.trainer.accumulate}: sam={self.sam:g} needs the whole batch at once; leave "
                "one out"
            )

    @property
    def faces_an_update(self) -> int:
        """Faces of all batches whose gradients make one step of the optimizer; ``data.batch_size`` is a number."""
        return self.data.faces_a_step * self.trainer.accumulate

    @property
    def lr_factor(self) -> float:
        """Factor on ``optimizer.lr`` by ``trainer.lr_scaling``."""
        power = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}[self.trainer.lr_scaling]
        return (self.faces_an_update / BATCH_SIZE) ** power if power else 1.0

    def _refuse_ranks(self) -> None:
        """Refuse what one device alone can do."""
        if self.trainer.lr_scaling != "none" and self.data.batch_size == "auto":
            raise FerError(
                f"trainer.lr_scaling={self.trainer.lr_scaling}: needs a number of faces; set data.batch_size"
            )
        count = self.trainer.ranks
        if count == 1:
            return
        given = f"trainer.devices={self.trainer.devices}" + (
            f" trainer.nodes={self.trainer.nodes}" if self.trainer.nodes > 1 else ""
        )
        alone = {
            "data.batch_size=auto": self.data.batch_size == "auto",
            "lr_finder=true": self.lr_finder,
            "budget.hours": self.budget.hours is not None,
            "trainer.compile=true": self.trainer.compile,
            "trainer.profile=true": self.trainer.profile,
            "trainer.halve_batch_on_oom=true": self.trainer.halve_batch_on_oom,
            "trainer.overfit_batches": self.trainer.overfit_batches > 0,
        }
        if refused := [key for key, is_set in alone.items() if is_set]:
            raise FerError(f"{given}: {refused[0]} works on one device only; leave it out, or set trainer.devices=1")
        if self.data.batch_size != "auto" and self.data.batch_size < 2 * count:
            raise FerError(
                f"{given}: data.batch_size={self.data.batch_size} is the batch of all devices together; expected at "
                f"least {2 * count}, two faces each"
            )

    def _refuse_stages(self) -> None:
        if not self.stages:
            return
        full, given = self.data.image_size, f"stages={self.stages}"
        if any(len(stage) != 2 or not MIN_SIZE <= stage[0] <= full or stage[1] < 1 for stage in self.stages):
            raise FerError(f"{given}: expected [[size, epochs], ...], sizes from {MIN_SIZE} to data.image_size={full}")
        if self.stages[-1][0] != full:
            raise FerError(
                f"{given}: the last size must be data.image_size={full}, the size of the finished network's faces"
            )
        total = sum(epochs for _, epochs in self.stages)
        if total != self.trainer.max_epochs:
            raise FerError(f"{given}: has {total} epochs; set trainer.max_epochs={total}")
        compared = {"early_stopping": self.early_stopping, "scheduler=plateau": self.scheduler.get("name") == "plateau"}
        for setting, is_set in compared.items():
            if is_set:
                raise FerError(f"{given}: val metrics of different stages cannot be compared; leave out {setting}")


@dataclass(frozen=True)
class Origin:
    """The origin of a run, for its results and its report.

    Args:
        command: command line that repeats the run.
        stand_in: whether drawn faces replace FER2013, which was not found.
        choices: group -> choice, such as augment -> basic.
        overridden: keys and groups on the command line.
        changes: function that returns key -> (value, default) of all differences from the defaults; called when the
            run is over, since composing the defaults takes a while.
    """

    command: str = ""
    stand_in: bool = False
    choices: Mapping[str, str] = field(default_factory=dict)
    overridden: Sequence[str] = ()
    changes: Callable[[], Mapping[str, tuple[Any, Any]]] = dict
