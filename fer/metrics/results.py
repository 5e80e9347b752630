"""The types of ``metrics.json``: what a training or an evaluation found. No torch here.

Every value of the file has its field here. ``read`` takes files of older versions too: what they lack is None.
``write`` keeps the order of the keys.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fer.config.errors import setting
from fer.metrics.conformal import By, Thresholds
from fer.metrics.statistics import Interval, McNemar
from fer.metrics.table import METRICS, SAMPLED, TEMPERED
from fer.system import records
from fer.system.files import read_json, readable, write_json
from fer.system.machine import MachineRecord
from fer.system.records import MERGED, OPTIONAL, Json, Object

SCHEMA = 1  # of metrics.json; raise it when a field changes its meaning
VAL = "val"  # a temperature was fitted on val of the training
THESE_FACES = "these faces"  # it was fitted on the faces that are scored

# --- metrics of faces -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """A metric of N faces.

    Args:
        value: None where these faces have none.
        ci95: its 95 % interval; None where there are too few faces, and of calibration errors.
        if_calibrated: of a calibration error, the 95th percentile that a calibrated network shows on as many faces.
    """

    value: float | None
    ci95: Interval | None = None
    if_calibrated: float | None = None

    @classmethod
    def of(cls, stored: Json, name: str) -> "Value":
        """Return a metric of an object that has it, its interval and its percentile under keys of one beginning."""
        return cls(stored[name], _interval(stored.get(f"{name}_ci95")), stored.get(f"{name}_if_calibrated"))

    @property
    def number(self) -> float:
        """The value, which is there.

        Raises:
            ValueError: these faces have none.
        """
        if self.value is None:
            raise ValueError("a metric that these faces do not have")
        return self.value


def _interval(ends: Iterable[float] | None) -> Interval | None:
    return None if ends is None else Interval(*ends)


Values = Mapping[str, Value]  # name of ``METRICS`` -> its value, of those that a file has


def values_of(stored: Json, names: Iterable[str] = tuple(METRICS)) -> Values:
    """Return the metrics that an object has; older files lack some."""
    return {name: Value.of(stored, name) for name in names if name in stored}


@dataclass(frozen=True)
class PerClass:
    """The metrics of a class; ``support`` counts its faces. Older files have no curves of classes."""

    precision: Value
    recall: Value
    f1: Value
    roc_auc: Value | None
    average_precision: Value | None
    support: int

    @classmethod
    def of(cls, stored: Json) -> "PerClass":
        """Return the metrics of a class from its object in ``metrics.json``."""
        return cls(
            precision=Value.of(stored, "precision"),
            recall=Value.of(stored, "recall"),
            f1=Value.of(stored, "f1"),
            roc_auc=Value.of(stored, "roc_auc") if "roc_auc" in stored else None,
            average_precision=Value.of(stored, "average_precision") if "average_precision" in stored else None,
            support=stored["support"],
        )

    def plain(self) -> Object:
        """Return the object for ``metrics.json``."""
        named = vars(self).items()
        pairs = {name: _pair(name, value) for name, value in named if isinstance(value, Value)}
        return {key: value for pair in pairs.values() for key, value in pair.items()} | {"support": self.support}


def _pair(name: str, value: Value) -> Object:
    return {name: value.value, f"{name}_ci95": None if value.ci95 is None else list(value.ci95)}


@dataclass(frozen=True)
class Scores:
    """The metrics of N faces.

    Args:
        n: number of faces.
        metrics: of all classes together.
        per_class: class -> its metrics.
        confusion: (C, C) counts, rows labelled, columns predicted.
        groups: number of people, videos or pictures that the faces are of, for others of which the intervals are; None
            where each face is of its own.
    """

    n: int
    metrics: Values
    per_class: Mapping[str, PerClass] = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = ()
    groups: int | None = None

    @classmethod
    def of(cls, stored: Json) -> "Scores":
        """Return the scores from ``metrics.json``, or from its ``clean``."""
        per_class = {name: PerClass.of(values) for name, values in stored.get("per_class", {}).items()}
        confusion = tuple(tuple(row) for row in stored.get("confusion", ()))
        return cls(stored["n"], values_of(stored), per_class, confusion, stored.get("groups"))

    def plain(self) -> Object:
        """Return the object for ``metrics.json``."""
        return {
            "n": self.n,
            **({} if self.groups is None else {"groups": self.groups}),
            **_sampled(self.metrics),
            **_binned(self.metrics),
            **({"means_over": [name for name in self.per_class if name not in self.absent]} if self.absent else {}),
            "per_class": {name: values.plain() for name, values in self.per_class.items()},
            "confusion": [list(row) for row in self.confusion],
        }

    @property
    def accuracy(self) -> Value:
        """The share of right predictions."""
        return self.metrics["accuracy"]

    @property
    def unpredicted(self) -> list[str]:
        """The classes that no face was predicted as, whose precision is stored as 0; none where that is not known."""
        columns = zip(self.per_class, zip(*self.confusion, strict=True), strict=False)
        return [name for name, counts in columns if not any(counts)]

    @property
    def absent(self) -> list[str]:
        """The classes without faces, which macro-F1 and balanced accuracy leave out."""
        return [name for name, values in self.per_class.items() if not values.support]


def _sampled(metrics: Values) -> Object:
    pairs = [_pair(name, metrics[name]) for name in SAMPLED if name in metrics]
    return {key: value for pair in pairs for key, value in pair.items()}


def _binned(metrics: Values) -> Object:
    """Return the calibration errors, the percentile of a calibrated network behind each that has one."""
    entries: Object = {}
    for name, value in metrics.items():
        if METRICS[name].binned:
            entries[name] = value.value
            if value.if_calibrated is not None:
                entries[f"{name}_if_calibrated"] = value.if_calibrated
    return entries


@dataclass(frozen=True)
class Calibrated:
    """The metrics that a temperature changes, with it."""

    metrics: Values

    @classmethod
    def of(cls, stored: Json) -> "Calibrated":
        """Return the metrics from "calibrated" of ``metrics.json``."""
        return cls(values_of(stored, TEMPERED))

    def plain(self) -> Object:
        """Return the object for ``metrics.json``: intervals after values."""
        pairs = _sampled(self.metrics)
        values = {key: value for key, value in pairs.items() if key in METRICS}
        return {**values, **pairs, **_binned(self.metrics)}


@dataclass(frozen=True)
class Selective:
    """Answering only where confident: the area under risk and coverage, coverage as text -> the error there."""

    aurc: float
    error_at_coverage: Mapping[str, float]


@dataclass(frozen=True)
class Soft:
    """Cross-entropy with soft targets, and the targets' own entropy, below which no network comes."""

    cross_entropy: float
    entropy: float


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a threshold of confidence does: ``..._there`` on the faces that it was chosen on, the others here."""

    coverage_there: float
    error_there: float | None
    bound_there: float | None
    coverage: float
    error: float | None
    error_ci95: Interval | None


@dataclass(frozen=True, kw_only=True)
class Answering:
    """Answering only from a confidence that keeps the error below a target.

    Args:
        target_error: largest share of wrong answers.
        threshold: the least confidence; None where none can promise the target.
        chosen_on: the faces that it was chosen on, in words.
        answered: what it does; None where there is none.
    """

    target_error: float = field(metadata={"key": "wanted_error"})
    threshold: float | None
    chosen_on: str
    answered: Answered | None = field(default=None, metadata=MERGED)


@dataclass(frozen=True, kw_only=True)
class SetScores:
    """The prediction sets of N faces.

    Args:
        n: number of faces.
        coverage: share of the faces whose set holds the label, with its interval; None without faces.
        size: mean number of emotions in a set, with its interval.
        sizes: (C,) number of sets with 1, 2, ... C emotions.
    """

    n: int
    coverage: float | None
    coverage_ci95: Interval | None
    size: float | None
    size_ci95: Interval | None
    sizes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SetsRecord:
    """Prediction sets with a promised coverage, see ``fer.metrics.conformal``.

    Args:
        promised: the coverage.
        threshold: that gives it.
        calibrated_on: the faces that gave the thresholds, in words: ``VAL`` or ``THESE_FACES``.
        kept: whether the thresholds are those of the network's file.
        thresholds: of all coverages.
        scores: of all faces.
        clean: of the faces that were not trained on.
        per_class: class -> of its faces.
        by: whether the promise is made over all faces, or for the faces of each class.
        unpromised: classes with too few faces of val for that.
    """

    promised: float
    threshold: float
    calibrated_on: str
    kept: bool
    thresholds: Thresholds
    scores: SetScores = field(metadata={"key": "all"})
    clean: SetScores | None
    per_class: Mapping[str, SetScores]
    by: By = "all"
    unpromised: tuple[str, ...] = ()


# --- comparisons ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A paired difference of a metric, with its 95 % interval for other faces."""

    difference: float | None
    ci95: Interval | None


@dataclass(frozen=True)
class Paired:
    """The paired differences of two networks on N faces.

    Args:
        n: number of faces.
        differences: name of a metric -> first network minus second.
        mcnemar: the faces that only one of the two has right.
    """

    n: int
    differences: Mapping[str, Difference]
    mcnemar: McNemar

    @classmethod
    def of(cls, stored: Json) -> "Paired":
        """Return the differences from "against" of ``metrics.json``, or from its ``clean``."""
        differences = {name: records.read(Difference, stored[name]) for name in METRICS if name in stored}
        return cls(stored["n"], differences, McNemar(**stored["mcnemar"]))

    def plain(self) -> Object:
        """Return the object for ``metrics.json``."""
        differences = {name: records.plain(value) for name, value in self.differences.items()}
        return {"n": self.n, **differences, "mcnemar": self.mcnemar._asdict()}


@dataclass(frozen=True, kw_only=True)
class BaselineComparison:
    """The comparison with a baseline.

    Args:
        name: of the baseline.
        tta: views of each face that it was given; None where its file does not state them.
        seen_by_it: faces that it was trained on; None where that is not known.
        paired: the differences to it.
        clean: those on faces that neither was trained on.
    """

    name: str
    tta: str | None = None
    seen_by_it: int | None = None
    paired: Paired = field(metadata=MERGED)
    clean: Paired | None = None


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How often an annotator of FER+, drawn at random, gives the network's answer, the label, the most frequent one."""

    network: float
    labels: float
    best: float


@dataclass(frozen=True, kw_only=True)
class Majority:
    """Agreement with the annotators' majority, on the faces that have one."""

    faces: int
    network: float | None
    labels: float | None


@dataclass(frozen=True, kw_only=True)
class ErrorsByVote:
    """The network's errors by what most annotators say."""

    all: int
    label: int = field(metadata={"key": "crowd_agrees_with_the_label"})
    network: int = field(metadata={"key": "crowd_agrees_with_the_network"})
    other: int = field(metadata={"key": "crowd_says_another_emotion"})
    divided: int = field(metadata={"key": "crowd_is_divided"})


@dataclass(frozen=True, kw_only=True)
class Annotators:
    """How labels and network agree with the annotators of FER+."""

    faces: int
    annotator: Shares
    majority: Majority
    errors: ErrorsByVote


# --- networks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How a network was trained, as its run states it; older runs state no commit."""

    command: str
    seed: int
    epochs: int
    best_epoch: int
    commit: str | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """What is known of a member's weights."""

    weights_sha256: str | None = None
    architecture: str | None = None
    trained: Trained | None = None


@dataclass(frozen=True, kw_only=True)
class MemberRecord:
    """A network of an evaluation: how its logits were tempered and its probabilities weighted."""

    checkpoint: str
    network: NetworkRecord | None = field(default=None, metadata=MERGED)
    weight: float
    temperature: float = 1.0  # evaluations from before networks were tempered state none
    name: str | None = field(default=None, metadata=OPTIONAL)

    @property
    def trained(self) -> Trained | None:
        """How it was trained, where that is known."""
        return self.network.trained if self.network else None


@dataclass(frozen=True)
class Step:
    """A step of a greedy choice: the network added, and the ensemble on val with it."""

    added: str
    nll_val: float
    accuracy_val: float


@dataclass(frozen=True, kw_only=True)
class SelectionRecord:
    """How val chose an ensemble.

    Args:
        given: number of networks.
        left_out: names of those without weight.
        steps: of the greedy choice.
        best_alone_val: accuracy of the best network on val.
        all_equal_val: accuracy of all together, equally weighted.
    """

    given: int
    left_out: tuple[str, ...]
    steps: tuple[Step, ...]
    best_alone_val: float
    all_equal_val: float


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """The accuracy of each of M networks alone, and (M, M) shares of the faces that two answer differently."""

    accuracy: tuple[float, ...]
    disagreement: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Weights that a training began with."""

    name: str
    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A network whose answers were soft targets of a training."""

    checkpoint: str
    sha256: str
    architecture: str | None = None
    weight: float | None = None
    temperature: float | None = field(default=None, metadata=OPTIONAL)


# --- data, machine, training ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """The faces that ``data.exclude`` left out of train.

    Args:
        file: the ``audit.csv``.
        rows_sha256: digest of their rows.
        faces: their number.
        by_reason: reason -> faces; a face may have several reasons.
        outside_train: faces of the file that are not in train, and stay.
        emptied: classes without a face in train since.
        audited_split: rule of the split that was audited.
        drawn_otherwise: True where that rule drew other faces for val than here.
    """

    file: str
    rows_sha256: str
    faces: int = 0
    by_reason: Mapping[str, int] = field(default_factory=dict)
    outside_train: int = 0
    emptied: tuple[str, ...] = ()
    audited_split: str = ""
    drawn_otherwise: bool | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class MissingClasses:
    """The classes without a face in a split.

    Args:
        splits: split -> its missing classes, of splits that miss some.
        everywhere: those that the data have no face of at all.
        complete: a rule of ``data.split`` whose splits have all other classes; None where there is none.
    """

    splits: Mapping[str, tuple[str, ...]]
    everywhere: tuple[str, ...] = ()
    complete: str | None = None

    def in_words(self) -> list[str]:
        """Return a sentence for each split that misses classes, and one on the rule that would have them."""
        effects = {"train": "no network learns them", "val": "the epoch is chosen without them"}
        usual = "means over classes leave them out"
        sentences = [
            f"{split} has no face of {', '.join(names)}: {effects.get(split, usual)}"
            for split, names in self.splits.items()
        ]
        if self.everywhere:
            sentences.append(f"the data have no face of {', '.join(self.everywhere)} in any split")
        elif self.complete:
            sentences.append(f"{setting('data.split', self.complete)} has every class in each of its splits")
        return sentences


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """The data of a result, see ``fer.data.table.Table.describe``.

    Several data sets have a record each in ``sets``, with their share of an epoch's training faces if it is not that of
    their faces.
    """

    name: str
    path: str
    layout: str = ""
    labels: str = ""
    split: str
    split_seed: int | None = None
    folds: int | None = field(default=None, metadata=OPTIONAL)
    fold: int | None = field(default=None, metadata=OPTIONAL)
    fingerprint: str = ""
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    missing: MissingClasses | None = field(default=None, metadata=OPTIONAL)
    excluded: Excluded | None = None
    notes: tuple[str, ...] = ()
    skipped: tuple[object, ...] = ()
    sets: "tuple[DatasetRecord, ...] | None" = field(default=None, metadata=OPTIONAL)
    share: float | None = field(default=None, metadata=OPTIONAL)
    stand_in: bool | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class OfDataSet:
    """The accuracy over the N faces of one of several data sets, with its 95 % interval."""

    name: str
    n: int
    accuracy: float
    accuracy_ci95: Interval


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What a training states of itself beside the metrics of its best epoch, which is counted from 1.

    ``planned_epochs`` is more than ``epochs`` where the training stopped early.
    """

    best_epoch: int
    epochs: int
    planned_epochs: int | None = field(default=None, metadata=OPTIONAL)
    wall_seconds: float | None = None
    train_seconds: float
    batch_size: int | None = None
    training_precision: str | int | None = None
    budget: Mapping[str, object] | None = field(default=None, metadata=OPTIONAL)
    images_per_second: float
    peak_memory_mb: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """What an evaluation states of its networks: views of each face, checkpoint, members, how these were weighted."""

    tta: str = "none"
    checkpoint: str = ""
    members: tuple[MemberRecord, ...] = ()
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The metrics of N faces, as ``metrics.json`` opens.

    Args:
        scores: of all of them.
        temperature: that divides the logits, fitted on val; None where there is none.
        calibrated: metrics with it.
        selective: answering only where confident, with it.
        soft: the metrics with soft targets.
    """

    scores: Scores = field(metadata=MERGED)
    temperature: float | None = None
    calibrated: Calibrated | None = None
    selective: Selective | None = None
    soft: Soft | None = field(default=None, metadata=OPTIONAL)


# --- the file -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Results:
    """A ``metrics.json``.

    Args:
        schema: version of the file.
        split: that was scored.
        measured: metrics of all its faces.
        temperature_fitted_on: the faces that it was fitted on, in words.
        temperature_kept: whether it is the one in the checkpoint.
        data_sets: accuracy over the faces of each of several data sets that were scored together.
        seen_in_training: faces with an exact duplicate, or a copy by content, among those trained on; None where that
            is not known.
        seen_by_content: faces of another table whose content is that of a training face of FER2013. None where there
            are no such faces, or no network was trained on FER2013's.
        seen_in_choice: faces with an exact duplicate in val, which chose the epoch.
        clean: scores of the faces that were not trained on.
        answering: from a confidence that keeps a promised error.
        sets: prediction sets with a promised coverage.
        comparison: with a baseline.
        annotators: agreement with FER+'s annotators.
        training: of a training.
        architecture: of the network; several are joined by " + ".
        parameters: of all networks.
        pretrained: weights that the training began with.
        teachers: of the training.
        seed: of a training.
        evaluation: of an evaluation.
        selection: how val chose the networks.
        diversity: of the networks of an ensemble.
        dataset: the data.
        machine: the machine.
        command: that was given.
        test_opened: how often test has been opened for the network, this time included.
    """

    schema: int | None = None
    split: str
    measured: Measured = field(metadata=MERGED)
    temperature_fitted_on: str | None = None
    temperature_kept: bool | None = field(default=None, metadata=OPTIONAL)
    data_sets: tuple[OfDataSet, ...] | None = field(default=None, metadata=OPTIONAL)
    seen_in_training: int | None = None
    seen_by_content: int | None = field(default=None, metadata=OPTIONAL)
    seen_in_choice: int | None = field(default=None, metadata=OPTIONAL)
    clean: Scores | None = None
    answering: Answering | None = field(default=None, metadata=OPTIONAL)
    sets: SetsRecord | None = field(default=None, metadata=OPTIONAL)
    comparison: BaselineComparison | None = field(default=None, metadata={**OPTIONAL, "key": "against"})
    annotators: Annotators | None = field(default=None, metadata={**OPTIONAL, "key": "crowd"})
    training: TrainingRecord | None = field(default=None, metadata=MERGED)
    architecture: str = "predictions"
    parameters: int = 0
    pretrained: Pretrained | None = None
    teachers: tuple[Teacher, ...] | None = field(default=None, metadata=OPTIONAL)
    seed: int | None = field(default=None, metadata=OPTIONAL)
    evaluation: EvaluationRecord | None = field(default=None, metadata=MERGED)
    selection: SelectionRecord | None = field(default=None, metadata=OPTIONAL)
    diversity: Diversity | None = field(default=None, metadata=OPTIONAL)
    dataset: DatasetRecord
    machine: MachineRecord = field(metadata=MERGED)
    command: str = ""
    test_opened: int | None = field(default=None, metadata=OPTIONAL)

    @property
    def scores(self) -> Scores:
        """The metrics of all faces, by class too."""
        return self.measured.scores

    @property
    def metrics(self) -> Values:
        """The metrics of all faces."""
        return self.scores.metrics

    @property
    def temperature(self) -> float | None:
        """The temperature that divides the logits."""
        return self.measured.temperature

    @property
    def calibrated(self) -> Values | None:
        """The metrics with the temperature."""
        return self.measured.calibrated.metrics if self.measured.calibrated else None

    @property
    def selective(self) -> Selective | None:
        """Answering only where confident."""
        return self.measured.selective

    @property
    def members(self) -> tuple[MemberRecord, ...]:
        """The networks of an evaluation."""
        return self.evaluation.members if self.evaluation else ()

    @property
    def tta(self) -> str:
        """The views of each face, "none" for the face alone."""
        return self.evaluation.tta if self.evaluation else "none"


def of(stored: Json) -> Results:
    """Return results from the object of a ``metrics.json`` of any version.

    Raises:
        KeyError, TypeError, ValueError: they are damaged.
    """
    return records.read(Results, stored)


def plain(results: Results) -> Object:
    """Return the object of a ``metrics.json``."""
    contents = records.plain(results)
    if results.training is None:
        return contents
    order = list(contents)
    first = order.index("architecture")
    order[first : first + 2] = "parameters", "architecture"  # a training's file has them so
    return {name: contents[name] for name in order}


def read(file: Path) -> Results:
    """Return the results that a ``metrics.json`` holds.

    Raises:
        FerError: it is missing or damaged.
    """
    with readable(file):
        return of(read_json(file))


def write(file: Path, results: Results) -> None:
    """Write ``metrics.json``, whole or not at all."""
    write_json(file, plain(results))
