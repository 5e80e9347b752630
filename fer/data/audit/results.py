"""The types of ``audit.json``: what an audit counted.

The keys "twins" and "near_twins" mean exact and near duplicates; files of earlier versions have the same keys.
``fer.data.audit.summary`` counts, ``fer.system.records`` writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fer.metrics.results import MissingClasses
from fer.system.machine import MachineRecord
from fer.system.records import MERGED, OPTIONAL

SCHEMA = 1  # of audit.json; raise it when a field changes its meaning
Counts = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The origin of the faces, and the reader's decisions.

    Args:
        name: of the data set.
        path: of its file or folder.
        layout: in words.
        labels: source of the labels.
        image_size: side of a face in pixels.
        fingerprint: digest of pixels, labels and splits.
        notes: of the reader.
        skipped: bad rows or files, a line each.
    """

    name: str
    path: str
    layout: str
    labels: str
    image_size: int
    fingerprint: str
    notes: tuple[str, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """The rule of the split.

    Args:
        rule: its name.
        meaning: for these faces.
        why_not_official: why the official one does not apply, if so.
        missing: classes without a face in a split.
        cautions: what makes results on these splits incomparable.
    """

    rule: str
    meaning: str
    why_not_official: str | None
    missing: MissingClasses | None = field(default=None, metadata=OPTIONAL)
    cautions: tuple[str, ...] = ()

    def warnings(self) -> list[str]:
        """Return in words what a reader must know before using the splits."""
        return [*self.cautions, *(self.missing.in_words() if self.missing else [])]


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The faces by split and class.

    Args:
        n: number of faces.
        counts: split -> label -> faces.
        total: label -> faces; "unlabelled" is a label where there are such faces.
        imbalance: split, or "total" -> the largest class divided by the smallest; None if a class is empty.
    """

    n: int
    counts: Mapping[str, Counts]
    total: Counts
    imbalance: Mapping[str, float | None]

    @property
    def columns(self) -> dict[str, Counts]:
        """The columns of a table: each split, and the total of several."""
        return {**self.counts, **({"total": self.total} if len(self.counts) > 1 else {})}

    @property
    def sizes(self) -> dict[str, int]:
        """The number of faces of each split, and of the total."""
        return {name: sum(counts.values()) for name, counts in (*self.counts.items(), ("total", self.total))}


@dataclass(frozen=True)
class Sheets:
    """The faces shown of each class: seed of the random draw, label -> rows."""

    seed: int
    rows: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Groups of exact duplicates: groups, faces in them, copies beyond the first face, groups whose labels differ."""

    groups: int
    faces: int
    copies: int
    conflicting_groups: int


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Exact duplicates.

    Args:
        all: all groups.
        where: "within train" and the like, "across splits" -> the groups there.
        one_colour: the groups of pictures of one colour.
        sizes: faces of a group, as text -> number of such groups.
        splits: split -> other split -> faces of the first with a duplicate in the other.
    """

    all: Groups = field(metadata=MERGED)
    where: Mapping[str, Groups]
    one_colour: Groups
    sizes: Counts
    splits: Mapping[str, Counts]


@dataclass(frozen=True, kw_only=True)
class NearGroups:
    """Groups of near duplicates: groups, different pictures and faces in them, groups whose labels differ."""

    groups: int
    pictures: int
    faces: int
    conflicting_groups: int


@dataclass(frozen=True, kw_only=True)
class Near:
    """Near duplicates.

    Args:
        radius: largest number of bits in which the hashes differ.
        radius_mirrored: the same of mirrored pictures.
        least_correlation: of the pixels.
        least_detail: least correlation of the fine details.
        all: all groups.
        mirrored: faces that are mirrored.
        where: "within train" and the like, "across splits" -> the groups there.
        sizes: different pictures of a group, as text -> number of such groups.
        splits: split -> other split -> faces of the first with a near duplicate and no exact one in the other.
    """

    radius: int
    radius_mirrored: int
    least_correlation: float
    least_detail: float
    all: NearGroups = field(metadata=MERGED)
    mirrored: int
    where: Mapping[str, NearGroups]
    sizes: Counts
    splits: Mapping[str, Counts]


@dataclass(frozen=True, kw_only=True)
class MovedCopies:
    """Faces of val and test whose photograph is in train too, turned, moved or enlarged.

    Args:
        least_correlation: of the pixels, once the faces lie on each other.
        least_detail: least correlation of the fine details.
        pairs: of such a face and one of train.
        conflicting: pairs whose labels differ.
        splits: split -> faces with such a copy, and with neither an exact nor a near duplicate in train.
    """

    least_correlation: float
    least_detail: float
    pairs: int
    conflicting: int
    splits: Counts


@dataclass(frozen=True, kw_only=True)
class WithoutFace:
    """Pictures without a face.

    Args:
        voted: by more than half of FER+'s votes; None without votes.
        likely: by FER+'s most frequent answer; None without votes.
        flat: whose pixels have a standard deviation below ``flat_below``; None in a quick audit.
        flat_below: in grey levels.
        voted_rows: rows of ``voted``.
        flat_rows: rows of ``flat``.
    """

    voted: int | None
    likely: int | None
    flat: int | None
    flat_below: float
    voted_rows: tuple[int, ...]
    flat_rows: tuple[int, ...]


@dataclass(frozen=True)
class OneColour:
    """Pictures of a single level of grey: their number and rows."""

    faces: int
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Votes:
    """The answers of FER+'s annotators.

    Args:
        answers: label -> answer -> faces with this most frequent answer.
        agreeing: faces whose most frequent answer is the label.
        tied: faces with several most frequent answers, of which the first column counts; older files lack it.
        outside_the_seven: faces whose most frequent answer is no emotion of the labels.
        without_majority: faces whose most frequent answer has at most half of the votes.
        votes_per_face: the least and the most votes of a face.
    """

    answers: Mapping[str, Counts]
    agreeing: int
    outside_the_seven: int
    without_majority: int
    votes_per_face: tuple[int, ...]
    tied: int = 0


@dataclass(frozen=True, kw_only=True)
class Answers:
    """How often FER+'s most frequent answer is the given label, the predicted one, or neither."""

    faces: int
    as_given: int
    as_predicted: int
    neither: int


@dataclass(frozen=True, kw_only=True)
class SuspectLabels:
    """Labels that out-of-fold predictions contradict.

    Args:
        runs: folders of the runs that predicted.
        settings: split rule and network of the runs, in words.
        covered: faces with a prediction.
        accuracy: of the predictions.
        suspects: number of suspect labels.
        by_label: label -> suspects.
        by_suggestion: predicted label -> suspects.
        by_split: split -> suspects.
        votes: "suspects", "others" -> FER+'s answers; None without votes.
    """

    runs: tuple[str, ...]
    settings: str
    covered: int
    accuracy: float
    suspects: int
    by_label: Counts
    by_suggestion: Counts
    by_split: Counts
    votes: Mapping[str, Answers] | None


@dataclass(frozen=True)
class Percentiles:
    """The 5th, 50th and 95th percentile of a value, in grey levels."""

    p5: float
    median: float
    p95: float


@dataclass(frozen=True)
class LightSpan:
    """The brightness (mean) and the contrast (standard deviation) of the faces of a split."""

    mean: Percentiles
    sd: Percentiles


@dataclass(frozen=True)
class Suggested:
    """The faces with a suggestion, and reason -> faces; a face may have several reasons."""

    faces: int
    reasons: Counts


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The contents of ``audit.json``.

    Args:
        schema: version of the file.
        quick: whether near duplicates, brightness and contrast were left out.
        dataset: origin of the faces.
        split: its rule.
        classes: faces by split and class.
        sheets: faces shown of each class.
        duplicates: exact ones.
        near_duplicates: None in a quick audit.
        moved_copies: None in a quick audit, of data without train, val or test, and in files of earlier versions.
        no_faces: pictures without a face.
        one_colour: pictures of a single level of grey.
        votes: answers of FER+'s annotators; None without votes.
        suspects: labels that predictions contradict; None without predictions.
        light: split -> brightness and contrast; None in a quick audit.
        advice: suggestion -> faces and reasons.
        machine: the machine.
        command: that was given.
    """

    schema: int = SCHEMA
    quick: bool
    dataset: Dataset
    split: SplitRule
    classes: Classes = field(metadata=MERGED)
    sheets: Sheets
    duplicates: Duplicates = field(metadata={"key": "twins"})
    near_duplicates: Near | None = field(metadata={"key": "near_twins"})
    moved_copies: MovedCopies | None = field(default=None, metadata={"optional": True})
    no_faces: WithoutFace
    one_colour: OneColour
    votes: Votes | None
    suspects: SuspectLabels | None
    light: Mapping[str, LightSpan] | None
    advice: Mapping[str, Suggested]
    machine: MachineRecord = field(metadata=MERGED)
    command: str
